"""What every engine does: pictures in, labels and confidence out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines.answer import answer_from_logits

__all__ = ["Engine", "normalisation"]


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
