"""`ecmnet segment` on videos, in processes that are killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import assert_same_pictures, cut, packets_of, write_video

from ecmnet_app.cli import main
from ecmnet_app.core import Segmenter
from ecmnet_app.core.video import PART_FRAMES
from ecmnet_app.media import write_image
from ecmnet_app.media.videos import VideoReader


def segment(weights: Path, *arguments: str) -> int:
    return main(["segment", *arguments, "--weights", str(weights), "--device", "cpu"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_and_videos_in_one_command(folder: Path, tiny_weights: Path, make_picture, capsys) -> None:
    write_image("in/a.png", make_picture(64, 96))
    write_video(folder / "in/b.mp4", size=(64, 96))
    write_video(folder / "in/broken.mp4")
    cut(folder / "in/broken.mp4", 0.5, "broken.mp4")
    assert segment(tiny_weights, "in", "--out", "out") == 1
    said = capsys.readouterr()
    assert said.err.count("ecmnet: in/broken.mp4 is not a video") == 1
    assert "2 segmented to out, 1 failed" in said.out
    assert names(folder / "out") == [
        "a.json",
        "a_mask.png",
        "a_overlay.jpg",
        "b.json",
        "b_areas.csv",
        "b_masks.mkv",
        "b_overlay.mp4",
    ]
    record = json.loads((folder / "out/b.json").read_text())
    segmenter = Segmenter.from_pretrained(tiny_weights, device="cpu")
    with VideoReader("in/b.mp4") as reader:
        areas = [list(segmenter.predict(frame.image).areas().values()) for frame in reader.frames()]
    assert record["video"] == "in/b.mp4"
    assert record["frames"] == 12
    assert record["problem"] is None
    assert [one["area"] for one in record["classes"]] == pytest.approx(np.mean(areas, axis=0).tolist())


def test_answers_to_the_longest_names_have_shorter_ones(folder: Path, tiny_weights: Path, make_picture) -> None:
    longest = "街" * 83  # 249 of the 255 bytes that a name may have
    (folder / "in").mkdir()
    write_video(folder / f"in/{longest}a.mp4", size=(64, 96))
    write_video(folder / f"in/{longest}b.mp4", size=(64, 96))
    write_image(f"in/{longest}.jpg", make_picture(64, 96))
    for done_before in (False, True):
        assert segment(tiny_weights, "in", "--out", "out") == 0
        stems = ["街" * 66 + end for end in ("", "_", "__")]
        assert {name for name in names(folder / "out") if name.endswith(".json")} == {f"{s}.json" for s in stems}
        sources = [json.loads((folder / f"out/{stem}.json").read_text("utf-8")) for stem in stems]
        assert {Path(one.get("video") or one["picture"]).name for one in sources} == set(names(folder / "in")), (
            done_before
        )


def test_what_is_done_is_not_done_again_but_after_a_change(folder: Path, tiny_weights: Path) -> None:
    write_video(folder / "a.mp4", size=(64, 96))
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 0
    overlay = folder / "out/a_overlay.mp4"
    first = overlay.stat().st_mtime_ns
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 0
    assert overlay.stat().st_mtime_ns == first
    assert segment(tiny_weights, "a.mp4", "--out", "out", "--smooth") == 0
    second = overlay.stat().st_mtime_ns
    assert second > first
    overlay.unlink()
    assert segment(tiny_weights, "a.mp4", "--out", "out", "--smooth") == 0
    assert overlay.exists()


def test_a_video_that_is_gone_is_not_done_whatever_is_left_of_it(folder: Path, tiny_weights: Path, capsys) -> None:
    write_video(folder / "a.mp4", frames=3, size=(32, 48))
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 0
    (folder / "a.mp4").unlink()
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 2
    assert "ecmnet: cannot read a.mp4: No such file" in capsys.readouterr().err


def test_answers_of_two_runs_are_never_taken_for_those_of_one(folder: Path, tiny_weights: Path) -> None:
    write_video(folder / "a.mp4", frames=3, size=(32, 48))
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 0
    overlay, masks = folder / "out/a_overlay.mp4", folder / "out/a_masks.mkv"
    shutil.copy(overlay, folder / "first.mp4")
    masks.rename(folder / "masks")
    masks.mkdir()  # so that it cannot be written, once the overlay has been
    assert segment(tiny_weights, "a.mp4", "--out", "out", "--opacity", "1") == 2
    second = packets_of(overlay)
    assert second != packets_of(folder / "first.mp4")
    masks.rmdir()
    (folder / "masks").rename(masks)
    assert segment(tiny_weights, "a.mp4", "--out", "out") == 0
    assert packets_of(overlay) != second
    assert_same_pictures(overlay, folder / "first.mp4")


def test_a_loss_is_said_each_time(folder: Path, tiny_weights: Path, capsys) -> None:
    write_video(folder / "w.mp4", frames=60, size=(32, 48), container={"movflags": "+faststart"})
    cut(folder / "w.mp4", 0.6, "half.mp4")
    for _ in range(2):
        assert segment(tiny_weights, "half.mp4", "--out", "out") == 1
        assert "ecmnet: half.mp4 ends after" in capsys.readouterr().err


@pytest.mark.long
def test_killed_at_any_moment_it_ends_as_if_undisturbed(folder: Path, tiny_weights: Path) -> None:
    frames = 2 * PART_FRAMES + 30
    write_video(folder / "a.mp4", frames=frames, size=(32, 48), sound="aac")
    command = [sys.executable, "-m", "ecmnet_app", "segment", "a.mp4", "--weights", str(tiny_weights)]
    command += ["--device", "cpu", "--threads", "1", "--smooth", "--out"]
    subprocess.run([*command, "whole"], check=True, capture_output=True)

    parts = folder / "again" / "a.parts"
    kills = 0
    for wanted in (1, 2):  # killed a moment after each part, in the middle of the next
        with subprocess.Popen([*command, "again"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(parts.glob("*.nut"))) < wanted:
                time.sleep(0.01)
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    assert not (folder / "again/a.json").exists()
    subprocess.run([*command, "again"], check=True, capture_output=True)

    assert (
        names(folder / "again")
        == names(folder / "whole")
        == [
            "a.json",
            "a_areas.csv",
            "a_masks.mkv",
            "a_overlay.mp4",
        ]
    )
    assert_same_pictures(folder / "again/a_overlay.mp4", folder / "whole/a_overlay.mp4")
    assert packets_of(folder / "again/a_masks.mkv") == packets_of(folder / "whole/a_masks.mkv")
    assert (folder / "again/a_areas.csv").read_bytes() == (folder / "whole/a_areas.csv").read_bytes()
    assert len({pts for stream, pts, _ in packets_of(folder / "again/a_masks.mkv")}) == frames
