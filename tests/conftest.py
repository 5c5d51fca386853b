"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecmnet_app.core.labels import CAMVID
from ecmnet_app.core.weights import save_weights
from ecmnet_app.network import ECMNet, ECMNetConfig

CAMVID_FOLDER = Path(__file__).parent.parent.parent / "shared" / "camvid"


def random_net(config: ECMNetConfig | None = None, seed: int = 0) -> ECMNet:
    """An untrained network whose batch-norm statistics are of data, so that its activations stay bounded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ECMNet(config).train()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = None  # plain average of the passes
            for _ in range(2):
                net(torch.randn(2, 3, 64, 96))
    return net.eval()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a .safetensors file of an untrained network, its JSON beside it."""
    stem = tmp_path_factory.mktemp("weights") / "tiny"
    save_weights(stem, random_net(), CAMVID, working_short_side=360)
    return stem.with_suffix(".safetensors")


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The CamVid folder, where there is one."""
    if not CAMVID_FOLDER.is_dir():
        pytest.skip(f"CamVid is not at {CAMVID_FOLDER}")
    return CAMVID_FOLDER
