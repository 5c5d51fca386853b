"""What `ecmnet export` writes, run by ONNX Runtime as its user would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ecmnet_app
from ecmnet_app.cli import main
from ecmnet_app.core import CAMVID, Segmenter, load_weights
from ecmnet_app.media import read_image

MakePicture = Callable[..., NDArray[np.uint8]]


def open_file(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_a_file_for_every_size_answers_as_the_segmenter(
    tiny_weights: Path, make_picture: MakePicture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "tiny.onnx"
    assert main(["export", "--weights", str(tiny_weights), "--format", "onnx", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: tiny, uint8 RGB pictures of any size to labels and confidence\n"
    session = open_file(path)
    segmenter = Segmenter.from_pretrained(tiny_weights, device="cpu", engine="eager")
    for size in ((97, 131), (64, 96)):
        picture = make_picture(*size)
        answer = segmenter.predict(picture)
        labels, confidence = session.run(["labels", "confidence"], {"pictures": picture[None]})
        assert (labels[0] == answer.labels).mean() > 0.9999
        np.testing.assert_allclose(confidence[0], answer.confidence, atol=1e-3)


def test_a_file_for_one_size_takes_that_size_alone(
    tiny_weights: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    assert main(["export", "--weights", str(tiny_weights), "--out", str(path), "--size", "64x96"]) == 0
    session = open_file(path)
    assert session.get_inputs()[0].shape == [1, 64, 96, 3]
    assert {output.name: (output.shape, output.type) for output in session.get_outputs()} == {
        "labels": ([1, 64, 96], "tensor(uint8)"),
        "confidence": ([1, 64, 96], "tensor(float)"),
    }
    session.run(None, {"pictures": make_picture(64, 96)[None]})
    with pytest.raises(Exception, match="Got invalid dimensions"):
        session.run(None, {"pictures": make_picture(96, 64)[None]})


def test_the_metadata_say_what_it_is(tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    assert main(["export", "--weights", str(tiny_weights), "--out", str(path), "--size", "32x32"]) == 0
    about = open_file(path).get_modelmeta()
    weights = load_weights(tiny_weights)
    found = about.custom_metadata_map
    assert json.loads(found["labels"]) == {str(label.id): label.name for label in CAMVID.labels}
    assert json.loads(found["colors"]) == {str(label.id): list(label.color) for label in CAMVID.labels}
    assert (json.loads(found["mean"]), json.loads(found["std"])) == (list(weights.mean), list(weights.std))
    assert (found["name"], found["sha256"], found["licence"]) == ("tiny", weights.sha256, weights.licence)
    assert (found["working_short_side"], float(found["temperature"])) == ("360", weights.temperature)
    assert about.producer_name == "ecmnet-app"
    assert ecmnet_app.__version__ in path.read_bytes()[:100].decode("ascii", "replace")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "31x64"], "a size must be at least 32x32 pixels, not 31x64"),
        (["--weights", "none"], "no weights 'none'"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert main(["export", "--out", str(tmp_path / "x.onnx"), *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--out", str(tmp_path / "street.txt")]) == 2
    assert "a file that ends in .onnx" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["export", "--out", str(tmp_path / "file" / "x.onnx"), "--size", "32x32"]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["360", "x480", "360x", "-1x480", "360x480x3", "²x32"])
def test_a_size_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--out", str(tmp_path / "x.onnx"), f"--size={size}"])
    assert "write HEIGHTxWIDTH, such as 360x480, or dynamic" in capsys.readouterr().err


def test_real_pictures_get_equal_labels(camvid: Path, tmp_path: Path) -> None:
    path = tmp_path / "camvid.onnx"
    assert main(["export", "--out", str(path), "--size", "360x480"]) == 0
    session = open_file(path)
    segmenter = Segmenter.from_pretrained(device="cpu", engine="eager")
    for name in sorted((camvid / "val").iterdir())[::40]:
        picture = read_image(name)
        labels, _ = session.run(None, {"pictures": picture[None]})
        assert (labels[0] == segmenter.predict(picture).labels).mean() > 0.9999
