from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ecmnet_app.core import weights as weights_module
from ecmnet_app.core.labels import CAMVID
from ecmnet_app.core.weights import available_weights, load_weights, save_weights
from ecmnet_app.errors import WeightsError
from ecmnet_app.network import ECMNet, ECMNetConfig

METRIC = {
    "dataset": "CamVid",
    "split": "test",
    "resolution": [360, 480],
    "pictures": 233,
    "miou": 0.64,
    "per_class": {"Sky": 0.9},
    "date": "2026-01-31",
    "command": "ecmnet evaluate",
}


@pytest.fixture
def pair(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy of the untrained weights to damage: the path of its .safetensors."""
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"tiny{suffix}").write_bytes(tiny_weights.with_suffix(suffix).read_bytes())
    return tmp_path / "tiny.safetensors"


def rewrite_card(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    change(card)
    path.with_suffix(".json").write_text(json.dumps(card))


def rewrite_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, and vouch for them in the JSON."""
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(data := safetensors.torch.save(tensors))
    rewrite_card(path, lambda card: card.update(sha256=hashlib.sha256(data).hexdigest()))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    config = ECMNetConfig.named("A2")
    net = ECMNet(config).eval()
    training = {
        "data": [{"name": "CamVid", "terms": "research", "source": "a page", "split": "train"}],
        "recipe": {"steps": 3},
    }
    saved = save_weights(
        tmp_path / "v1.2",  # a dot in the name is no suffix
        net,
        CAMVID,
        working_short_side=360,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        temperature=1.25,
        metrics=[METRIC],
        training=training,
        licence="research only",
    )
    loaded = load_weights(tmp_path / "v1.2.safetensors")
    assert loaded.to_dict() == saved.to_dict()
    assert loaded.name == "v1.2"
    assert loaded.architecture == config
    assert loaded.label_set == CAMVID
    assert (loaded.mean, loaded.std, loaded.temperature) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1.25)
    assert loaded.metrics[0]["miou"] == 0.64
    assert loaded.sha256 == hashlib.sha256((tmp_path / "v1.2.safetensors").read_bytes()).hexdigest()
    x = torch.randn(1, 3, 33, 47)
    with torch.inference_mode():
        assert torch.equal(loaded.build()(x), net(x))


def test_a_built_network_shares_nothing_with_the_next(tiny_weights: Path) -> None:
    weights = load_weights(tiny_weights)
    first = weights.build()
    assert not first.training
    with torch.no_grad():
        first.classifier.weight.zero_()
    assert weights.build().classifier.weight.abs().sum() > 0


def test_either_file_of_the_pair_names_it(tiny_weights: Path) -> None:
    assert load_weights(tiny_weights.with_suffix(".json")).sha256 == load_weights(str(tiny_weights)).sha256


def test_names_resolve_inside_the_package(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "PACKAGE_FOLDER", pair.parent)
    monkeypatch.setattr(weights_module, "DEFAULT_WEIGHTS", "tiny")
    assert available_weights() == ["tiny"]
    assert load_weights().name == load_weights("tiny").name == "tiny"
    with pytest.raises(WeightsError, match="no weights 'huge'; give one of default, tiny"):
        load_weights("huge")
    with pytest.raises(WeightsError, match="no weights"):
        load_weights("../tiny")
    for name in ("ample", "zeal"):
        for suffix in (".safetensors", ".json"):
            shutil.copy(pair.parent / f"tiny{suffix}", pair.parent / f"{name}{suffix}")
    (pair.parent / "alone.safetensors").write_bytes(b"")
    assert available_weights() == ["tiny", "ample", "zeal"], "the default first"


def set_to(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        target: Any = card
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_to("format", value=2), "format 2, this version reads format 1"),
        (lambda card: card.pop("format"), "format None"),
        (lambda card: card.pop("licence"), "lacks the field 'licence'"),
        (set_to("colour", value=1), "does not know: 'colour'"),
        (set_to("mean", value=[0.1, 0.2]), "mean must be three numbers"),
        (set_to("mean", value=["0", "0", "0"]), "mean must be three numbers"),
        (set_to("mean", value=[0.1, 0.2, float("nan")]), "mean must be three numbers"),
        (set_to("std", value=[0.1, 0.0, 0.2]), "std must be above 0"),
        (set_to("temperature", value=0), "temperature must be above 0"),
        (set_to("temperature", value=float("nan")), "temperature must be above 0"),
        (set_to("temperature", value=10**400), "too large"),
        (set_to("temperature", value=True), "temperature has the wrong type, bool"),
        (set_to("working_short_side", value=31), "working_short_side must be at least 32"),
        (set_to("working_short_side", value="360"), "working_short_side has the wrong type, str"),
        (set_to("labels", "labels", value=CAMVID.to_dict()["labels"][:10]), "10 classes, but .* num_classes 11"),
        (set_to("labels", "labels", 0, "color", value=[0, 0, 300]), "colour of 'Sky'"),
        (set_to("architecture", "num_classes", value=19), "11 classes, but .* num_classes 19"),
        (set_to("architecture", "depth", value=19), "unknown field 'depth'"),
        (set_to("architecture", "widths", value=[32, 64]), "widths"),
        (set_to("architecture", "widths", value=[64, 256, 16]), "but must be"),
        (set_to("architecture", "widths", value=[10**6, 2 * 10**6, 16]), "but must be"),  # and is not allocated
        (set_to("architecture", "long_connections", value=2), "tensors are missing"),
        (set_to("metrics", value=[{"miou": 1}]), "a metric lacks command, dataset, date"),
        (set_to("metrics", value=[1]), "metrics must be objects"),
        (set_to("training", value={}), "training must hold data and recipe"),
        (set_to("training", "data", value=5), "data must be a list"),
        (set_to("training", "recipe", value=[]), "recipe must be an object"),
        (set_to("training", "data", value=[{"name": "CamVid"}]), "a set of training data lacks source, terms"),
        (set_to("sha256", value="0" * 64), "does not belong to tiny.json: .*copy both files again"),
    ],
)
def test_a_json_that_does_not_fit_is_refused_with_the_reason(
    pair: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    rewrite_card(pair, change)
    with pytest.raises(WeightsError, match=reason):
        load_weights(pair)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\xff", "[" * 100_000])
def test_what_is_not_a_json_object_is_refused(pair: Path, text: str) -> None:
    pair.with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"tiny\.json (is not JSON|must hold)"):
        load_weights(pair)


@pytest.mark.parametrize("kept", [0, 4, 8, 1000, -1])
def test_a_truncated_file_is_refused(pair: Path, kept: int) -> None:
    pair.write_bytes(pair.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"not a whole \.safetensors file"):
        load_weights(pair)


def test_a_flipped_bit_is_refused(pair: Path) -> None:
    data = bytearray(pair.read_bytes())
    data[-5] ^= 1
    pair.write_bytes(data)
    with pytest.raises(WeightsError, match="does not belong"):
        load_weights(pair)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("classifier.bias"), "1 tensors are missing, 'classifier.bias'"),
        (lambda t: t.update({"head.bias": torch.zeros(1)}), "not of this architecture, 'head.bias'"),
        (
            lambda t: t.update({"classifier.bias": torch.zeros(19)}),
            r"'classifier.bias' is .*\(19,\), but must be .*\(11,\)",
        ),
        (lambda t: t.update({"classifier.bias": torch.zeros(11).half()}), "float16 .* but must be torch.float32"),
        (lambda t: t["classifier.bias"].fill_(float("nan")), "'classifier.bias' holds infinite values or NaN"),
        (lambda t: [t.clear(), t.update(weight=torch.ones(3))], "tensors are missing"),
    ],
)
def test_foreign_tensors_are_refused_with_the_reason(
    pair: Path, change: Callable[[dict[str, torch.Tensor]], object], reason: str
) -> None:
    rewrite_tensors(pair, change)
    with pytest.raises(WeightsError, match=reason):
        load_weights(pair)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl"])
def test_pickles_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(WeightsError, match=r"pickled code.*use a \.safetensors file"):
        load_weights(tmp_path / f"model{suffix}")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_pickle_under_another_name_is_not_run(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair.parent)
    pair.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match=r"not a whole \.safetensors file"):
        load_weights(pair)
    assert not Path("exploded").exists()


def test_a_missing_file_is_named(pair: Path) -> None:
    pair.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"tiny\.json does not exist"):
        load_weights(pair)
    with pytest.raises(WeightsError, match=r"none\.json does not exist"):
        load_weights(pair.with_name("none.safetensors"))
    pair.with_suffix(".json").mkdir()
    with pytest.raises(WeightsError, match="cannot read"):
        load_weights(pair)


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"11 classes, but .* num_classes 3"):
        save_weights(tmp_path / "three", ECMNet(ECMNetConfig(num_classes=3)), CAMVID, working_short_side=360)
    assert list(tmp_path.iterdir()) == []
