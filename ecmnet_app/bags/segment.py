"""Segments bags, in parts that survive a kill."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ecmnet_app
from ecmnet_app.bags.assemble import assemble_bag, read_summary
from ecmnet_app.bags.jobs import BagJob, BagSettings
from ecmnet_app.bags.messages import (
    CAMERA_INFO,
    IMAGE,
    PICTURES,
    as_cdr,
    channel_of,
    gray_image,
    picture_of,
    stamp_of,
)
from ecmnet_app.bags.parts import (
    MessageWriter,
    PartNote,
    about_parts,
    part_path,
    read_note,
    read_record,
    write_note,
    writing_to,
)
from ecmnet_app.bags.reader import Bag, bag_files, open_bag
from ecmnet_app.bags.storage import Damage, Message
from ecmnet_app.bags.summary import BagSummary
from ecmnet_app.bags.topics import choose_topics
from ecmnet_app.core import Segmentation, Segmenter
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.network import MIN_SIZE

__all__ = ["PART_SECONDS", "BagPlan", "check_new", "prepare_bag", "segment_bag", "segment_parts"]

PART_SECONDS = 5
"""Of log time, a part; the most that a run loses when it is killed."""
PART_NS = PART_SECONDS * 10**9
AHEAD = 3
"""Batches that are read ahead, and that wait to be written."""


@dataclass(frozen=True)
class BagPlan:
    """What there is to do, for those who divide it."""

    parts: int
    """Stretches of the bag's time, of `PART_SECONDS`, or longer where little is in them; any range is a chunk."""
    frames: int | None
    """Messages of the chosen topics, where the bag tells."""
    done: int
    """Frames of those that an earlier run has done."""
    complete: bool = False
    """All is done and assembled already: `BagJob.record` holds the summary."""


def check_new(job: BagJob) -> None:
    """Make sure that no earlier run has left anything.

    Raises:
        ConfigError: there are answers or parts.
    """
    if folders := _left(job):
        raise ConfigError(f"{folders[0]} is there already; --resume goes on with it, or take another --out")


def _left(job: BagJob) -> list[Path]:
    """Folders of an earlier run."""
    folders = [job.out] if job.out.exists() else []
    if any(job.parts.glob("[!.]*")):  # a run that was killed before it wrote job.json has left a hidden file at most
        folders.append(job.parts)
    return folders


def prepare_bag(job: BagJob, settings: BagSettings, segmenter: Segmenter, resume: bool = False) -> BagPlan:
    """Look at a bag, and make `job.parts` ready for `segment_parts`.

    Args:
        job, settings, segmenter: as for the other functions; the parts are of no use to other settings or weights.
        resume: go on with what an earlier run left; without, it is an error that there is something.

    Raises:
        BagError: the bag cannot be read at all, or holds no pictures of cameras; the answers cannot be written, or
            what an earlier run has left is damaged.
        ConfigError: a chosen topic is not in the bag, or there are answers or parts already.
    """
    if not resume:
        check_new(job)
    note = job.parts / "job.json"
    identity = _identity(job, settings, segmenter)
    for folder in _left(job):
        left = folder / "job.json"
        differs = _difference(read_record(left)["identity"] if left.exists() else {}, identity)
        if differs:
            raise ConfigError(
                f"{folder} was made with another {', '.join(differs)}; give the same, remove it, or take another --out"
            )
    if job.out.exists():
        summary = read_summary(job)
        return BagPlan(0, summary.frames, summary.frames, complete=True)
    with open_bag(job.source) as bag:
        choice = choose_topics(job.source, bag, settings.topics)
        same = sorted({channel.topic for channel in bag.channels} & _written(choice.kinds)) if settings.merge else []
        hidden = [f"{topic} is left out of what is merged, as an answer has its name" for topic in same]
        cuts = _cuts(bag)
        plan = BagPlan(len(cuts) - 1, sum(bag.counts[topic] for topic in choice.kinds), 0)
        about = {
            "identity": identity,
            "topics": choice.kinds,
            "left_out": [*choice.left_out, *hidden],
            "counts": {topic: bag.counts[topic] for topic in choice.kinds} if bag.accounted else {},
            "start": bag.start,
            "end": bag.end,
            "cuts": cuts,
            "problems": bag.problems,
            "names": [label.name for label in segmenter.label_set.with_unlabelled],
        }
    if not note.exists():
        with writing_to(job.parts):
            write_atomically(note, json.dumps(about).encode())
    done = [part_path(job.parts, number) for number in range(plan.parts)]
    frames = sum(len(read_note(path).frames) for path in done if path.exists())
    return BagPlan(plan.parts, plan.frames, frames)


def _written(topics: Iterable[str]) -> set[str]:
    """Topics that answers to these may have."""
    return {f"{topic}/{name}" for topic in topics for name in ("mask", "confidence", "label_info")}


def _cuts(bag: Bag) -> list[int]:
    """Log times at which the parts begin, and the last one ends.

    They are whole multiples of `PART_SECONDS` from the first message on, but those alone between which a block begins
    or ends: what is between two others lies within blocks, of some MB each, or is empty. So there are never many more
    parts than blocks, though a clock that is set right makes an hour's recording one of fifty years.
    """
    steps = {(time - bag.start) // PART_NS for block in bag.blocks for time in (block.start, block.end)}
    return [bag.start + step * PART_NS for step in sorted(steps | {step + 1 for step in steps})]


def _identity(job: BagJob, settings: BagSettings, segmenter: Segmenter) -> dict[str, Any]:
    """What the answers depend on, as plain JSON."""
    files, _ = bag_files(job.source)
    metadata = job.source / "metadata.yaml"
    files += [metadata] if metadata.exists() else []
    return {
        "version": ecmnet_app.__version__,
        "format": 2,  # of the parts: 1 had one for every five seconds of the clock
        "weights": segmenter.weights.sha256,
        "device": segmenter.engine.device.type,  # whichever GPU of several
        "engine": segmenter.engine.name,
        "settings": json.loads(json.dumps(asdict(settings))),
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files if os.path.exists(path)],
    }


def _difference(left: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two identities, settings one by one."""
    pairs = [(left, identity), (left.get("settings", {}), identity["settings"])]
    names = [name for a, b in pairs for name in b if name != "settings" and a.get(name) != b[name]]
    return ["bag" if name == "files" else name for name in names]


@dataclass(eq=False)
class _Frame:
    """A picture on its way."""

    message: Message
    header: Any
    image: NDArray[np.uint8]


@dataclass(eq=False)
class _Batch:
    """Items of a part in order: frames, messages that are passed on, and what is wrong."""

    part: int
    items: list[_Frame | Message | str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    last: bool = False
    """Of its part."""

    @property
    def frames(self) -> list[_Frame]:
        return [item for item in self.items if isinstance(item, _Frame)]


def segment_parts(
    job: BagJob,
    settings: BagSettings,
    segmenter: Segmenter,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Do those of the parts [start, stop) that are not done yet. Processes may do different ranges at once.

    Args:
        progress: called, on this thread, with the number of messages of the chosen topics done since the last call.

    Raises:
        BagError: `prepare_bag` has not been there, or a part cannot be written.
        DeviceError: see `Segmenter.predict`. Parts that are whole stay for the next run.
    """
    about = about_parts(job)
    numbers = range(start, len(about["cuts"]) - 1 if stop is None else stop)
    missing = [number for number in numbers if not part_path(job.parts, number).exists()]
    if not missing:
        return
    with (
        open_bag(job.source) as bag,
        _Writing(job, settings, segmenter) as writing,
        # Leaving this block waits for what the threads have begun, a few frames.
        ThreadPoolExecutor(1, "ecmnet-read") as reading,
        ThreadPoolExecutor(1, "ecmnet-write") as writer,
    ):
        batches = _batches(bag, about, settings, missing)
        ahead = deque(reading.submit(next, batches, None) for _ in range(AHEAD))
        pending: deque[Future[None]] = deque()
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(reading.submit(next, batches, None))
            answers = _predict(segmenter, settings, batch)
            pending.append(writer.submit(writing.add, batch, answers))
            if len(pending) > AHEAD:
                pending.popleft().result()
            if progress is not None:
                progress(len(batch.frames) + len(batch.skipped))
        for future in pending:
            future.result()


def _batches(bag: Bag, about: dict[str, Any], settings: BagSettings, parts: Sequence[int]) -> Iterator[_Batch]:
    """Everything in these parts, in the order of the bag; in its own thread."""
    topics = about["topics"]
    owners: dict[str, list[str]] = {}  # of each camera_info, for a camera may have several topics
    for topic in topics:
        owners.setdefault(f"{_camera(topic)}/camera_info", []).append(topic)
    written = _written(topics)
    for part in parts:
        batch = _Batch(part)
        for _, item in bag.items(*about["cuts"][part : part + 2]):
            if isinstance(item, Damage):
                batch.items.append(item.problem)
                continue
            channel = item.channel
            owned = owners.get(channel.topic, []) if channel.kind == CAMERA_INFO else []
            merged = settings.merge and channel.topic not in written
            if merged or owned:
                try:
                    converted = as_cdr(item)
                except ValueError as error:
                    batch.items.append(f"{channel.topic} has a message that {error}")
                else:
                    if merged:
                        batch.items.append(converted)
                    for topic in owned:
                        own = channel_of(f"{topic}/camera_info", CAMERA_INFO)
                        batch.items.append(converted._replace(channel=own))
            if channel.topic in topics and channel.kind in PICTURES:
                try:
                    header, image = picture_of(item)
                    if min(image.shape[:2]) < MIN_SIZE:
                        size = f"{image.shape[1]}x{image.shape[0]}"
                        raise ImageError(f"the picture is {size}, smaller than {MIN_SIZE}x{MIN_SIZE}")
                    batch.items.append(_Frame(item, header, image))
                except ImageError as error:
                    batch.skipped.append((channel.topic, str(error)))
            if len(batch.frames) >= settings.batch:
                yield batch
                batch = _Batch(part)
        batch.last = True
        yield batch


def _camera(topic: str) -> str:
    """Namespace of the camera: /front/image_raw/compressed -> /front."""
    base = topic.removesuffix("/compressed")
    return base.rpartition("/")[0]


def _predict(segmenter: Segmenter, settings: BagSettings, batch: _Batch) -> list[Segmentation | str]:
    """Answers to the frames, or why there is none."""
    options: dict[str, Any] = {"resolution": settings.resolution, "threshold": settings.threshold}
    images = [frame.image for frame in batch.frames]
    try:
        return list(segmenter.predict_batch(images, **options)) if images else []
    except ImageError as error:
        if len(images) == 1:
            return [str(error)]
        return [answer for frame in batch.frames for answer in _predict(segmenter, settings, _Batch(0, [frame]))]


class _Writing:
    """Writes parts, one after the other."""

    def __init__(self, job: BagJob, settings: BagSettings, segmenter: Segmenter) -> None:
        self._job, self._settings, self._segmenter = job, settings, segmenter
        self._writer: MessageWriter | None = None
        self._note = PartNote()
        self._failed = False

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._writer is not None:  # a part that is not whole
            self._writer.__exit__(KeyboardInterrupt, error or KeyboardInterrupt(), trace)

    def add(self, batch: _Batch, answers: list[Segmentation | str]) -> None:
        """Write a batch, and the part as a whole once it has its last one. Once one has failed, do nothing more: its
        part lacks something, and others may be waiting behind it."""
        if self._failed:
            return
        self._failed = True  # until all of it is written
        path = part_path(self._job.parts, batch.part)
        if self._writer is None:
            self._writer, self._note = MessageWriter(path), PartNote()
        remaining = iter(answers)
        for item in batch.items:
            if isinstance(item, str):
                if item not in self._note.problems:  # a topic that cannot be converted says so with every message
                    self._note.problems.append(item)
            elif isinstance(item, _Frame):
                self._add_frame(item, next(remaining))
            else:
                self._writer.write(item)
        for topic, reason in batch.skipped:
            self._skip(topic, reason)
        if batch.last:
            with writing_to(path):
                write_note(path, self._note)
            writer, self._writer = self._writer, None
            writer.__exit__(None, None, None)
        self._failed = False

    def _skip(self, topic: str, reason: str) -> None:
        self._note.skipped.setdefault(topic, Counter())[reason] += 1

    def _add_frame(self, frame: _Frame, answer: Segmentation | str) -> None:
        topic = frame.message.channel.topic
        if isinstance(answer, str):
            self._skip(topic, answer)
            return
        assert self._writer is not None
        outputs = {"mask": answer.labels}
        if self._settings.confidence:
            outputs["confidence"] = np.rint(255 * answer.confidence).astype(np.uint8)
        for name, pixels in outputs.items():
            channel, data = channel_of(f"{topic}/{name}", IMAGE), gray_image(frame.header, pixels)
            self._writer.write(frame.message._replace(channel=channel, data=data, sequence=0))
        shares = answer.areas().values()
        confidence = float(answer.confidence.mean(dtype=np.float64))
        self._note.frames.append([topic, frame.message.log_time, stamp_of(frame.header), confidence, *shares])


def segment_bag(
    job: BagJob,
    settings: BagSettings,
    segmenter: Segmenter,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> BagSummary:
    """All of it in this process.

    Args:
        job, settings, segmenter, resume: see `prepare_bag`.
        progress: see `segment_parts`.

    Returns:
        What became of it; of a bag that is done already, what had.

    Raises:
        BagError: the bag cannot be read at all, or the answers cannot be written.
        ConfigError: see `prepare_bag`.
        DeviceError: see `Segmenter.predict`.
    """
    plan = prepare_bag(job, settings, segmenter, resume)
    if plan.complete:
        return read_summary(job)
    segment_parts(job, settings, segmenter, progress=progress)
    return assemble_bag(job)
