"""Processes that work on bags beside each other, on this machine. `cluster.py` has those of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnContext
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ecmnet_app.errors import ConfigError

__all__ = ["LocalWorkers", "Network", "Tell", "Workers"]

T = TypeVar("T")
Tell = Callable[[int], None]
"""Called by a worker with how far it is."""

SLOTS = 1 << 16
"""Of progress; more calls than run at once by far."""


@dataclass(frozen=True)
class Network:
    """What a worker makes its `Segmenter` of, see `Segmenter.from_pretrained`."""

    weights: str = "default"
    device: str = "auto"
    engine: str = "auto"
    threads: int | None = None


class Workers(Protocol):
    """Who does calls; as a context."""

    count: int
    """Calls that run at once."""
    lost: tuple[type[Exception], ...]
    """What the future of a call raises whose worker was lost: the call can be made again."""
    tries: int
    """How often it is worth it, the first time included."""

    def fit(self, network: Network) -> Network:
        """The network for each of them, where something was left open."""

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Have a call made, by whoever is free next. All of it is pickled."""

    def tell(self, number: int) -> Tell:
        """What call `number` is to tell its progress to; goes to it as an argument."""

    def told(self, number: int) -> int:
        """What call `number` has told last; 0 if nothing yet."""

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for nothing: parts of bags survive a kill."""


class LocalWorkers:
    """Processes of this machine.

    Raises:
        ConfigError: count is below 1.
    """

    lost: tuple[type[Exception], ...] = (BrokenProcessPool,)
    tries = 10  # the loss of one process is that of all calls

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ConfigError(f"--jobs must be at least 1, not {count}")
        self.count = count
        # A fork would share locks with the threads of torch.
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        # Has no lock, for one that is held by a process that was killed is held for ever.
        self._slots = self._context.RawArray("q", SLOTS)
        self._pool: ProcessPoolExecutor | None = None

    def fit(self, network: Network) -> Network:
        """See `Workers`: they share the cores."""
        return replace(network, threads=network.threads or max(1, (os.cpu_count() or 1) // self.count))

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """See `Workers`. Where a process was killed, the executor ends all of them and new ones are started."""
        if self._pool is not None:
            with suppress(BrokenProcessPool):
                return self._pool.submit(call, *args)
        self._pool = ProcessPoolExecutor(self.count, self._context, _begin, (self._slots,))
        return self._pool.submit(call, *args)

    def tell(self, number: int) -> Tell:
        """See `Workers`."""
        self._slots[number % SLOTS] = 0
        return _TellSlot(number % SLOTS)

    def told(self, number: int) -> int:
        """See `Workers`."""
        return self._slots[number % SLOTS]

    def __enter__(self) -> LocalWorkers:
        self._others = set(multiprocessing.active_children())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # They would not all end by themselves where one was killed in waiting for a call: it holds the lock of the
        # queue by which the others are told.
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_slots: Any = None  # the array, in a worker


class _TellSlot:
    def __init__(self, slot: int) -> None:
        self._slot = slot

    def __call__(self, done: int) -> None:
        _slots[self._slot] = done


def _begin(slots: Any) -> None:
    """Of each process."""
    global _slots
    _slots = slots
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the command ends these
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Or a command that was killed would leave its processes behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
