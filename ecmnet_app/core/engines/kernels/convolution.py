"""A 3x3 convolution of stride 1 or 2 and its PReLU.

The same as, in plain torch, for (B, C, H, W):

    F.prelu(F.conv2d(x, weight, bias, stride, padding=1), slope)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import (
    block_of,
    cells,
    gather_3x3,
    pack_conv,
    pack_vector,
    prelu,
    rows_of,
)

__all__ = ["Convolution", "convolution"]


class Convolution(NamedTuple):
    """Packed weights."""

    weight: Tensor
    bias: Tensor
    slope: Tensor
    stride: int
    channels: int

    @classmethod
    def pack(cls, layer: Any, dtype: torch.dtype) -> Convolution:
        """Of a convolution and a PReLU."""
        conv, act = layer
        return cls(
            pack_conv(conv.weight, dtype),
            pack_vector(conv.bias),
            pack_vector(act.weight),
            conv.stride[0],
            conv.out_channels,
        )


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "stride"])
def _convolution(x, y, weight, bias, slope, height, width, out_height, out_width, stride,
                 IN: tl.constexpr, BLOCK_IN: tl.constexpr, OUT: tl.constexpr, BLOCK_OUT: tl.constexpr,
                 ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < out_height * out_width
    o = tl.arange(0, BLOCK_OUT)
    total = gather_3x3(x, weight, b, p // out_width * stride, p % out_width * stride, inside, height, width,
                       IN, BLOCK_IN, BLOCK_OUT, ROWS)  # fmt: skip
    out = prelu(total + tl.load(bias + o)[None, :], tl.load(slope + o)[None, :])
    at = (b * out_height * out_width + p)[:, None] * OUT + o[None, :]
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside[:, None] & (o < OUT)[None, :])


def convolution(x: Tensor, weights: Convolution, large: bool | None = None) -> Tensor:
    """(B, H, W, C_in) -> (B, ceil(H / stride), ceil(W / stride), C_out)."""
    batch, height, width, channels = cells(x)
    stride, out = weights.stride, weights.channels
    out_height, out_width = -(-height // stride), -(-width // stride)
    y = x.new_empty((batch, out_height, out_width, out))
    tile = rows_of(batch * out_height * out_width, large)
    _convolution[(triton.cdiv(out_height * out_width, tile["ROWS"]), batch)](
        x, y, *weights[:3], height, width, out_height, out_width, stride,
        IN=channels, BLOCK_IN=block_of(channels), OUT=out, BLOCK_OUT=block_of(out), **tile,
    )  # fmt: skip
    return y
