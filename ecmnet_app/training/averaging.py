"""The mean of several trained networks as one network (Wortsman et al., "Model soups", ICML 2022).

Networks that were trained from the same weights, on different data, lie in one valley: what is between them answers
about as well as each does on its own data, at the cost of one. Others do not, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecmnet_app.core.weights import Weights, load_weights, save_weights, tensors_file
from ecmnet_app.errors import ConfigError, WeightsError

__all__ = ["average_weights", "lineage", "told_once"]


def average_weights(names: Sequence[str | Path], out: Path, shares: Sequence[float] | None = None) -> Weights:
    """Write the mean of weights that started from the same ones.

    Args:
        names: of two or more weights, or paths of their .safetensors files.
        out: path of the new ones, without suffix or with .safetensors; its last part is their name.
        shares: how much each counts, relative to the others; by default all alike.

    Returns:
        The new weights: temperature 1, no metrics; their recipe holds each part's share, sha256 and training, and
        tells of a network that comes up several times, as a part's start or teacher, once.

    Raises:
        ConfigError: the shares are not one positive number for each.
        WeightsError: fewer than two, or they differ in architecture, classes, normalisation or working size, or
            they did not start from the same weights; or `out` is one of them; or a file cannot be read or written.
    """
    if len(names) < 2:
        raise WeightsError("a mean needs two weights or more")
    shares = [1.0] * len(names) if shares is None else shares
    if len(shares) != len(names) or not all(0 < share < float("inf") for share in shares):
        raise ConfigError(f"{len(names)} weights need as many shares, each above 0, not {list(shares)}")
    parts = [load_weights(name) for name in names]
    out = out.with_suffix("") if out.suffix in (".safetensors", ".json") else out
    target = out.with_name(f"{out.name}.safetensors").resolve()
    if any(tensors_file(name).resolve() == target for name in names):
        raise WeightsError(f"the mean would take the place of {out}, one of its parts; choose another name for it")
    first = parts[0]
    for other in parts[1:]:
        if _kind(other) != _kind(first):
            raise WeightsError(
                f"{other.name} and {first.name} differ in architecture, classes, normalisation or working size, so "
                "that they have no mean"
            )
        if not lineage(other.sha256, other.training).keys() & lineage(first.sha256, first.training).keys():
            raise WeightsError(
                f"{other.name} and {first.name} did not start from the same weights, so that their mean knows "
                "nothing; train both with the same --initial"
            )
    network = first.build()
    network.load_state_dict({key: _mean([part.tensors[key] for part in parts], shares) for key in first.tensors})
    return save_weights(
        out,
        network,
        first.label_set,
        working_short_side=first.working_short_side,
        mean=first.mean,
        std=first.std,
        training={
            "data": _once(source for part in parts for source in part.training["data"]),
            "recipe": {
                "average": told_once(
                    [
                        {"name": part.name, "share": share / sum(shares), "sha256": part.sha256, **part.training}
                        for part, share in zip(parts, shares, strict=True)
                    ]
                ),
                "data": _once(source for part in parts for source in part.training["recipe"].get("data", ())),
            },
        },
        licence=" ".join(dict.fromkeys(part.licence for part in parts)),
    )


def _once(sources: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    kept: list[Mapping[str, Any]] = []
    for source in sources:
        if source not in kept:
            kept.append(source)
    return kept


def _kind(weights: Weights) -> tuple[object, ...]:
    return weights.architecture, weights.label_set, weights.mean, weights.std, weights.working_short_side


def told_once(record: Any, told: set[str] | None = None) -> Any:
    """The record with the training of each network where it first comes up; after that its sha256 stands for it.

    Args:
        record: JSON types; an object with a `sha256` is a network.
        told: the sha256 of those that have come up; added to.
    """
    told = set() if told is None else told
    if isinstance(record, list):
        return [told_once(entry, told) for entry in record]
    if not isinstance(record, dict):
        return record
    if "sha256" in record:
        if record["sha256"] in told:
            return {key: record[key] for key in ("name", "share", "sha256") if key in record}
        told.add(record["sha256"])
    return {key: told_once(value, told) for key, value in record.items()}


def lineage(sha256: str, training: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The trainings, by sha256, of weights, of those that they were trained from, and of what those came from."""
    recipe = training.get("recipe", {})
    parents = [*recipe.get("average", ()), *([recipe["initial"]] if "initial" in recipe else ())]
    found = {sha256: training}
    for parent in parents:
        for ancestor, told in lineage(parent["sha256"], parent).items():
            if "recipe" in told or ancestor not in found:  # what comes up again is told in full but once
                found[ancestor] = told
    return found


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """In the type of the first; counts of batches are no quantities to average, and nothing reads them."""
    if not values[0].is_floating_point():
        return values[0]
    total = sum(value.double() * share for value, share in zip(values, shares, strict=True))
    return (torch.as_tensor(total) / sum(shares)).to(values[0].dtype)
