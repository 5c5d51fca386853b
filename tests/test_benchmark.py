from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ecmnet_app.benchmark import plan, run
from ecmnet_app.cli import main
from ecmnet_app.errors import DeviceError, WeightsError
from ecmnet_app.network.traffic import LayerGroup
from ecmnet_app.roofline import Bound, Rates, bounds, estimate_ms

CPU = torch.device("cpu")


class KnownRates(Rates):
    """A device of 100 bytes and 50 operations a second."""

    copy = 100.0

    def product(self, dtype: torch.dtype) -> float:
        return 50.0


def test_bounds_are_bytes_and_operations_over_the_rates() -> None:
    group = LayerGroup("some", macs=25, values=20, parameters=5, picture_bytes=10)
    assert bounds([group], 2, torch.float32, KnownRates(CPU)) == [
        Bound("some", (2 * (80 + 10) + 20) / 1e6, 2000.0, 100 / 1e9, 2000.0)
    ]
    assert bounds([group], 1, torch.bfloat16, KnownRates(CPU))[0].memory_ms == 600.0


def test_the_estimate_takes_the_larger_side_of_each_group() -> None:
    assert estimate_ms([Bound("a", 0, 3.0, 0, 1.0), Bound("b", 0, 2.0, 0, 5.0)]) == 8.0


def test_the_measured_rates_are_those_of_this_machine() -> None:
    rates = Rates(CPU)
    a, b = np.ones(2**27, np.uint8), np.empty(2**27, np.uint8)
    copies, products = [], []
    x = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(b, a)
        copies.append(2 * 2**27 / (time.perf_counter() - start))
        start = time.perf_counter()
        x @ x
        products.append(2 * 512**3 / (time.perf_counter() - start))
    # Other work on the machine, and how many threads each library takes, stay within a factor of ten.
    assert 0.1 < rates.copy / max(copies) < 10
    assert 0.1 < rates.product(torch.float32) / max(products) < 10
    assert rates.product(torch.int8) == float("inf")


@pytest.mark.long
def test_the_table_has_a_row_for_each_case_and_json_says_the_same(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", "--weights", str(tiny_weights), "--device", "cpu", "--engine", "eager", "--seconds", "0"]
    assert main([*arguments, "--size", "48x32", "256x256", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    small, large = report["rows"]
    assert [row["case"]["size"] for row in report["rows"]] == [[48, 32], [256, 256]]
    for row in report["rows"]:
        timing = row["timing"]
        assert 0 < timing["p50_ms"] <= timing["p99_ms"]
        assert timing["runs"] == 10
        assert row["frames_per_second"] == pytest.approx(1000 / timing["p50_ms"])
        assert row["roofline_ms"] == pytest.approx(sum(max(b["memory_ms"], b["arithmetic_ms"]) for b in row["bounds"]))
        assert row["share"] == pytest.approx(row["roofline_ms"] / timing["p50_ms"])
        assert 0 < row["share"] < 1
    # 42 times the pixels, of which a batch of one needs tens of bytes each, beside torch itself.
    assert small["timing"]["p50_ms"] < large["timing"]["p50_ms"]
    assert 100e6 < small["timing"]["peak_memory"] < large["timing"]["peak_memory"] < 5e9

    assert main([*arguments, "--size", "48x32", "--batch", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")][1:4] == ["eager", "48x32", "2"]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "31x64"], "a size must be at least 32x32, not 31x64"),
        (["--batch", "1", "0"], "batch must be at least 1, not 0"),
        (["--threads", "0"], "threads must be at least 1, not 0"),
        (["--engine", "steam", "--device", "cpu"], "there is no engine 'steam' for cpu; choose from"),
        (["--device", "cuda:99"], "there is no device 'cuda:99'"),
        (["--weights", "none-such"], "no weights 'none-such'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "--size", "360"])
    assert "write HEIGHTxWIDTH in pixels, such as 360x480, not '360'" in capsys.readouterr().err


def test_an_error_of_a_rows_process_reaches_the_one_who_asked(tiny_weights: Path, tmp_path: Path) -> None:
    for file in (tiny_weights, tiny_weights.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    copy = tmp_path / tiny_weights.name
    rows = run(plan(str(copy), "cpu", ["eager"], [(32, 32)], seconds=0))
    threading.Timer(0.2, lambda: copy.write_bytes(b"")).start()  # the process takes seconds to start
    with pytest.raises(WeightsError, match="not a whole"):
        next(rows)


def test_a_rows_process_that_is_killed_is_an_error_that_says_so(tiny_weights: Path) -> None:
    def kill() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    rows = run(plan(str(tiny_weights), "cpu", ["eager"], [(32, 32)], seconds=600))
    threading.Thread(target=kill).start()
    with pytest.raises(DeviceError, match="eager, 32x32, batch 1 was ended, as systems do when memory runs out"):
        next(rows)
