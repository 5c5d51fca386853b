"""What every engine does: pictures in, labels and confidence out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Engine", "answer_from_logits", "normalisation"]

BAND_VALUES = 1_000_000
"""Interpolated logits held at a time: 4 MB of float32, which a CPU's cache holds, whatever the size of the picture."""


class Engine(ABC):
    """Runs one network on one device. Called by one thread at a time."""

    name: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    """Of the network's activations."""

    @property
    def best_batch(self) -> int:
        """Pictures to run at a time: a CPU gains nothing by several, and the first of them would wait for the last."""
        return 1 if self.device.type == "cpu" else 8

    def wait(self) -> None:
        """Until it is as fast as it gets: for engines that compile while they answer already."""
        return

    @abstractmethod
    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Run the network.

        Args:
            pictures: RGB. Shape: (B, H, W, 3), H and W at least 32.

        Returns:
            Logits at half resolution, float32, on `device`. Shape: (B, K, ceil(H / 2), ceil(W / 2)).
        """

    def segment(
        self, pictures: NDArray[np.uint8], size: tuple[int, int], temperature: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Run the network and name every pixel at `size` (height, width).

        Returns:
            Labels, uint8, and confidence, float32. Shapes: (B, *size).
        """
        return answer_from_logits(self.logits(pictures), size, temperature)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Preprocessing as one product and one sum: (x / 255 - mean) / std is x * scale + shift.

    Returns:
        scale and shift, float32. Shapes: (3,).
    """
    deviation = torch.tensor(std, dtype=torch.float32)
    return 1 / (255 * deviation), -torch.tensor(mean, dtype=torch.float32) / deviation


@torch.inference_mode()
def answer_from_logits(
    logits: Tensor, size: tuple[int, int], temperature: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Interpolate logits straight to `size` and take the likeliest class and its softmax probability.

    The logits of all classes at full size never exist at once: rows are answered in bands, which changes no
    value, as each row depends on two rows of the input only.

    Args:
        logits: (B, K, h, w), float32.
        size: (height, width) of the answer.
        temperature: divides the logits before the softmax.

    Returns:
        Labels, uint8, and confidence, float32. Shapes: (B, *size).
    """
    batch, classes, h, _ = logits.shape
    height, width = size
    labels = torch.empty((batch, height, width), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty((batch, height, width), device=logits.device)
    # Bilinear with pixel centres aligned by area, as F.interpolate(align_corners=False) does it.
    source = ((torch.arange(height, dtype=torch.float64) + 0.5) * (h / height) - 0.5).clamp(min=0)
    above = source.long()
    weight = (source - above).float()[:, None].to(logits.device)
    above = above.to(logits.device)
    below = (above + 1).clamp(max=h - 1)
    rows = max(1, BAND_VALUES // (batch * classes * width))
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        lines = torch.lerp(logits[:, :, above[band]], logits[:, :, below[band]], weight[band])
        values = F.interpolate(lines, (lines.shape[2], width), mode="bilinear", align_corners=False)
        top, labels[:, band] = values.max(dim=1)
        values.sub_(top[:, None]).div_(temperature).exp_()
        # Class by class: the order in which Tensor.sum adds depends on where in the band a pixel lies.
        confidence[:, band] = reduce(torch.add, values.unbind(dim=1)).reciprocal()
    return labels.cpu().numpy(), confidence.cpu().numpy()
