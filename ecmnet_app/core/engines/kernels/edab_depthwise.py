"""Both depthwise branches of an EDAB, and the sums that their gates are made of.

The same as, in plain torch, for a `folded.FoldedEDAB`:

    y = torch.cat([block.local[:2](up), block.context[:2](up)], dim=1)
    sums = (sum of context over a row, sum of context over a column, sum of local over the map)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import cells, is_large, prelu, to_fixed

__all__ = ["EdabDepthwise", "edab_depthwise"]

COLUMNS = 16
"""Columns of a tile."""


class EdabDepthwise(NamedTuple):
    """Weights, local channels first, float32: (3, 2 * half) and (2 * half,)."""

    high: Tensor
    high_bias: Tensor
    high_slope: Tensor
    wide: Tensor
    wide_bias: Tensor
    wide_slope: Tensor
    dilation: int

    @classmethod
    def pack(cls, block: Any) -> EdabDepthwise:
        """Of a `folded.FoldedEDAB`."""

        def pair(layer: int) -> tuple[Tensor, Tensor, Tensor]:
            (conv_a, act_a), (conv_b, act_b) = block.local[layer], block.context[layer]
            return (
                torch.cat([conv_a.weight.flatten(1), conv_b.weight.flatten(1)]).t().contiguous(),
                torch.cat([conv_a.bias, conv_b.bias]),
                torch.cat([act_a.weight, act_b.weight]),
            )

        high, wide = pair(0), pair(1)
        return cls(*high, *wide, block.context[0][0].dilation[0])


@triton.jit(do_not_specialize=["height", "width", "dilation", "steps", "columns"])
def _edab_depthwise(up, y, sums, high, high_bias, high_slope, wide, wide_bias, wide_slope, height, width, dilation,
                    steps, columns,
                    HALF: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """A program walks down `steps` rows of COLUMNS columns, in CHANNELS channels of one branch."""
    b = tl.program_id(2)
    blocks: tl.constexpr = (HALF + CHANNELS - 1) // CHANNELS
    branch = tl.program_id(1) // blocks
    h = tl.program_id(1) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    real = h < HALF
    c = branch * HALF + h
    reach = tl.where(branch == 0, 1, dilation)
    first = tl.program_id(0) // columns * steps
    column = tl.program_id(0) % columns * COLUMNS + tl.arange(0, COLUMNS)
    bias = tl.load(high_bias + c, mask=real)
    slope = tl.load(high_slope + c, mask=real)
    out_bias = tl.load(wide_bias + c, mask=real)
    out_slope = tl.load(wide_slope + c, mask=real)
    sums += b * (height + width + 1) * HALF  # rows, then columns, then the map
    down_columns = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for row in range(first, tl.minimum(first + steps, height)):
        here = row + tl.zeros_like(column)
        total = tl.zeros([COLUMNS, CHANNELS], tl.float32)
        for right in tl.static_range(3):
            at_x = column + (right - 1) * reach
            there = ((at_x >= 0) & (at_x < width))[:, None] & real[None, :]
            high_total = tl.zeros([COLUMNS, CHANNELS], tl.float32)
            for down in tl.static_range(3):
                at_y = here + (down - 1) * reach
                at = ((b * height + at_y) * width + at_x)[:, None] * HALF + h[None, :]
                mask = there & ((at_y >= 0) & (at_y < height))[:, None]
                value = tl.load(up + at, mask=mask, other=0.0).to(tl.float32)
                high_total += value * tl.load(high + down * 2 * HALF + c, mask=real)[None, :]
            out = tl.where(there, prelu(high_total + bias[None, :], slope[None, :]), 0.0)
            total += out * tl.load(wide + right * 2 * HALF + c, mask=real)[None, :]
        mask = (column < width)[:, None] & real[None, :]
        total = tl.where(mask, prelu(total + out_bias[None, :], out_slope[None, :]), 0.0)
        at = ((b * height + here) * width + column)[:, None] * (2 * HALF) + c[None, :]
        tl.store(y + at, total.to(y.dtype.element_ty), mask=mask)
        down_columns += total
        if branch == 1:
            tl.atomic_add(sums + row * HALF + h, to_fixed(tl.sum(total, 0)), mask=real, sem="relaxed")
    if branch == 1:
        at = (height + column)[:, None] * HALF + h[None, :]
        mask = (column < width)[:, None] & real[None, :]
        tl.atomic_add(sums + at, to_fixed(down_columns), mask=mask, sem="relaxed")
    else:
        at_map = sums + (height + width) * HALF + h
        tl.atomic_add(at_map, to_fixed(tl.sum(down_columns, 0)), mask=real, sem="relaxed")


def edab_depthwise(up: Tensor, sums: Tensor, weights: EdabDepthwise, large: bool | None = None) -> Tensor:
    """(B, H, W, C / 2) -> (B, H, W, C), and into `sums`, zeros, (B, H + W + 1, C / 2), int64: see `common.FIXED`."""
    batch, height, width, half = cells(up)
    y = up.new_empty((batch, height, width, 2 * half))
    positions = batch * height * width
    many = is_large(positions, large)
    channels = min(32 if many else 16, int(triton.next_power_of_2(half)))
    steps = 1 if positions < 2048 else 2 if positions < 16384 else 4
    columns = triton.cdiv(width, COLUMNS)
    grid = (columns * triton.cdiv(height, steps), 2 * triton.cdiv(half, channels), batch)
    _edab_depthwise[grid](
        up, y, sums, *weights[:6], height, width, weights.dilation, steps, columns,
        HALF=half, CHANNELS=channels, COLUMNS=COLUMNS, num_warps=2 if many else 4,
    )  # fmt: skip
    return y
