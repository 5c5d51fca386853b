"""The plain engine: PyTorch as it is, in float32, on any device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines.base import Engine, normalisation
from ecmnet_app.core.weights import Weights

__all__ = ["EagerEngine"]


class EagerEngine(Engine):
    """Runs the network operation by operation."""

    name = "eager"

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.device = device
        self.net = weights.build().to(device)
        self.scale, self.shift = (x.view(3, 1, 1).to(device) for x in normalisation(weights.mean, weights.std))

    @torch.inference_mode()
    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        """See `Engine.logits`."""
        x = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)
        height, width = x.shape[-2:]
        logits: Tensor = self.net(x * self.scale + self.shift, size=((height + 1) // 2, (width + 1) // 2))
        return logits
