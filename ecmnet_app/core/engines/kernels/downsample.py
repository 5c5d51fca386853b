"""Half the size: a 3x3 convolution of stride 2 beside a 2x2 maximum, and what the first block makes of both.

The same as, in plain torch, with `layers` of `engines.folded`:

    x = downsample(x); z = stage[0].before(x)
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
    gather_3x3,
    is_large,
    pack_conv,
    pack_vector,
    prelu,
    store_with_next,
)

__all__ = ["Downsample", "downsample"]


class Downsample(NamedTuple):
    """Packed weights: of the convolution, then of the pooled channels."""

    weight: Tensor
    bias: Tensor
    slope: Tensor
    pooled: Norm
    convolved: int
    channels: int

    @classmethod
    def pack(cls, layer: Any, dtype: torch.dtype) -> Downsample:
        """Of a `folded.FoldedDownsample`."""
        wide = layer.conv.out_channels
        slopes = layer.act.weight
        pooled = (layer.scale.flatten(), layer.shift.flatten()) if layer.grows else 2 * (slopes[:0],)
        return cls(
            pack_conv(layer.conv.weight, dtype),
            pack_vector(layer.conv.bias),
            pack_vector(slopes[:wide]),
            Norm(*(pack_vector(values) for values in (*pooled, slopes[wide:]))),
            wide,
            len(slopes),
        )


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width"])
def _downsample(x, y, z, weight, bias, slope, scale, shift, pool_slope, next_scale, next_shift, next_slope, height,
                width, out_height, out_width,
                IN: tl.constexpr, BLOCK_IN: tl.constexpr, OUT: tl.constexpr, BLOCK_OUT: tl.constexpr,
                POOL: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < out_height * out_width
    row = p // out_width * 2
    column = p % out_width * 2
    o = tl.arange(0, BLOCK_OUT)
    total = gather_3x3(x, weight, b, row, column, inside, height, width, IN, BLOCK_IN, BLOCK_OUT, ROWS)
    out = prelu(total + tl.load(bias + o)[None, :], tl.load(slope + o)[None, :])
    at = (b * out_height * out_width + p)[:, None] * (OUT + POOL)
    mask = inside[:, None] & (o < OUT)[None, :]
    store_with_next(y, z, at + o[None, :], mask, out, o, next_scale, next_shift, next_slope, OUT + POOL)
    if POOL > 0:
        c = tl.arange(0, BLOCK_IN)
        top = tl.full([ROWS, BLOCK_IN], float("-inf"), tl.float32)
        for tap in tl.static_range(4):
            at_y = row + tap // 2
            at_x = column + tap % 2
            seen = (inside & (at_y < height) & (at_x < width))[:, None] & (c < IN)[None, :]
            at_in = ((b * height + at_y) * width + at_x)[:, None] * IN + c[None, :]
            top = tl.maximum(top, tl.load(x + at_in, mask=seen, other=float("-inf")).to(tl.float32))
        out = prelu(top * tl.load(scale + c)[None, :] + tl.load(shift + c)[None, :], tl.load(pool_slope + c)[None, :])
        mask = inside[:, None] & (c < IN)[None, :]
        store_with_next(y, z, at + OUT + c[None, :], mask, out, c + OUT, next_scale, next_shift, next_slope, OUT + POOL)


def downsample(x: Tensor, weights: Downsample, following: Norm, large: bool | None = None) -> tuple[Tensor, Tensor]:
    """(B, H, W, C_in) -> twice (B, ceil(H / 2), ceil(W / 2), C_out): x and z."""
    batch, height, width, channels = cells(x)
    out_height, out_width = -(-height // 2), -(-width // 2)
    y, z = (x.new_empty((batch, out_height, out_width, weights.channels)) for _ in range(2))
    rows = 64 if is_large(batch * out_height * out_width, large) else 32
    _downsample[(triton.cdiv(out_height * out_width, rows), batch)](
        x, y, z, *weights[:3], *weights.pooled, *following, height, width, out_height, out_width,
        IN=channels, BLOCK_IN=block_of(channels), OUT=weights.convolved, BLOCK_OUT=block_of(weights.convolved),
        POOL=weights.channels - weights.convolved, ROWS=rows, num_warps=4,
    )  # fmt: skip
    return y, z
