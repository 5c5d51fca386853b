"""What the kernels share: packed weights, tile sizes, and sums that do not depend on their order."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "FIXED",
    "Norm",
    "block_of",
    "cells",
    "from_ordered",
    "gather_3x3",
    "is_large",
    "pack_conv",
    "pack_matrix",
    "pack_vector",
    "prelu",
    "rows_of",
    "store_with_next",
    "to_fixed",
    "to_ordered",
]

FIXED = tl.constexpr(2.0**24)
"""Sums over a map are whole multiples of 1 / FIXED, in 64 bits: the order in which programs add changes nothing."""


def block_of(channels: int) -> int:
    """Channels of a tile: a power of two, at least what a matrix product on a GPU takes."""
    return max(16, int(triton.next_power_of_2(channels)))


def pack_matrix(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., out, in) -> (..., block of in, block of out), zero beyond: kernels read it without a mask."""
    rows, columns = weight.shape[-2:]
    padded = F.pad(weight, (0, block_of(columns) - columns, 0, block_of(rows) - rows))
    return padded.transpose(-1, -2).contiguous().to(dtype)


def pack_conv(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(out, in, kh, kw) -> (kh * kw, block of in, block of out)."""
    return pack_matrix(weight.permute(2, 3, 0, 1).flatten(0, 1), dtype)


def pack_vector(values: Tensor) -> Tensor:
    """(..., C) -> (..., block of C), float32, zero beyond."""
    return F.pad(values.float(), (0, block_of(values.shape[-1]) - values.shape[-1])).contiguous()


class Norm(NamedTuple):
    """A `ScaledPReLU`, packed."""

    scale: Tensor
    shift: Tensor
    slope: Tensor

    @classmethod
    def pack(cls, layer: Any) -> Norm:
        """Of a `folded.ScaledPReLU`."""
        return cls(
            pack_vector(layer.scale.flatten()), pack_vector(layer.shift.flatten()), pack_vector(layer.act.weight)
        )


def cells(x: Tensor) -> tuple[int, int, int, int]:
    """B, H, W, C of a channels-last map, which must be contiguous."""
    assert x.is_contiguous()
    batch, height, width, channels = x.shape
    return batch, height, width, channels


@triton.jit
def prelu(x, slope):
    """PReLU."""
    return tl.where(x > 0, x, x * slope)


@triton.jit
def to_fixed(x):
    """Float to the whole numbers that are summed."""
    return (x * FIXED).to(tl.int64)


@triton.jit
def to_ordered(x):
    """Float32 to whole numbers above 0 in the same order, so that a maximum can start from 0."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.int64) + 0x80000001


@triton.jit
def from_ordered(key):
    """The inverse of `to_ordered`."""
    bits = (key - 0x80000001).to(tl.int32)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.float32, bitcast=True)


@triton.jit
def gather_3x3(x, weight, b, y, column, inside, height, width,
               IN: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """A 3x3 convolution around positions (y, column) of picture b: (ROWS, BLOCK_OUT), float32."""
    c = tl.arange(0, BLOCK_IN)
    o = tl.arange(0, BLOCK_OUT)
    total = tl.zeros([ROWS, BLOCK_OUT], tl.float32)
    for tap in tl.range(9):  # a loop, which loads ahead
        at_y = y + tap // 3 - 1
        at_x = column + tap % 3 - 1
        mask = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        at = ((b * height + at_y) * width + at_x)[:, None] * IN + c[None, :]
        value = tl.load(x + at, mask=mask[:, None] & (c < IN)[None, :], other=0.0)
        matrix = tl.load(weight + (tap * BLOCK_IN + c)[:, None] * BLOCK_OUT + o[None, :])
        total = tl.dot(value, matrix, total, input_precision="ieee")
    return total


@triton.jit
def store_with_next(x, z, at, mask, value, c, scale, shift, slope, CHANNELS: tl.constexpr):
    """The value, and what the next block's norm and PReLU make of it."""
    tl.store(x + at, value.to(x.dtype.element_ty), mask=mask)
    real = c < CHANNELS
    scaled = value * tl.load(scale + c, mask=real)[None, :] + tl.load(shift + c, mask=real)[None, :]
    tl.store(z + at, prelu(scaled, tl.load(slope + c, mask=real)[None, :]).to(z.dtype.element_ty), mask=mask)


MANY = 8192
"""Positions of a batch's maps from which on tiles are large: a tile of 64 for each multiprocessor of an H100."""


def is_large(positions: int, large: bool | None) -> bool:
    """Whether tiles are large: as told, or where there are enough positions for every multiprocessor."""
    return positions >= MANY if large is None else large


def rows_of(positions: int, large: bool | None) -> dict[str, Any]:
    """Positions of a tile of convolutions, and its warps."""
    return {"ROWS": 128 if is_large(positions, large) else 32, "num_warps": 4}
