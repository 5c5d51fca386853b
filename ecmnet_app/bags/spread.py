"""Many bags, whole or in chunks, by one process or by many: who does it makes no difference to the bytes.

    with choose_workers(processes=4) as workers:
        results = segment_bags(jobs, Work(Network(), BagSettings()), workers)

A bag is prepared, its parts are done, by as many workers as are free, and it is put together. Each of these is a call
that a worker can be lost in: it is made again then, and finds the parts that are whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

import ecmnet_app
from ecmnet_app.bags.assemble import assemble_bag, read_summary
from ecmnet_app.bags.clips import write_clips
from ecmnet_app.bags.digest import BagDigest, digest_bag
from ecmnet_app.bags.jobs import BagJob, BagSettings
from ecmnet_app.bags.segment import BagPlan, check_new, prepare_bag, segment_parts
from ecmnet_app.bags.summary import BagSummary
from ecmnet_app.bags.workers import LocalWorkers, Network, Tell, Workers
from ecmnet_app.core import Segmenter
from ecmnet_app.errors import BagError, ConfigError, EcmnetError

__all__ = ["BagResult", "Work", "choose_workers", "segment_bags"]

MOST_PARTS = 60
"""Of a chunk: what a worker opens a bag for."""
CHUNKS_A_WORKER = 4
"""At least, so that none waits long for the last one."""
SECONDS = 0.5
"""Between two looks at the progress."""


@dataclass(frozen=True)
class Work:
    """What is to be done with every bag.

    Raises:
        ConfigError: opacity is not within 0 to 1.
    """

    network: Network
    settings: BagSettings
    resume: bool = False
    video: bool = False
    """Make clips, see `write_clips`."""
    opacity: float = 0.5
    """Of their colours."""
    thumbnails: int = 0
    """Pictures of each topic for a report; 0 for no report."""
    version: str = ecmnet_app.__version__

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise ConfigError(f"opacity must be 0 to 1, not {self.opacity}")


@dataclass(frozen=True, eq=False)
class BagResult:
    """What became of one bag."""

    job: BagJob
    summary: BagSummary | None = None
    """None where it failed."""
    digest: BagDigest | None = None
    """For a report, where it was asked for."""
    problem: EcmnetError | None = None
    """Why it failed. Parts that are whole stay for the next run."""


def choose_workers(
    processes: int = 1, ray: str | None = None, device: str = "auto", threads: int | None = None
) -> AbstractContextManager[Workers | None]:
    """Who is to do the work; None is this process.

    Args:
        processes: of this machine.
        ray: address of a Ray cluster, instead.
        device, threads: of a call there.

    Raises:
        ConfigError: these cannot be, or not both; on entering too, see `RayWorkers`.
    """
    if ray is None:
        return nullcontext() if processes == 1 else LocalWorkers(processes)
    if processes != 1:
        raise ConfigError("--jobs are processes of this machine, --ray is a cluster; take one of them")
    from ecmnet_app.bags.cluster import RayWorkers

    return RayWorkers(ray, device, 1 if threads is None else threads)


def segment_bags(
    jobs: Sequence[BagJob],
    work: Work,
    workers: Workers | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[BagResult]:
    """Segment bags; those that fail do so alone.

    Args:
        workers: who does it; this process by default.
        progress: called with the frames that are done, and with those that there are once it is known of all bags.

    Returns:
        What became of each bag, in the order of `jobs`.
    """
    tell = progress or (lambda done, expected: None)
    return _Spread(jobs, work, workers, tell).run() if workers else _one_by_one(jobs, work, tell)


def _one_by_one(jobs: Sequence[BagJob], work: Work, progress: Callable[[int, int | None], None]) -> list[BagResult]:
    states = [_begun(work, job) for job in jobs]
    for state in states:
        if state.problem is None:
            try:
                state.plan = _prepare(work, state.job)
            except EcmnetError as error:
                state.problem = error
    for state in states:
        if state.plan is None:
            continue

        def tell(done: int, state: _State = state) -> None:
            state.calls[0] = done
            progress(*_frames(states))

        try:
            if not state.plan.complete:
                _segment(work, state.job, 0, None, tell)
            state.result = _finish(work, state.job)
        except EcmnetError as error:
            state.problem = error
        progress(*_frames(states))
    return [state.outcome() for state in states]


@dataclass
class _State:
    """Of one bag."""

    job: BagJob
    plan: BagPlan | None = None
    calls: dict[int, int] = field(default_factory=dict)
    """Frames that calls have done of it, by their number."""
    open: int = 0
    """Chunks that are not done."""
    result: tuple[BagSummary, BagDigest | None] | None = None
    problem: EcmnetError | None = None

    def outcome(self) -> BagResult:
        """Once nothing more will come."""
        summary, digest = self.result or (None, None)
        return BagResult(self.job, summary, digest, self.problem)


def _begun(work: Work, job: BagJob) -> _State:
    """What an earlier run has left is refused here, once: a worker that makes a call again goes on with its own."""
    state = _State(job)
    if not work.resume:
        try:
            check_new(job)
        except EcmnetError as error:
            state.problem = error
    return state


def _frames(states: Sequence[_State]) -> tuple[int, int | None]:
    """Done and expected, of all bags. A call that is made again tells less than it did, but not for long."""
    done, expected = 0, 0
    for state in states:
        if state.problem is None:
            if state.plan is None or state.plan.frames is None:
                return sum(sum(one.calls.values()) + (one.plan.done if one.plan else 0) for one in states), None
            expected += state.plan.frames
            here = state.plan.frames if state.result else state.plan.done + sum(state.calls.values())
            done += min(here, state.plan.frames)
    return done, expected


@dataclass(eq=False)
class _Call:
    """Something that a worker does for a bag."""

    number: int
    state: _State
    function: Callable[..., Any]
    args: tuple[Any, ...]
    then: Callable[[_State, Any], None]
    tries: int = 0


class _Spread:
    """Calls of all bags, in the order in which they can be made."""

    def __init__(
        self, jobs: Sequence[BagJob], work: Work, workers: Workers, progress: Callable[[int, int | None], None]
    ) -> None:
        self._states = [_begun(work, job) for job in jobs]
        self._work = replace(work, network=workers.fit(work.network))
        self._workers, self._progress = workers, progress
        self._waiting: dict[Future[Any], _Call] = {}
        self._number = 0

    def run(self) -> list[BagResult]:
        """See `segment_bags`."""
        for state in self._states:
            if state.problem is None:
                self._call(state, _prepare, self._prepared)
        while self._waiting:
            for future in wait(self._waiting, SECONDS, FIRST_COMPLETED).done:
                self._take(future)
            for call in self._waiting.values():
                if call.function is _segment:
                    call.state.calls[call.number] = self._workers.told(call.number)
            self._progress(*_frames(self._states))
        return [state.outcome() for state in self._states]

    def _call(self, state: _State, function: Callable[..., Any], then: Callable[..., None], *args: Any) -> None:
        self._number += 1
        self._submit(_Call(self._number, state, function, args, then))

    def _submit(self, call: _Call) -> None:
        tell = (self._workers.tell(call.number),) if call.function is _segment else ()
        future = self._workers.submit(call.function, self._work, call.state.job, *call.args, *tell)
        self._waiting[future] = call

    def _take(self, future: Future[Any]) -> None:
        call = self._waiting.pop(future)
        state = call.state
        try:
            call.then(state, future.result())
        except EcmnetError as error:
            state.problem = state.problem or error
        except self._workers.lost as error:
            call.tries += 1
            if call.tries < self._workers.tries:
                self._submit(call)
                return
            state.problem = state.problem or BagError(
                f"{state.job.source}: the processes that worked on it were lost again and again, for want of memory "
                f"most likely ({str(error).splitlines()[0]}); take fewer of them, and --resume"
            )

    def _prepared(self, state: _State, plan: BagPlan) -> None:
        state.plan = plan
        if plan.complete:
            self._call(state, _finish, self._finished)
            return
        chunks = max(1, -(-CHUNKS_A_WORKER * self._workers.count // len(self._states)))
        size = min(max(1, -(-plan.parts // chunks)), MOST_PARTS)
        starts = range(0, max(1, plan.parts), size)
        state.open = len(starts)
        for start in starts:
            self._call(state, _segment, self._chunk_done, start, min(start + size, plan.parts))

    def _chunk_done(self, state: _State, _: None) -> None:
        state.open -= 1
        if not state.open and state.problem is None:
            self._call(state, _finish, self._finished)

    def _finished(self, state: _State, result: tuple[BagSummary, BagDigest | None]) -> None:
        state.result = result


# What workers do.


def _segmenter(network: Network) -> Segmenter:
    """Of this process, on the GPU that is its own now."""
    own = network.device == "cuda" and torch.cuda.is_available()
    device = f"cuda:{torch.cuda.current_device()}" if own else network.device
    return _load(network.weights, device, network.engine, network.threads)


_load = lru_cache(Segmenter.from_pretrained)


def _prepare(work: Work, job: BagJob) -> BagPlan:
    if work.version != ecmnet_app.__version__:
        raise ConfigError(
            f"the command is ecmnet-app {work.version}, a worker {ecmnet_app.__version__}; install the same everywhere"
        )
    segmenter = _segmenter(work.network)
    return prepare_bag(job, _settings(work, segmenter), segmenter, resume=True)


def _settings(work: Work, segmenter: Segmenter) -> BagSettings:
    return replace(work.settings, batch=segmenter.engine.best_batch)


def _segment(work: Work, job: BagJob, start: int, stop: int | None, tell: Tell) -> None:
    done, told = 0, time.monotonic()

    def count(frames: int) -> None:
        nonlocal done, told
        done += frames
        if time.monotonic() > told + SECONDS:
            told = time.monotonic()
            tell(done)

    segmenter = _segmenter(work.network)
    segment_parts(job, _settings(work, segmenter), segmenter, start, stop, count)
    tell(done)


def _finish(work: Work, job: BagJob) -> tuple[BagSummary, BagDigest | None]:
    """Put together, unless a worker did so that was lost later, and make what else was asked for."""
    summary = read_summary(job) if job.record.exists() else assemble_bag(job)
    label_set = _segmenter(work.network).label_set
    if work.video:
        write_clips(job, label_set, work.opacity)
    return summary, digest_bag(job, summary, label_set, work.thumbnails) if work.thumbnails else None
