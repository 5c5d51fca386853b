"""Segmentation: the answer to one picture."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecmnet_app.core.labels import UNLABELLED, LabelSet
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.images import check_image, write_mask

__all__ = ["Segmentation"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Class and confidence of every pixel of one picture, at the picture's own size."""

    labels: NDArray[np.uint8]
    """Ids of `label_set`, or 255 for unlabelled. Shape: (H, W)."""
    confidence: NDArray[np.float32]
    """Probability that the network gives to the likeliest class, 0 to 1. Shape: (H, W)."""
    label_set: LabelSet

    def areas(self) -> dict[str, float]:
        """Share of all pixels that each class covers, by name, in order of id; "Unlabelled" last. They sum to 1."""
        counts = Image.fromarray(self.labels).histogram()  # np.bincount would widen every pixel to 64 bits first
        return {label.name: counts[label.id] / self.labels.size for label in self.label_set.with_unlabelled}

    def colorize(self) -> NDArray[np.uint8]:
        """Each pixel in the colour of its class, unlabelled in black. RGB, shape: (H, W, 3)."""
        repeated = cv2.cvtColor(self.labels, cv2.COLOR_GRAY2RGB)
        return np.asarray(cv2.LUT(repeated, self.label_set.palette[None]), np.uint8)

    def overlay(self, image: NDArray[np.uint8], opacity: float = 0.5) -> NDArray[np.uint8]:
        """The picture under the colours of its classes; unlabelled pixels stay as they are.

        Args:
            image: the picture, RGB uint8. Shape: (H, W, 3).
            opacity: of the colours, 0 (the picture) to 1 (`colorize`).

        Returns:
            RGB, uint8. Shape: (H, W, 3).

        Raises:
            ImageError: the picture is not RGB uint8, or not of this answer's size.
            ConfigError: opacity is not within 0 to 1.
        """
        check_image(image)
        if image.shape[:2] != self.labels.shape:
            raise ImageError(
                f"the picture is {image.shape[1]}x{image.shape[0]}, this answer is to one of "
                f"{self.labels.shape[1]}x{self.labels.shape[0]}; pass the picture that was segmented"
            )
        if not 0 <= opacity <= 1:
            raise ConfigError(f"opacity must be 0 to 1, not {opacity}")
        blended = np.asarray(cv2.addWeighted(self.colorize(), opacity, image, 1 - opacity, 0), np.uint8)
        np.copyto(blended, image, where=(self.labels == UNLABELLED)[..., None])
        return blended

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `labels` as an index PNG whose palette holds the colours; a whole file or none.

        Raises:
            ImageError: the path does not end in .png, or cannot be written.
        """
        write_mask(path, self.labels, self.label_set.palette)
