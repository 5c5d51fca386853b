from __future__ import annotations

import csv
import threading
from itertools import count, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from clips import assert_same_pictures, cut, number_of, packets_of, write_video

from ecmnet_app.core import Segmenter
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.core.video import PART_FRAMES, Progress, VideoAnswers, segment_video
from ecmnet_app.errors import EcmnetError, ImageError, VideoError
from ecmnet_app.media.video_writing import PartWriter
from ecmnet_app.media.videos import VideoReader

SMALL = (32, 48)


def frames_of(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader.frames()]


def masks_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(source: Path, stem: Path, segmenter: Segmenter, **options) -> tuple[VideoAnswers, list[Progress]]:
    answers = VideoAnswers(stem)
    return answers, list(segment_video(source, answers, segmenter.predict_batch, **options))


def test_every_frame_gets_the_answer_of_predict(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "drive.mp4", size=(96, 130), sound="aac")
    answers, progress = run(source, tmp_path / "out" / "drive", segmenter, options={"threshold": 0.3}, opacity=0.4)
    frames = frames_of(source)
    assert [number_of(frame) for frame in frames] == list(range(12))
    expected = [segmenter.predict(frame, threshold=0.3) for frame in frames]
    for answer in expected:  # from even chances for eleven classes to certainty
        assert 0.999 / 11 <= answer.confidence.min() <= answer.confidence.max() <= 1

    np.testing.assert_array_equal(masks_of(answers.masks), [answer.labels for answer in expected])
    overlays = frames_of(answers.overlay)
    assert len(overlays) == 12
    for shown, frame, answer in zip(overlays, frames, expected, strict=True):
        assert np.abs(shown.astype(int) - answer.overlay(frame, 0.4)).mean() < 6  # of the coding
    rows = rows_of(answers.areas)
    assert [int(row["frame"]) for row in rows] == list(range(12))
    assert [float(row["seconds"]) for row in rows] == pytest.approx([i / 10 for i in range(12)])
    for row, answer in zip(rows, expected, strict=True):
        assert {name: float(row[name]) for name in answer.areas()} == pytest.approx(answer.areas(), abs=1e-6)

    assert [one.done for one in progress] == sorted(one.done for one in progress)
    assert (progress[0].done, progress[0].expected) == (0, 12)
    assert progress[-1].finished
    assert progress[-1].done == 12
    assert progress[-1].problem is None
    told = np.concatenate([one.areas for one in progress if len(one.times)])
    np.testing.assert_allclose(told, [list(answer.areas().values()) for answer in expected])
    np.testing.assert_array_equal(
        next(one for one in progress if one.done == 12).overlay, expected[-1].overlay(frames[-1], 0.4)
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "drive_areas.csv",
        "drive_masks.mkv",
        "drive_overlay.mp4",
    ]


@pytest.mark.parametrize(("smooth", "batch"), [(True, 1), (False, 8)])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    smooth: bool, batch: int, segmenter: Segmenter, tmp_path: Path
) -> None:
    frames = 2 * PART_FRAMES + 13
    source = write_video(tmp_path / "a.mp4", frames=frames, size=SMALL)

    def smoother() -> Smoother | None:
        return Smoother(segmenter.weights.temperature) if smooth else None

    whole, _ = run(source, tmp_path / "whole" / "a", segmenter, smoother=smoother(), batch=batch)

    calls = 0

    def counted(images, **options):
        nonlocal calls
        calls += len(images)
        return segmenter.predict_batch(images, **options)

    answers = VideoAnswers(tmp_path / "again" / "a")
    starts = []
    for stop in (PART_FRAMES + 20, PART_FRAMES + 40, 2 * PART_FRAMES + 8, None):
        for progress in segment_video(source, answers, counted, smoother=smoother(), batch=batch):
            starts.append(progress.done)
            if stop is not None and progress.done >= stop:
                break
        else:
            assert progress.finished
    assert calls < frames + 4 * (PART_FRAMES // 2)
    assert_same_pictures(answers.overlay, whole.overlay)
    assert packets_of(answers.masks) == packets_of(whole.masks)
    assert answers.areas.read_bytes() == whole.areas.read_bytes()
    assert len(masks_of(answers.masks)) == frames
    assert [number_of(image) for image in frames_of(source)][-1] == frames - 1
    assert not answers.parts.exists()


def test_after_a_failed_write_nothing_is_written_and_the_next_run_has_every_frame(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = PART_FRAMES + 30
    source = write_video(tmp_path / "a.mp4", frames=frames, size=SMALL)
    answers = VideoAnswers(tmp_path / "a")
    write, calls = PartWriter.write, count()

    def fails_once(self, *arguments) -> None:
        if next(calls) == PART_FRAMES - 5:
            raise VideoError("cannot write: the disk is full")
        write(self, *arguments)

    monkeypatch.setattr(PartWriter, "write", fails_once)
    with pytest.raises(VideoError, match="the disk is full"):
        list(segment_video(source, answers, segmenter.predict_batch))
    assert next(calls) == PART_FRAMES - 4, "no frame behind it was written"
    *_, last = segment_video(source, answers, segmenter.predict_batch)
    assert (last.finished, last.done, len(masks_of(answers.masks))) == (True, frames, frames)


def test_answers_go_to_files_whatever_their_names_look_like(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), frames=3, size=SMALL).rename("10:00.mp4")
    answers, _ = run(Path("10:00.mp4"), Path("run:3/10:00"), segmenter)
    assert len(masks_of(tmp_path / answers.masks)) == 3


def test_parts_of_another_job_are_not_gone_on_with(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=PART_FRAMES + 30, size=SMALL)
    answers = VideoAnswers(tmp_path / "a")
    for progress in segment_video(source, answers, segmenter.predict_batch, identity={"weights": "old"}):
        if progress.done > PART_FRAMES:
            break
    assert len(list(answers.parts.glob("*.nut"))) == 1
    steps = segment_video(source, answers, segmenter.predict_batch, identity={"weights": "old"})
    assert next(steps).done == PART_FRAMES
    steps.close()
    steps = segment_video(source, answers, segmenter.predict_batch, identity={"weights": "new"})
    assert next(steps).done == 0
    steps.close()


def test_a_part_whose_table_is_damaged_is_done_again(segmenter: Segmenter, tmp_path: Path) -> None:
    frames = 2 * PART_FRAMES + 5
    source = write_video(tmp_path / "a.mp4", frames=frames, size=SMALL)
    answers = VideoAnswers(tmp_path / "a")
    for progress in segment_video(source, answers, segmenter.predict_batch):
        if progress.done > 2 * PART_FRAMES:
            break
    (answers.parts / "00001.npz").write_bytes(b"")
    first, *_, last = segment_video(source, answers, segmenter.predict_batch)
    assert (first.done, last.finished, len(masks_of(answers.masks))) == (PART_FRAMES, True, frames)


def test_a_folder_of_somebody_else_is_left_alone(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=3, size=SMALL)
    answers = VideoAnswers(tmp_path / "a")
    answers.parts.mkdir()
    (answers.parts / "clip1.mp4").write_bytes(b"precious")
    for name in ("lock", "00000.nut", "job.json"):  # nor do files of a run before make it ours
        with pytest.raises(VideoError, match=r"a\.parts is where .* holds something else, such as clip1\.mp4: move"):
            list(segment_video(source, answers, segmenter.predict_batch))
        assert (answers.parts / "clip1.mp4").read_bytes() == b"precious"
        (answers.parts / name).touch()


def test_two_runs_do_not_write_the_same_answers(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=30, size=SMALL)
    first = segment_video(source, VideoAnswers(tmp_path / "a"), segmenter.predict_batch)
    while next(first).done < 10:
        pass
    with pytest.raises(VideoError, match=r"another run is at work in .*a\.parts: wait"):
        run(source, tmp_path / "a", segmenter)
    assert list(first)[-1].done == 30, "the one that was first goes on"
    assert [path.name for path in sorted(tmp_path.glob("a*"))] == [
        "a.mp4",
        "a_areas.csv",
        "a_masks.mkv",
        "a_overlay.mp4",
    ]
    run(source, tmp_path / "a", segmenter)


def test_closing_ends_all_threads_and_leaves_nothing(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=60, size=SMALL)
    before = threading.active_count()
    steps = segment_video(source, VideoAnswers(tmp_path / "a"), segmenter.predict_batch)
    while next(steps).done < 10:
        pass
    assert threading.active_count() == before + 2
    steps.close()
    assert threading.active_count() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_error_of_the_network_passes_through(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "tiny.mp4", size=(16, 16))
    with pytest.raises(ImageError, match="too small to segment"):
        run(source, tmp_path / "tiny", segmenter)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.mp4"]


def test_what_was_lost_is_told_at_the_end(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=80, size=SMALL, container={"movflags": "+faststart"})
    answers, progress = run(cut(path, 0.6, "cut.mp4"), tmp_path / "cut", segmenter)
    assert "of 8.0 seconds, as a file does that was cut off" in progress[-1].problem
    assert progress[-1].done == progress[-1].expected == len(masks_of(answers.masks)) > 10


def test_no_folder_for_the_answers(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="cannot write"):
        run(source, tmp_path / "file" / "a", segmenter)


def test_a_video_and_a_live_viewer_take_turns(segmenter: Segmenter, tmp_path: Path) -> None:
    """Through the page's worker, a video is one source: while it runs, another gets every second turn."""
    source = write_video(tmp_path / "a.mp4", frames=60, size=(96, 128))
    image = frames_of(source)[0]
    turns: list[str] = []
    asked: list[int] = []

    def predict(images, **options):
        turns.append(options.pop("who"))
        return segmenter.predict_batch(images, **options)

    with StreamWorker(predict, max_batch=1) as worker, worker.open() as ours, worker.open() as live:

        def through(images, **options):
            futures = [ours.submit(image, who="video", **options) for image in images]
            asked.append(len(turns))
            return [future.result().segmentation for future in futures]

        stop = threading.Event()

        def watch(_: object = None) -> None:
            """Called back by the worker before its next turn, so that the viewer is always waiting."""
            if not stop.is_set():
                live.submit(image, who="live").add_done_callback(watch)

        watch()
        try:
            smoother = Smoother(segmenter.weights.temperature)
            progress = list(segment_video(source, VideoAnswers(tmp_path / "a"), through, smoother=smoother))
        finally:
            stop.set()
    assert progress[-1].done == 60
    videos = [turn for turn, who in enumerate(turns) if who == "video"]
    assert len(videos) == 60
    assert all(later - turn > 1 for turn, later in pairwise(videos))
    assert all(turn - count <= 1 for turn, count in zip(videos, asked, strict=True)), "one of the viewer's goes first"


def test_a_closed_worker_ends_the_run_with_its_error(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=60, size=SMALL)
    worker = StreamWorker(segmenter.predict_batch)
    ours = worker.open()
    steps = segment_video(
        source, VideoAnswers(tmp_path / "a"), lambda images: [ours.submit(i).result().segmentation for i in images]
    )
    while next(steps).done < 5:
        pass
    worker.close()
    with pytest.raises(EcmnetError, match="closed"):
        list(steps)
