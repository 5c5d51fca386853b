"""Reliability against its definition, temperatures against known ones, and the whole calibration of a network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from trees import random_pair, write_camvid

from ecmnet_app.core import CAMVID, Segmenter, load_weights, save_weights
from ecmnet_app.core.weights import record_temperature
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.media.images import read_image
from ecmnet_app.training.calibration import Reliability, calibrate, fit_temperature
from ecmnet_app.training.datasets import hash_stems

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ece_known_answer() -> None:
    reliability = Reliability()
    # Half of the pixels at 0.9 are right, all at 0.5 are; the ignored one counts nowhere.
    confidence = np.array([0.9, 0.9, 0.5, 0.5, 0.1], np.float32)
    reliability.update(np.array([0, 1, 2, 2, 0], np.uint8), confidence, np.array([0, 0, 2, 2, 255], np.uint8))
    assert reliability.ece() == pytest.approx(0.5 * 0.4 + 0.5 * 0.5)
    assert reliability.to_dict()["pixels"] == [0] * 7 + [2] + [0] * 5 + [2] + [0]
    assert reliability.to_dict()["accuracy"][13] == 0.5


@pytest.mark.parametrize(("confidence", "where"), [(1 / 15, 0), (0.0, 0), (1.0, 14), (2 / 15 + 1e-6, 2)])
def test_the_upper_end_belongs_to_a_bin(confidence: float, where: int) -> None:
    reliability = Reliability()
    reliability.update(np.zeros(1, np.uint8), np.array([confidence], np.float64), np.zeros(1, np.uint8))
    assert reliability.pixels.argmax() == where


def test_nothing_counted() -> None:
    assert math.isnan(Reliability().ece())
    assert Reliability().to_dict()["ece"] is None


maps = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.uint8, n, elements=st.integers(0, 3)),
        hnp.arrays(np.float32, n, elements=st.floats(0.25, 1, width=32)),
        hnp.arrays(np.uint8, n, elements=st.sampled_from([0, 1, 2, 3, 255])),
    )
)


@given(st.lists(maps, min_size=1, max_size=3))
def test_ece_agrees_with_its_definition(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    reliability = Reliability()
    for part in parts:
        reliability.update(*part)
    pixels = [pixel for part in parts for pixel in zip(*part, strict=True) if pixel[2] != 255]
    if not pixels:
        assert math.isnan(reliability.ece())
        return
    error = 0.0
    for b in range(15):
        inside = [p for p in pixels if b < float(p[1]) * 15 <= b + 1]
        if inside:
            accuracy = sum(p[0] == p[2] for p in inside) / len(inside)
            error += len(inside) / len(pixels) * abs(accuracy - sum(float(p[1]) for p in inside) / len(inside))
    assert reliability.ece() == pytest.approx(error, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(200_000, 5, generator=generator)
    target = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(honest * temperature, target) == pytest.approx(temperature, rel=0.02)


def test_no_other_temperature_is_better() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(500, 4, generator=generator)
    target = torch.where(torch.rand(500, generator=generator) < 0.6, logits.argmax(1), 0)
    found = fit_temperature(logits, target)
    nll = {t: float(torch.nn.functional.cross_entropy(logits.double() / t, target)) for t in np.geomspace(0.1, 10, 500)}
    assert found == pytest.approx(min(nll, key=nll.__getitem__), rel=0.01)
    assert torch.nn.functional.cross_entropy(logits.double() / found, target) <= min(nll.values())


@pytest.mark.parametrize("always", [True, False])
def test_pixels_that_are_all_right_or_all_wrong_have_no_best_temperature(always: bool) -> None:
    logits = torch.eye(4)
    target = torch.arange(4) if always else (torch.arange(4) + 1) % 4
    with pytest.raises(ConfigError, match=r"no temperature from 0\.05 to 20\.0 is best for these 4 pixels"):
        fit_temperature(logits, target)


@pytest.fixture
def unsure(tmp_path: Path, tiny_weights: Path) -> tuple[Path, Path]:
    """A data set of two drives on which tiny weights are right in most blocks, and those weights, too sure of it."""
    segmenter = Segmenter.from_pretrained(tiny_weights, "cpu", "eager")
    rng = np.random.default_rng(0)
    for seed, stem in enumerate(["A_1", "A_2", "B_1"]):
        image, _ = random_pair(seed, 64, 96, [0])
        answer = segmenter.predict(image).labels
        noise = np.kron(rng.random((16, 24)) < 0.2, np.ones((4, 4), bool))
        write_camvid(tmp_path / "streets", "train", stem, image, np.where(noise, (answer + 1) % 11, answer))
    return tmp_path / "streets", tiny_weights


def test_calibrate_brings_confidence_to_accuracy(unsure: tuple[Path, Path]) -> None:
    root, weights = unsure
    found = calibrate(root, "train", weights, "cpu", only="A")
    assert found.pictures == 2
    assert found.pixels == 2 * 16 * 24
    assert found.nll[1] < found.nll[0]
    segmenter = Segmenter.from_pretrained(weights, "cpu", "eager")
    # By plain means, on every 4th pixel of every 4th row: no other temperature is better.
    logits, targets = [], []
    for stem in ("A_1", "A_2"):
        scores = segmenter.logits(read_image(root / "train" / f"{stem}.png"))
        full = torch.nn.functional.interpolate(scores, (64, 96), mode="bilinear")[0, :, 2::4, 2::4]
        logits.append(full.flatten(1).T.double())
        with Image.open(root / "trainannot" / f"{stem}.png") as labels:
            targets.append(torch.from_numpy(np.array(labels)[2::4, 2::4].flatten()).long())
    nll = {
        t: float(torch.nn.functional.cross_entropy(torch.cat(logits) / t, torch.cat(targets)))
        for t in [1.0, found.temperature, *np.geomspace(0.1, 15, 200)]
    }
    assert found.nll == pytest.approx((nll[1.0], nll[found.temperature]), rel=1e-4)
    assert nll[found.temperature] == min(nll.values())
    assert f"temperature {found.temperature:.4f}, fitted to tiny on 2 pictures" in found.table()


def test_pictures_of_the_training_are_refused(unsure: tuple[Path, Path], tmp_path: Path) -> None:
    root, weights = unsure
    trained = {
        "data": [],
        "recipe": {"data": [{"name": "streets", "split": "train+val", "leave_out": "B", "only": None}]},
    }
    net = load_weights(weights).build()
    save_weights(tmp_path / "left_out_b", net, CAMVID, working_short_side=360, training=trained)
    with pytest.raises(ConfigError, match=r"left_out_b, or .*, were trained on 2 of these 3 .* as A_1; .* --into"):
        calibrate(root, "train", tmp_path / "left_out_b.safetensors", "cpu")
    assert calibrate(root, "train", tmp_path / "left_out_b.safetensors", "cpu", only="B").pictures == 1


def saved(path: Path, weights: Path, **recipe: object) -> Path:
    """The weights under another name, with a training of this recipe; the path of the file."""
    data = recipe.pop("told", [])
    training = {"data": data, "recipe": recipe}
    save_weights(path, load_weights(weights).build(), CAMVID, working_short_side=360, training=training)
    return path.with_suffix(".safetensors")


def source(**fields: object) -> dict[str, object]:
    return {"name": "streets", "split": "train", "leave_out": None, "only": None, "terms": "", "source": "", **fields}


def test_pictures_that_an_ancestor_saw_are_refused(unsure: tuple[Path, Path], tmp_path: Path) -> None:
    root, weights = unsure
    first = {"sha256": "s0", "data": [], "recipe": {"data": [source(only="B")]}}
    for name, origin in (("from", {"initial": first}), ("mean", {"average": [{"sha256": "s1"}, first]})):
        file = saved(tmp_path / name, weights, data=[source(only="A_1")], **origin)
        with pytest.raises(ConfigError, match="trained on 1 of these 1 pictures, such as B_1"):
            calibrate(root, "train", file, "cpu", only="B")
        with pytest.raises(ConfigError, match="trained on 1 of these 2 pictures, such as A_1"):
            calibrate(root, "train", file, "cpu", only="A")
        assert calibrate(root, "train", file, "cpu", only="A_2").pictures == 1


def test_a_drive_that_is_not_here_is_no_hindrance(unsure: tuple[Path, Path], tmp_path: Path) -> None:
    root, weights = unsure
    file = saved(tmp_path / "other", weights, data=[source(split="train+val", only="C,D"), source(leave_out="A,B,E")])
    assert calibrate(root, "train", file, "cpu").pictures == 3


def test_pictures_of_the_training_are_known_under_another_folder(unsure: tuple[Path, Path], tmp_path: Path) -> None:
    root, weights = unsure
    told = [source(name="mine", leave_out="B", pictures=2, stems=hash_stems(["A_1", "A_2"]))]
    file = saved(tmp_path / "seen", weights, data=[source(name="mine", leave_out="B")], told=told)
    with pytest.raises(ConfigError, match="trained on 2 of these 3 pictures, such as A_1"):
        calibrate(root, "train", file, "cpu")
    assert calibrate(root, "train", file, "cpu", only="B").pictures == 1
    told[0]["stems"] = hash_stems(["A_1", "A_3"])
    other = saved(tmp_path / "other", weights, data=[source(name="mine", leave_out="B")], told=told)
    assert calibrate(root, "train", other, "cpu").pictures == 3


def test_camvid_is_known_by_its_drives(unsure: tuple[Path, Path], tmp_path: Path) -> None:
    root, weights = unsure
    file = saved(tmp_path / "scratch", weights, data=[source(name="camvid", split="train+val")])
    assert calibrate(root, "train", file, "cpu").pictures == 3
    for folder in ("train", "trainannot"):
        (root / folder / "B_1.png").rename(root / folder / "0001TP_1.png")
    with pytest.raises(ConfigError, match="trained on 1 of these 3 pictures, such as 0001TP_1"):
        calibrate(root, "train", file, "cpu")


def test_the_temperature_is_kept_with_the_weights_and_used(tiny_weights: Path, tmp_path: Path) -> None:
    before = load_weights(tiny_weights)
    path = tmp_path / "kept.safetensors"
    save_weights(path, before.build(), CAMVID, working_short_side=360)
    record_temperature(path, 3.0)
    after = load_weights(path)
    assert (after.temperature, after.sha256) == (3.0, before.sha256)
    image, _ = random_pair(0, 64, 96, [0])
    cold, warm = (Segmenter.from_pretrained(p, "cpu", "eager").predict(image) for p in (tiny_weights, path))
    np.testing.assert_array_equal(cold.labels, warm.labels)
    assert (warm.confidence <= cold.confidence).all()
    assert warm.confidence.mean() < cold.confidence.mean()
    with pytest.raises(WeightsError, match="temperature must be above 0"):
        record_temperature(path, 0.0)
    assert load_weights(path).temperature == 3.0
