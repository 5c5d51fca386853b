from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ecmnet_app.core.engines import Engine
from ecmnet_app.core.tiles import tile_spans, tiled_logits


@given(st.integers(1, 5000), st.integers(16, 400), st.data())
def test_tiles_cover_the_axis_evenly_and_overlap_enough(length: int, half_tile: int, data: st.DataObject) -> None:
    tile = 2 * half_tile
    overlap = data.draw(st.integers(0, tile // 2))
    spans = tile_spans(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for start, end in spans:
        assert start % 2 == 0
        assert end - start in (tile, tile + 1) or spans == [(0, length)]
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= overlap
    fewer = len(spans) - 1  # would not reach, with overlaps of one pixel more for even starts
    assert fewer == 0 or fewer * tile - (fewer - 1) * (overlap + 1) < length


class HalvingEngine(Engine):
    """Logits are the channels at half resolution: what one tile answers does not depend on the others."""

    name = "halving"
    device = torch.device("cpu")
    calls = 0

    def logits(self, pictures: np.ndarray) -> Tensor:
        self.calls += 1
        return F.max_pool2d(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), 2, ceil_mode=True)


@pytest.mark.parametrize("size", [(100, 130), (101, 131), (64, 64), (40, 300), (65, 63)])
def test_blending_is_a_weighted_mean(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    engine = HalvingEngine()
    whole = engine.logits(picture[None])
    engine.calls = 0
    tiled = tiled_logits(engine, picture, tile=64, overlap=16)
    assert engine.calls == len(tile_spans(size[0], 64, 16)) * len(tile_spans(size[1], 64, 16))
    torch.testing.assert_close(tiled, whole, rtol=1e-6, atol=1e-4)
