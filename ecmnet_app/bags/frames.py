"""The table of frames beside an answered bag, read back: what is known of every frame without its pixels."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.errors import BagError

__all__ = ["FrameTable", "read_frames", "times_of"]


@dataclass(frozen=True, eq=False)
class FrameTable:
    """The frames of one topic in the order of the bag; N frames, K classes."""

    names: tuple[str, ...]
    """Of the classes in order of id, unlabelled last."""
    log_times: NDArray[np.int64]
    """Nanoseconds. Shape: (N,)."""
    stamps: NDArray[np.int64]
    """Nanoseconds. Shape: (N,)."""
    confidence: NDArray[np.float64]
    """Mean of each frame. Shape: (N,)."""
    areas: NDArray[np.float64]
    """Share of each class. Shape: (N, K + 1)."""

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def times(self) -> NDArray[np.int64]:
        """See `times_of`."""
        return times_of(self.stamps, self.log_times)


def times_of(stamps: NDArray[np.int64], log_times: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each of a topic's frames is: its stamp, or where stamps do not go forward from frame to frame, its log time.

    Args:
        stamps, log_times: nanoseconds, in the order of the bag. Shape: (N,).

    Returns:
        One of them as it is.
    """
    return stamps if bool((np.diff(stamps) > 0).all()) else log_times


def read_frames(path: Path) -> Mapping[str, FrameTable]:
    """The table of each topic, by name, of `BagJob.frames`.

    Raises:
        BagError: the file cannot be read.
    """
    times: dict[str, array[int]] = {}
    values: dict[str, array[float]] = {}  # a number takes 8 bytes here, and 24 or more in a list
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            _, _, _, _, *names = next(rows)
            for topic, log_time, stamp, *numbers in rows:
                times.setdefault(topic, array("q")).extend((int(log_time), int(stamp)))
                values.setdefault(topic, array("d")).extend(map(float, numbers))
            return {topic: _table(tuple(names), times[topic], values[topic]) for topic in times}
    except OSError as error:
        raise BagError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, StopIteration) as error:
        raise BagError(f"{path} is not the table of frames that was written there; segment the bag again") from error


def _table(names: tuple[str, ...], times: array[int], values: array[float]) -> FrameTable:
    when = np.frombuffer(times, np.int64).reshape(-1, 2)
    numbers = np.frombuffer(values, np.float64).reshape(len(when), len(names) + 1)
    return FrameTable(names, when[:, 0], when[:, 1], numbers[:, 0], numbers[:, 1:])
