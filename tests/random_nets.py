"""Untrained networks that answer with several classes, and the pictures that they are made on."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD
from ecmnet_app.network import ECMNet, ECMNetConfig

FEW_BLOCKS = ECMNetConfig(dilations=((2,), (4,), (8,)), decoder_dilations=(2,))
"""The paper's network with one block a stage: every kind of layer at its width, in a quarter of the time."""


def blobs(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of soft blobs of colour: RGB uint8, shape (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def random_net(config: ECMNetConfig | None = None, seed: int = 0) -> ECMNet:
    """An untrained network with the batch-norm statistics of noisy blobs, without which its activations explode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ECMNet(config).train()
        pictures = torch.from_numpy(np.stack([blobs(240, 320, 1000 + i) for i in range(4)])).permute(0, 3, 1, 2)
        noisy = (pictures + 50 * torch.randn(pictures.shape)).clamp(0, 255) / 255
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # takes the statistics as they are
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        net((noisy - mean) / std)
    return net.eval()


def with_norms_of_all_signs(net: ECMNet) -> ECMNet:
    """The network with norms as trained ones can be: negative scales, shifts and slopes that differ by channel."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.mul_(torch.rand(module.weight.shape, generator=generator) * 1.5 - 0.5)
                module.bias.add_(0.3 * torch.randn(module.bias.shape, generator=generator))
            elif isinstance(module, torch.nn.PReLU):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) - 0.2)
    return net
