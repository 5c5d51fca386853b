"""From logits at half resolution to the class of every pixel and its confidence.

The same as `engines.answer_from_logits`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.core.engines.kernels.common import cells

__all__ = ["answer"]

ROWS = 128
"""Pixels of a tile."""


@triton.jit
def _source(position, size, source_size):
    """Where a pixel lies in the smaller map, as F.interpolate(align_corners=False) has it: above, below, weight."""
    at = tl.maximum((position.to(tl.float32) + 0.5) * (source_size.to(tl.float32) / size.to(tl.float32)) - 0.5, 0.0)
    above = tl.minimum(at.to(tl.int32), source_size - 1)
    return above, tl.minimum(above + 1, source_size - 1), at - above.to(tl.float32)


@triton.jit(do_not_specialize=["height", "width", "half_height", "half_width", "temperature"])
def _answer(logits, labels, confidence, height, width, half_height, half_width, temperature,
            CLASSES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    b = tl.program_id(1)
    p = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = p < height * width
    above, below, down = _source(p // width, height, half_height)
    left, right, across = _source(p % width, width, half_width)
    k = tl.arange(0, BLOCK)
    mask = inside[:, None] & (k < CLASSES)[None, :]
    low = float("-inf")
    above = (b * half_height + above) * half_width
    below = (b * half_height + below) * half_width
    a = tl.load(logits + (above + left)[:, None] * BLOCK + k[None, :], mask=mask, other=0.0)
    c = tl.load(logits + (below + left)[:, None] * BLOCK + k[None, :], mask=mask, other=0.0)
    first = a + (c - a) * down[:, None]
    a = tl.load(logits + (above + right)[:, None] * BLOCK + k[None, :], mask=mask, other=0.0)
    c = tl.load(logits + (below + right)[:, None] * BLOCK + k[None, :], mask=mask, other=0.0)
    second = a + (c - a) * down[:, None]
    value = tl.where((k < CLASSES)[None, :], first + (second - first) * across[:, None], low)
    top, label = tl.max(value, 1, return_indices=True)
    share = tl.sum(tl.exp((value - top[:, None]) / temperature), 1)
    tl.store(labels + b * height * width + p, label.to(tl.uint8), mask=inside)
    tl.store(confidence + b * height * width + p, 1 / share, mask=inside)


def answer(logits: Tensor, classes: int, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
    """(B, h, w, block of K), float32 -> labels, uint8, and confidence, float32: (B, *size)."""
    batch, half_height, half_width, block = cells(logits)
    labels = torch.empty((batch, *size), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty((batch, *size), device=logits.device)
    _answer[(triton.cdiv(size[0] * size[1], ROWS), batch)](
        logits, labels, confidence, *size, half_height, half_width, float(temperature),
        CLASSES=classes, BLOCK=block, ROWS=ROWS, num_warps=4,
    )  # fmt: skip
    return labels, confidence
