"""The ROS package's source is importable, whether or not a workspace with it is sourced; its nodes run where we do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from random_nets import random_net

from ecmnet_app.core import CAMVID, Segmenter, save_weights

PACKAGE = Path(__file__).parents[2] / "ros2_ws" / "src" / "ecmnet"
sys.path.insert(0, str(PACKAGE))
if sys.prefix != sys.base_prefix:
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)  # whose interpreter the launch file takes, as if it were activated


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all the network's blocks: some tests tell a node something while a picture takes its time."""
    stem = tmp_path_factory.mktemp("weights") / "tiny"
    save_weights(stem, random_net(), CAMVID, working_short_side=360)
    return stem.with_suffix(".safetensors")


@pytest.fixture(scope="session")
def segmenter(tiny_weights: Path) -> Segmenter:
    """The same network on the CPU."""
    return Segmenter.from_pretrained(tiny_weights, device="cpu")
