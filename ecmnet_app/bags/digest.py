"""What a report shows of one bag, in a size that does not grow with it: figures over time, and a few pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.frames import FrameTable, read_frames
from ecmnet_app.bags.jobs import BagJob
from ecmnet_app.bags.pictures import pictures
from ecmnet_app.bags.reader import Bag, open_bag
from ecmnet_app.bags.summary import BagSummary, TopicSummary
from ecmnet_app.core import LabelSet
from ecmnet_app.media.images import encode_image

__all__ = ["BagDigest", "Columns", "Thumbnail", "TopicDigest", "columns_of", "digest_bag"]

COLUMNS = 240
"""Most points of a curve."""
THUMBNAIL_WIDTH = 320


@dataclass(frozen=True, eq=False)
class Columns:
    """Runs of frames that follow each other without a gap, M of them, with the means of each."""

    starts: NDArray[np.float64]
    """Seconds from the topic's first frame to the first one of each run. Shape: (M,)."""
    ends: NDArray[np.float64]
    """To the last one. Shape: (M,)."""
    frames: NDArray[np.int64]
    """How many. Shape: (M,)."""
    segments: NDArray[np.int64]
    """Which stretch between gaps each lies in, from 0. Shape: (M,)."""
    areas: NDArray[np.float64]
    """Shape: (M, K + 1)."""
    confidence: NDArray[np.float64]
    """Mean, least and greatest of the frames' means. Shape: (M, 3)."""
    rates: NDArray[np.float64]
    """Frames a second, by the steps that lead from each frame of the run to the next without a gap; NaN where none
    does. Shape: (M,)."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One frame under its classes."""

    seconds: float
    """Since the topic's first frame."""
    jpeg: bytes
    width: int
    height: int
    areas: NDArray[np.float64]
    """Shape: (K + 1,)."""


@dataclass(frozen=True, eq=False)
class TopicDigest:
    """One topic of it."""

    summary: TopicSummary
    start_ns: int
    """When its first frame is."""
    seconds: float
    """From there to its last frame."""
    by_log_time: bool
    """Its stamps do not go forward, so all times here are those of the recording."""
    areas: NDArray[np.float64]
    """Mean share of each class over all frames. Shape: (K + 1,)."""
    columns: Columns
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True, eq=False)
class BagDigest:
    """The bag."""

    summary: BagSummary
    topics: tuple[TopicDigest, ...]
    """Those with frames."""


def digest_bag(job: BagJob, summary: BagSummary, label_set: LabelSet, thumbnails: int = 8) -> BagDigest:
    """Read back what `assemble_bag` has left.

    Args:
        label_set: of the weights that segmented it.
        thumbnails: pictures of each topic, at even steps.

    Raises:
        BagError: the answers or the bag cannot be read.
    """
    tables = read_frames(job.frames)
    with open_bag(job.source) as source, open_bag(job.bag) as answers:
        topics = [
            _digest_topic(source, answers, topic, tables[topic.topic], label_set, thumbnails)
            for topic in summary.topics
            if topic.topic in tables
        ]
    return BagDigest(summary, tuple(topics))


def _digest_topic(
    source: Bag, answers: Bag, summary: TopicSummary, table: FrameTable, label_set: LabelSet, thumbnails: int
) -> TopicDigest:
    times = table.times
    chosen = np.unique(np.linspace(0, len(table) - 1, thumbnails).round().astype(int))
    shown = []
    for index in chosen.tolist():
        time = int(table.log_times[index])
        for picture in pictures(source, answers, summary.topic, time, time + 1):
            if picture.stamp_ns == table.stamps[index]:
                seconds = float(times[index] - times[0]) / 1e9
                shown.append(_thumbnail(picture.overlay(label_set), seconds, table.areas[index]))
                break
    return TopicDigest(
        summary,
        int(times[0]),
        float(times[-1] - times[0]) / 1e9,
        times is not table.stamps,
        table.areas.mean(axis=0),
        columns_of(table, {gap.after_ns for gap in summary.gaps}),
        tuple(shown),
    )


def _thumbnail(overlay: NDArray[np.uint8], seconds: float, areas: NDArray[np.float64]) -> Thumbnail:
    height, width = overlay.shape[:2]
    size = THUMBNAIL_WIDTH, max(1, round(height * THUMBNAIL_WIDTH / width))
    if width > THUMBNAIL_WIDTH:
        overlay = np.asarray(cv2.resize(overlay, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Thumbnail(seconds, encode_image(overlay, "thumbnail.jpg"), overlay.shape[1], overlay.shape[0], areas)


def columns_of(table: FrameTable, gaps_after: set[int], most: int = COLUMNS) -> Columns:
    """Divide a topic's frames.

    Args:
        table: at least one frame.
        gaps_after: times of the table that a gap follows.
        most: columns, where gaps do not make more.
    """
    runs = list(_runs(table, gaps_after, most))
    times = table.times
    seconds = (times - times[0]) / 1e9
    firsts, ends = np.array([run[0] for run in runs]), np.array([run[1] for run in runs])
    segments = np.array([run[2] for run in runs])
    counts = ends - firsts
    # Of each run's frames the step to the next one, where a frame of the same segment follows.
    nexts = np.where(np.append(segments[1:] == segments[:-1], False), ends, ends - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = (nexts - firsts) / (seconds[nexts] - seconds[firsts])
    confidence = np.stack([ufunc.reduceat(table.confidence, firsts) for ufunc in (np.add, np.minimum, np.maximum)], 1)
    confidence[:, 0] /= counts
    return Columns(
        seconds[firsts],
        seconds[ends - 1],
        counts,
        segments,
        np.add.reduceat(table.areas, firsts) / counts[:, None],
        confidence,
        np.where(np.isfinite(rates), rates, np.nan),
    )


def _runs(table: FrameTable, gaps_after: set[int], most: int) -> Iterator[tuple[int, int, int]]:
    """First frame, the one behind the last, and segment of each run."""
    length = -(-len(table) // most)
    cuts = np.flatnonzero(np.isin(table.times[:-1], list(gaps_after))) + 1
    edges = [0, *cuts.tolist(), len(table)]
    for segment, (first, end) in enumerate(pairwise(edges)):
        for start in range(first, end, length):
            yield start, min(start + length, end), segment
