from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmnet_app.ui.video import AreaChart


@given(st.integers(1, 900), st.sampled_from([2, 8, 40]))
def test_the_chart_keeps_the_mean_in_few_columns(frames: int, columns: int) -> None:
    chart = AreaChart(columns)
    rng = np.random.default_rng(frames)
    rows = rng.dirichlet(np.ones(4), frames)
    for index, row in enumerate(rows):
        chart.add(index / 10, row)
    view = chart.view()
    assert 1 <= len(view["times"]) == len(view["areas"]) <= columns
    assert view["times"] == sorted(view["times"])
    assert view["times"][0] == 0
    # Every column is the mean of the frames from its time to the next one's.
    bounds = [*(round(time * 10) for time in view["times"]), frames]
    for column, first, end in zip(view["areas"], bounds, bounds[1:], strict=False):
        assert column == pytest.approx(1000 * rows[first:end].mean(axis=0), abs=0.6)


def test_a_chart_without_frames_is_empty() -> None:
    assert AreaChart().view() == {"times": [], "areas": []}
