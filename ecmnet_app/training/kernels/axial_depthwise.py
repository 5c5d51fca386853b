"""Depthwise convolutions of three taps along one axis, two dilations side by side, on channels-last maps.

The same as, in plain torch (axis "height"):

    torch.cat([F.conv2d(x_i, w_i, padding=(d_i, 0), dilation=(d_i, 1), groups=w_i.shape[0]) for i in (0, 1)], dim=1)

where both x_i are x itself, or its two halves. One kernel forward, one backward.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecmnet_app.training.kernels.batch_norm_prelu import (
    STAGES,
    TILE,
    _arrived_last,
    _second,
    counter_on,
    reduction_of,
    tile_of,
)

__all__ = ["axial_depthwise_pair"]


@triton.jit
def _forward(x, y, weight_a, weight_b, rows, size, stride, inputs, half, dilation_a, dilation_b,
             ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """`size` positions along the axis, `stride` rows apart; `inputs` channels in, 2 * half out."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, CHANNELS)
    real = c < 2 * half
    dilation = tl.where(c < half, dilation_a, dilation_b)
    position = (r // stride) % size
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for tap in tl.static_range(3):
        offset = (tap - 1) * dilation
        reached = position[:, None] + offset[None, :]
        mask = (r < rows)[:, None] & real[None, :] & (reached >= 0) & (reached < size)
        at = (r[:, None] + offset[None, :] * stride) * inputs + (c % inputs)[None, :]
        weight = _second(weight_a + tap, weight_b + tap, 3 * c, 3 * half, real)
        total += tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * weight[None, :]
    at = r[:, None] * (2 * half) + c[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=(r < rows)[:, None] & real[None, :])


@triton.jit(do_not_specialize=["programs", "steps"])
def _backward(x, dy, dx, partial, counter, d_weight, weight_a, weight_b, rows, size, stride, half, dilation_a,
              dilation_b, programs, steps, SHARED: tl.constexpr,
              ROWS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """d_weight: (3, 2 * half). Tap k of the output at p - (k - 1) d saw the input at p, so one read of dy serves both.

    SHARED: both halves of the output saw the same `half` inputs, whose gradients add up.
    """
    program = tl.program_id(0)
    c = tl.arange(0, CHANNELS)
    inputs = half if SHARED else 2 * half
    outputs = 2 * half
    real = c < inputs
    dilation = tl.where(c < half, dilation_a, dilation_b)
    w0 = _second(weight_a, weight_b, 3 * c, 3 * half, real)
    w1 = _second(weight_a + 1, weight_b + 1, 3 * c, 3 * half, real)
    w2 = _second(weight_a + 2, weight_b + 2, 3 * c, 3 * half, real)
    s0 = tl.zeros([ROWS, CHANNELS], tl.float32)
    s1 = tl.zeros([ROWS, CHANNELS], tl.float32)
    s2 = tl.zeros([ROWS, CHANNELS], tl.float32)
    if SHARED:
        v0 = tl.load(weight_b + 3 * c, mask=real, other=0.0)
        v1 = tl.load(weight_b + 3 * c + 1, mask=real, other=0.0)
        v2 = tl.load(weight_b + 3 * c + 2, mask=real, other=0.0)
        t0 = tl.zeros([ROWS, CHANNELS], tl.float32)
        t1 = tl.zeros([ROWS, CHANNELS], tl.float32)
        t2 = tl.zeros([ROWS, CHANNELS], tl.float32)
    for step in tl.range(steps, num_stages=STAGES):
        r = (step * programs + program) * ROWS + tl.arange(0, ROWS)
        position = (r // stride) % size
        inside = (r < rows)[:, None] & real[None, :]
        at = r[:, None] * inputs + c[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        at_dy = dy + r[:, None] * outputs + c[None, :]
        reach = dilation[None, :] * stride * outputs
        after = inside & (position[:, None] + dilation[None, :] < size)
        before = inside & (position[:, None] >= dilation[None, :])
        g0 = tl.load(at_dy + reach, mask=after, other=0.0).to(tl.float32)
        g1 = tl.load(at_dy, mask=inside, other=0.0).to(tl.float32)
        g2 = tl.load(at_dy - reach, mask=before, other=0.0).to(tl.float32)
        s0 += value * g0
        s1 += value * g1
        s2 += value * g2
        grad = g0 * w0[None, :] + g1 * w1[None, :] + g2 * w2[None, :]
        if SHARED:
            reach_b = dilation_b * stride * outputs
            after_b = inside & (position + dilation_b < size)[:, None]
            before_b = inside & (position >= dilation_b)[:, None]
            h0 = tl.load(at_dy + half + reach_b, mask=after_b, other=0.0).to(tl.float32)
            h1 = tl.load(at_dy + half, mask=inside, other=0.0).to(tl.float32)
            h2 = tl.load(at_dy + half - reach_b, mask=before_b, other=0.0).to(tl.float32)
            t0 += value * h0
            t1 += value * h1
            t2 += value * h2
            grad += h0 * v0[None, :] + h1 * v1[None, :] + h2 * v2[None, :]
        tl.store(dx + at, grad.to(dx.dtype.element_ty), mask=inside)
    part = partial + 3 * program * outputs + c
    tl.store(part, tl.sum(s0, 0), mask=real)
    tl.store(part + outputs, tl.sum(s1, 0), mask=real)
    tl.store(part + 2 * outputs, tl.sum(s2, 0), mask=real)
    if SHARED:
        tl.store(part + half, tl.sum(t0, 0), mask=real)
        tl.store(part + outputs + half, tl.sum(t1, 0), mask=real)
        tl.store(part + 2 * outputs + half, tl.sum(t2, 0), mask=real)
    if _arrived_last(counter, programs):
        o = tl.arange(0, OUTPUTS)
        for tap in range(3):
            total = tl.zeros([OUTPUTS], tl.float32)
            for start in range(0, programs, PARTS):
                p = start + tl.arange(0, PARTS)
                mask = (p < programs)[:, None] & (o < outputs)[None, :]
                at_parts = partial + (3 * p[:, None] + tap) * outputs + o[None, :]
                total += tl.sum(tl.load(at_parts, mask=mask, other=0.0, cache_modifier=".cg"), 0)
            tl.store(d_weight + 3 * o + tap, total, mask=o < outputs)
        tl.store(counter, 0)


class _AxialDepthwisePair(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_a: Tensor, weight_b: Tensor, vertical: bool, dilations: tuple[int, int]
    ) -> Tensor:
        batch, inputs, height, width = x.shape
        half = weight_a.shape[0]
        y = x.new_empty(batch, height, width, 2 * half).permute(0, 3, 1, 2)
        rows = batch * height * width
        axis = (height, width) if vertical else (width, 1)  # size and stride
        tile = tile_of(2 * half)
        grid = (triton.cdiv(rows, tile["ROWS"]),)
        _forward[grid](x, y, weight_a, weight_b, rows, *axis, inputs, half, *dilations, **tile)
        ctx.save_for_backward(x, weight_a, weight_b)
        ctx.axis, ctx.dilations = axis, dilations
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_a, weight_b = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        half, inputs = weight_a.shape[0], x.shape[1]
        rows = x.numel() // inputs
        tile = tile_of(inputs)
        programs, steps = reduction_of(rows, tile)
        partial = x.new_empty(3, programs, 2 * half, dtype=torch.float32)
        d_weight = x.new_empty(2 * half, 3, dtype=torch.float32)
        dx = torch.empty_like(x)
        outputs = triton.next_power_of_2(2 * half)
        parts = {"programs": programs, "steps": steps, "OUTPUTS": outputs, "PARTS": max(1, 2 * TILE // outputs)}
        _backward[(programs,)](x, dy, dx, partial, counter_on(x.device), d_weight, weight_a, weight_b, rows, *ctx.axis,
                               half, *ctx.dilations, SHARED=inputs == half, **tile, **parts, num_warps=8)  # fmt: skip
        return dx, d_weight[:half].view_as(weight_a), d_weight[half:].view_as(weight_b), None, None


def axial_depthwise_pair(x: Tensor, first: Tensor, second: Tensor, dilations: tuple[int, int]) -> Tensor:
    """Two depthwise convolutions, side by side in the result.

    Args:
        x: (B, C or 2 C, H, W), channels-last: seen by both, or a half for each.
        first, second: weights, (C, 1, 3, 1) or (C, 1, 1, 3).
        dilations: of the first and of the second.

    Returns:
        (B, 2 C, H, W), channels-last, the dtype of x.
    """
    y: Tensor = _AxialDepthwisePair.apply(
        x.contiguous(memory_format=torch.channels_last), first, second, first.shape[2] == 3, dilations
    )
    return y
