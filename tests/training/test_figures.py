"""Pages and plots of an evaluation: read back as a browser would, and the same bytes twice."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from trees import random_pair, write_camvid

from ecmnet_app.core import CAMVID, load_weights, save_weights
from ecmnet_app.errors import ConfigError
from ecmnet_app.training.evaluate import Evaluation, evaluate
from ecmnet_app.training.figures import draw_confusion, draw_corruptions, draw_reliability, write_report

pytest.importorskip("matplotlib", reason="plots need the extra `train`")
pytestmark = pytest.mark.usefixtures("one_thread")

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "corruptions.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("figures") / "streets"
    for seed in range(3):
        write_camvid(root, "test", f"A_{seed}", *random_pair(seed, 40, 64, [*range(10), 11], block=8))
    return root


@pytest.fixture(scope="module")
def evaluation(tree: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    warm = tmp_path_factory.mktemp("warm") / "warm"
    save_weights(warm, load_weights(tiny_weights).build(), CAMVID, working_short_side=360, temperature=2.5)
    return evaluate(tree, "test", warm.with_suffix(".safetensors"), "cpu")


def texts(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    return ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("}text")]


def test_reliability_shows_both_temperatures(evaluation: Evaluation) -> None:
    found = texts(draw_reliability(evaluation))
    assert f"temperature 1: ECE {100 * evaluation.uncalibrated['ece']:.2f} %" in found
    assert f"temperature 2.50: ECE {100 * evaluation.reliability['ece']:.2f} %" in found
    alone = texts(draw_reliability(replace(evaluation, temperature=1.0)))
    assert not any("2.50" in text for text in alone)


def test_confusion_shows_every_share_that_rounds_to_a_percent(evaluation: Evaluation) -> None:
    found = texts(draw_confusion(evaluation))
    shares = [share for row in evaluation.confusion.values() for share in row.values() if 100 * share >= 0.5]
    numbers = [int(text) for text in found if re.fullmatch(r"\d+", text)]
    assert sorted(numbers) == sorted(round(100 * share) for share in shares)
    assert found.count("Bicyclist") == 1, "never true, so that it has a column and no row"
    assert found.count("Road") == 2


def test_corruptions_have_a_panel_each() -> None:
    curves = {kind: [0.5, 0.4, 0.3, 0.2, 0.1] for kind in ("noise", "rain", "night", "fog", "jpeg")}
    found = texts(draw_corruptions(0.6, curves, "tiny on streets"))
    assert set(curves) <= set(found)
    assert found.count("severity") == 4
    assert "tiny on streets" in found


def test_a_report_is_a_page_with_its_plots_and_the_same_bytes_twice(evaluation: Evaluation, tmp_path: Path) -> None:
    page = write_report(evaluation, tmp_path / "one")
    write_report(evaluation, tmp_path / "two")
    assert page.name == "warm-streets-test.md"
    names = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert names == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    text = page.read_text("utf-8")
    assert evaluation.table() in text
    assert evaluation.failures() in text
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert set(links) | {page.name} == set(names)
    assert len(links) == 2


def test_pages_of_other_settings_have_names_of_their_own(evaluation: Evaluation, tmp_path: Path) -> None:
    plain = evaluation.command
    for options, name in [
        ("", "warm-streets-test"),
        (" --beside PATH/camvid", "warm-streets-test"),
        (" --resolution 450", "warm-streets-test-resolution-450"),
        (" --only 'a b,c/d' --engine openvino", "warm-streets-test-only-a-b-c-d-engine-openvino"),
        (" --classes 'Traffic light,Car' --beside PATH/x", "warm-streets-test-classes-Traffic-light-Car"),
    ]:
        page = write_report(replace(evaluation, command=plain + options), tmp_path)
        assert page.name == f"{name}.md"
        assert f"({name}-confusion.svg)" in page.read_text("utf-8")
    assert len(list(tmp_path.iterdir())) == 4 * 3


def test_a_folder_that_cannot_be_is_said(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot write to the folder .*file"):
        write_report(evaluation, tmp_path / "file")


def test_the_benchmark_prints_its_table_and_starts_from_the_evaluation(
    tree: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    command = [sys.executable, BENCHMARK, tree, "--every", "2", "--weights", tiny_weights, "--device", "cpu"]
    found = subprocess.run([*command, "--svg", tmp_path / "c.svg"], capture_output=True, text=True, check=True).stdout
    rows = {
        cells[0]: [float(cell.rstrip(" %")) for cell in cells[1:]]
        for line in found.splitlines()[4:13]
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    assert list(rows) == ["noise", "defocus", "motion", "fog", "rain", "night", "jpeg", "tilt", "mean"]
    for values in rows.values():
        assert values[5] == pytest.approx(np.mean(values[:5]), abs=0.1)
    assert rows["mean"][:5] == pytest.approx(np.mean([r[:5] for k, r in rows.items() if k != "mean"], axis=0), abs=0.1)
    clean = evaluate(tree, "test", tiny_weights, "cpu", leave_out="A_1").scores
    assert clean.miou is not None
    assert f"2 pictures, mIoU %; weights {load_weights(tiny_weights).sha256[:12]}" in found
    assert f"As they are: {100 * clean.miou:.1f}\n" in found
    assert found.endswith("![mIoU over severity](c.svg)\n")
    assert "tiny on one picture in 2 of streets test" in texts((tmp_path / "c.svg").read_bytes())
