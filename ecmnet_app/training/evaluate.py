"""Score weights on labelled pictures, through the same Segmenter that every door of the project uses."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ecmnet_app.core import Segmenter
from ecmnet_app.core.engines import answer_from_logits
from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.errors import ConfigError
from ecmnet_app.training import labelmefacade
from ecmnet_app.training.calibration import Reliability, check_sizes
from ecmnet_app.training.datasets import drive_of, find_samples
from ecmnet_app.training.metrics import DILATION_RATIO, BoundaryIoU, ConfusionMatrix

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
    boundary_iou: Mapping[str, float | None]
    """Of the answers that `scores` are of, by name of class. See `metrics.BoundaryIoU`."""
    confusion: Mapping[str, Mapping[str, float]]
    """What the pixels of each class are answered with, out of all classes: shares by name. Absent ones are left out."""
    precision: Mapping[str, float | None]
    """Share of each answer, out of all classes, that is right; None for one never given."""
    temperature: float
    """Of the weights."""
    reliability: Mapping[str, Any]
    """Of the confidence that people see, by all classes. See `calibration.Reliability.to_dict`."""
    uncalibrated: Mapping[str, Any]
    """Likewise, at temperature 1."""
    free: Scores | None = None
    """When `scores` hold answers limited to some of the classes: those of the answers out of all classes."""
    beside: Evaluation | None = None
    """Another data set, scored by the same rule."""

    @property
    def boundary_miou(self) -> float | None:
        """Mean of `boundary_iou` over the classes that have one."""
        known = [iou for iou in self.boundary_iou.values() if iou is not None]
        return sum(known) / len(known) if known else None

    @property
    def settings(self) -> str:
        """What `command` says but for data set, split, weights and what is beside: as in "resolution-450", or empty."""
        words = shlex.split(self.command)
        words = words[words.index("--weights") + 2 :]
        options = zip(words[::2], words[1::2], strict=True)
        return "-".join(f"{name[2:]}-{value}" for name, value in options if name != "--beside")

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
            "boundary_miou": self.boundary_miou,
            "ece": self.reliability["ece"],
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
        columns: dict[str, tuple[Mapping[str, float | None], float | None, float | None]] = {
            "IoU %": (self.scores.per_class, self.scores.miou, self.scores.pixel_accuracy),
            "boundary IoU %": (self.boundary_iou, self.boundary_miou, None),
        }
        if self.free is not None:
            summary += (
                f"; other pixels than these {len(self.scores.per_class)} classes' ignored, answers limited to them; "
                "free: answers of all classes"
            )
            columns["free IoU %"] = (self.free.per_class, self.free.miou, self.free.pixel_accuracy)
        summary += f"; boundaries {100 * DILATION_RATIO:g} % of the diagonal wide"
        if self.beside is not None:
            summary += f"; {self.beside.dataset}: its {self.beside.scores.pictures} pictures by the same rule"
            for name, scores in (("IoU %", self.beside.scores), ("free IoU %", self.beside.free)):
                if scores is not None:
                    columns[f"{self.beside.dataset} {name}"] = (scores.per_class, scores.miou, scores.pixel_accuracy)
        by_class = [
            *([name, *(_percent(c[0][name]) for c in columns.values())] for name in self.scores.per_class),
            ["**mIoU**", *(f"**{_percent(c[1])}**" for c in columns.values())],
            ["pixel accuracy", *(_percent(c[2]) for c in columns.values())],
        ]
        calibration = f"Calibration: ECE {_percent(self.uncalibrated['ece'])} %, uncalibrated (temperature 1)"
        if self.temperature != 1:
            calibration = (
                f"Calibration: ECE {_percent(self.reliability['ece'])} % at the weights' temperature "
                f"{self.temperature:.3f}, {_percent(self.uncalibrated['ece'])} % at temperature 1"
            )
        parts = [f"`{self.command}`", summary, _markdown(["class", *columns], by_class), calibration]
        if self.places:
            head = ["place", "pictures", "mIoU %", "accuracy %", *self.scores.per_class]
            by_place = [
                [name, str(s.pictures), *map(_percent, (s.miou, s.pixel_accuracy, *s.per_class.values()))]
                for name, s in self.places.items()
            ]
            parts.append(_markdown(head, by_place))
        return "\n\n".join(parts)

    def failures(self) -> str:
        """Markdown: how much of each class is found, and what the rest is called. Shares of its labelled pixels."""
        lines = []
        for name, shares in self.confusion.items():
            others = sorted(((share, other) for other, share in shares.items() if other != name), reverse=True)
            called = ", ".join(f"{100 * share:.0f} % {other}" for share, other in others[:3] if share >= 0.01)
            lines.append(
                f"- **{name}**: {100 * shares[name]:.0f} % found{f'; called {called}' if called else ''}. "
                + f"Of what is called {name}, {_percent(self.precision[name], 0)} % is."
            )
        return "\n".join(lines)


def evaluate(
    path: str | os.PathLike[str],
    split: str,
    weights: str | os.PathLike[str] = "default",
    device: str = "auto",
    resolution: int | None = None,
    *,
    engine: str = "eager",
    threads: int | None = None,
    leave_out: str | None = None,
    only: str | None = None,
    classes: Sequence[str] | None = None,
    beside: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Segment every picture of a split as `Segmenter.predict` does, one at a time, and score its own pixels.

    One run of the network gives both the answers limited to some classes and those out of all.

    A progress bar goes to stderr.

    Args:
        path, split, leave_out, only: see `datasets.find_samples`.
        weights, device, engine, threads: see `Segmenter.from_pretrained`.
        resolution: see `Segmenter.predict`.
        classes: names of the classes to score alone: pixels of others are ignored, and each answer is the
            likeliest of these. Data sets that label only some of what they show are scored so by default.
        beside: folder of another data set, whose split of the same name is scored by the same rule, so that the
            two can be compared: if either labels only some of what it shows, both are scored on that by default.

    Raises:
        ConfigError: the weights name other classes than the data sets, or `classes` holds a name they lack.
        DataError, ImageError: see `datasets`.
        WeightsError, DeviceError: see `Segmenter.from_pretrained`.
    """
    listing = find_samples(path, split, leave_out=leave_out, only=only)
    listings = {path: listing}
    if beside is not None:  # both are looked up before either is scored, which may take an hour
        listings[beside] = find_samples(beside, split)
    segmenter = Segmenter.from_pretrained(weights, device, engine, threads)
    for folder, each in listings.items():
        if segmenter.label_set.names != each.label_set.names:
            raise ConfigError(
                f"the weights {segmenter.weights.name} name the classes of {segmenter.label_set.name} but {folder} is "
                f"labelled with those of {each.label_set.name}; choose weights trained on its classes"
            )
        check_sizes(each, segmenter, resolution)
    options: dict[str, object] = {
        "weights": segmenter.weights.name,
        "resolution": resolution,
        "only": only,
        "leave-out": leave_out,
        "engine": None if segmenter.engine.name == "eager" else segmenter.engine.name,
    }
    implied = classes is None and listing.name == labelmefacade.NAME  # so that the command need not say them
    if classes is None and any(each.name == labelmefacade.NAME for each in listings.values()):
        classes = labelmefacade.LABELLED
    if classes is not None and not implied:
        options["classes"] = ",".join(classes)
    place_of = labelmefacade.city_of if listing.name == labelmefacade.NAME else drive_of
    temperature = segmenter.weights.temperature
    names = segmenter.label_set.names
    ids = _ids(classes, segmenter) if classes is not None else list(range(len(names)))
    known = np.full(256, UNLABELLED, dtype=np.uint8)
    known[ids] = ids

    places: dict[str, ConfusionMatrix] = {}
    pictures: dict[str, int] = {}
    total, free, boundary = ConfusionMatrix(len(names)), ConfusionMatrix(len(names)), BoundaryIoU(len(names))
    reliability, uncalibrated = Reliability(), Reliability()
    sizes: set[tuple[int, int]] = set()
    for sample in tqdm(listing.samples, desc=f"{listing.name} {split}", unit="pic", disable=None):
        image, labels = listing.read(sample)
        target = known[labels]
        place = place_of(sample.stem)
        logits = segmenter.logits(image, resolution)
        answered, confidence = _answer(logits, target, temperature)
        limited = answered if classes is None else known[ids][_answer(logits[:, ids], target, temperature)[0]]
        places.setdefault(place, ConfusionMatrix(len(names))).update(*map(torch.from_numpy, (limited, target)))
        pictures[place] = pictures.get(place, 0) + 1
        free.update(*map(torch.from_numpy, (answered, target)))
        boundary.update(limited, target)
        reliability.update(answered, confidence, target)
        uncalibrated.update(answered, _answer(logits, target, 1.0)[1] if temperature != 1 else confidence, target)
        sizes.add(segmenter.working_size(labels.shape[0], labels.shape[1], resolution))
    for matrix in places.values():
        total.merge(matrix)
    by_place = {place: _scores(places[place], names, ids, pictures[place]) for place in sorted(places)}
    other = None
    if beside is not None:
        other = evaluate(beside, split, weights, device, resolution, engine=engine, threads=threads, classes=classes)
        options["beside"] = f"PATH/{other.dataset}"
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
        scores=_scores(total, names, ids, len(listing.samples)),
        places=by_place if len(by_place) > 1 else {},
        boundary_iou=_by_name(boundary.iou(), names, ids),
        confusion={
            names[k]: dict(zip(names, free.shares()[k].tolist(), strict=False)) for k in ids if free.counts[k].sum()
        },
        precision=_by_name(free.precision(), names, ids),
        temperature=temperature,
        reliability=reliability.to_dict(),
        uncalibrated=uncalibrated.to_dict(),
        free=None if classes is None else _scores(free, names, ids, len(listing.samples)),
        beside=other,
    )


def _answer(
    logits: Tensor, target: NDArray[np.uint8], temperature: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels and confidence of one picture, at its target's size. Shapes: (H, W)."""
    height, width = target.shape
    labels, confidence = answer_from_logits(logits, (height, width), temperature)
    return labels[0], confidence[0]


def _ids(classes: Sequence[str], segmenter: Segmenter) -> list[int]:
    """Of the named classes, in ascending order."""
    names = segmenter.label_set.names
    if not classes:
        raise ConfigError(f"no class to score; choose from {', '.join(names)}")
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ConfigError(
            f"the weights {segmenter.weights.name} have no class {unknown[0]!r}; choose from {', '.join(names)}"
        )
    return sorted({names.index(name) for name in classes})


def _scores(matrix: ConfusionMatrix, names: Sequence[str], ids: Sequence[int], pictures: int) -> Scores:
    return Scores(
        pictures=pictures,
        miou=_or_none(float(matrix.iou()[ids].nanmean())),
        pixel_accuracy=_or_none(matrix.pixel_accuracy()),
        per_class=_by_name(matrix.iou(), names, ids),
    )


def _by_name(values: Tensor, names: Sequence[str], ids: Sequence[int]) -> dict[str, float | None]:
    return {names[k]: _or_none(float(values[k])) for k in ids}


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


def _percent(share: float | None, digits: int = 2) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with the first column flush left and the others flush right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])} |"

    return "\n".join(map(line, [head, rule, *lines[1:]]))
