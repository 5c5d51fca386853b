"""The end of an EDAB: gates from the sums, the gated sum of the branches, the 1x1 and the residual stream.

The same as, in plain torch, for a `folded.FoldedEDAB` and the norm and PReLU that follow it:

    x = x + block.expand(block.after(up + block.local[2](local) + block.context[2](context))); z = following(x)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import (
    FIXED,
    Norm,
    block_of,
    cells,
    pack_matrix,
    prelu,
    store_with_next,
)

__all__ = ["EdabExpand", "edab_expand"]

ROWS = 32
"""Positions of a tile."""


class EdabExpand(NamedTuple):
    """Packed weights."""

    taps: Tensor
    """Of the channel gate, (3,)."""
    rows: Tensor
    columns: Tensor
    after: Norm
    expand: Tensor

    @classmethod
    def pack(cls, block: Any, dtype: torch.dtype) -> EdabExpand:
        """Of a `folded.FoldedEDAB`."""
        gates = block.context[2]
        return cls(
            block.local[2].conv.weight.flatten().float().contiguous(),
            pack_matrix(gates.rows.weight[:, :, 0, 0], dtype),
            pack_matrix(gates.columns.weight[:, :, 0, 0], dtype),
            Norm.pack(block.after),
            pack_matrix(block.expand.weight[:, :, 0, 0], dtype),
        )


@triton.jit
def _gate(total, matrix, count):
    """The sigmoid of a 1x1 convolution of means, from their sums: (ROWS, BLOCK_HALF)."""
    mean = total.to(tl.float32) / (FIXED * count)
    return tl.sigmoid(tl.dot(mean.to(matrix.dtype), matrix, input_precision="ieee"))


@triton.jit(do_not_specialize=["height", "width"])
def _edab_expand(up, y, x, sums, x_out, z_out, taps, rows, columns, scale, shift, slope, expand, next_scale, next_shift,
                 next_slope, height, width,
                 HALF: tl.constexpr, BLOCK_HALF: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
                 ROWS: tl.constexpr):  # fmt: skip
    """All is loaded first: the loads wait together, not one after each product."""
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    h = tl.arange(0, BLOCK_HALF)
    k = tl.arange(0, BLOCK_HALF)
    c = tl.arange(0, BLOCK)
    real = h < HALF
    to_rows = tl.load(rows + k[:, None] * BLOCK_HALF + h[None, :])
    to_columns = tl.load(columns + k[:, None] * BLOCK_HALF + h[None, :])
    to_channels = tl.load(expand + k[:, None] * BLOCK + c[None, :])
    sums += b * (height + width + 1) * HALF
    cell = b * height * width + p
    mask = inside[:, None] & real[None, :]
    row_sum = tl.load(sums + (p // width)[:, None] * HALF + h[None, :], mask=mask, other=0)
    column_sum = tl.load(sums + (height + p % width)[:, None] * HALF + h[None, :], mask=mask, other=0)
    local = tl.load(y + cell[:, None] * (2 * HALF) + h[None, :], mask=mask, other=0.0)
    context = tl.load(y + cell[:, None] * (2 * HALF) + HALF + h[None, :], mask=mask, other=0.0)
    total = tl.load(up + cell[:, None] * HALF + h[None, :], mask=mask, other=0.0).to(tl.float32)
    at = cell[:, None] * CHANNELS + c[None, :]
    mask = inside[:, None] & (c < CHANNELS)[None, :]
    stream = tl.load(x + at, mask=mask, other=0.0)
    mixed = tl.zeros([BLOCK_HALF], tl.float32)
    for tap in tl.static_range(3):
        near = h + tap - 1
        pooled = tl.load(sums + (height + width) * HALF + near, mask=(near >= 0) & (near < HALF), other=0)
        mixed += tl.load(taps + tap) * pooled.to(tl.float32) / (FIXED * height * width)
    total += local.to(tl.float32) * tl.sigmoid(mixed)[None, :]
    total += context.to(tl.float32) * _gate(row_sum, to_rows, width) * _gate(column_sum, to_columns, height)
    total = prelu(total * tl.load(scale + h)[None, :] + tl.load(shift + h)[None, :], tl.load(slope + h)[None, :])
    out = tl.dot(total.to(to_channels.dtype), to_channels, input_precision="ieee") + stream.to(tl.float32)
    store_with_next(x_out, z_out, at, mask, out, c, next_scale, next_shift, next_slope, CHANNELS)


def edab_expand(
    up: Tensor, y: Tensor, x: Tensor, sums: Tensor, weights: EdabExpand, following: Norm
) -> tuple[Tensor, Tensor]:
    """(B, H, W, C / 2), (B, H, W, C) twice and the sums of `edab_depthwise` -> twice (B, H, W, C): x and z."""
    batch, height, width, channels = cells(x)
    x_out, z_out = torch.empty_like(x), torch.empty_like(x)
    half = channels // 2
    _edab_expand[(triton.cdiv(height * width, ROWS), batch)](
        up, y, x, sums, x_out, z_out, weights.taps, weights.rows, weights.columns, *weights.after, weights.expand,
        *following, height, width,
        HALF=half, BLOCK_HALF=block_of(half), CHANNELS=channels, BLOCK=block_of(channels), ROWS=ROWS, num_warps=4,
    )  # fmt: skip
    return x_out, z_out
