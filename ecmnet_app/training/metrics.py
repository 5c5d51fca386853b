"""Scores of label maps, all from one matrix of pixel counts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ConfusionMatrix"]


class ConfusionMatrix:
    """Counts of pixels by true class and answered class, over any number of label maps.

    `counts` is (K, K + 1) int64: the row is the true class, the column the answer, and the last column
    holds pixels that were answered with no class (255, or any value that is not 0..K-1): a miss of their
    true class and no false alarm of another. Pixels whose target is no class (255) count nowhere.

    Several processes each fill their own and sum: `torch.distributed.all_reduce(matrix.counts)`.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros((num_classes, num_classes + 1), dtype=torch.int64, device=device)

    def update(self, labels: Tensor, target: Tensor) -> None:
        """Count answers against truth.

        Args:
            labels: answered class ids, any integer dtype and shape, on any device.
            target: true class ids of the same shape and device, 255 = ignore.

        Raises:
            ValueError: the shapes differ.
        """
        if labels.shape != target.shape:
            raise ValueError(f"labels {tuple(labels.shape)} and target {tuple(target.shape)} must have one shape")
        side = self.num_classes + 1
        cells = self._or_none(target) * side + self._or_none(labels)
        counts = torch.bincount(cells.flatten(), minlength=side * side).view(side, side)
        self.counts += counts[:-1].to(self.counts.device)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix's counts, as if its label maps had been counted here.

        Raises:
            ValueError: the two have different numbers of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.counts += other.counts.to(self.counts.device)

    def iou(self) -> Tensor:
        """(K,) float64: TP / (TP + FP + FN) of each class; NaN for a class in neither target nor answers."""
        hits = self.counts.diagonal()
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - hits
        return hits.double() / union.double()

    def miou(self) -> float:
        """The mean of `iou` over all classes, which is the literature's mIoU.

        A class in neither target nor answers has no IoU and is left out of the mean; a class that was answered
        but is never true has IoU 0 and stays in. NaN when nothing was counted.
        """
        return float(self.iou().nanmean())

    def pixel_accuracy(self) -> float:
        """The share of counted pixels answered with their true class; NaN when nothing was counted."""
        return float(self.counts.diagonal().sum().double() / self.counts.sum().double())

    def _or_none(self, ids: Tensor) -> Tensor:
        """As int64, with every value that is no class replaced by K."""
        ids = ids.long()
        return ids.where((ids >= 0) & (ids < self.num_classes), self.num_classes)
