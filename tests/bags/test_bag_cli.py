"""`ecmnet bag` as people type it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mcap.reader import make_reader
from recordings import drive

from ecmnet_app.cli import main


def test_bags_that_fail_or_are_damaged_are_told_and_the_rest_is_done(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = drive(tmp_path / "in" / "a.mcap")
    (tmp_path / "in" / "cut.mcap").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "in" / "empty.mcap").write_bytes(b"")
    out = tmp_path / "out"
    arguments = ["bag", str(tmp_path / "in"), "--out", str(out), "--weights", str(tiny_weights), "--device", "cpu"]
    arguments += ["--engine", "eager"]
    assert main([*arguments, "--report", "--video"]) == 1
    told = capsys.readouterr()
    assert "2 segmented to" in told.out
    assert "1 failed" in told.out
    assert "empty.mcap is an empty file" in told.err
    assert "cut.mcap has no end" in told.err
    report = (out / "report.html").read_text("utf-8")
    assert "cut.mcap has no end" in report
    assert "empty.mcap is an empty file" in report
    assert (out / "a" / "front_image_raw_overlay.mp4").exists()
    assert main([*arguments, "--resume", "--report"]) == 1  # the damage is still there
    assert "cut.mcap has no end" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--resume goes on" in capsys.readouterr().err


def test_names_that_are_too_long_end_no_other_bag(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = drive(tmp_path / "a.mcap", seconds=1)
    longest = [drive(tmp_path / f"{'b' * 249}{end}.mcap", seconds=1) for end in "12"]
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--weights", str(tiny_weights), "--device", "cpu", "--engine", "eager", "--video"]
    assert main(["bag", str(tmp_path / ("a" * 300)), str(bag), *map(str, longest), *arguments]) == 1
    told = capsys.readouterr()
    assert "3 segmented to" in told.out
    assert "1 failed" in told.out
    assert told.err.count("File name too long") == 1
    assert sorted(path.name for path in out.iterdir()) == ["a", "b" * 200, "b" * 200 + "_"]


def test_what_is_in_a_bag_is_listed_and_nothing_segmented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = drive(tmp_path / "a.mcap", seconds=2)
    assert main(["bag", str(bag), "--list", "--out", str(tmp_path / "out"), "--weights", "none needed"]) == 0
    told = capsys.readouterr()
    rows = [line.split() for line in told.out.splitlines()[1:]]
    found: dict[str, list[str]] = {}
    with bag.open("rb") as file:  # by another reader
        for schema, channel, _ in make_reader(file).iter_messages():
            assert schema is not None
            found.setdefault(channel.topic, []).append(schema.name)
    listed = {row[1] if row[0] == "pictures" else row[0]: row for row in rows}
    assert listed.keys() == found.keys()
    for topic, row in listed.items():
        assert (row[0] == "pictures") == (found[topic][0].split("/")[-1] in ("Image", "CompressedImage"))
        assert f"{len(found[topic]):,}" in row
        assert found[topic][0] in row
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad.mcap").write_bytes(b"no bag")
    assert main(["bag", str(bag), str(tmp_path / "bad.mcap"), "--list"]) == 1
    told = capsys.readouterr()
    assert "a.mcap: " in told.out
    assert "bad.mcap" in told.err


def test_where_nothing_can_be_done_the_exit_code_is_2(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(b"no bag")
    out = ["--out", str(tmp_path / "out"), "--weights", str(tiny_weights), "--device", "cpu"]
    assert main(["bag", str(tmp_path / "nothing*"), *out]) == 2
    assert "nothing* holds no bags" in capsys.readouterr().err
    for more in ([], ["--list"], ["--report"]):
        assert main(["bag", str(bad), *out, *more]) == 2
        assert "bad.mcap is not an MCAP file" in capsys.readouterr().err
    report = tmp_path / "out" / "report.html"
    assert "bad.mcap is not an MCAP file" in report.read_text("utf-8")
    report.write_text("an earlier one")
    assert main(["bag", str(bad), *out, "--report"]) == 2
    assert report.read_text() == "an earlier one"


def test_settings_that_cannot_be_are_told(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = drive(tmp_path / "a.mcap", seconds=2)
    arguments = ["bag", str(bag), "--out", str(tmp_path / "out"), "--weights", str(tiny_weights), "--device", "cpu"]
    assert main([*arguments, "--jobs", "0"]) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err
    assert main([*arguments, "--jobs", "2", "--ray", "auto"]) == 2
    assert "take one of them" in capsys.readouterr().err
    for option, value in (("--opacity", "7"), ("--threshold", "1.5"), ("--threshold", "nan")):
        assert main([*arguments, "--video", option, value]) == 2
        assert f"{option[2:]} must be 0 to 1, not {float(value)}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main([*arguments, "--topic", "/none"]) == 2
    assert "it has some in /front/image_raw, /rear/image_raw" in capsys.readouterr().err


@pytest.mark.long
def test_a_command_that_is_killed_is_gone_on_with_to_the_same_bytes(tiny_weights: Path, tmp_path: Path) -> None:
    bag = drive(tmp_path / "a.mcap", seconds=40)
    command = [sys.executable, "-m", "ecmnet_app", "bag", str(bag), "--weights", str(tiny_weights), "--device", "cpu"]
    command += ["--engine", "eager", "--threads", "1", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    out = tmp_path / "out"
    for kill in range(3):
        with subprocess.Popen([*command, str(out), *(["--resume"] if kill else [])]) as process:
            until = time.monotonic() + 60
            while len(list((out / "a.parts").glob("*.mcap"))) <= kill and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
    assert not (out / "a").exists()
    subprocess.run([*command, str(out), "--resume"], check=True)
    for name in ("a.mcap", "frames.csv", "metadata.yaml"):
        assert (out / "a" / name).read_bytes() == (tmp_path / "whole" / "a" / name).read_bytes()
    assert [path.name for path in out.iterdir()] == ["a"]
