"""Overlays of a bag's pictures as videos, one of each topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from ecmnet_app.bags.frames import read_frames
from ecmnet_app.bags.jobs import BagJob
from ecmnet_app.bags.pictures import pictures
from ecmnet_app.bags.reader import open_bag
from ecmnet_app.core import LabelSet
from ecmnet_app.media.video_writing import ClipWriter

__all__ = ["clip_paths", "write_clips"]


def clip_paths(job: BagJob, topics: Sequence[str]) -> Mapping[str, Path]:
    """Where the clip of each topic goes: /front/image_raw to front_image_raw_overlay.mp4, beside the masks."""
    paths: dict[str, Path] = {}
    for topic in topics:
        name = topic.strip("/").replace("/", "_") or "topic"
        while (path := job.out / f"{name}_overlay.mp4") in paths.values():
            name += "_"
        paths[topic] = path
    return paths


def write_clips(job: BagJob, label_set: LabelSet, opacity: float = 0.5) -> None:
    """Write the clip of each topic with frames, H.264 in an MP4, unless it is there; each a whole file or none.

    Frames are shown at their times, see `times_of`, at the size of the topic's first. One that is in the bag no more is
    passed over.

    Args:
        label_set: of the weights that segmented the bag.
        opacity: of the colours.

    Raises:
        BagError: the bag or its answers cannot be read.
        VideoError: a clip cannot be written.
    """
    tables = read_frames(job.frames)
    missing = {topic: path for topic, path in clip_paths(job, list(tables)).items() if not path.exists()}
    if not missing:
        return
    with open_bag(job.source) as source, open_bag(job.bag) as answers:
        for topic, path in missing.items():
            shown = pictures(source, answers, topic)
            first = next(shown, None)
            if first is None:
                continue
            times = tables[topic].times
            by_stamp = times is tables[topic].stamps
            height, width = first.labels.shape
            with ClipWriter(path, width, height) as clip:
                for picture in chain([first], shown):
                    time = picture.stamp_ns if by_stamp else picture.log_time_ns
                    clip.write(picture.overlay(label_set, opacity), (time - int(times[0])) / 1e9)
