"""One video in; its overlay, its masks and the areas of its classes out. The shell and the page both do it here.

    for progress in segment_video("drive.mp4", VideoAnswers(Path("answers/drive")), segmenter.predict_batch):
        print(progress.done, progress.expected)

Reading and writing have threads of their own beside the network's. The answers are written in parts of `PART_FRAMES`
frames, in a folder beside them: a run that is killed at any moment and started again takes up after the last part,
and what comes out is what an undisturbed run gives.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.errors import VideoError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.media.video_writing import PartWriter, join_parts
from ecmnet_app.media.videos import Frame, VideoReader

__all__ = ["PART_FRAMES", "Progress", "VideoAnswers", "segment_video"]

PART_FRAMES = 96
"""Frames of a part: the most that a run loses when it is killed. A multiple of the batch sizes in use, so that a run
that goes on makes the batches of an undisturbed one."""


_OURS = re.compile(r"lock|job\.json|\d+\.(nut|npz)|\..*|.*\.passing")
"""What a folder of parts may hold; of all else it is not known whose it is."""


@dataclass(frozen=True)
class VideoAnswers:
    """The paths of what becomes of one video."""

    stem: Path

    @property
    def overlay(self) -> Path:
        """H.264 in an MP4, with the sound of the video."""
        return self.stem.with_name(self.stem.name + "_overlay.mp4")

    @property
    def masks(self) -> Path:
        """FFV1 in an MKV: lossless 8-bit grey whose values are class ids, 255 for unlabelled."""
        return self.stem.with_name(self.stem.name + "_masks.mkv")

    @property
    def areas(self) -> Path:
        """CSV: number and time of each frame, and the share of it that each class covers."""
        return self.stem.with_name(self.stem.name + "_areas.csv")

    @property
    def parts(self) -> Path:
        """Folder of the parts, gone when all is done."""
        return self.stem.with_name(self.stem.name + ".parts")


@dataclass(frozen=True, eq=False)
class Progress:
    """How far it is."""

    done: int
    """Frames that are written, those of an earlier run too."""
    expected: int | None
    """Frames that there should be, where the file lets one tell; once `finished`, those there were."""
    times: NDArray[np.float64]
    """When each frame since the last progress is shown, in seconds. Shape: (N,)."""
    areas: NDArray[np.float64]
    """Shares of the classes in each of them by id, unlabelled last. Shape: (N, K + 1)."""
    overlay: NDArray[np.uint8] | None
    """The newest of them under its classes, RGB uint8, shape (H, W, 3); None where it was written by an earlier run."""
    finished: bool = False
    """All files are there."""
    problem: str | None = None
    """What of the video could not be read; told with `finished`."""


def segment_video(
    source: str | os.PathLike[str],
    answers: VideoAnswers,
    predict: Callable[..., Sequence[Segmentation]],
    options: Mapping[str, Any] | None = None,
    smoother: Smoother | None = None,
    opacity: float = 0.5,
    batch: int = 1,
    identity: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Iterator[Progress]:
    """Segment every frame of a video, and tell after each batch how far it is. Closing the iterator stops it.

    Args:
        source: the video.
        answers: where its answers go.
        predict: takes a list of frames, RGB uint8, and `options`; `Segmenter.predict_batch` or what leads there.
        options: of `predict`.
        smoother: goes to `predict` as one more option, and its state into the parts.
        opacity: of the overlay's colours.
        batch: frames that are predicted at once; divides `PART_FRAMES`.
        identity: what the answers depend on, as plain JSON: only parts of the same are gone on with.
        name: of the video in messages; its path by default.

    Raises:
        VideoError: the video cannot be read, an answer cannot be written, or another run is writing the same.
        EcmnetError: of `predict`. Parts that are whole stay for the next run.
    """
    options = {**(options or {}), **({} if smoother is None else {"smoother": smoother})}
    with VideoReader(source, name) as reader, _Parts(answers.parts, reader, identity or {}) as parts:
        if smoother is not None:
            smoother.state = parts.state
        yield parts.progress(len(parts.pts), None)

        pending: deque[Future[Progress]] = deque()
        # Leaving this block waits for what the threads have begun, a few frames.
        with ThreadPoolExecutor(1, "ecmnet-read") as reading, ThreadPoolExecutor(1, "ecmnet-write") as writing:
            frames = _ahead(reader.frames(skip=len(parts.pts)), reading, batch + 2)
            while some := list(islice(frames, batch)):
                segmentations = predict([frame.image for frame in some], **options)
                state = {} if smoother is None else smoother.state
                pending.append(writing.submit(parts.add, some, segmentations, opacity, state))
                if len(pending) > 2:
                    yield pending.popleft().result()
            for future in pending:
                yield future.result()
        parts.finish_part()

        times = parts.times()
        sound_problem = join_parts(parts.paths, source, times, reader.time_base, answers.overlay, answers.masks)
        parts.write_areas(answers.areas)
        problem = " and ".join(filter(None, (reader.problem, sound_problem))) or None
        shutil.rmtree(answers.parts, ignore_errors=True)
        yield dataclasses.replace(parts.progress(0, None), expected=len(parts.pts), finished=True, problem=problem)


def _ahead(frames: Iterator[Frame], reading: ThreadPoolExecutor, count: int) -> Iterator[Frame]:
    """The same frames, `count` of them read ahead in another thread."""
    waiting = deque(reading.submit(next, frames, None) for _ in range(count))
    while (frame := waiting.popleft().result()) is not None:
        waiting.append(reading.submit(next, frames, None))
        yield frame


class _Parts:
    """The parts of one job in their folder: those that are whole, and the one that is being written.

    Part 7 is 00007.nut (of a `PartWriter`) and 00007.npz (times, areas, and the smoother's state after it), which is
    written first: a part whose .nut is there is whole.
    """

    def __init__(self, folder: Path, reader: VideoReader, identity: Mapping[str, Any]) -> None:
        self._folder, self._reader = folder, reader
        self._writer: PartWriter | None = None
        self.paths: list[Path] = []
        self.pts: list[int] = []
        self.durations: list[int] = []
        self.areas: list[list[float]] = []
        self.names: list[str] = []
        self.state: Mapping[str, NDArray[Any]] = {}
        self._whole = 0  # frames in parts that are whole
        self._failed = False
        self._lock = FileLock(folder / "lock")  # the system's: none is left by a run that was killed
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if strange := [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]:
                raise VideoError(
                    f"{folder} is where a run keeps what it has done, and holds something else, such as "
                    f"{min(strange)}: move that away, or have these answers elsewhere"
                )
            self._claim(json.dumps(identity, sort_keys=True))
        while self._path().exists() and self._load(self._path()):
            pass
        for left in folder.glob("*.passing"):  # of a run that was killed
            left.unlink()

    def __enter__(self) -> _Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.discard()
        if not self.paths:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()

    def _claim(self, identity: str) -> None:
        """Take the folder for this job; parts of another are of no use."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise VideoError(
                f"another run is at work in {self._folder}: wait until it is through, or have these answers elsewhere"
            ) from error
        note = self._folder / "job.json"
        if not note.exists() or note.read_text("utf-8") != identity:
            for left in self._folder.iterdir():
                if left.name != "lock":
                    left.unlink()
            write_atomically(note, identity.encode())

    def _path(self) -> Path:
        """Of the next part."""
        return self._folder / f"{len(self.paths):05d}.nut"

    def _load(self, path: Path) -> bool:
        """Take up a part; not one whose table is damaged, as after a loss of power."""
        try:
            with np.load(path.with_suffix(".npz")) as file:  # which loads no pickle
                table = dict(file)
        except (OSError, EOFError, ValueError, BadZipFile):
            return False
        self.pts += table["pts"].tolist()
        self.durations += table["durations"].tolist()
        self.areas += table["areas"].tolist()
        self.names = table["names"].tolist()
        self.state = {key.removeprefix("state_"): table[key] for key in table if key.startswith("state_")}
        self.paths.append(path)
        self._whole = len(self.pts)
        return True

    def add(
        self,
        frames: Sequence[Frame],
        segmentations: Sequence[Segmentation],
        opacity: float,
        state: Mapping[str, NDArray[Any]],
    ) -> Progress:
        """Write some frames, and the part as a whole once it has all that it takes.

        Once that has failed, do nothing more: the part would be whole without some frames.
        """
        if self._failed:
            return self.progress(0, None)
        self._failed = True  # until all of it is written
        overlay = None
        for frame, segmentation in zip(frames, segmentations, strict=True):
            if self._writer is None:
                self._writer = PartWriter(self._path(), self._reader, PART_FRAMES)
            overlay = segmentation.overlay(frame.image, opacity)
            self._writer.write(overlay, segmentation.labels, frame.pts)
            areas = segmentation.areas()
            self.names = list(areas)
            self.pts.append(frame.pts)
            self.durations.append(frame.duration)
            self.areas.append(list(areas.values()))
        self.state = state
        if len(self.pts) - self._whole >= PART_FRAMES:
            self.finish_part()
        self._failed = False
        return self.progress(len(frames), overlay)

    def finish_part(self) -> None:
        """Make a whole part of the frames that are in none."""
        if self._writer is None:
            return
        rows = slice(self._whole, None)
        columns: dict[str, Any] = {
            "pts": np.array(self.pts[rows]),
            "durations": np.array(self.durations[rows]),
            "areas": np.array(self.areas[rows]),
            "names": np.array(self.names),
            **{f"state_{key}": value for key, value in self.state.items()},
        }
        table = io.BytesIO()
        np.savez(table, **columns)
        path = self._path()
        with _writing(path):
            write_atomically(path.with_suffix(".npz"), table.getvalue())
        self._writer.finish()
        self._writer = None
        self.paths.append(path)
        self._whole = len(self.pts)

    def progress(self, count: int, overlay: NDArray[np.uint8] | None) -> Progress:
        """How far it is, with the last `count` frames."""
        start = len(self.pts) - count
        return Progress(
            done=len(self.pts),
            expected=self._reader.expected_frames,
            times=np.array([float(pts * self._reader.time_base) for pts in self.pts[start:]]),
            areas=np.array(self.areas[start:]).reshape(count, len(self.names)),
            overlay=overlay,
        )

    def times(self) -> list[int]:
        """When each frame begins, and when the last one ends."""
        step = max(1, round(1 / (self._reader.rate * self._reader.time_base)))
        return [*self.pts, self.pts[-1] + (self.durations[-1] or step)]

    def write_areas(self, path: Path) -> None:
        """Write the CSV; a whole file or none."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["frame", "seconds", *self.names])
        for index, (pts, areas) in enumerate(zip(self.pts, self.areas, strict=True)):
            seconds = float(pts * self._reader.time_base)
            writer.writerow([index, f"{seconds:.6f}", *(f"{area:.6f}" for area in areas)])
        with _writing(path):
            write_atomically(path, text.getvalue().encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error.strerror or error}") from error
