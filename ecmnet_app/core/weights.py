"""Weights: a .safetensors file of tensors beside a JSON file that says what they are. Format 1, no pickle.

The JSON holds, and `load_weights` checks:

    format                1
    name                  of these weights, for people
    architecture          ECMNetConfig.to_dict()
    labels                LabelSet.to_dict()
    mean, std             of each RGB channel, on 0 to 1
    working_short_side    pixels; pictures with a longer short side are resized down to it
    temperature           logits are divided by it before the softmax
    metrics               [{dataset, split, resolution: [h, w], pictures, miou, per_class: {name: iou}, date, command}]
    training              {data: [{name, terms, source}], recipe: {...}}
    licence               of the weights, which the data's terms decide
    sha256                of the .safetensors file's bytes
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ecmnet_app.core.labels import LabelSet
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.network import MIN_SIZE, ECMNet, ECMNetConfig

__all__ = [
    "DEFAULT_WEIGHTS",
    "FORMAT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Weights",
    "available_weights",
    "load_weights",
    "record_metric",
    "record_temperature",
    "save_weights",
    "tensors_file",
]

FORMAT = 1
DEFAULT_WEIGHTS = "street"
"""What the name "default" stands for."""
_METRIC = {"dataset", "split", "resolution", "pictures", "miou", "per_class", "date", "command"}
_DATA_SOURCE = {"name", "terms", "source"}
PACKAGE_FOLDER = Path(__file__).parent.parent / "weights"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors of a trained ECMNet and what its JSON says of them.

    Raises:
        WeightsError: a value cannot be, or two of them do not fit; the message says which.
    """

    name: str
    architecture: ECMNetConfig
    label_set: LabelSet
    mean: tuple[float, float, float]
    """Of each RGB channel, on 0 to 1."""
    std: tuple[float, float, float]
    working_short_side: int
    """Pixels; pictures with a longer short side are resized down to it."""
    temperature: float
    """Logits are divided by it before the softmax."""
    metrics: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]
    licence: str
    sha256: str
    """Of the .safetensors file's bytes, lower-case hex."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        def check(condition: bool, message: str) -> None:
            if not condition:
                raise WeightsError(message)

        classes = self.architecture.num_classes
        check(bool(self.name), "name is empty")
        check(
            len(self.label_set) == classes,
            f"labels name {len(self.label_set)} classes, but the architecture has num_classes {classes}",
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            check(
                len(values) == 3 and all(math.isfinite(v) for v in values),
                f"{name} must be three numbers, one for each of R, G and B, not {list(values)}",
            )
        check(min(self.std) > 0, f"std must be above 0, not {list(self.std)}")
        check(
            self.working_short_side >= MIN_SIZE,
            f"working_short_side must be at least {MIN_SIZE} pixels, not {self.working_short_side}",
        )
        check(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"temperature must be above 0, not {self.temperature}",
        )
        for metric in self.metrics:
            check(isinstance(metric, Mapping), f"metrics must be objects, not {type(metric).__name__}")
            check(not (lacks := _METRIC - metric.keys()), f"a metric lacks {', '.join(sorted(lacks))}")
        check(self.training.keys() == {"data", "recipe"}, "training must hold data and recipe, and nothing else")
        data, recipe = self.training["data"], self.training["recipe"]
        check(isinstance(data, Sequence) and not isinstance(data, str), "the training's data must be a list")
        check(isinstance(recipe, Mapping), "the training's recipe must be an object")
        for source in data:
            check(isinstance(source, Mapping), f"the training's data must be objects, not {type(source).__name__}")
            check(
                not (lacks := _DATA_SOURCE - source.keys()), f"a set of training data lacks {', '.join(sorted(lacks))}"
            )

    def build(self) -> ECMNet:
        """The network with these tensors, in eval mode, on the CPU.

        Raises:
            WeightsError: a tensor is missing, has another shape or type, holds NaN, or is not the architecture's.
        """
        with torch.device("meta"):  # shapes without values: nothing is initialised, or allocated for a foreign JSON
            net = ECMNet(self.architecture)
        wanted = net.state_dict()
        if missing := sorted(wanted.keys() - self.tensors.keys()):
            raise WeightsError(f"{len(missing)} tensors are missing, {missing[0]!r} the first")
        if unknown := sorted(self.tensors.keys() - wanted.keys()):
            raise WeightsError(f"{len(unknown)} tensors are not of this architecture, {unknown[0]!r} the first")
        for name, tensor in self.tensors.items():
            found, needed = ((t.dtype, tuple(t.shape)) for t in (tensor, wanted[name]))
            if found != needed:
                raise WeightsError(
                    f"tensor {name!r} is {found[0]} of {found[1]}, but must be {needed[0]} of {needed[1]}"
                )
            if not tensor.isfinite().all():
                raise WeightsError(f"tensor {name!r} holds infinite values or NaN; the training diverged")
        net.load_state_dict({name: tensor.clone() for name, tensor in self.tensors.items()}, assign=True)
        return net.eval()

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {
            "format": FORMAT,
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "labels": self.label_set.to_dict(),
            "mean": list(self.mean),
            "std": list(self.std),
            "working_short_side": self.working_short_side,
            "temperature": self.temperature,
            "metrics": [dict(m) for m in self.metrics],
            "training": dict(self.training),
            "licence": self.licence,
            "sha256": self.sha256,
        }


def available_weights() -> list[str]:
    """Names of the weights that ship with the package, the default first."""
    names = (path.stem for path in PACKAGE_FOLDER.glob("*.safetensors") if path.with_suffix(".json").exists())
    return sorted(names, key=lambda name: (name != DEFAULT_WEIGHTS, name))


def load_weights(name_or_path: str | os.PathLike[str] = "default") -> Weights:
    """Read and check weights.

    Args:
        name_or_path: "default", the name of weights that ship with the package, or the path of a .safetensors
            file that has its .json beside it.

    Raises:
        WeightsError: there are none such, or the files are damaged, foreign or do not fit each other.
    """
    tensors_path = tensors_file(name_or_path)
    card_path = tensors_path.with_suffix(".json")
    card = _parse_card(_read(card_path), card_path)
    data = _read(tensors_path)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{tensors_path} is not a whole .safetensors file ({error}); copy it again") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if card["sha256"] != sha256:
        raise WeightsError(
            f"{tensors_path} does not belong to {card_path.name}: its sha256 is {sha256[:12]}..., "
            f"the JSON says {card['sha256'][:12]}...; copy both files again, together"
        )
    try:
        weights = _from_card(card, tensors)
        weights.build()
    except (WeightsError, ConfigError, ValueError, OverflowError) as error:
        raise WeightsError(f"{card_path} does not fit: {error}") from error
    return weights


def save_weights(
    path: str | os.PathLike[str],
    model: ECMNet,
    label_set: LabelSet,
    *,
    working_short_side: int,
    name: str | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    temperature: float = 1.0,
    metrics: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
    licence: str = "not stated",
) -> Weights:
    """Write PATH.safetensors and PATH.json, each whole: the tensors first, then the JSON that vouches for them.

    Args:
        path: without suffix, or with either file's.
        model: its tensors are written as they are.
        label_set: names of the model's classes.
        working_short_side, name, mean, std, temperature, metrics, training, licence: see `Weights`; the name is
            the file's by default.

    Returns:
        What `load_weights` gives for the files just written.

    Raises:
        WeightsError: the values do not fit each other, or a file cannot be written.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    data = safetensors.torch.save(tensors)
    weights = Weights(
        name=name or stem.name,
        architecture=model.config,
        label_set=label_set,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        working_short_side=working_short_side,
        temperature=float(temperature),
        metrics=tuple(metrics),
        training=training or {"data": [], "recipe": {}},
        licence=licence,
        sha256=hashlib.sha256(data).hexdigest(),
        tensors=tensors,
    )
    _write(stem.with_name(stem.name + ".safetensors"), data)
    _write_card(stem.with_name(stem.name + ".json"), weights)
    return weights


def record_metric(name_or_path: str | os.PathLike[str], metric: Mapping[str, Any]) -> None:
    """Keep a score in the JSON of weights, in place of an older one found by the same command.

    Raises:
        WeightsError: there are no such weights, or their JSON cannot be written.
    """
    weights = load_weights(name_or_path)
    others = [kept for kept in weights.metrics if kept.get("command") != metric.get("command")]
    _write_card(tensors_file(name_or_path).with_suffix(".json"), replace(weights, metrics=(*others, metric)))


def record_temperature(name_or_path: str | os.PathLike[str], temperature: float) -> None:
    """Keep a fitted temperature in the JSON of weights.

    Raises:
        WeightsError: there are no such weights, the temperature is not above 0, or their JSON cannot be written.
    """
    weights = replace(load_weights(name_or_path), temperature=temperature)
    _write_card(tensors_file(name_or_path).with_suffix(".json"), weights)


def _write_card(path: Path, weights: Weights) -> None:
    _write(path, (json.dumps(weights.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}") from error


def tensors_file(name_or_path: str | os.PathLike[str]) -> Path:
    """Path of the .safetensors file of weights, which need not be there if a path is given; see `load_weights`.

    Raises:
        WeightsError: no weights are called so, or the path is of another kind of file.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise WeightsError(
            f"{text} may hold pickled code, which is never loaded here; "
            "use a .safetensors file with its .json, as `ecmnet train` writes them"
        )
    if path.suffix in (".safetensors", ".json"):
        return path.with_suffix(".safetensors")
    if path.name == text:
        packaged = PACKAGE_FOLDER / f"{DEFAULT_WEIGHTS if text == 'default' else text}.safetensors"
        if packaged.exists():
            return packaged
    raise WeightsError(
        f"no weights {text!r}; give one of {', '.join(['default', *available_weights()])}, "
        "or the path of a .safetensors file with its .json beside it"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} does not exist; weights are a .safetensors file with its .json beside it"
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "name": str,
    "architecture": dict,
    "labels": dict,
    "mean": list,
    "std": list,
    "working_short_side": int,
    "temperature": (int, float),
    "metrics": list,
    "training": dict,
    "licence": str,
    "sha256": str,
}


def _parse_card(data: bytes, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error})") from error
    if not isinstance(card, dict):
        raise WeightsError(f"{path} must hold a JSON object, not a {type(card).__name__}")
    if card.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is of format {card.get('format')!r}, this version reads format {FORMAT}; "
            "get weights and ecmnet-app of the same time"
        )
    if unknown := sorted(card.keys() - _FIELDS.keys()):
        raise WeightsError(f"{path} has a field that format {FORMAT} does not know: {unknown[0]!r}")
    for name, kind in _FIELDS.items():
        if name not in card:
            raise WeightsError(f"{path} lacks the field {name!r}")
        if not isinstance(card[name], kind) or isinstance(card[name], bool):
            raise WeightsError(f"{path}: {name} has the wrong type, {type(card[name]).__name__}")
    for name in ("mean", "std"):
        if not all(type(value) in (int, float) for value in card[name]):
            raise WeightsError(f"{path}: {name} must be three numbers, not {card[name]}")
    return card


def _from_card(card: dict[str, Any], tensors: dict[str, Tensor]) -> Weights:
    return Weights(
        name=card["name"],
        architecture=ECMNetConfig.from_dict(card["architecture"]),
        label_set=LabelSet.from_dict(card["labels"]),
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
        working_short_side=card["working_short_side"],
        temperature=float(card["temperature"]),
        metrics=tuple(card["metrics"]),
        training=card["training"],
        licence=card["licence"],
        sha256=card["sha256"],
        tensors=tensors,
    )
