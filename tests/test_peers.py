"""The networks that ours is raced against: as large as their papers say, and not changed by what speeds them up."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    return load("peer_networks")


@pytest.fixture(scope="module")
def peers(networks: ModuleType) -> ModuleType:
    return load("peers")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Millions of parameters with 19 classes, as the papers print them.
PUBLISHED = {"SegFormer-B0": 3.8, "LETNet": 0.95, "Fast-SCNN": 1.11, "DABNet": 0.76, "ERFNet": 2.06}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_within_3_percent_of_the_published(networks: ModuleType, name: str) -> None:
    (peer,) = (peer for peer in networks.PEERS if peer.name == name)
    count = sum(p.numel() for p in peer.build(19).parameters()) / 1e6
    assert count == pytest.approx(PUBLISHED[name], rel=0.03)


STRIDES = {"SegFormer-B0": 4, "LETNet": 2, "Fast-SCNN": 8, "DABNet": 8, "ERFNet": 1}


@pytest.mark.parametrize("name", STRIDES)
@torch.inference_mode()
def test_logits_stand_where_the_papers_classifiers_do_and_see_the_picture(networks: ModuleType, name: str) -> None:
    (peer,) = (peer for peer in networks.PEERS if peer.name == name)
    torch.manual_seed(0)
    net = peer.build(5).eval()
    x = torch.randn(2, 3, 96, 160)
    y = net(x)
    assert y.shape == (2, 5, 96 // STRIDES[name], 160 // STRIDES[name])
    assert (net(x.flip(0)) - y.flip(0)).abs().max() < 1e-4 * y.abs().max()
    assert (y[0] - y[1]).abs().max() > 1e-3 * y.abs().max()


@pytest.mark.parametrize("name", PUBLISHED)
@torch.inference_mode()
def test_folded_norms_change_nothing(networks: ModuleType, peers: ModuleType, name: str) -> None:
    (peer,) = (peer for peer in networks.PEERS if peer.name == name)
    torch.manual_seed(1)
    net = peer.build(11)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    net.train()(torch.randn(4, 3, 64, 96))  # statistics that are not 0 and 1
    x = torch.randn(1, 3, 64, 96)
    before = net.eval()(x)
    after = peers.fold_norms(net)(x)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert left < len(norms)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * float(before.abs().max()))


@torch.inference_mode()
def test_letnets_shuffle_is_the_shuffle(networks: ModuleType) -> None:
    block = networks.DilatedBottleneck(8, 2).eval()
    nn.init.zeros_(block.expand[-1].weight)
    x = torch.randn(2, 8, 5, 7)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(block(given), F.channel_shuffle(x, 2))


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment without what a bare GPU machine lacks."""
    for name in ("cv2", "PIL", "av", "tqdm", "matplotlib", "gradio"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here')\n")
    return {"PYTHONPATH": f"{tmp_path}:{BENCHMARKS.parent}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


@pytest.mark.long
def test_the_race_runs_on_a_bare_machine(bare: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    script = [sys.executable, BENCHMARKS / "peers.py"]
    subprocess.run([*script, "--help"], env=bare, check=True)  # all that is imported, on a CPU too
    (tmp_path / "cv2.py").unlink()  # which a CPU's answers need
    command = [*script, "--device", "cpu", "--size", "32x64", "--seconds", "0"]
    done = subprocess.run([*command, "--json", file], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    (shape,) = report["shapes"]
    assert (shape["size"], shape["batch"]) == ([32, 64], 1)
    names = [row["network"] for row in shape["networks"]]
    assert names[-6:] == ["ECMNet, plain", *PUBLISHED]
    ours = shape["networks"][0]["p50_ms"]
    for row in shape["networks"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["ratio"] == pytest.approx(row["p50_ms"] / ours)
        assert f"| {row['network']} | {row['form']} | {row['parameters'] / 1e6:.2f} |" in done.stdout
    assert sum(group["gflops"] for group in shape["groups"]) > 0
