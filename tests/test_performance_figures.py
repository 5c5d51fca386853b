"""The pictures of the performance page: kernels come to the right groups, and only what was measured is drawn."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecmnet_app.core import load_weights
from ecmnet_app.network import ECMNetConfig
from ecmnet_app.network.traffic import GROUPS

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "performance_figures.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def kernels(figures: ModuleType) -> list[dict[str, Any]]:
    """A run: a copy of 5 us, a fill of 2 us, then a chain whose kernels take 1 us in its first part, 2 in the next, ...

    On the other stream, from 1/4 on: long connections of 10 + 20 + 30 us with the FFM's convolutions of 100 us behind.
    """
    found = [
        {"name": "Memcpy DtoD", "start": -50.0, "us": 5.0, "stream": 1},
        {"name": "void at::native::fill", "start": 0.0, "us": 2.0, "stream": 1},
    ]
    now = 2.5
    for number, (_, count) in enumerate(figures.CHAIN):
        for _ in range(count):
            found.append({"name": "_kernel", "start": now, "us": number + 1.0, "stream": 1})
            now += number + 1.5
        if number in (2, 4, 6):
            at = now
            aside = zip(figures.ASIDE, (10.0, 20.0, 30.0), strict=True)
            for name, us in (*aside, *[("_kernel", 100.0)] * {2: 2, 4: 1, 6: 0}[number]):
                found.append({"name": name, "start": at, "us": us, "stream": 2})
                at += us
    return sorted(found, key=lambda kernel: float(str(kernel["start"])))


def test_kernels_come_to_their_groups(figures: ModuleType) -> None:
    run = kernels(figures)
    spent = figures.microseconds(run)
    config = ECMNetConfig()
    assert spent["initial block"] == 3 * 1
    assert spent["downsampling"] == 2 + 4 + 6
    # Three kernels a block; the stages stand third, fifth and seventh.
    for stage, at, name in zip(config.dilations, (3, 5, 7), ("1/4", "1/8", "1/16"), strict=True):
        assert spent[f"encoder, {name}"] == 3 * len(stage) * at
    assert spent["long connections"] == 3 * (10 + 20 + 30)
    assert spent["FFM"] == 5 * 8 + 3 * 100
    assert spent["copies and fills"] == 7
    assert sum(spent.values()) == sum(kernel["us"] for kernel in run)
    assert set(spent) == {*GROUPS.values(), "copies and fills"}


def test_time_in_which_nothing_runs(figures: ModuleType) -> None:
    run = [
        {"name": "Memcpy DtoD", "start": 0.0, "us": 5.0},
        {"name": "_kernel", "start": 100.0, "us": 10.0},
        {"name": "_kernel", "start": 105.0, "us": 2.0},
        {"name": "_kernel", "start": 112.0, "us": 1.0},
        {"name": "_kernel", "start": 112.5, "us": 4.0},
        {"name": "_kernel", "start": 120.0, "us": 4.0},
    ]
    assert figures.idle(run) == 2 + 3.5


def test_other_kernels_are_refused(figures: ModuleType) -> None:
    with pytest.raises(ValueError, match="7 kernels and 0 long connections, where the engine has 123 and 3"):
        figures.microseconds([{"name": "_kernel", "start": n, "us": 1.0, "stream": 1} for n in range(7)])


def test_without_a_gpu_there_is_no_picture_of_its_kernels(tmp_path: Path) -> None:
    rows = [
        {"network": name, "form": "as it is", "p50_ms": ms, "in_a_row_ms": ms / 2}
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
    assert "| LETNet | as it is | 2.00 / 1.00 |" in text
    assert not (tmp_path / "groups.svg").exists()
    svg = (tmp_path / "accuracy.svg").read_text()
    assert all(name in svg for name in ("ours, camvid-scratch", "LETNet", "SegFormer-B0", "a machine"))
    assert svg.count("HAFormer") < svg.count("LETNet")  # whose time was not measured


def test_the_picture_of_the_page_is_of_the_weights_that_ship(figures: ModuleType) -> None:
    svg = (ROOT / "docs" / "performance" / "accuracy.svg").read_text()
    ticks = re.findall(r'id="ytick_.*?<use [^>]* y="([\d.]+)".*?<text[^>]*>(\d+)</text>', svg, re.DOTALL)
    heights, percents = np.array(ticks, float).T
    points = [float(y) for y in re.findall(r'<use [^>]* y="([\d.]+)" style="fill: #1f77b4', svg)]
    drawn = np.interp(points, heights[::-1], percents[::-1])  # of two plots: parameters, time
    shipped = [
        100 * metric["miou"]
        for name in figures.OURS
        for metric in load_weights(name).metrics
        if (metric["dataset"], metric["split"]) == ("camvid", "test")
    ]
    np.testing.assert_allclose(drawn, 2 * shipped, atol=0.01)
