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

import torch
from tqdm import tqdm

from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import LabelSet
from ecmnet_app.errors import ConfigError
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
    drives: Mapping[str, Scores]
    """By drive (the part of a picture's name before the first underscore); empty when there is one only."""

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
        parts = [
            f"`{self.command}`",
            f"{self.dataset} {self.split}, {self.scores.pictures} pictures, "
            f"{'up to ' if self.mixed_sizes else ''}{width}x{height}, single scale, no flip; "
            f"weights {self.weights} (sha256 {self.sha256[:12]}), {self.engine} on {self.device}, {self.date}",
            _markdown(
                ["class", "IoU %"],
                [
                    *((name, _percent(iou)) for name, iou in self.scores.per_class.items()),
                    ("**mIoU**", f"**{_percent(self.scores.miou)}**"),
                    ("pixel accuracy", _percent(self.scores.pixel_accuracy)),
                ],
            ),
        ]
        if self.drives:
            parts.append(
                _markdown(
                    ["drive", "pictures", "mIoU %", "accuracy %", *self.scores.per_class],
                    [
                        (
                            name,
                            str(scores.pictures),
                            *map(_percent, (scores.miou, scores.pixel_accuracy, *scores.per_class.values())),
                        )
                        for name, scores in self.drives.items()
                    ],
                )
            )
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
) -> Evaluation:
    """Segment every picture of a split as `Segmenter.predict` does, one at a time, and score its own pixels.

    A progress bar goes to stderr.

    Args:
        path, split, leave_out, only: see `datasets.find_samples`.
        weights, device, engine, threads: see `Segmenter.from_pretrained`.
        resolution: see `Segmenter.predict`.

    Raises:
        ConfigError: the weights name other classes than the data set.
        DataError, ImageError: see `datasets`.
        WeightsError, DeviceError: see `Segmenter.from_pretrained`.
    """
    listing = find_samples(path, split, leave_out=leave_out, only=only)
    segmenter = Segmenter.from_pretrained(weights, device, engine, threads)
    label_set = segmenter.label_set
    if label_set.names != listing.label_set.names:
        raise ConfigError(
            f"the weights {segmenter.weights.name} name the classes of {label_set.name} ({', '.join(label_set.names)}) "
            f"but {path} is labelled with those of {listing.label_set.name}; choose weights trained on its classes"
        )
    matrices: dict[str, ConfusionMatrix] = {}
    pictures: dict[str, int] = {}
    sizes: set[tuple[int, int]] = set()
    for sample in tqdm(listing.samples, desc=f"{listing.name} {split}", unit="pic", disable=None):
        image, target = listing.read(sample)
        answer = segmenter.predict(image, resolution)
        drive = drive_of(sample.stem)
        matrix = matrices.setdefault(drive, ConfusionMatrix(len(label_set)))
        matrix.update(torch.from_numpy(answer.labels), torch.from_numpy(target))
        pictures[drive] = pictures.get(drive, 0) + 1
        sizes.add(segmenter.working_size(target.shape[0], target.shape[1], resolution))
    total = ConfusionMatrix(len(label_set))
    for matrix in matrices.values():
        total.merge(matrix)
    by_drive = {drive: _scores(matrices[drive], label_set, pictures[drive]) for drive in sorted(matrices)}
    options = {"weights": segmenter.weights.name, "resolution": resolution, "only": only, "leave-out": leave_out}
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
        drives=by_drive if len(by_drive) > 1 else {},
    )


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
