"""Score weights on labelled pictures, through the same Segmenter that every door of the project uses."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ecmnet_app.core import Segmenter
from ecmnet_app.core.engines import make_engine
from ecmnet_app.core.labels import UNLABELLED, LabelSet
from ecmnet_app.errors import ConfigError
from ecmnet_app.training import labelmefacade
from ecmnet_app.training.datasets import drive_of, find_samples
from ecmnet_app.training.metrics import ConfusionMatrix

__all__ = ["Evaluation", "Scores", "evaluate"]


@dataclass(frozen=True)
class Scores:
    """Scores over a number of pictures, each 0 to 1; None where nothing was there to score."""

    pictures: int
    miou: float | None
    pixel_accuracy: float | None
    per_class: Mapping[str, float | None]
    """IoU by name of class, in order of id; None for a class in neither labels nor answers."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found, and all that is needed to find it again."""

    dataset: str
    split: str
    weights: str
    sha256: str
    """Of the weights' tensors."""
    resolution: tuple[int, int]
    """Height and width of the largest picture as the network saw it."""
    mixed_sizes: bool
    """Whether the network saw others of another size."""
    device: str
    engine: str
    date: str
    command: str
    scores: Scores
    places: Mapping[str, Scores]
    """By drive of CamVid or by city, which the pictures' names tell; empty when there is one only."""
    free: Scores | None = None
    """When `scores` hold answers limited to some of the classes: those of the answers out of all classes."""

    def to_json(self) -> str:
        """Every field as JSON."""
        return json.dumps(asdict(self), indent=2)

    def metric(self) -> dict[str, Any]:
        """The entry for `metrics` of the weights' JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "resolution": list(self.resolution),
            "pictures": self.scores.pictures,
            "miou": self.scores.miou,
            "per_class": dict(self.scores.per_class),
            "date": self.date,
            "command": self.command,
        }

    def table(self) -> str:
        """Markdown for the model card, aligned so that a terminal shows it well too. Figures are in percent."""
        height, width = self.resolution
        summary = (
            f"{self.dataset} {self.split}, {self.scores.pictures} pictures, "
            f"{'up to ' if self.mixed_sizes else ''}{width}x{height}, single scale, no flip; "
            f"weights {self.weights} (sha256 {self.sha256[:12]}), {self.engine} on {self.device}, {self.date}"
        )
        columns = {"IoU %": self.scores}
        if self.free is not None:
            summary += (
                f"; other pixels than these {len(self.scores.per_class)} classes' ignored, answers limited to them; "
                "free: answers of all classes"
            )
            columns["free IoU %"] = self.free
        by_class = [
            *([name, *(_percent(s.per_class[name]) for s in columns.values())] for name in self.scores.per_class),
            ["**mIoU**", *(f"**{_percent(s.miou)}**" for s in columns.values())],
            ["pixel accuracy", *(_percent(s.pixel_accuracy) for s in columns.values())],
        ]
        parts = [f"`{self.command}`", summary, _markdown(["class", *columns], by_class)]
        if self.places:
            head = ["place", "pictures", "mIoU %", "accuracy %", *self.scores.per_class]
            by_place = [
                [name, str(s.pictures), *map(_percent, (s.miou, s.pixel_accuracy, *s.per_class.values()))]
                for name, s in self.places.items()
            ]
            parts.append(_markdown(head, by_place))
        return "\n\n".join(parts)


def evaluate(
    path: str | os.PathLike[str],
    split: str,
    weights: str | os.PathLike[str] = "default",
    device: str = "auto",
    resolution: int | None = None,
    *,
    engine: str = "auto",
    threads: int | None = None,
    leave_out: str | None = None,
    only: str | None = None,
    classes: Sequence[str] | None = None,
) -> Evaluation:
    """Segment every picture of a split as `Segmenter.predict` does, one at a time, and score its own pixels.

    A progress bar goes to stderr.

    Args:
        path, split, leave_out, only: see `datasets.find_samples`.
        weights, device, engine, threads: see `Segmenter.from_pretrained`.
        resolution: see `Segmenter.predict`.
        classes: names of the classes to score alone: pixels of others are ignored, and each answer is the
            likeliest of these. Data sets that label only some of what they show are scored so by default.

    Raises:
        ConfigError: the weights name other classes than the data set, or `classes` holds a name they lack.
        DataError, ImageError: see `datasets`.
        WeightsError, DeviceError: see `Segmenter.from_pretrained`.
    """
    listing = find_samples(path, split, leave_out=leave_out, only=only)
    segmenter = Segmenter.from_pretrained(weights, device, engine, threads)
    if segmenter.label_set.names != listing.label_set.names:
        raise ConfigError(
            f"the weights {segmenter.weights.name} name the classes of {segmenter.label_set.name} but {path} is "
            f"labelled with those of {listing.label_set.name}; choose weights trained on its classes"
        )
    options = {"weights": segmenter.weights.name, "resolution": resolution, "only": only, "leave-out": leave_out}
    if classes is not None:
        options["classes"] = ",".join(classes)
    elif listing.name == labelmefacade.NAME:
        classes = labelmefacade.LABELLED
    place_of = labelmefacade.city_of if listing.name == labelmefacade.NAME else drive_of

    limited = segmenter if classes is None else _limited_to(segmenter, classes)
    label_set = limited.label_set
    new_ids = np.full(256, UNLABELLED, dtype=np.uint8)
    new_ids[[segmenter.label_set.names.index(name) for name in label_set.names]] = np.arange(len(label_set))

    places: dict[str, ConfusionMatrix] = {}
    pictures: dict[str, int] = {}
    total, free = ConfusionMatrix(len(label_set)), ConfusionMatrix(len(label_set))
    sizes: set[tuple[int, int]] = set()
    for sample in tqdm(listing.samples, desc=f"{listing.name} {split}", unit="pic", disable=None):
        image, labels = listing.read(sample)
        target = torch.from_numpy(new_ids[labels])
        place = place_of(sample.stem)
        answer = limited.predict(image, resolution)
        places.setdefault(place, ConfusionMatrix(len(label_set))).update(torch.from_numpy(answer.labels), target)
        pictures[place] = pictures.get(place, 0) + 1
        sizes.add(segmenter.working_size(labels.shape[0], labels.shape[1], resolution))
        if classes is not None:
            free.update(torch.from_numpy(new_ids[segmenter.predict(image, resolution).labels]), target)
    for matrix in places.values():
        total.merge(matrix)
    by_place = {place: _scores(places[place], label_set, pictures[place]) for place in sorted(places)}
    return Evaluation(
        dataset=listing.name,
        split=split,
        weights=segmenter.weights.name,
        sha256=segmenter.weights.sha256,
        resolution=max(sizes, key=lambda size: (math.prod(size), size)),
        mixed_sizes=len(sizes) > 1,
        device=str(segmenter.engine.device),
        engine=segmenter.engine.name,
        date=date.today().isoformat(),
        command=_command(listing.name, split, options),
        scores=_scores(total, label_set, len(listing.samples)),
        places=by_place if len(by_place) > 1 else {},
        free=None if classes is None else _scores(free, label_set, len(listing.samples)),
    )


def _limited_to(segmenter: Segmenter, classes: Sequence[str]) -> Segmenter:
    """The same network with only these rows of its classifier, so that it answers with no other class."""
    weights = segmenter.weights
    names = weights.label_set.names
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ConfigError(f"the weights {weights.name} have no class {unknown[0]!r}; choose from {', '.join(names)}")
    ids = [id for id, name in enumerate(names) if name in classes]
    if not ids:
        raise ConfigError(f"no class to score; choose from {', '.join(names)}")
    limited = replace(
        weights,
        architecture=replace(weights.architecture, num_classes=len(ids)),
        label_set=replace(
            weights.label_set, labels=tuple(replace(weights.label_set.labels[id], id=i) for i, id in enumerate(ids))
        ),
        tensors={
            name: tensor[ids] if name in ("classifier.weight", "classifier.bias") else tensor
            for name, tensor in weights.tensors.items()
        },
    )
    return Segmenter(limited, make_engine(segmenter.engine.name, limited, segmenter.engine.device))


def _scores(matrix: ConfusionMatrix, label_set: LabelSet, pictures: int) -> Scores:
    return Scores(
        pictures=pictures,
        miou=_or_none(matrix.miou()),
        pixel_accuracy=_or_none(matrix.pixel_accuracy()),
        per_class=dict(zip(label_set.names, map(_or_none, matrix.iou().tolist()), strict=True)),
    )


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _command(dataset: str, split: str, options: Mapping[str, object]) -> str:
    """The command line that finds the same figures, without the folders of one machine."""
    words = ["ecmnet", "evaluate", f"PATH/{dataset}", "--split", split]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with the first column flush left and the others flush right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])} |"

    return "\n".join(map(line, [head, rule, *lines[1:]]))
