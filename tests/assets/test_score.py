"""The scorer of the stills, on masks whose answer is known."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "assets" / "score.py"
SKY, BUILDING, ROAD, TREE, CAR, PEDESTRIAN = 0, 1, 3, 5, 8, 9


@pytest.fixture(scope="module")
def score() -> ModuleType:
    spec = importlib.util.spec_from_file_location("assets_score", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def street() -> np.ndarray:
    """8 x 10: two rows each of sky, building, tree and car above road."""
    return np.repeat(np.array([SKY, BUILDING, TREE, CAR, ROAD], np.uint8), 2)[:, None].repeat(8, 1)


def test_a_perfect_answer_scores_100(score: ModuleType) -> None:
    assert score.scored_ious(score.count(street(), street())) == [100.0] * 6


def test_known_mistakes(score: ModuleType) -> None:
    truth, answer = street(), street()
    answer[6:8] = ROAD  # all 16 pixels of car are called road: road 16 of 32
    answer[0, :] = BUILDING  # half of the sky: sky 8 of 16, building 16 of 24
    road, sky, building, tree, car, mean = score.scored_ious(score.count(answer, truth))
    assert (road, sky, tree, car) == (50.0, 50.0, 100.0, 0.0)
    assert building == pytest.approx(100 * 16 / 24)
    assert mean == pytest.approx((50 + 50 + 100 * 16 / 24 + 100 + 0) / 5)


def test_other_classes_take_from_the_five_but_are_not_in_the_mean(score: ModuleType) -> None:
    truth, answer = street(), street()
    truth[8, :4] = PEDESTRIAN
    answer[9, :4] = PEDESTRIAN  # road: 8 right, 4 missed, 4 too many
    values = score.scored_ious(score.count(answer, truth))
    assert values[0] == 50.0
    assert values[-1] == 90.0


def test_an_absent_class_is_left_out(score: ModuleType) -> None:
    truth = np.full((4, 4), ROAD, np.uint8)
    values = score.scored_ious(score.count(truth, truth))
    assert values[0] == values[-1] == 100.0
    assert all(math.isnan(v) for v in values[1:-1])
    assert score.table([("still", values)]).splitlines()[1].split() == ["still", "100.0", "-", "-", "-", "-", "100.0"]


def test_every_still_has_its_labels(score: ModuleType) -> None:
    found = score.pairs()
    assert found
    assert all(picture.is_file() and mask.is_file() for picture, mask in found)
    assert score.read_labels(found[0][1]).shape == (480, 640)


def test_the_command_prints_a_line_for_each_still(
    score: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["score.py"])
    score.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Road", "Sky", "Building", "Tree", "Car", "mean"]
    assert [line.split()[0] for line in lines[1:]] == [picture.stem for picture, _ in score.pairs()] + ["all"]
    assert all(0 <= float(value) <= 100 for line in lines[1:] for value in line.split()[1:] if value != "-")


def test_unknown_weights_are_said_so(
    score: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["score.py", "--weights", "no-such-weights"])
    with pytest.raises(SystemExit):
        score.main()
    assert "no-such-weights" in capsys.readouterr().err
