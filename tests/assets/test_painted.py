"""Labels of rendered frames as CamVid's painters drew them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
BUILDING, TREE, FENCE, PEDESTRIAN = 1, 5, 7, 9


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray], np.ndarray]:
    monkeypatch.syspath_prepend(str(ASSETS))
    from streets import painted as module

    return module.painted


def test_railings_are_filled_but_for_who_stands_behind(painted: Callable[[np.ndarray], np.ndarray]) -> None:
    labels = np.full((40, 60), BUILDING, np.uint8)
    labels[10:30, 4:40:4] = FENCE  # bars, three pixels apart
    labels[12:30, 13:16] = PEDESTRIAN  # seen between two of them
    labels[10:30, 50] = FENCE  # a bar farther away: its gap is an opening
    expected = labels.copy()
    expected[10:30, 4:37] = FENCE
    expected[12:30, 13:16] = PEDESTRIAN
    assert (painted(labels) == expected).all()


def test_a_crown_hides_the_sky_between_its_leaves_alone(painted: Callable[[np.ndarray], np.ndarray]) -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[5:25, 5:25] = TREE
    labels[8:11, 8:11] = 0  # between leaves
    labels[13:23, 13:23] = 0  # a window onto the sky
    expected = labels.copy()
    expected[8:11, 8:11] = TREE
    assert (painted(labels) == expected).all()
