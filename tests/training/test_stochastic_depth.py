"""Blocks that are left out: for how many pictures, what remains, and that nothing is outside of training."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ecmnet_app.network.edab import EDAB, channel_shuffle
from ecmnet_app.training.stochastic_depth import drop_blocks

PICTURES = 4000


@pytest.fixture
def pictures() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(PICTURES, 8, 4, 6)


@torch.no_grad()
def test_a_block_is_left_out_or_counts_for_more(pictures: Tensor) -> None:
    block = EDAB(8, 2).train()
    whole, without = deepcopy(block)(pictures), channel_shuffle(pictures)
    drop_blocks(block, 0.4)
    torch.manual_seed(1)
    found = block(pictures)
    left_out = (found == without).flatten(1).all(1)
    assert left_out.float().mean() == pytest.approx(0.4, abs=4 * (0.24 / PICTURES) ** 0.5)
    torch.testing.assert_close(found[~left_out], (without + (whole - without) / 0.6)[~left_out])
    torch.manual_seed(1)
    assert torch.equal(block(pictures), found)


@torch.no_grad()
def test_late_blocks_are_left_out_more_often(pictures: Tensor) -> None:
    blocks = nn.Sequential(EDAB(8, 1), nn.Identity(), EDAB(8, 2)).train()
    seen: list[Tensor] = []
    drop_blocks(blocks, 0.5)
    for block in (blocks[0], blocks[2]):
        block.register_forward_hook(
            lambda _, inputs, output: seen.append((output == channel_shuffle(inputs[0])).flatten(1).all(1))
        )
    blocks(pictures)
    for share, left_out in zip((0.25, 0.5), seen, strict=True):
        assert left_out.float().mean() == pytest.approx(share, abs=4 * (share * (1 - share) / PICTURES) ** 0.5)


@torch.no_grad()
def test_all_blocks_count_outside_of_training(pictures: Tensor) -> None:
    block = EDAB(8, 2).eval()
    expected = block(pictures[:5])
    drop_blocks(block, 0.9)
    assert torch.equal(block(pictures[:5]), expected)
