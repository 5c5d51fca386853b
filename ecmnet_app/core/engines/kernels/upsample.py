"""Twice the size: the transposed convolution, the long connection's sum, and what the next block makes of it.

The same as, in plain torch, for a `folded.FoldedUpsample`:

    x = upsample(x, size) + line; z = stage[0].before(x)      `upsample_add`
    logits = upsample(x, size).float()                        `upsample_logits`

Of the nine taps of a stride of 2, an output position meets 1, 2 or 4, by whether its row and column are odd.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import (
    Norm,
    block_of,
    cells,
    pack_matrix,
    pack_vector,
    store_with_next,
)

__all__ = ["Upsample", "upsample_add", "upsample_logits"]

ROWS = 32
"""Positions of a tile."""


class Upsample(NamedTuple):
    """Packed weights."""

    weight: Tensor
    bias: Tensor
    channels: int

    @classmethod
    def pack(cls, layer: Any, dtype: torch.dtype) -> Upsample:
        """Of a `folded.FoldedUpsample`."""
        conv = layer.conv
        taps = conv.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9, out, in)
        return cls(pack_matrix(taps, dtype), pack_vector(conv.bias), conv.out_channels)


@triton.jit
def _gather(x, weight, bias, b, odd_y, odd_x, i, j, inside, height, width,
            IN: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """The outputs at (2 i + odd_y, 2 j + odd_x): (ROWS, BLOCK_OUT), float32."""
    c = tl.arange(0, BLOCK_IN)
    o = tl.arange(0, BLOCK_OUT)
    total = tl.zeros([ROWS, BLOCK_OUT], tl.float32) + tl.load(bias + o)[None, :]
    for down in range(odd_y + 1):
        for right in range(odd_x + 1):
            tap = tl.where(odd_y == 1, 2 - 2 * down, 1) * 3 + tl.where(odd_x == 1, 2 - 2 * right, 1)
            at_y = i + down
            at_x = j + right
            mask = inside & (at_y < height) & (at_x < width)
            at = ((b * height + at_y) * width + at_x)[:, None] * IN + c[None, :]
            value = tl.load(x + at, mask=mask[:, None] & (c < IN)[None, :], other=0.0)
            matrix = tl.load(weight + (tap * BLOCK_IN + c)[:, None] * BLOCK_OUT + o[None, :])
            total = tl.dot(value, matrix, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width"])
def _upsample(x, line, x_out, z_out, weight, bias, next_scale, next_shift, next_slope, height, width, out_height,
              out_width,
              IN: tl.constexpr, BLOCK_IN: tl.constexpr, OUT: tl.constexpr, BLOCK_OUT: tl.constexpr,
              STRIDE: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(2)
    odd_y = tl.program_id(1) // 2
    odd_x = tl.program_id(1) % 2
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i = p // width
    j = p % width
    at_y = 2 * i + odd_y
    at_x = 2 * j + odd_x
    inside = (at_y < out_height) & (at_x < out_width)
    total = _gather(x, weight, bias, b, odd_y, odd_x, i, j, inside, height, width, IN, BLOCK_IN, BLOCK_OUT, ROWS)
    o = tl.arange(0, BLOCK_OUT)
    mask = inside[:, None] & (o < OUT)[None, :]
    at = ((b * out_height + at_y) * out_width + at_x)[:, None] * STRIDE + o[None, :]
    if LAST:
        tl.store(x_out + at, total, mask=mask)
    else:
        total += tl.load(line + at, mask=mask, other=0.0).to(tl.float32)
        store_with_next(x_out, z_out, at, mask, total, o, next_scale, next_shift, next_slope, OUT)


def upsample_add(x: Tensor, line: Tensor, weights: Upsample, following: Norm) -> tuple[Tensor, Tensor]:
    """(B, ceil(h / 2), ceil(w / 2), C) and (B, h, w, C) -> twice (B, h, w, C): x and z."""
    x_out, z_out = torch.empty_like(line), torch.empty_like(line)
    _launch(x, line, x_out, z_out, weights, following, last=False)
    return x_out, z_out


def upsample_logits(x: Tensor, size: tuple[int, int], weights: Upsample) -> Tensor:
    """(B, ceil(h / 2), ceil(w / 2), C) -> (B, h, w, block of K), float32, of which K hold the logits."""
    logits = x.new_empty((x.shape[0], *size, block_of(weights.channels)), dtype=torch.float32)
    unused = Norm(weights.bias, weights.bias, weights.bias)
    _launch(x, logits, logits, logits, weights, unused, last=True)
    return logits


def _launch(
    x: Tensor,
    line: Tensor,
    x_out: Tensor,
    z_out: Tensor,
    weights: Upsample,
    following: Norm,
    last: bool,
) -> None:
    batch, height, width, channels = cells(x)
    _, out_height, out_width, stride = cells(x_out)
    out = weights.channels
    _upsample[(triton.cdiv(height * width, ROWS), 4, batch)](
        x, line, x_out, z_out, weights.weight, weights.bias, *following, height, width, out_height, out_width,
        IN=channels, BLOCK_IN=block_of(channels), OUT=out, BLOCK_OUT=block_of(out), STRIDE=stride, LAST=last, ROWS=ROWS,
        num_warps=1,
    )  # fmt: skip
