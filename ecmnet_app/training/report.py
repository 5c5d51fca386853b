"""Pictures at the end of a training: the curves, and predictions beside the truth."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecmnet_app.errors import ConfigError
from ecmnet_app.media.images import write_image
from ecmnet_app.training.augment import normalise
from ecmnet_app.training.datasets import Dataset, fitted, shrunk

__all__ = ["check_drawing", "draw_curves", "draw_predictions", "predict"]

LONGEST = 1024
"""Pixels of the longer side of a picture in a drawing, which must stay one that can be looked at."""


def check_drawing() -> None:
    """Find out before hours of training, not after, whether its curves can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError("plots are drawn with matplotlib, which is missing: pip install 'matplotlib<4'")


def draw_curves(log: Path, path: Path) -> None:
    """Loss and validation mIoU over steps, from a training's log.csv. Needs the extra `train`."""
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    losses = [(int(r["step"]), float(r["loss"])) for r in rows if r["loss"]]
    axes.plot(*zip(*losses, strict=True), color="tab:grey", label="loss")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    scores = [(int(r["step"]), 100 * float(r["validation_miou"])) for r in rows if r["validation_miou"]]
    if scores:
        right = axes.twinx()
        right.plot(*zip(*scores, strict=True), color="tab:blue", marker="o", markersize=3)
        right.set_ylabel("validation mIoU, %", color="tab:blue")
    figure.savefig(path, dpi=120)


@torch.inference_mode()
def predict(network: nn.Module, pictures: Tensor) -> Tensor:
    """Class ids (B, H, W) int64 of pictures (B, 3, H, W) uint8, by an ECMNet or a teacher in eval mode."""
    logits = network(normalise(pictures.float() / 255))
    # A teacher's are at half resolution; for an ECMNet's this changes nothing.
    return F.interpolate(logits.float(), pictures.shape[-2:], mode="bilinear", align_corners=False).argmax(1)


@torch.inference_mode()
def draw_predictions(network: nn.Module, dataset: Dataset, path: Path, short_side: int, count: int = 4) -> None:
    """Pictures, predictions and truth of `count` pictures spread over a data set, one row each.

    The network sees those with a longer short side than `short_side` shrunk to it.
    """
    palette = dataset.label_set.palette
    device = next(network.parameters()).device
    rows = []
    for i in np.linspace(0, len(dataset.stems) - 1, min(count, len(dataset.stems))).astype(int):
        height, width = dataset.sizes[i].tolist()
        seen = fitted((height, width), short_side=short_side)
        image = dataset.images[i, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        image, truth = shrunk(image, dataset.labels[i, :height, :width].cpu().numpy(), seen)
        pictures = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        predicted = predict(network, pictures)[0].byte().cpu().numpy()
        drawn = fitted(seen, LONGEST)
        small, truth = shrunk(image, truth, drawn)
        _, predicted = shrunk(image, predicted, drawn)
        rows.append(np.concatenate([small, palette[predicted], palette[truth]], axis=1))
    width = max(row.shape[1] for row in rows)
    write_image(path, np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]))
