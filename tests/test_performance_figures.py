"""The pictures of the performance page: kernels come to the right groups, and only what was measured is drawn."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ecmnet_app.network import ECMNetConfig
from ecmnet_app.network.traffic import GROUPS

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "performance_figures.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def kernels(times: list[float], gap: float) -> list[dict[str, Any]]:
    """A copy of 5 us, a fill of 2 us and kernels of these times, each `gap` us after the last."""
    named = [("Memcpy DtoD", 5.0), ("void at::native::fill", 2.0), *(("_kernel", us) for us in times)]
    found, now = [], 0.0
    for name, us in named:
        found.append({"name": name, "start": now, "us": us})
        now += us + gap
    return found


def test_kernels_come_to_their_groups(figures: ModuleType) -> None:
    times: list[float] = []
    for number, (_, count) in enumerate(figures.LAUNCHES):
        times += [float(number + 1)] * count
    spent = figures.microseconds(kernels(times, 0.5))
    config = ECMNetConfig()
    assert spent["initial block"] == 3 * 1
    assert spent["downsampling"] == 2 + 4 + 6
    blocks = [len(dilations) for dilations in config.dilations]
    # Three kernels a block; the groups stand third, fifth and seventh.
    assert [spent[f"encoder, 1/{2**n}"] for n in (2, 3, 4)] == [
        3 * b * at for b, at in zip(blocks, (3, 5, 7), strict=True)
    ]
    assert spent["copies and fills"] == 7
    assert spent["between kernels"] == pytest.approx(0.5 * (len(times) + 1))
    assert sum(spent.values()) == pytest.approx(7 + sum(times) + 0.5 * (len(times) + 1))
    assert set(spent) == {*GROUPS.values(), "copies and fills", "between kernels"}


def test_other_kernels_are_refused(figures: ModuleType) -> None:
    with pytest.raises(ValueError, match="7 kernels, where LAUNCHES has"):
        figures.microseconds(kernels([1.0] * 7, 0))


def test_without_a_gpu_there_is_no_picture_of_its_kernels(tmp_path: Path) -> None:
    rows = [
        {"network": name, "p50_ms": ms}
        for name, ms in (
            ("ECMNet", 1.0),
            ("ECMNet, plain", 9.0),
            ("LETNet", 2.0),
            ("SegFormer-B0", 1.5),
            ("DABNet", 3.0),
        )
    ]
    group = {"group": "initial block", "megabytes": 47.6, "memory_ms": 0.016, "gflops": 4.28, "arithmetic_ms": 0.0055}
    shape = {"size": [360, 480], "batch": 1, "networks": rows, "groups": [group]}
    report = tmp_path / "peers.json"
    report.write_text(json.dumps({"machine": "a machine", "shapes": [shape]}))
    command = [sys.executable, SCRIPT, report, "--out", tmp_path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| initial block | 47.6 | 16.0 | 4.28 | 5.5 |  |" in text
    assert not (tmp_path / "groups.svg").exists()
    svg = (tmp_path / "accuracy.svg").read_text()
    assert all(name in svg for name in ("ours, camvid-scratch", "LETNet", "SegFormer-B0 (none published)", "a machine"))
    assert svg.count("HAFormer") < svg.count("LETNet")  # whose time was not measured
