"""The first half of an EDAB: its 1x1 and 3x1 (merged) and its 1x3, each with its PReLU.

The same as, in plain torch, for a `folded.FoldedEDAB`:

    block.wide(block.high(z))

One kernel: the 3x1 is done again for each of the three columns that the 1x3 reads, so that nothing goes to memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import block_of, cells, is_large, pack_conv, pack_vector, prelu

__all__ = ["EdabReduce", "edab_reduce"]


class EdabReduce(NamedTuple):
    """Packed weights."""

    high: Tensor
    high_bias: Tensor
    high_slope: Tensor
    wide: Tensor
    wide_bias: Tensor
    wide_slope: Tensor
    half: int

    @classmethod
    def pack(cls, block: Any, dtype: torch.dtype) -> EdabReduce:
        """Of a `folded.FoldedEDAB`."""
        (high, high_act), (wide, wide_act) = block.high, block.wide
        return cls(
            pack_conv(high.weight, dtype),
            pack_vector(high.bias),
            pack_vector(high_act.weight),
            pack_conv(wide.weight, dtype),
            pack_vector(wide.bias),
            pack_vector(wide_act.weight),
            block.expand.in_channels,
        )


@triton.jit
def _column(total, z, high, high_bias, high_slope, wide, b, y, column, right, inside, height, width,
            IN: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_HALF: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """`total` and what one column adds to it: the 3x1 there, times a tap of the 1x3."""
    c = tl.arange(0, BLOCK_IN)
    h = tl.arange(0, BLOCK_HALF)
    k = tl.arange(0, BLOCK_HALF)
    at_x = column + right - 1
    there = inside & (at_x >= 0) & (at_x < width)
    narrow = tl.zeros([ROWS, BLOCK_HALF], tl.float32)
    for down in tl.static_range(3):
        at_y = y + down - 1
        mask = there & (at_y >= 0) & (at_y < height)
        at = ((b * height + at_y) * width + at_x)[:, None] * IN + c[None, :]
        value = tl.load(z + at, mask=mask[:, None] & (c < IN)[None, :], other=0.0)
        matrix = tl.load(high + (down * BLOCK_IN + c)[:, None] * BLOCK_HALF + h[None, :])
        narrow = tl.dot(value, matrix, narrow, input_precision="ieee")
    narrow = prelu(narrow + tl.load(high_bias + h)[None, :], tl.load(high_slope + h)[None, :])
    narrow = tl.where(there[:, None], narrow, 0.0)  # what the 1x3 sees beyond the edge is padding
    matrix = tl.load(wide + (right * BLOCK_HALF + k)[:, None] * BLOCK_HALF + h[None, :])
    return tl.dot(narrow.to(matrix.dtype), matrix, total, input_precision="ieee")


@triton.jit(do_not_specialize=["height", "width"])
def _edab_reduce(z, up, high, high_bias, high_slope, wide, wide_bias, wide_slope, height, width,
                 IN: tl.constexpr, BLOCK_IN: tl.constexpr, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr,
                 UNROLL: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    h = tl.arange(0, BLOCK_HALF)
    total = tl.zeros([ROWS, BLOCK_HALF], tl.float32)
    if UNROLL:
        for right in tl.static_range(3):
            total = _column(total, z, high, high_bias, high_slope, wide, b, p // width, p % width, right, inside,
                            height, width, IN, BLOCK_IN, BLOCK_HALF, ROWS)  # fmt: skip
    else:
        for right in tl.range(3):
            total = _column(total, z, high, high_bias, high_slope, wide, b, p // width, p % width, right, inside,
                            height, width, IN, BLOCK_IN, BLOCK_HALF, ROWS)  # fmt: skip
    out = prelu(total + tl.load(wide_bias + h)[None, :], tl.load(wide_slope + h)[None, :])
    at = (b * height * width + p)[:, None] * HALF + h[None, :]
    tl.store(up + at, out.to(up.dtype.element_ty), mask=inside[:, None] & (h < HALF)[None, :])


def edab_reduce(z: Tensor, weights: EdabReduce, large: bool | None = None) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C / 2)."""
    batch, height, width, channels = cells(z)
    up = z.new_empty((batch, height, width, weights.half))
    rows = 64 if is_large(batch * height * width, large) else 32
    _edab_reduce[(triton.cdiv(height * width, rows), batch)](
        z, up, *weights[:6], height, width,
        IN=channels, BLOCK_IN=block_of(channels), HALF=weights.half, BLOCK_HALF=block_of(weights.half), 
        UNROLL=channels >= 128, ROWS=rows, num_warps=4,
    )  # fmt: skip
    return up
