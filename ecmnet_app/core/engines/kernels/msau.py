"""A long connection: its 3x3 convolution and the MSAU behind it, in three kernels.

The same as, in plain torch, for a `folded.FoldedECMNet`:

    net.msau(connection(x))

The first writes the connection and its 1x1; the second the depthwise 7x7 of that and, of the two 3x3 feature maps, only
the sum and the maximum of each channel; the third makes the gates of them and applies them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import (
    FIXED,
    block_of,
    cells,
    from_ordered,
    gather_3x3,
    is_large,
    pack_conv,
    pack_matrix,
    pack_vector,
    prelu,
    rows_of,
    to_fixed,
    to_ordered,
)

__all__ = ["Connection", "Msau", "msau", "msau_sums"]


class Connection(NamedTuple):
    """Packed weights of one connection's convolution."""

    weight: Tensor
    bias: Tensor
    slope: Tensor

    @classmethod
    def pack(cls, layer: Any, dtype: torch.dtype) -> Connection:
        """Of a convolution and a PReLU."""
        conv, act = layer
        return cls(pack_conv(conv.weight, dtype), pack_vector(conv.bias), pack_vector(act.weight))


class Msau(NamedTuple):
    """Packed weights of the MSAU, which serves all connections."""

    reduce: Tensor
    scales: Tensor
    """(49, half), float32."""
    mean_features: Tensor
    max_features: Tensor
    taps: Tensor
    """Of the columns' depthwise convolution, (7, block of half), float32."""
    columns: Tensor
    columns_bias: Tensor
    expand: Tensor
    mean_gate: tuple[Tensor, ...]
    max_gate: tuple[Tensor, ...]

    @classmethod
    def pack(cls, layer: Any, dtype: torch.dtype) -> Msau:
        """Of a `folded.FoldedMSAU`."""

        def gate(layers: Any) -> tuple[Tensor, ...]:
            first, _, second = layers
            return tuple(
                part
                for conv in (first, second)
                for part in (pack_matrix(conv.weight[:, :, 0, 0], torch.float32), pack_vector(conv.bias))
            )

        along, across, _ = layer.columns
        return cls(
            pack_matrix(layer.reduce.weight[:, :, 0, 0], dtype),
            layer.scales.weight.flatten(1).t().float().contiguous(),
            pack_conv(layer.mean_features.weight, dtype),
            pack_conv(layer.max_features.weight, dtype),
            pack_vector(along.weight.flatten(1).t()),
            pack_matrix(across.weight[:, :, 0, 0], dtype),
            pack_vector(across.bias),
            pack_matrix(layer.expand.weight[:, :, 0, 0], dtype),
            gate(layer.mean_gate),
            gate(layer.max_gate),
        )


def msau_sums(width: int, channels: int) -> int:
    """Whole numbers that `msau` gathers of a picture: by column of x1, then by channel a sum and a maximum."""
    return width * (channels // 2) + 2 * channels


@triton.jit(do_not_specialize=["height", "width"])
def _connect(x, line, reduced, weight, bias, slope, reduce, height, width,
             IN: tl.constexpr, BLOCK_IN: tl.constexpr, OUT: tl.constexpr, BLOCK_OUT: tl.constexpr, HALF: tl.constexpr,
             BLOCK_HALF: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    o = tl.arange(0, BLOCK_OUT)
    h = tl.arange(0, BLOCK_HALF)
    total = gather_3x3(x, weight, b, p // width, p % width, inside, height, width,
                       IN, BLOCK_IN, BLOCK_OUT, ROWS)  # fmt: skip
    out = prelu(total + tl.load(bias + o)[None, :], tl.load(slope + o)[None, :]).to(line.dtype.element_ty)
    cell = (b * height * width + p)[:, None]
    tl.store(line + cell * OUT + o[None, :], out, mask=inside[:, None] & (o < OUT)[None, :])
    small = tl.dot(out, tl.load(reduce + o[:, None] * BLOCK_HALF + h[None, :]), input_precision="ieee")
    mask = inside[:, None] & (h < HALF)[None, :]
    tl.store(reduced + cell * HALF + h[None, :], small.to(reduced.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width", "steps", "columns"])
def _look(line, reduced, x1, sums, scales, mean_features, max_features, height, width, steps, columns,
          CHANNELS: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr,
          COLUMNS: tl.constexpr):  # fmt: skip
    """A program walks down `steps` rows of COLUMNS columns."""
    b = tl.program_id(1)
    first = tl.program_id(0) // columns * steps
    column = tl.program_id(0) % columns * COLUMNS + tl.arange(0, COLUMNS)
    here = column < width
    o = tl.arange(0, BLOCK)
    h = tl.arange(0, BLOCK_HALF)
    real = h < HALF
    sums += b * (width * HALF + 2 * CHANNELS)
    down_columns = tl.zeros([COLUMNS, BLOCK_HALF], tl.float32)
    added = tl.zeros([COLUMNS, BLOCK], tl.float32)
    highest = tl.full([COLUMNS, BLOCK], float("-inf"), tl.float32)
    for row in range(first, tl.minimum(first + steps, height)):
        y = row + tl.zeros_like(column)
        added += gather_3x3(line, mean_features, b, y, column, here, height, width,
                            CHANNELS, BLOCK, BLOCK, COLUMNS)  # fmt: skip
        features = gather_3x3(line, max_features, b, y, column, here, height, width,
                              CHANNELS, BLOCK, BLOCK, COLUMNS)  # fmt: skip
        highest = tl.maximum(highest, tl.where(here[:, None], features, float("-inf")))
        total = tl.zeros([COLUMNS, BLOCK_HALF], tl.float32)
        for down in range(7):
            at_y = y + down - 3
            for right in tl.static_range(7):
                at_x = column + right - 3
                mask = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
                at = ((b * height + at_y) * width + at_x)[:, None] * HALF + h[None, :]
                value = tl.load(reduced + at, mask=mask[:, None] & real[None, :], other=0.0).to(tl.float32)
                total += value * tl.load(scales + (down * 7 + right) * HALF + h, mask=real)[None, :]
        mask = here[:, None] & real[None, :]
        total = tl.where(mask, total, 0.0)
        down_columns += total
        at = ((b * height + y) * width + column)[:, None] * HALF + h[None, :]
        tl.store(x1 + at, total.to(x1.dtype.element_ty), mask=mask)
    at = column[:, None] * HALF + h[None, :]
    tl.atomic_add(sums + at, to_fixed(down_columns), mask=here[:, None] & real[None, :], sem="relaxed")
    added = tl.where(here[:, None], added, 0.0)
    at_map = sums + width * HALF + o
    tl.atomic_add(at_map, to_fixed(tl.sum(added, 0)), mask=o < CHANNELS, sem="relaxed")
    tl.atomic_max(at_map + CHANNELS, to_ordered(tl.max(highest, 0)), mask=o < CHANNELS, sem="relaxed")


@triton.jit
def _channel_gate(pooled, first, first_bias, second, second_bias, BLOCK: tl.constexpr, HIDDEN: tl.constexpr):
    """Two small layers on one vector: (BLOCK,) -> (BLOCK,)."""
    i = tl.arange(0, BLOCK)
    j = tl.arange(0, HIDDEN)
    o = tl.arange(0, BLOCK)
    hidden = tl.sum(pooled[:, None] * tl.load(first + i[:, None] * HIDDEN + j[None, :]), 0) + tl.load(first_bias + j)
    hidden = tl.maximum(hidden, 0.0)
    return tl.sum(hidden[:, None] * tl.load(second + j[:, None] * BLOCK + o[None, :]), 0) + tl.load(second_bias + o)


@triton.jit(do_not_specialize=["height", "width"])
def _refine(line, x1, sums, out, taps, columns, columns_bias, expand, mean_first, mean_first_bias, mean_second,
            mean_second_bias, max_first, max_first_bias, max_second, max_second_bias, height, width,
            CHANNELS: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr,
            HIDDEN: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    column = p % width
    o = tl.arange(0, BLOCK)
    h = tl.arange(0, BLOCK_HALF)
    k = tl.arange(0, BLOCK_HALF)
    real = h < HALF
    sums += b * (width * HALF + 2 * CHANNELS)
    at_map = sums + width * HALF + o
    pooled = tl.load(at_map, mask=o < CHANNELS, other=0).to(tl.float32) / (FIXED * height * width)
    gate = _channel_gate(pooled, mean_first, mean_first_bias, mean_second, mean_second_bias, BLOCK, HIDDEN)
    highest = from_ordered(tl.load(at_map + CHANNELS, mask=o < CHANNELS, other=0x80000001))
    gate += _channel_gate(highest, max_first, max_first_bias, max_second, max_second_bias, BLOCK, HIDDEN)
    along = tl.zeros([ROWS, BLOCK_HALF], tl.float32)
    for tap in tl.static_range(7):
        at_x = column + tap - 3
        mask = (inside & (at_x >= 0) & (at_x < width))[:, None] & real[None, :]
        mean = tl.load(sums + at_x[:, None] * HALF + h[None, :], mask=mask, other=0).to(tl.float32) / (FIXED * height)
        along += mean * tl.load(taps + tap * BLOCK_HALF + h)[None, :]
    matrix = tl.load(columns + k[:, None] * BLOCK_HALF + h[None, :])
    across = tl.dot(along.to(matrix.dtype), matrix, input_precision="ieee") + tl.load(columns_bias + h)[None, :]
    cell = (b * height * width + p)[:, None]
    small = tl.load(x1 + cell * HALF + h[None, :], mask=inside[:, None] & real[None, :], other=0.0).to(tl.float32)
    gated = (small * tl.sigmoid(across)).to(matrix.dtype)
    wide = tl.dot(gated, tl.load(expand + k[:, None] * BLOCK + o[None, :]), input_precision="ieee")
    mask = inside[:, None] & (o < CHANNELS)[None, :]
    value = tl.load(line + cell * CHANNELS + o[None, :], mask=mask, other=0.0).to(tl.float32) + wide * gate[None, :]
    tl.store(out + cell * CHANNELS + o[None, :], value.to(out.dtype.element_ty), mask=mask)


def msau(
    x: Tensor, sums: Tensor, connection: Connection, weights: Msau, channels: int, large: bool | None = None
) -> Tensor:
    """(B, H, W, C_in) and zeros, (B, `msau_sums`), int64 -> (B, H, W, channels)."""
    batch, height, width, wide = cells(x)
    half = channels // 2
    line, out = (x.new_empty((batch, height, width, channels)) for _ in range(2))
    reduced, x1 = (x.new_empty((batch, height, width, half)) for _ in range(2))
    blocks = {"BLOCK": block_of(channels), "HALF": half, "BLOCK_HALF": block_of(half)}
    tile = rows_of(batch * height * width, large)
    grid = (triton.cdiv(height * width, tile["ROWS"]), batch)
    _connect[grid](
        x, line, reduced, *connection, weights.reduce, height, width,
        IN=wide, BLOCK_IN=block_of(wide), OUT=channels, BLOCK_OUT=block_of(channels), HALF=half,
        BLOCK_HALF=block_of(half), **tile,
    )  # fmt: skip
    many = is_large(batch * height * width, large)
    span, steps = (32, 2) if many else (16, 1)
    columns = triton.cdiv(width, span)
    _look[(columns * triton.cdiv(height, steps), batch)](
        line, reduced, x1, sums, weights.scales, weights.mean_features, weights.max_features, height, width, steps,
        columns, CHANNELS=channels, COLUMNS=span, num_warps=4, **blocks,
    )  # fmt: skip
    _refine[grid](
        line, x1, sums, out, weights.taps, weights.columns, weights.columns_bias, weights.expand,
        *weights.mean_gate, *weights.max_gate, height, width,
        CHANNELS=channels, HIDDEN=weights.mean_gate[1].numel(), **blocks, **tile,
    )  # fmt: skip
    return out
