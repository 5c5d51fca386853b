"""The first convolution, from the bytes of a picture.

The same as, in plain torch, for (B, 3, H, W):

    F.prelu(F.conv2d(x * scale + shift, weight, bias, padding=1), slope)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import block_of, cells, pack_matrix, pack_vector, prelu, rows_of

__all__ = ["PictureConvolution", "picture_convolution"]


class PictureConvolution(NamedTuple):
    """Packed weights."""

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor
    slope: Tensor
    channels: int

    @classmethod
    def pack(cls, layer: Any, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> PictureConvolution:
        """Of a convolution and a PReLU; scale and shift: (3,), from bytes to what the network takes."""
        conv, act = layer
        taps = conv.weight.permute(0, 2, 3, 1).flatten(1)  # (out, 27): row, column, colour
        return cls(
            pack_vector(scale.repeat(9)),
            pack_vector(shift.repeat(9)),
            pack_matrix(taps, dtype),
            pack_vector(conv.bias),
            pack_vector(act.weight),
            conv.out_channels,
        )


@triton.jit(do_not_specialize=["height", "width"])
def _picture_convolution(picture, y, scale, shift, weight, bias, slope, height, width,
                         OUT: tl.constexpr, BLOCK_OUT: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, 32)
    o = tl.arange(0, BLOCK_OUT)
    at_y = (p // width)[:, None] + (k // 9)[None, :] - 1
    at_x = (p % width)[:, None] + (k // 3 % 3)[None, :] - 1
    inside = (p < height * width)[:, None] & (k < 27)[None, :]
    inside = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
    at = ((b * height + at_y) * width + at_x) * 3 + (k % 3)[None, :]
    value = tl.load(picture + at, mask=inside, other=0).to(tl.float32)
    value = tl.where(inside, value * tl.load(scale + k)[None, :] + tl.load(shift + k)[None, :], 0.0)
    matrix = tl.load(weight + k[:, None] * BLOCK_OUT + o[None, :])
    total = tl.dot(value.to(matrix.dtype), matrix, input_precision="ieee") + tl.load(bias + o)[None, :]
    out = prelu(total, tl.load(slope + o)[None, :])
    at = (b * height * width + p)[:, None] * OUT + o[None, :]
    tl.store(y + at, out.to(y.dtype.element_ty), mask=(p < height * width)[:, None] & (o < OUT)[None, :])


def picture_convolution(pictures: Tensor, weights: PictureConvolution, large: bool | None = None) -> Tensor:
    """(B, H, W, 3), uint8 -> (B, H, W, C)."""
    batch, height, width, _ = cells(pictures)
    y = pictures.new_empty((batch, height, width, weights.channels), dtype=weights.weight.dtype)
    tile = rows_of(batch * height * width, large)
    _picture_convolution[(triton.cdiv(height * width, tile["ROWS"]), batch)](
        pictures, y, *weights[:5], height, width, OUT=weights.channels, BLOCK_OUT=block_of(weights.channels), **tile
    )
    return y
