"""The mean of weights: known values, and what has no mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_nets import FEW_BLOCKS

from ecmnet_app.cli import main
from ecmnet_app.core import load_weights
from ecmnet_app.core.labels import CAMVID
from ecmnet_app.core.weights import Weights, save_weights
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.training.averaging import average_weights

SOURCE = {"name": "CamVid", "terms": "research", "source": "a page", "split": "train"}


def saved(
    path: Path,
    value: float,
    *,
    start: str | None = "s0",
    variant: str = "A2",
    side: int = 360,
    initial: dict[str, object] | None = None,
) -> Weights:
    """Weights whose every floating value is `value`."""
    blocks = {name: getattr(FEW_BLOCKS, name) for name in ("dilations", "decoder_dilations")}
    net = ECMNet(replace(ECMNetConfig.named(variant), **blocks))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(value)
    recipe: dict[str, object] = {
        "steps": 3,
        "data": [SOURCE],
        **({} if start is None else {"initial": {"sha256": start}}),
    }
    if initial is not None:
        recipe["initial"] = initial
    training = {"data": [SOURCE, {**SOURCE, "name": path.name}], "recipe": recipe}
    return save_weights(
        path, net, CAMVID, working_short_side=side, training=training, licence=f"as {value}", temperature=2
    )


def test_known_values(tmp_path: Path) -> None:
    parts = [saved(tmp_path / f"part{value:g}", value) for value in (1.0, 2.0, 6.0)]
    mean = average_weights([tmp_path / f"part{value:g}.safetensors" for value in (1.0, 2.0, 6.0)], tmp_path / "mean")
    assert load_weights(tmp_path / "mean.safetensors").to_dict() == mean.to_dict()
    assert all((t == 3).all() for t in mean.tensors.values() if t.is_floating_point())
    assert (mean.name, mean.temperature, mean.metrics, mean.licence) == ("mean", 1, (), "as 1.0 as 2.0 as 6.0")
    assert [source["name"] for source in mean.training["data"]] == ["CamVid", "part1", "part2", "part6"]
    assert mean.training["recipe"]["data"] == [SOURCE]
    assert [part["sha256"] for part in mean.training["recipe"]["average"]] == [part.sha256 for part in parts]


def test_with_the_weights_that_the_other_started_from(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", 1, start=None)
    saved(tmp_path / "second", 3, start=first.sha256)
    mean = average_weights([tmp_path / "first.safetensors", tmp_path / "second.safetensors"], tmp_path / "mean")
    assert all((t == 2).all() for t in mean.tensors.values() if t.is_floating_point())


def test_a_network_that_comes_up_again_is_told_once(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", 1, start=None)
    initial = {"name": "first", "sha256": first.sha256, **first.training}
    second = saved(tmp_path / "second", 3, initial=initial)
    paths = [tmp_path / "second.safetensors", tmp_path / "first.safetensors"]
    parts = average_weights(paths, tmp_path / "mean", [3, 1]).training["recipe"]["average"]
    assert parts[0] == {"name": "second", "share": 0.75, "sha256": second.sha256, **second.training}
    assert parts[0]["recipe"]["initial"] == initial
    assert parts[1] == {"name": "first", "share": 0.25, "sha256": first.sha256}
    average_weights([tmp_path / "mean.safetensors", *paths], tmp_path / "again")  # their common start is still known


def test_some_count_more(tmp_path: Path) -> None:
    names = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 5)
    mean = average_weights(names, tmp_path / "mean", [3, 1])
    assert all((t == 2).all() for t in mean.tensors.values() if t.is_floating_point())
    assert [part["share"] for part in mean.training["recipe"]["average"]] == [0.75, 0.25]
    for shares in ([1], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(ConfigError, match="2 weights need as many shares, each above 0"):
            average_weights(names, tmp_path / "other", shares)
    assert not (tmp_path / "other.safetensors").exists()


def test_the_common_start_may_lie_further_back(tmp_path: Path) -> None:
    """One started from s0; the other from weights that are the mean of some from s0 and some from s1."""
    saved(tmp_path / "a", 1)
    older = {"sha256": "m", "recipe": {"average": [{"sha256": "x", "recipe": {}}, {"sha256": "s0", "recipe": {}}]}}
    saved(tmp_path / "b", 2, start=None, initial=older)
    average_weights([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "mean")
    older["recipe"]["average"].pop()  # type: ignore[index]
    saved(tmp_path / "c", 2, start=None, initial=older)
    with pytest.raises(WeightsError, match="did not start from the same weights"):
        average_weights([tmp_path / "a.safetensors", tmp_path / "c.safetensors"], tmp_path / "mean")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"start": "s1"}, "did not start from the same weights"),
        ({"start": None}, "did not start from the same weights"),
        ({"variant": "A1"}, "differ in architecture"),
        ({"side": 512}, "working size"),
    ],
)
def test_what_has_no_mean(tmp_path: Path, other: dict[str, object], message: str) -> None:
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 2, **other)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=message):
        average_weights([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "mean")
    assert not (tmp_path / "mean.safetensors").exists()


def test_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 2)
    names = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    assert main(["average", *names, "--out", str(tmp_path / "mean")]) == 0
    assert "mean of 2 weights" in capsys.readouterr().out
    assert load_weights(tmp_path / "mean.safetensors").name == "mean"
    assert main(["average", names[0], "--out", str(tmp_path / "one")]) == 2
    assert "two weights or more" in capsys.readouterr().err
    assert main(["average", *names, "--out", str(tmp_path / "whole.safetensors")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'whole'}.safetensors and whole.json: ")
    assert sorted(path.name for path in tmp_path.glob("whole*")) == ["whole.json", "whole.safetensors"]


def test_a_mean_does_not_take_the_place_of_its_parts(tmp_path: Path) -> None:
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 2)
    before = (tmp_path / "b.safetensors").read_bytes()
    names = [tmp_path / "a.safetensors", tmp_path / "b.json"]
    for out in (tmp_path / "b", tmp_path / "c" / ".." / "b.safetensors"):
        with pytest.raises(WeightsError, match=r"the mean would take the place of .*b, one of its parts"):
            average_weights(names, out)
    assert (tmp_path / "b.safetensors").read_bytes() == before
