"""Overlay clips of a bag: every picture at its time, in the colours of its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import EPOCH, drive, image_of, masks_of, moving_blobs, write_messages, write_recording

from ecmnet_app.bags import BagJob, BagSettings, segment_bag
from ecmnet_app.bags.clips import clip_paths, write_clips
from ecmnet_app.core import Segmenter
from ecmnet_app.media.videos import VideoReader


def test_a_clip_shows_every_picture_under_its_mask(segmenter: Segmenter, tmp_path: Path) -> None:
    job = BagJob(drive(tmp_path / "drive.mcap"), tmp_path / "drive")
    segment_bag(job, BagSettings(), segmenter)
    write_clips(job, segmenter.label_set, opacity=1.0)
    masks = [message for topic, message in masks_of(job.bag) if topic.startswith("/front")]
    palette = segmenter.label_set.palette
    with VideoReader(job.out / "front_image_raw_overlay.mp4") as reader:
        frames = list(reader.frames())
        seconds = [float(frame.pts * reader.time_base) for frame in frames]
    assert len(frames) == len(masks) == 53
    stamps = [(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec - EPOCH) / 1e9 for m in masks]
    assert seconds == pytest.approx(stamps, abs=1e-4)  # the gap too
    colors = np.stack([palette[np.frombuffer(m.data, np.uint8)].reshape(m.height, m.width, 3) for m in masks])
    for index, frame in enumerate(frames):  # of all masks, it is its own that a frame is nearest to
        assert np.abs(colors - frame.image.astype(float)).mean(axis=(1, 2, 3)).argmin() == index


def test_a_clip_keeps_the_first_size(segmenter: Segmenter, tmp_path: Path) -> None:
    small, large = moving_blobs(40, 56, 1), moving_blobs(80, 112, 1)
    path = write_recording(
        tmp_path / "a.mcap", {"/camera": (lambda k: small(k) if k < 2 else large(k), [0.0, 0.1, 0.2, 0.3])}
    )
    job = BagJob(path, tmp_path / "a")
    segment_bag(job, BagSettings(topics=("/camera",)), segmenter)
    write_clips(job, segmenter.label_set)
    clip = job.out / "camera_overlay.mp4"
    with VideoReader(clip) as reader:
        assert [frame.image.shape for frame in reader.frames()] == 4 * [(40, 56, 3)]
    before = clip.stat().st_mtime_ns
    write_clips(job, segmenter.label_set)
    assert clip.stat().st_mtime_ns == before  # what is there is not made again


@pytest.mark.parametrize("still", [False, True])
def test_a_picture_that_is_there_no_more_is_passed_over(segmenter: Segmenter, tmp_path: Path, still: bool) -> None:
    blob = moving_blobs(48, 64, 1)
    seconds = [0.0, 0.1, 0.2, 0.5, 0.7]
    stamps = [1.0] * 5 if still else [1.0, 1.1, 1.3, 1.6, 1.8]
    rows = [
        ("/camera", EPOCH + round(second * 10**9), image_of(blob(index), round(stamps[index] * 10**9)))
        for index, second in enumerate(seconds)
    ]
    path = write_messages(tmp_path / "a.mcap", rows)
    job = BagJob(path, tmp_path / "a")
    segment_bag(job, BagSettings(), segmenter)
    write_messages(path, rows[:2] + rows[3:])
    write_clips(job, segmenter.label_set)
    with VideoReader(job.out / "camera_overlay.mp4") as reader:
        shown = [float(frame.pts * reader.time_base) for frame in reader.frames()]
    expected = [(seconds if still else stamps)[index] - (0 if still else 1) for index in (0, 1, 3, 4)]
    assert shown == pytest.approx(expected, abs=1e-4)


def test_where_no_picture_is_there_any_more_there_is_no_clip(segmenter: Segmenter, tmp_path: Path) -> None:
    rows = [("/camera", EPOCH, image_of(moving_blobs(48, 64, 1)(0), EPOCH))]
    path = write_messages(tmp_path / "a.mcap", rows)
    job = BagJob(path, tmp_path / "a")
    segment_bag(job, BagSettings(), segmenter)
    write_messages(path, [("/camera", EPOCH, image_of(moving_blobs(40, 56, 1)(0), EPOCH))])
    write_clips(job, segmenter.label_set)
    assert not list(job.out.glob("*.mp4"))


def test_topics_whose_names_would_be_one_get_two_clips(tmp_path: Path) -> None:
    paths = clip_paths(BagJob(tmp_path / "a.mcap", tmp_path / "a"), ["/front/image", "/front_image", "/"])
    assert [path.name for path in paths.values()] == [
        "front_image_overlay.mp4",
        "front_image__overlay.mp4",
        "topic_overlay.mp4",
    ]
