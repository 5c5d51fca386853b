"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is defined: they run on the CPU then

from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import CAMVID, CITYSCAPES
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD, save_weights
from ecmnet_app.network import ECMNet, ECMNetConfig

CAMVID_FOLDER = Path(__file__).parent.parent.parent / "shared" / "camvid"


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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a .safetensors file of an untrained network, its JSON beside it."""
    stem = tmp_path_factory.mktemp("weights") / "tiny"
    save_weights(stem, random_net(), CAMVID, working_short_side=360)
    return stem.with_suffix(".safetensors")


@pytest.fixture(scope="session")
def city_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, of another untrained network that knows the classes of Cityscapes and works at 256 pixels."""
    stem = tmp_path_factory.mktemp("weights") / "city"
    save_weights(stem, random_net(ECMNetConfig.named("ecmnet", 19), seed=1), CITYSCAPES, working_short_side=256)
    return stem.with_suffix(".safetensors")


@pytest.fixture(scope="session")
def segmenter(tiny_weights: Path) -> Segmenter:
    """The untrained network on the CPU."""
    return Segmenter.from_pretrained(tiny_weights, device="cpu")


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., NDArray[np.uint8]]:
    """`blobs(height, width, seed=0)`, in which the untrained network sees several classes."""
    return blobs


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The CamVid folder, where there is one."""
    if not CAMVID_FOLDER.is_dir():
        pytest.skip(f"CamVid is not at {CAMVID_FOLDER}")
    return CAMVID_FOLDER
