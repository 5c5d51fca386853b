"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is defined: they run on the CPU then

from random_nets import FEW_BLOCKS, blobs, random_net

from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import CAMVID, CITYSCAPES
from ecmnet_app.core.weights import save_weights

CAMVID_FOLDER = Path(__file__).parent.parent.parent / "shared" / "camvid"


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a .safetensors file of an untrained network, its JSON beside it."""
    stem = tmp_path_factory.mktemp("weights") / "tiny"
    save_weights(stem, random_net(FEW_BLOCKS), CAMVID, working_short_side=360)
    return stem.with_suffix(".safetensors")


@pytest.fixture(scope="session")
def city_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, of another untrained network that knows the classes of Cityscapes and works at 256 pixels."""
    stem = tmp_path_factory.mktemp("weights") / "city"
    save_weights(stem, random_net(replace(FEW_BLOCKS, num_classes=19), seed=1), CITYSCAPES, working_short_side=256)
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
