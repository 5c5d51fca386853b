"""Many live sources, one segmenter: newest-frame slots and the worker that batches them.

A source (a browser tab, a camera, a file) owns one slot that holds its newest frame. One worker thread takes the newest
frame of every waiting source, runs them as one batch and answers each. Nothing queues, so nothing falls behind: a frame
that is still waiting when a newer one of its source arrives is dropped, counted, and told so.

    with StreamWorker(segmenter.predict_batch) as worker, worker.open() as source:
        answer = source.submit(image).result()          # a browser: one call, one answer
        source.submit(image).add_done_callback(publish)  # a robot: called with the finished future
        await asyncio.wrap_future(source.submit(image))  # a coroutine

What holds for every frame that is submitted:

- It is answered exactly once, and its future never raises: what went wrong is the answer's `result`.
- Answers that hold a Segmentation come in the order of submission. A dropped frame is told at once, so its answer may
  come before that of an older frame that is still running.
- The newest frame of an open source always runs. Of the sources that wait the one that was served longest ago is next,
  so none is served twice while another waits, and cameras that send in step lose equally many frames.
- A frame that fails does so alone: the others of its batch are run again without it.

A file that must lose no frame waits for each answer before it submits the next. Callbacks run on the worker's thread,
or on that of the call that dropped the frame: hand anything slow to another thread.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.errors import EcmnetError, StreamError

__all__ = ["Answer", "FrameDroppedError", "Source", "StreamWorker"]

_log = logging.getLogger(__name__)


class FrameDroppedError(StreamError):
    """A newer frame of the same source came before this one was run: expected of a source faster than the network."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of one frame."""

    sequence: int
    """Number of the frame in its source: 0, 1, 2, ... in order of submission, dropped ones counted."""
    age: float
    """Seconds from submission to this answer, on the monotonic clock."""
    dropped: int
    """Frames that this source has dropped since it was opened."""
    result: Segmentation | EcmnetError
    """The segmentation, or why there is none: `FrameDroppedError`, `StreamError` once closed, or what the frame met."""

    @property
    def segmentation(self) -> Segmentation:
        """`result`, raised where it is an error."""
        if isinstance(self.result, EcmnetError):
            raise self.result
        return self.result


@dataclass(eq=False)
class _Frame:
    source: Source
    sequence: int
    image: NDArray[np.uint8]
    options: dict[str, Any]
    submitted: float = field(default_factory=time.monotonic)
    future: Future[Answer] = field(default_factory=Future)

    def answer(self, result: Segmentation | EcmnetError) -> None:
        age = time.monotonic() - self.submitted
        self.future.set_result(Answer(self.sequence, age, self.source.dropped, result))

    def answer_unrun(self, error: EcmnetError) -> None:
        if self.future.set_running_or_notify_cancel():  # False where the caller has given up waiting
            self.answer(error)


class Source:
    """One stream of frames with one newest-frame slot, from `StreamWorker.open`. Any thread may call it."""

    def __init__(self, worker: StreamWorker) -> None:
        self._worker = worker
        self._submitted = 0
        self._turn = next(worker._turns)  # the lowest is next; a new one when served: behind all others
        self._closed = False
        self.dropped = 0
        """Frames replaced by a newer one before they were run."""

    def submit(self, image: NDArray[np.uint8], **options: Any) -> Future[Answer]:
        """Put a frame into the slot and return at once.

        Args:
            image: RGB, uint8, not changed before the answer comes. Shape: (H, W, 3).
            options: settings of `predict_batch`, such as `resolution`; frames with equal ones can share a batch.

        Returns:
            The future answer. Cancelling it while the frame waits keeps the frame from being run.
        """
        with self._worker._changed:
            frame = _Frame(self, self._submitted, image, options)
            self._submitted += 1
            if self._closed or self._worker._closed:
                unrun: _Frame | None = frame
                error: EcmnetError = _closed_error()
            else:
                unrun = self._worker._waiting.get(self)
                error = FrameDroppedError("a newer frame of the same source took this one's place")
                self._worker._waiting[self] = frame
                self.dropped += unrun is not None
                self._worker._changed.notify()
        if unrun is not None:
            unrun.answer_unrun(error)
        return frame.future

    def close(self) -> None:
        """Forget the source. Its waiting frame is answered with a StreamError; one that is running, as usual."""
        with self._worker._changed:
            self._closed = True
            self._worker._sources.discard(self)
            waiting = self._worker._waiting.pop(self, None)
        if waiting is not None:
            waiting.answer_unrun(_closed_error())

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StreamWorker:
    """The thread that answers all sources.

    Args:
        predict_batch: takes a list of pictures and a frame's options, returns their segmentations in order;
            `Segmenter.predict_batch`.
        max_batch: most frames run at once.
    """

    def __init__(self, predict_batch: Callable[..., Sequence[Segmentation]], max_batch: int = 8) -> None:
        self._predict_batch = predict_batch
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._waiting: dict[Source, _Frame] = {}  # all that is kept of a source
        self._turns = itertools.count()
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()  # to be counted
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ecmnet-stream", daemon=True)
        self._thread.start()

    def open(self) -> Source:
        """A new source. Frames submitted to it after the worker has closed are answered with a StreamError."""
        with self._changed:
            source = Source(self)
            self._sources.add(source)
        return source

    @property
    def sources(self) -> int:
        """How many sources are open. One that its owner let go without closing it is not."""
        with self._changed:
            return len(self._sources)

    def close(self) -> None:
        """Answer waiting frames with a StreamError, finish the batch that is running, and stop the thread."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for frame in waiting:
            frame.answer_unrun(_closed_error())
        if threading.current_thread() is not self._thread:  # a callback may close the worker that calls it
            self._thread.join()

    def __enter__(self) -> StreamWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while self._serve():  # its locals die between calls, so an idle worker keeps no frame alive
                pass
        finally:
            self.close()  # whatever ended it: who waits is told, and whoever comes

    def _serve(self) -> bool:
        """Wait for frames and answer one batch; False once the worker is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return False
            # Strictly by turn: to gather equal options from further back would let a source overtake another twice.
            frames = sorted(self._waiting.values(), key=lambda frame: frame.source._turn)[: self._max_batch]
            batch = list(itertools.takewhile(lambda frame: frame.options == frames[0].options, frames))
            for frame in batch:
                del self._waiting[frame.source]
                frame.source._turn = next(self._turns)
        running = [frame for frame in batch if frame.future.set_running_or_notify_cancel()]
        if running:
            for frame, result in zip(running, self._predict(running), strict=True):
                frame.answer(result)
        return True

    def _predict(self, frames: list[_Frame]) -> Sequence[Segmentation | EcmnetError]:
        try:
            results = list(self._predict_batch([frame.image for frame in frames], **frames[0].options))
            if len(results) != len(frames):
                raise ValueError(f"{len(frames)} pictures were answered with {len(results)} segmentations")
            return results
        except BaseException as error:  # the thread outlives whatever a frame causes, SystemExit as well
            if len(frames) > 1:
                return [self._predict([frame])[0] for frame in frames]
            if isinstance(error, EcmnetError):
                return [error]
            _log.exception("a frame of shape %s could not be segmented", np.shape(frames[0].image))
            return [StreamError(f"the frame could not be segmented ({type(error).__name__}); the log says more")]


def _closed_error() -> StreamError:
    return StreamError("the stream is closed; open it again to send more frames")
