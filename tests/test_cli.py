from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ecmnet_app
from ecmnet_app.cli import COMMANDS, main
from ecmnet_app.core import CAMVID, Segmenter, load_weights, save_weights
from ecmnet_app.core import weights as weights_module
from ecmnet_app.media import read_image, write_image
from ecmnet_app.segment_files import find_jobs

MakePicture = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def folder(tmp_path: Path, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: photos/ with two pictures and a folder with a third."""
    for seed, name in enumerate(["a.png", "b.jpg", "inner/a.webp"]):
        write_image(tmp_path / "photos" / name, make_picture(64, 96, seed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def segment(weights: Path, *arguments: str) -> int:
    return main(["segment", *arguments, "--weights", str(weights), "--device", "cpu"])


def test_a_picture_gets_an_overlay_a_mask_and_a_record(folder: Path, tiny_weights: Path) -> None:
    assert segment(tiny_weights, "photos/b.jpg", "--out", "out", "--opacity", "0.25", "--threshold", "0.2") == 0
    assert files(folder / "out") == ["b.json", "b_mask.png", "b_overlay.jpg"]

    image = read_image("photos/b.jpg")
    segmenter = Segmenter.from_pretrained(tiny_weights, device="cpu")
    answer = segmenter.predict(image, threshold=0.2)
    with Image.open("out/b_mask.png") as mask:
        assert np.asarray(mask).tobytes() == answer.labels.tobytes()
    difference = read_image("out/b_overlay.jpg").astype(int) - answer.overlay(image, 0.25)
    assert np.abs(difference).mean() < 8  # of the JPEG

    record = json.loads((folder / "out/b.json").read_text())
    assert record["version"] == ecmnet_app.__version__
    assert record["picture"] == "photos/b.jpg"
    assert (record["width"], record["height"]) == (96, 64)
    assert record["weights"] == {"name": "tiny", "sha256": segmenter.weights.sha256}
    assert (record["device"], record["engine"]) == ("cpu", segmenter.engine.name)
    assert record["settings"] == {"resolution": None, "tile": False, "threshold": 0.2}
    assert record["mean_confidence"] == pytest.approx(answer.confidence.mean(), rel=1e-5)
    assert [c["id"] for c in record["classes"]] == [*range(11), 255]
    assert {c["name"]: c["area"] for c in record["classes"]} == answer.areas()
    assert record["classes"][3]["color"] == [128, 64, 128]


def test_a_folder_is_taken_with_its_folders_and_keeps_names_apart(folder: Path, tiny_weights: Path) -> None:
    (folder / "photos/notes.txt").write_text("no picture")
    assert segment(tiny_weights, "photos", "--out", "photos/out") == 0
    expected = ["a.json", "b.json", "inner/a.json"]
    assert [name for name in files(folder / "photos/out") if name.endswith(".json")] == expected
    before = files(folder / "photos/out")
    assert segment(tiny_weights, "photos", "--out", "photos/out") == 0  # answers are not taken for pictures
    assert files(folder / "photos/out") == before


def test_where_nothing_could_be_done_the_exit_code_says_so(folder: Path, tiny_weights: Path) -> None:
    assert segment(tiny_weights, "none.jpg", "--out", "out") == 2


def test_one_bad_file_is_reported_and_the_rest_are_done(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos/b.jpg").write_bytes((folder / "photos/b.jpg").read_bytes()[:300])
    write_image("photos/dot.png", np.zeros((1, 1, 3), np.uint8))
    (folder / "empty").mkdir()
    assert segment(tiny_weights, "photos", "none.jpg", "*.xyz", "empty", "--out", "out") == 1
    assert [name for name in files(folder / "out") if name.endswith(".json")] == [
        "photos/a.json",
        "photos/inner/a.json",
    ]
    output = capsys.readouterr()
    assert "2 segmented to out, 5 failed" in output.out
    messages = [line for line in output.err.splitlines() if line.startswith("ecmnet: ")]
    assert len(messages) == 5
    for part in (
        "b.jpg is damaged",
        "dot.png: the picture is 1x1",
        "cannot read none.jpg: No such file",
        "no file matches *.xyz",
        "empty holds no pictures",
    ):
        assert sum(part in message for message in messages) == 1, part


def test_names_that_no_file_can_have_or_that_are_no_text(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = os.fsdecode(b"photos/caf\xe9.png")  # as on old disks
    shutil.copy("photos/a.png", latin)
    os.symlink("loop.jpg", "photos/loop.jpg")
    assert segment(tiny_weights, "photos", "photos/loop.jpg", "a" * 300 + ".jpg", "--out", "out") == 1
    said = capsys.readouterr()
    assert "4 segmented to out, 2 failed" in said.out
    assert "ecmnet: cannot read photos/loop.jpg: Too many levels of symbolic links" in said.err
    assert f"ecmnet: cannot read {'a' * 300}.jpg: File name too long" in said.err
    record = next(path for path in (folder / "out").rglob("*.json") if path.stem.startswith("caf"))
    assert json.loads(record.read_text("utf-8"))["picture"] == latin


def test_answers_to_links_have_the_links_names(folder: Path) -> None:
    (folder / "blobs").mkdir()
    (folder / "photos/a.png").rename("blobs/0f3ab9")
    (folder / "photos/a.png").symlink_to("../blobs/0f3ab9")
    jobs, _ = find_jobs(["photos", "blobs/0f3ab9"], Path("out"))
    assert [str(job.stem) for job in jobs] == ["out/a", "out/b", "out/inner/a"]  # each picture once


@pytest.mark.parametrize(
    ("inputs", "stems"),
    [
        (["photos/a.png"], ["a"]),
        (["photos/a.png", "photos/b.jpg"], ["a", "b"]),
        (["photos/inner/a.webp", "photos/a.png"], ["inner/a", "a"]),
        (["photos/a.png", "./photos/../photos/a.png", "photos"], ["a", "b", "inner/a"]),
        (["photos/*.png"], ["a"]),
        (["photos/**/*.*"], ["a", "b", "inner/a"]),
        (["photos/[ab].*"], ["a", "b"]),
    ],
)
def test_stems_mirror_the_folders(folder: Path, inputs: list[str], stems: list[str]) -> None:
    jobs, problems = find_jobs(inputs, Path("out"))
    assert problems == []
    assert [str(job.stem) for job in jobs] == [f"out/{stem}" for stem in stems]


def test_pictures_of_one_folder_that_differ_in_suffix_stay_apart(folder: Path) -> None:
    for name in ("a.jpg", "a.jpg.png", "a[1].png"):
        (folder / "photos" / name).touch()
    jobs, _ = find_jobs(["photos/a.png", "photos/a.jpg", "photos/a.jpg.png", "photos/a[1].png"], Path("out"))
    assert [str(job.stem) for job in jobs] == ["out/a.png", "out/a.jpg", "out/a.jpg_", "out/a[1]"]
    answers = [path for job in jobs for path in job.answers]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["photos", "--out", "photos"], "is the folder of the pictures itself"),
        (["photos/x.jpg", "photos/x_mask.png", "--out", "photos"], "would overwrite photos/x_mask.png"),
        (["photos/a.png", "--out", "photos/b.jpg"], "cannot make the folder --out photos/b.jpg"),
        (["photos/a.png", "--weights", "none"], "no weights 'none'"),
        (["photos/a.png", "--device", "toaster"], "no device 'toaster'"),
        (["photos/a.png", "--engine", "steam"], "no engine 'steam'"),
        (["photos/a.png", "--threads", "0"], "threads must be at least 1"),
        (["photos/a.png", "--resolution", "5"], "resolution must be at least 32"),
        (["photos/a.png", "--threshold", "2"], "threshold must be 0 to 1"),
        (["photos/a.png", "--opacity", "2"], "opacity must be 0 to 1"),
        (["photos/a.png", "--tile", "--resolution", "99"], "exclude each other"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    write_image("photos/x.jpg", np.zeros((64, 64, 3), np.uint8))
    write_image("photos/x_mask.png", np.zeros((64, 64, 3), np.uint8))
    before = files(folder)
    assert main(["segment", "--weights", str(tiny_weights), "--device", "cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ecmnet: ")
    assert error.count("\n") == 1
    assert reason in error
    assert files(folder) == before


@pytest.mark.parametrize("arguments", [["evaluate"], ["benchmark", "--weights"], ["average", "camvid"]])
def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    more = ["--out", "none"] if arguments[0] == "average" else []
    assert main([*arguments, "a" * 300, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ecmnet: ")
    assert error.endswith(": File name too long\n")
    assert error.count("\n") == 1


def test_tiles_and_resolution_reach_the_network(folder: Path, tiny_weights: Path) -> None:
    assert segment(tiny_weights, "photos/a.png", "--resolution", "48", "--out", "small") == 0
    assert segment(tiny_weights, "photos/a.png", "--tile", "--out", "tiles") == 0
    segmenter = Segmenter.from_pretrained(tiny_weights, device="cpu")
    image = read_image("photos/a.png")
    for name, answer in [("small", segmenter.predict(image, 48)), ("tiles", segmenter.predict(image, tile=True))]:
        with Image.open(f"{name}/a_mask.png") as mask:
            assert np.array_equal(np.asarray(mask), answer.labels)


def test_info_names_version_devices_and_weights(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights_module, "PACKAGE_FOLDER", tiny_weights.parent)
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    for part in (f"ecmnet-app {ecmnet_app.__version__}", "cpu: ", "eager", "tiny: 258,", "11 classes of CamVid"):
        assert part in output


def test_info_says_what_a_score_is_of(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = {"dataset": "d", "split": "test", "resolution": [36, 48], "pictures": 2, "miou": 0.5, "date": "2025-01-31"}
    whole = metric | {"per_class": dict.fromkeys(CAMVID.names, 0.5), "command": "ecmnet evaluate d --weights scored"}
    part = metric | {
        "per_class": {"Road": 0.5},
        "command": "ecmnet evaluate d --weights 'the best' --only a,b --classes Road",
    }
    net = load_weights(tiny_weights).build()
    save_weights(tmp_path / "scored", net, CAMVID, working_short_side=360, metrics=[whole, part])
    monkeypatch.setattr(weights_module, "PACKAGE_FOLDER", tmp_path)
    assert main(["info"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "mIoU" in line]
    assert lines == [
        "50.00 mIoU on d test, 2 pictures at 48x36 (2025-01-31)",
        "50.00 mIoU over 1 of 11 classes on d test, 2 pictures at 48x36 (2025-01-31): --only a,b --classes Road",
    ]


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    command = [sys.executable, "-m", "ecmnet_app", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == b""  # type: ignore[union-attr]
    assert process.returncode == 2


def test_info_says_which_weights_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights_module, "PACKAGE_FOLDER", tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"")
    (tmp_path / "bad.json").write_text("{}")
    assert main(["info"]) == 2
    assert "bad.json is of format None" in capsys.readouterr().out


def test_evaluate_prints_a_table_or_json(
    tmp_path: Path, make_picture: MakePicture, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for i in range(2):
        write_image(tmp_path / f"camvid/test/d_{i}.png", make_picture(64, 96, i))
        (tmp_path / "camvid/testannot").mkdir(exist_ok=True)
        labels = rng.integers(0, 12, (64, 96), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"camvid/testannot/d_{i}.png"), labels)
    arguments = ["evaluate", str(tmp_path / "camvid"), "--weights", str(tiny_weights), "--device", "cpu"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "mIoU" in table
    assert "- **Road**: " in table
    assert main([*arguments, "--out", str(tmp_path / "pages"), "--beside", str(tmp_path / "camvid")]) == 0
    assert "camvid IoU %" in capsys.readouterr().out
    assert len(list((tmp_path / "pages").iterdir())) == 3
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"]["pictures"] == 2
    assert set(found["scores"]["per_class"]) == set(CAMVID.names)
    assert main(["evaluate", str(tmp_path / "none"), "--weights", str(tiny_weights)]) == 2
    (tmp_path / "in the way").touch()
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "in the way")]) == 2
    assert capsys.readouterr().out == table, "what cannot be stored is said all the same"


def test_calibrate_keeps_the_temperature_where_it_is_told_to(
    tmp_path: Path,
    make_picture: MakePicture,
    tiny_weights: Path,
    city_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    segmenter = Segmenter.from_pretrained(tiny_weights, device="cpu")
    picture = make_picture(96, 128)
    labels = segmenter.predict(picture).labels
    labels[:12] = 10 - labels[:12]  # so that some answers are wrong
    write_image(tmp_path / "camvid/train/d_0.png", picture)
    (tmp_path / "camvid/trainannot").mkdir()
    cv2.imwrite(str(tmp_path / "camvid/trainannot/d_0.png"), labels)
    save_weights(tmp_path / "all", load_weights(tiny_weights).build(), CAMVID, working_short_side=360)
    arguments = ["calibrate", str(tmp_path / "camvid"), "--split", "train", "--weights", str(tiny_weights)]
    assert main(arguments) == 0
    temperature = float(re.findall(r"temperature (\S+), fitted to tiny on 1 pictures", capsys.readouterr().out)[0])
    assert load_weights(tmp_path / "all.safetensors").temperature == 1
    assert main([*arguments, "--into", str(tmp_path / "all.safetensors")]) == 0
    assert load_weights(tmp_path / "all.safetensors").temperature == pytest.approx(temperature, abs=1e-4) != 1
    assert load_weights(tiny_weights).temperature == 1
    capsys.readouterr()
    assert main([*arguments, "--into", "nowhere"]) == 2
    assert "no weights 'nowhere'" in capsys.readouterr().err
    before = city_weights.with_suffix(".json").read_bytes()
    assert main([*arguments, "--into", str(city_weights)]) == 2
    assert "city name the classes of Cityscapes, tiny those of CamVid: a temperature" in capsys.readouterr().err
    assert city_weights.with_suffix(".json").read_bytes() == before

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights_module, "write_atomically", full)
    assert main([*arguments, "--into", str(tmp_path / "all.safetensors")]) == 2
    said = capsys.readouterr()
    assert f"temperature {temperature:.4f}, fitted to tiny" in said.out
    assert "No space left" in said.err


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ecmnet_app", *arguments]


def test_help_shows_examples_and_needs_no_torch() -> None:
    for command in (module.__name__.rpartition(".")[2] for module in COMMANDS):
        found = subprocess.run(run(command, "--help"), capture_output=True, text=True, check=True)
        assert f"examples:\n  ecmnet {command}" in found.stdout
    code = "import sys, ecmnet_app.cli; ecmnet_app.cli.make_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    found = subprocess.run(run("--version"), capture_output=True, text=True, check=True)
    assert found.stdout == f"ecmnet {ecmnet_app.__version__}\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from /proc")
def test_a_cold_run_is_fast_and_a_large_picture_small_in_memory(
    tmp_path: Path, make_picture: MakePicture, tiny_weights: Path
) -> None:
    """1920x1080 in 2 GB and 10 s of two cores, in processor time, which other programs do not lengthen."""
    write_image(tmp_path / "large.jpg", make_picture(1080, 1920))
    code = (
        "import resource, sys\n"
        "from ecmnet_app.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"  # its ru_maxrss would be the parent's, if that is larger
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "unneeded = {'torch._dynamo', 'gradio', 'matplotlib', 'ecmnet_app.training', 'ecmnet_app.ui'}\n"
        "assert not unneeded & set(sys.modules)\n"
        "print(peak, usage.ru_utime + usage.ru_stime)\n"
    )
    arguments = ["segment", str(tmp_path / "large.jpg"), "--out", str(tmp_path), "--weights", str(tiny_weights)]
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--device", "cpu"], capture_output=True, text=True, check=True
    )
    kilobytes, seconds = map(float, found.stdout.split()[-2:])
    assert kilobytes < 2_000_000
    assert seconds < 20
    assert read_image(tmp_path / "large_mask.png").shape == (1080, 1920, 3)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_whole_files_only(tmp_path: Path, make_picture: MakePicture, tiny_weights: Path) -> None:
    for i in range(200):
        write_image(tmp_path / f"photos/{i:03}.jpg", make_picture(120, 160, i))
    out = tmp_path / "out"
    arguments = ["segment", str(tmp_path / "photos"), "--out", str(out), "--weights", str(tiny_weights)]
    process = subprocess.Popen(
        run(*arguments, "--device", "cpu"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    found = list(out.iterdir())
    assert 9 <= len(found) < 600
    for path in found:
        if path.suffix == ".json":
            assert json.loads(path.read_text())["width"] == 160
        else:
            assert read_image(path).shape == (120, 160, 3)
