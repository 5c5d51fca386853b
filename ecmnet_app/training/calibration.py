"""Confidence that means something: how far it is from accuracy, and the temperature that brings it nearer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import ConfigError, DataError
from ecmnet_app.training.averaging import lineage
from ecmnet_app.training.datasets import CAMVID_DRIVES, Listing, find_samples, hash_stems

__all__ = ["Calibration", "Reliability", "calibrate", "check_sizes", "fit_temperature"]

BINS = 15
"""Bins of confidence, as Guo et al. take."""
PIXEL_STRIDE = 4
"""Of the pixels that a temperature is fitted on: neighbours say nearly the same."""
TEMPERATURES = (0.05, 20.0)
"""Range that is searched."""


@dataclass
class Reliability:
    """Confidence beside accuracy, in `BINS` equal bins of confidence, over any number of pictures.

    Guo, Pleiss, Sun, Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017. A bin holds the pixels with
    confidence above its lower end and up to its upper.
    """

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """In each bin. Shape: (BINS,)."""
    right: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Of them, those answered with their true class. Shape: (BINS,)."""
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    """Sum over the pixels of each bin. Shape: (BINS,)."""

    def update(self, labels: NDArray[np.uint8], confidence: NDArray[np.float32], target: NDArray[np.uint8]) -> None:
        """Count answers of one shape with their true class; those whose target is 255 count nowhere."""
        known = target != UNLABELLED
        given = confidence[known].astype(np.float64)
        which = np.clip(np.ceil(given * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(which, minlength=BINS)
        self.right += np.bincount(which[labels[known] == target[known]], minlength=BINS)
        self.confidence += np.bincount(which, given, minlength=BINS)

    def ece(self) -> float:
        """Expected calibration error, 0 to 1: mean distance of confidence from accuracy; NaN where nothing counted."""
        total = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: ece (None where nothing counted); each bin's pixels, mean accuracy and mean confidence."""
        filled = np.maximum(self.pixels, 1)
        return {
            "ece": self.ece() if self.pixels.any() else None,
            "pixels": self.pixels.tolist(),
            "accuracy": (self.right / filled).tolist(),
            "confidence": (self.confidence / filled).tolist(),
        }


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found."""

    weights: str
    pictures: int
    pixels: int
    temperature: float
    nll: tuple[float, float]
    """Mean negative log likelihood of the true class, nats: at temperature 1, and at the one that was fitted."""
    ece: tuple[float, float]
    """Expected calibration error of the same pixels, 0 to 1: likewise."""

    def table(self) -> str:
        """A few lines for people."""
        return (
            f"temperature {self.temperature:.4f}, fitted to {self.weights} on {self.pictures} pictures "
            f"({self.pixels:,} labelled pixels, every {PIXEL_STRIDE}th of every {PIXEL_STRIDE}th row)\n\n"
            "| temperature | NLL, nats | ECE % |\n"
            "| ----------: | --------: | ----: |\n"
            f"| {1:11.4f} | {self.nll[0]:9.4f} | {100 * self.ece[0]:5.2f} |\n"
            f"| {self.temperature:11.4f} | {self.nll[1]:9.4f} | {100 * self.ece[1]:5.2f} |"
        )


def calibrate(
    path: str | os.PathLike[str],
    split: str,
    weights: str | os.PathLike[str],
    device: str = "auto",
    resolution: int | None = None,
    *,
    engine: str = "eager",
    threads: int | None = None,
    leave_out: str | None = None,
    only: str | None = None,
) -> Calibration:
    """Fit a temperature to weights on pictures that they were not trained on. A progress bar goes to stderr.

    Args:
        path, split, leave_out, only: see `datasets.find_samples`.
        weights, device, engine, threads: see `Segmenter.from_pretrained`.
        resolution: see `Segmenter.predict`.

    Raises:
        ConfigError: the weights, or what they came from, were trained on some of the pictures; they name other
            classes than these; or they are right or wrong in such a way that no temperature is best.
        DataError, ImageError: see `datasets`.
        WeightsError, DeviceError: see `Segmenter.from_pretrained`.
    """
    listing = find_samples(path, split, leave_out=leave_out, only=only)
    segmenter = Segmenter.from_pretrained(weights, device, engine, threads)
    if segmenter.label_set.names != listing.label_set.names:
        raise ConfigError(
            f"the weights {segmenter.weights.name} name other classes than {path}; "
            "choose weights trained on its classes"
        )
    _check_unseen(segmenter.weights, path, split, listing)
    check_sizes(listing, segmenter, resolution)

    logits, targets = [], []
    for sample in tqdm(listing.samples, desc=f"{listing.name} {split}", unit="pic", disable=None):
        image, labels = listing.read(sample)
        scores = F.interpolate(segmenter.logits(image, resolution), labels.shape, mode="bilinear")[0].cpu()
        grid = slice(PIXEL_STRIDE // 2, None, PIXEL_STRIDE)
        target = torch.from_numpy(labels[grid, grid]).long()
        known = target != UNLABELLED
        logits.append(scores[:, grid, grid][:, known].T)
        targets.append(target[known])
    scores, target = torch.cat(logits), torch.cat(targets)
    temperature = fit_temperature(scores, target)
    nll, ece = zip(*(_judge(scores, target, t) for t in (1.0, temperature)), strict=True)
    return Calibration(segmenter.weights.name, len(listing.samples), len(target), temperature, nll, ece)


def check_sizes(listing: Listing, segmenter: Segmenter, resolution: int | None = None) -> None:
    """Name a picture that cannot be segmented for its size before the others have taken their time.

    Raises:
        DataError: a file cannot be read as a picture.
        ConfigError, ImageError: see `Segmenter.check_size`.
    """
    for sample in listing.samples:
        segmenter.check_size(*listing.size(sample), resolution, name=str(sample.image))


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature at which the true classes are likeliest: the minimum of the mean negative log likelihood.

    In 1 / temperature that mean is convex, so the sign of its slope tells on which side the minimum lies.

    Args:
        logits: (N, K), float.
        target: true class ids, (N,), int64.

    Raises:
        ConfigError: it has no minimum within `TEMPERATURES`.
    """
    true = logits.gather(1, target[:, None])[:, 0].double().mean()

    def slope(temperature: float) -> float:
        """Of the mean negative log likelihood, by 1 / temperature: above 0 where confidence is too high."""
        expected = ((logits / temperature).softmax(1) * logits).sum(1)
        return float(expected.double().mean() - true)

    low, high = TEMPERATURES
    if not slope(low) > 0 > slope(high):
        raise ConfigError(
            f"no temperature from {low} to {high} is best for these {len(target)} pixels; "
            "calibrate on more pictures, on which the weights are neither always right nor no better than chance"
        )
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low * high) ** 0.5


def _judge(logits: Tensor, target: Tensor, temperature: float) -> tuple[float, float]:
    """Mean negative log likelihood, nats, and expected calibration error, 0 to 1."""
    log_shares = (logits / temperature).log_softmax(1)
    nll = -log_shares.gather(1, target[:, None]).double().mean()
    top, labels = log_shares.max(1)
    reliability = Reliability()
    reliability.update(labels.byte().numpy(), top.exp().numpy(), target.byte().numpy())
    return float(nll), reliability.ece()


def _check_unseen(weights: Weights, path: str | os.PathLike[str], split: str, listing: Listing) -> None:
    """Confidence on pictures of the training is too high in another way than elsewhere: nothing is fitted there.

    Nor on those of the training of what the weights started from, or are the mean of.
    """
    stems = {sample.stem for sample in listing.samples}
    for training in lineage(weights.sha256, weights.training).values():
        told = [source for source in training.get("data", ()) if "stems" in source]  # not by earlier versions
        for source in (*training.get("recipe", {}).get("data", ()), *told):
            if seen := stems & _trained_on(source, path, split, listing):
                raise ConfigError(
                    f"the weights {weights.name}, or what they came from, were trained on {len(seen)} of these "
                    f"{len(stems)} pictures, such as {min(seen)}; calibrate weights that left them out, and keep the "
                    "temperature with --into"
                )


def _trained_on(source: Mapping[str, Any], path: str | os.PathLike[str], split: str, listing: Listing) -> set[str]:
    """The stems in a folder that a training took from it, if `source`, of its record, is what the folder holds."""
    parts = source["split"].split("+")
    shared = [part for part in split.split("+") if part in parts]
    if source["name"] == listing.name:
        return _stems(source, path, shared)
    if source["name"] == "camvid":  # which is known whatever its folder is called
        drives = {stem for stem in _stems(source, path, shared) if stem.startswith(CAMVID_DRIVES)}
        if drives:
            return drives
    found = _stems(source, path, parts) if "stems" in source else set()
    return found if found and hash_stems(found) == source["stems"] else set()


def _stems(source: Mapping[str, Any], path: str | os.PathLike[str], parts: Sequence[str]) -> set[str]:
    """Of the pictures that a training with this source would take from some splits; none where there are none such."""
    try:
        samples = find_samples(path, "+".join(parts), labels=False).samples
    except DataError:
        return set()
    only, leave_out = (tuple(source[key].split(",")) if source.get(key) else None for key in ("only", "leave_out"))
    return {
        sample.stem
        for sample in samples
        if (only is None or sample.stem.startswith(only))
        and (leave_out is None or not sample.stem.startswith(leave_out))
    }
