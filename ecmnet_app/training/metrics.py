"""Scores of label maps: of regions from one matrix of pixel counts, and of their boundaries."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DILATION_RATIO", "BoundaryIoU", "ConfusionMatrix"]

DILATION_RATIO = 0.005
"""Width of a boundary as a share of the picture's diagonal: 3 pixels at 480x360.

The 0.02 that Cheng et al. take for the objects of COCO would be 12 pixels, wider than most poles and signs.
"""


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

    def shares(self) -> Tensor:
        """(K, K + 1) float64: what each true class is answered with, rows of sum 1; NaN for a class never true.

        The diagonal is each class's recall.
        """
        return self.counts.double() / self.counts.sum(1, keepdim=True)

    def precision(self) -> Tensor:
        """(K,) float64: share of each answer that is right, of the pixels counted; NaN for one never given."""
        return self.counts.diagonal().double() / self.counts[:, :-1].sum(0)

    def _or_none(self, ids: Tensor) -> Tensor:
        """As int64, with every value that is no class replaced by K."""
        ids = ids.long()
        return ids.where((ids >= 0) & (ids < self.num_classes), self.num_classes)


class BoundaryIoU:
    """Boundary IoU of each class over any number of label maps.

    Cheng et al., *Boundary IoU: Improving Object-Centric Image Segmentation Evaluation*, CVPR 2021: the IoU of two
    masks, each reduced to its pixels within d of its own contour, where d is `DILATION_RATIO` of the diagonal, at
    least 1. As in the authors' code, distance is the larger of rows and columns, and the picture's edge is part of a
    contour. Pixels whose target is 255 are cut out of both masks. Counts are summed over all maps before dividing.
    """

    def __init__(self, num_classes: int) -> None:
        self.both = np.zeros(num_classes, np.int64)
        self.either = np.zeros(num_classes, np.int64)

    def update(self, labels: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        """Count one map of answers against truth.

        Args:
            labels: answered class ids. Shape: (H, W).
            target: true class ids, 255 = ignore. Shape: (H, W).
        """
        distance = max(1, round(DILATION_RATIO * math.hypot(*target.shape)))
        known = target != 255
        for k in range(len(self.both)):
            answered, true = (_boundary((ids == k) & known, distance) for ids in (labels, target))
            self.both[k] += np.count_nonzero(answered & true)
            self.either[k] += np.count_nonzero(answered | true)

    def iou(self) -> Tensor:
        """(K,) float64; NaN for a class in neither target nor answers."""
        return torch.from_numpy(self.both).double() / torch.from_numpy(self.either)


def _boundary(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels of a mask within `distance` of a pixel outside of it. Shape: (H, W)."""
    if not mask.any():
        return mask
    square = np.ones((3, 3), np.uint8)
    inside = cv2.erode(
        mask.astype(np.uint8), square, iterations=distance, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    return mask & (inside == 0)
