"""The FFM around its scan: what comes before, in three kernels, and what comes after, in one.

The same as, in plain torch, for a `network.ffm.FFM` and channels-last maps:

    value, gate = ffm.ss2d.in_proj(ffm.norm(torch.cat([x, eighth, quarter], -1))).chunk(2, -1)     `project_in`
    u = F.silu(ffm.ss2d.conv(value)); projected = u @ ffm.ss2d.x_proj.flatten(0, 1).T               `look_around`
    x = x + ffm.ffn(ffm.ss2d.out_proj(ffm.ss2d.out_norm(scanned) * F.silu(gate))) + line            `project_out`
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
    is_large,
    pack_matrix,
    pack_vector,
    store_with_next,
)
from ecmnet_app.network.ffm import SOURCES
from ecmnet_app.network.scan.four_directions import ScanWeights

__all__ = ["Ffm", "look_around", "project_in", "project_out"]

EPS = tl.constexpr(1e-5)
"""Of the layer norms, torch's default."""

OUTPUTS = 64
"""Channels of the first projection that a program makes."""

ROWS = 16
"""Positions of a tile: a map at 1/16 has few."""


class Ffm(NamedTuple):
    """Packed weights."""

    norm: tuple[Tensor, Tensor]
    in_proj: Tensor
    conv: Tensor
    """(9, block of inner), float32."""
    conv_bias: Tensor
    x_proj: Tensor
    scan: ScanWeights
    out_norm: tuple[Tensor, Tensor]
    out_proj: Tensor
    ffn_norm: tuple[Tensor, Tensor]
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    inner: int

    @classmethod
    def pack(cls, ffm: Any, dtype: torch.dtype) -> Ffm:
        """Of a `network.ffm.FFM` that the long connections feed."""

        def norm(layer: Any) -> tuple[Tensor, Tensor]:
            return pack_vector(layer.weight), pack_vector(layer.bias)

        ss2d = ffm.ss2d
        ffn_norm, first, _, second = ffm.ffn
        return cls(
            norm(ffm.norm),
            pack_matrix(ss2d.in_proj.weight, dtype),
            pack_vector(ss2d.conv.weight.flatten(1).t()),
            pack_vector(ss2d.conv.bias),
            pack_matrix(ss2d.x_proj.flatten(0, 1), dtype),
            ScanWeights.of(ss2d),
            norm(ss2d.out_norm),
            pack_matrix(ss2d.out_proj.weight, dtype),
            norm(ffn_norm),
            pack_matrix(first.weight, dtype),
            pack_vector(first.bias),
            pack_matrix(second.weight, dtype),
            pack_vector(second.bias),
            ss2d.inner,
        )


@triton.jit
def _layer_norm(x, real, c, weight, bias, CHANNELS: tl.constexpr):
    mean = tl.sum(x, 1)[:, None] / CHANNELS
    apart = tl.where(real[None, :], x - mean, 0.0)
    variance = tl.sum(apart * apart, 1)[:, None] / CHANNELS
    return apart / tl.sqrt(variance + EPS) * tl.load(weight + c)[None, :] + tl.load(bias + c)[None, :]


@triton.jit(do_not_specialize=["rows"])
def _project_in(x, eighth, quarter, y, norm_weight, norm_bias, weight, rows,
                CHANNELS: tl.constexpr, BLOCK: tl.constexpr, OUT: tl.constexpr, BLOCK_OUT: tl.constexpr,
                OUTPUTS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < rows
    c = tl.arange(0, BLOCK)
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    at = p[:, None] * CHANNELS + (c % CHANNELS)[None, :]
    source = c // CHANNELS
    value = tl.load(x + at, mask=inside[:, None] & (source == 0)[None, :], other=0.0).to(tl.float32)
    value += tl.load(eighth + at, mask=inside[:, None] & (source == 1)[None, :], other=0.0).to(tl.float32)
    value += tl.load(quarter + at, mask=inside[:, None] & (source == 2)[None, :], other=0.0).to(tl.float32)
    normed = _layer_norm(value, source < 3, c, norm_weight, norm_bias, 3 * CHANNELS)
    there = o < BLOCK_OUT
    matrix = tl.load(weight + c[:, None] * BLOCK_OUT + o[None, :], mask=there[None, :], other=0.0)
    out = tl.dot(normed.to(matrix.dtype), matrix, input_precision="ieee")
    mask = inside[:, None] & (o < OUT)[None, :]
    tl.store(y + p[:, None] * OUT + o[None, :], out.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width"])
def _look_around(value_and_gate, u, conv, conv_bias, height, width,
                 INNER: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(2)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    d = tl.program_id(1) * PART + tl.arange(0, PART)
    total = tl.zeros([ROWS, PART], tl.float32) + tl.load(conv_bias + d)[None, :]
    for tap in tl.static_range(9):
        at_y = p // width + tap // 3 - 1
        at_x = p % width + tap % 3 - 1
        mask = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        at = ((b * height + at_y) * width + at_x)[:, None] * (2 * INNER) + d[None, :]
        value = tl.load(value_and_gate + at, mask=mask[:, None] & (d < INNER)[None, :], other=0.0)
        total += value.to(tl.float32) * tl.load(conv + tap * BLOCK + d)[None, :]
    out = (total * tl.sigmoid(total)).to(u.dtype.element_ty)
    at = (b * height * width + p)[:, None] * INNER + d[None, :]
    tl.store(u + at, out, mask=inside[:, None] & (d < INNER)[None, :])


@triton.jit(do_not_specialize=["rows"])
def _project(u, projected, x_proj, rows,
             INNER: tl.constexpr, BLOCK_OUT: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (p < rows)[:, None]
    o = tl.arange(0, BLOCK_OUT)
    total = tl.zeros([ROWS, BLOCK_OUT], tl.float32)
    for start in range(0, INNER, PART):
        d = start + tl.arange(0, PART)
        value = tl.load(u + p[:, None] * INNER + d[None, :], mask=inside & (d < INNER)[None, :], other=0.0)
        matrix = tl.load(x_proj + d[:, None] * BLOCK_OUT + o[None, :])
        total = tl.dot(value, matrix, total, input_precision="ieee")
    tl.store(projected + p[:, None] * BLOCK_OUT + o[None, :], total, mask=inside)


@triton.jit(do_not_specialize=["area"])
def _project_out(scanned, value_and_gate, x, line, x_out, z_out, out_weight, out_bias, out_proj, ffn_weight, ffn_bias,
                 first, first_bias, second, second_bias, next_scale, next_shift, next_slope, area,
                 INNER: tl.constexpr, BLOCK_INNER: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
                 HIDDEN: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """`area`: positions of a picture; `scanned` holds four maps of each."""
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < area
    d = tl.arange(0, BLOCK_INNER)
    e = tl.arange(0, BLOCK_DIM)
    f = tl.arange(0, HIDDEN)
    c = tl.arange(0, BLOCK)
    # All matrices at once: their way from memory overlaps.
    to_dim = tl.load(out_proj + d[:, None] * BLOCK_DIM + e[None, :])
    to_hidden = tl.load(first + e[:, None] * HIDDEN + f[None, :])
    to_channels = tl.load(second + f[:, None] * BLOCK + c[None, :])
    mask = inside[:, None] & (d < INNER)[None, :]
    total = tl.zeros([ROWS, BLOCK_INNER], tl.float32)
    for direction in tl.static_range(4):
        at = ((b * 4 + direction) * area + p)[:, None] * INNER + d[None, :]
        total += tl.load(scanned + at, mask=mask, other=0.0).to(tl.float32)
    cell = (b * area + p)[:, None]
    gate = tl.load(value_and_gate + cell * (2 * INNER) + INNER + d[None, :], mask=mask, other=0.0).to(tl.float32)
    normed = _layer_norm(total, d < INNER, d, out_weight, out_bias, INNER) * gate * tl.sigmoid(gate)
    narrow = tl.dot(normed.to(to_dim.dtype), to_dim, input_precision="ieee")
    normed = _layer_norm(narrow, e < DIM, e, ffn_weight, ffn_bias, DIM)
    hidden = tl.dot(normed.to(to_dim.dtype), to_hidden, input_precision="ieee") + tl.load(first_bias + f)[None, :]
    hidden = 0.5 * hidden * (1 + tl.erf(hidden * 0.7071067811865476))
    out = tl.dot(hidden.to(to_dim.dtype), to_channels, input_precision="ieee") + tl.load(second_bias + c)[None, :]
    at = cell * CHANNELS + c[None, :]
    mask = inside[:, None] & (c < CHANNELS)[None, :]
    out += tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + tl.load(line + at, mask=mask, other=0.0).to(
        tl.float32
    )
    store_with_next(x_out, z_out, at, mask, out, c, next_scale, next_shift, next_slope, CHANNELS)


def project_in(x: Tensor, eighth: Tensor, quarter: Tensor, weights: Ffm) -> Tensor:
    """Three of (B, H, W, C) -> value and gate, (B, H, W, 2 * inner)."""
    batch, height, width, channels = cells(x)
    y = x.new_empty((batch, height, width, 2 * weights.inner))
    rows = batch * height * width
    block_out = block_of(2 * weights.inner)
    _project_in[(triton.cdiv(rows, ROWS), triton.cdiv(2 * weights.inner, OUTPUTS))](
        x, eighth, quarter, y, *weights.norm, weights.in_proj, rows,
        CHANNELS=channels, BLOCK=block_of(SOURCES * channels), OUT=2 * weights.inner, BLOCK_OUT=block_out,
        OUTPUTS=OUTPUTS, ROWS=ROWS,
    )  # fmt: skip
    return y


def look_around(value_and_gate: Tensor, weights: Ffm) -> tuple[Tensor, Tensor]:
    """(B, H, W, 2 * inner) -> u, (B, H, W, inner), and the scan's inputs, (B, H, W, block), float32."""
    batch, height, width, _ = cells(value_and_gate)
    inner, block = weights.inner, weights.x_proj.shape[1]
    u = value_and_gate.new_empty((batch, height, width, inner))
    projected = u.new_empty((batch, height, width, block), dtype=torch.float32)
    part = min(64, block_of(inner))
    _look_around[(triton.cdiv(height * width, ROWS), triton.cdiv(inner, part), batch)](
        value_and_gate, u, weights.conv, weights.conv_bias, height, width,
        INNER=inner, BLOCK=block_of(inner), PART=part, ROWS=ROWS,
    )  # fmt: skip
    rows = batch * height * width
    _project[(triton.cdiv(rows, ROWS),)](
        u, projected, weights.x_proj, rows, INNER=inner, BLOCK_OUT=block, PART=part, ROWS=ROWS
    )
    return u, projected


def project_out(
    scanned: Tensor,
    value_and_gate: Tensor,
    x: Tensor,
    line: Tensor,
    weights: Ffm,
    following: Norm,
    large: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, 4, H, W, inner), (B, H, W, 2 * inner) and two of (B, H, W, C) -> twice (B, H, W, C): x and z."""
    batch, height, width, channels = cells(x)
    x_out, z_out = torch.empty_like(x), torch.empty_like(x)
    inner, dim = weights.inner, SOURCES * channels
    rows = 64 if is_large(4 * batch * height * width, large) else ROWS  # what hides the way of its matrices
    _project_out[(triton.cdiv(height * width, rows), batch)](
        scanned, value_and_gate, x, line, x_out, z_out, *weights.out_norm, weights.out_proj, *weights.ffn_norm,
        weights.first, weights.first_bias, weights.second, weights.second_bias, *following, height * width,
        INNER=inner, BLOCK_INNER=block_of(inner), DIM=dim, BLOCK_DIM=block_of(dim), HIDDEN=weights.first.shape[1],
        CHANNELS=channels, BLOCK=block_of(channels), ROWS=rows, num_warps=8,
    )  # fmt: skip
    return x_out, z_out
