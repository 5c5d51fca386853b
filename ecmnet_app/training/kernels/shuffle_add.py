"""channel_shuffle(a + b) as one kernel, on channels-last maps; backward one more, whose answer both share."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.training.kernels.batch_norm_prelu import TILE

__all__ = ["shuffle_add"]


@triton.jit
def _add(a, b, y, rows, half, ROWS: tl.constexpr, HALF: tl.constexpr):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, HALF)
    mask = (r < rows)[:, None] & (c < half)[None, :]
    at = r[:, None] * 2 * half + c[None, :]
    low = tl.load(a + at, mask=mask).to(tl.float32) + tl.load(b + at, mask=mask).to(tl.float32)
    at += half
    high = tl.load(a + at, mask=mask).to(tl.float32) + tl.load(b + at, mask=mask).to(tl.float32)
    o = tl.arange(0, 2 * HALF)
    mask = (r < rows)[:, None] & (o < 2 * half)[None, :]
    tl.store(y + r[:, None] * 2 * half + o[None, :], tl.interleave(low, high).to(y.dtype.element_ty), mask=mask)


@triton.jit
def _unshuffle(dy, dx, rows, half, ROWS: tl.constexpr, HALF: tl.constexpr):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o = tl.arange(0, 2 * HALF)
    mask = (r < rows)[:, None] & (o < 2 * half)[None, :]
    grad = tl.load(dy + r[:, None] * 2 * half + o[None, :], mask=mask)
    low, high = tl.split(tl.reshape(grad, (ROWS, HALF, 2)))
    c = tl.arange(0, HALF)
    mask = (r < rows)[:, None] & (c < half)[None, :]
    at = r[:, None] * 2 * half + c[None, :]
    tl.store(dx + at, low, mask=mask)
    tl.store(dx + at + half, high, mask=mask)


def _halves(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Positions, half of the channels, and the tile."""
    half = x.shape[1] // 2
    width = triton.next_power_of_2(half)
    return x.numel() // x.shape[1], half, {"ROWS": max(1, TILE // (2 * width)), "HALF": width}


class _ShuffleAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        rows, half, tile = _halves(a)
        y = torch.empty_like(b)
        _add[(triton.cdiv(rows, tile["ROWS"]),)](a, b, y, rows, half, **tile)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        dy = dy.contiguous(memory_format=torch.channels_last)
        rows, half, tile = _halves(dy)
        dx = torch.empty_like(dy)
        _unshuffle[(triton.cdiv(rows, tile["ROWS"]),)](dy, dx, rows, half, **tile)
        return dx, dx


def shuffle_add(a: Tensor, b: Tensor) -> Tensor:
    """Add and shuffle the channels in two groups: (B, C, H, W) twice -> the same, channels-last, the dtype of b."""
    a, b = (t.contiguous(memory_format=torch.channels_last) for t in (a, b))
    y: Tensor = _ShuffleAdd.apply(a, b)
    return y
