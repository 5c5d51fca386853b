"""Training-mode batch norm and PReLU as two kernels forward and two backward, on channels-last maps.

The same as, in plain torch:

    F.prelu(F.batch_norm(x, running_mean, running_var, gamma, beta, training=True, momentum, eps), slope)

One pass gathers the moments (the block that arrives last adds up what the others left), one applies them.
Several layers that sit side by side on neighbouring channels are done at once: see `batch_norm_prelu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

__all__ = ["batch_norm_prelu"]

TILE = 4096
"""Values that a program holds at a time."""

MOST_PROGRAMS = 512
"""Of a reduction, at most: about four for each multiprocessor."""

STEPS_EACH = 6
"""Tiles that a program of a reduction reads, at least: few programs leave few partial sums to add."""

STAGES = tl.constexpr(3)
"""Tiles in flight: the next ones load while one is added up."""


@triton.jit
def _second(first, second, c, half, mask):
    """Parameters of two layers side by side: the first `half` channels are the first layer's."""
    low = tl.load(first + c, mask=mask & (c < half), other=0.0)
    high = tl.load(second + c - half, mask=mask & (c >= half), other=0.0)
    return low + high


@triton.jit
def _arrived_last(counter, programs):
    tl.debug_barrier()  # what this program's threads have written comes before the count
    return tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1


@triton.jit(do_not_specialize=["programs", "steps"])
def _moments(x, partial, counter, mean, rstd, mean_a, var_a, mean_b, var_b, rows, channels, half, momentum, eps,
             programs, steps, ROWS: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    program = tl.program_id(0)
    c = tl.arange(0, CHANNELS)
    real = c < channels
    # Sums of differences from one value of each channel: no cancellation where the mean is far from zero.
    shift = tl.load(x + c, mask=real, other=0.0).to(tl.float32)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    squares = tl.zeros([ROWS, CHANNELS], tl.float32)
    for step in tl.range(steps, num_stages=STAGES):
        r = (step * programs + program) * ROWS + tl.arange(0, ROWS)
        mask = (r < rows)[:, None] & real[None, :]
        value = tl.load(x + r[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    tl.store(partial + 2 * program * channels + c, tl.sum(total, 0), mask=real)
    tl.store(partial + (2 * program + 1) * channels + c, tl.sum(squares, 0), mask=real)
    if _arrived_last(counter, programs):
        first = tl.zeros([CHANNELS], tl.float32)
        second = tl.zeros([CHANNELS], tl.float32)
        for start in range(0, programs, PARTS):
            p = start + tl.arange(0, PARTS)
            mask = (p < programs)[:, None] & real[None, :]
            at = partial + 2 * p[:, None] * channels + c[None, :]
            first += tl.sum(tl.load(at, mask=mask, other=0.0, cache_modifier=".cg"), 0)
            second += tl.sum(tl.load(at + channels, mask=mask, other=0.0, cache_modifier=".cg"), 0)
        first /= rows
        variance = second / rows - first * first
        tl.store(mean + c, shift + first, mask=real)
        tl.store(rstd + c, 1 / tl.sqrt(variance + eps), mask=real)
        unbiased = variance * rows / (rows - 1)
        low, high = real & (c < half), real & (c >= half)
        tl.store(mean_a + c, (1 - momentum) * tl.load(mean_a + c, mask=low) + momentum * (shift + first), mask=low)
        tl.store(var_a + c, (1 - momentum) * tl.load(var_a + c, mask=low) + momentum * unbiased, mask=low)
        c -= half
        tl.store(mean_b + c, (1 - momentum) * tl.load(mean_b + c, mask=high) + momentum * (shift + first), mask=high)
        tl.store(var_b + c, (1 - momentum) * tl.load(var_b + c, mask=high) + momentum * unbiased, mask=high)
        tl.store(counter, 0)


@triton.jit
def _apply(x, y, mean, rstd, gamma_a, beta_a, slope_a, gamma_b, beta_b, slope_b, rows, channels, half,
           ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, CHANNELS)
    real = c < channels
    scale = tl.load(rstd + c, mask=real, other=0.0) * _second(gamma_a, gamma_b, c, half, real)
    offset = _second(beta_a, beta_b, c, half, real) - tl.load(mean + c, mask=real, other=0.0) * scale
    slope = _second(slope_a, slope_b, c, half, real)
    mask = (r < rows)[:, None] & real[None, :]
    at = r[:, None] * channels + c[None, :]
    z = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    tl.store(y + at, tl.where(z > 0, z, z * slope[None, :]).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["programs", "steps"])
def _gradient_sums(x, dy, partial, counter, sums, mean, rstd, gamma_a, beta_a, slope_a, gamma_b, beta_b, slope_b,
                   rows, channels, half, programs, steps,
                   ROWS: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """Gradients of gamma, beta and slope, as rows of `sums`: (3, channels)."""
    program = tl.program_id(0)
    c = tl.arange(0, CHANNELS)
    real = c < channels
    m, r_std = tl.load(mean + c, mask=real, other=0.0), tl.load(rstd + c, mask=real, other=0.0)
    gamma, beta = _second(gamma_a, gamma_b, c, half, real), _second(beta_a, beta_b, c, half, real)
    slope = _second(slope_a, slope_b, c, half, real)
    d_gamma = tl.zeros([ROWS, CHANNELS], tl.float32)
    d_beta = tl.zeros([ROWS, CHANNELS], tl.float32)
    d_slope = tl.zeros([ROWS, CHANNELS], tl.float32)
    for step in tl.range(steps, num_stages=STAGES):
        r = (step * programs + program) * ROWS + tl.arange(0, ROWS)
        mask = (r < rows)[:, None] & real[None, :]
        at = r[:, None] * channels + c[None, :]
        g = tl.load(dy + at, mask=mask, other=0.0).to(tl.float32)
        normal = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]) * r_std[None, :]
        z = normal * gamma[None, :] + beta[None, :]
        dz = tl.where(z > 0, g, g * slope[None, :])
        d_gamma += dz * normal
        d_beta += dz
        d_slope += tl.where(z > 0, 0.0, g * z)
    at_part = partial + 3 * program * channels + c
    tl.store(at_part, tl.sum(d_gamma, 0), mask=real)
    tl.store(at_part + channels, tl.sum(d_beta, 0), mask=real)
    tl.store(at_part + 2 * channels, tl.sum(d_slope, 0), mask=real)
    if _arrived_last(counter, programs):
        for kind in range(3):
            total = tl.zeros([CHANNELS], tl.float32)
            for start in range(0, programs, PARTS):
                p = start + tl.arange(0, PARTS)
                mask = (p < programs)[:, None] & real[None, :]
                part = partial + (3 * p[:, None] + kind) * channels + c[None, :]
                total += tl.sum(tl.load(part, mask=mask, other=0.0, cache_modifier=".cg"), 0)
            tl.store(sums + kind * channels + c, total, mask=real)
        tl.store(counter, 0)


@triton.jit
def _gradient(x, dy, dx, sums, mean, rstd, gamma_a, beta_a, slope_a, gamma_b, beta_b, slope_b, rows, channels, half,
              ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, CHANNELS)
    real = c < channels
    m, r_std = tl.load(mean + c, mask=real, other=0.0), tl.load(rstd + c, mask=real, other=0.0)
    gamma, beta = _second(gamma_a, gamma_b, c, half, real), _second(beta_a, beta_b, c, half, real)
    slope = _second(slope_a, slope_b, c, half, real)
    along = tl.load(sums + c, mask=real, other=0.0) / rows
    level = tl.load(sums + channels + c, mask=real, other=0.0) / rows
    mask = (r < rows)[:, None] & real[None, :]
    at = r[:, None] * channels + c[None, :]
    g = tl.load(dy + at, mask=mask, other=0.0).to(tl.float32)
    normal = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]) * r_std[None, :]
    z = normal * gamma[None, :] + beta[None, :]
    dz = tl.where(z > 0, g, g * slope[None, :])
    value = (dz - level[None, :] - normal * along[None, :]) * (gamma * r_std)[None, :]
    tl.store(dx + at, value.to(dx.dtype.element_ty), mask=mask)


_counters: dict[torch.device, Tensor] = {}


def counter_on(device: torch.device) -> Tensor:
    """The count of arrived programs, zero between kernels: kernels of one stream never overlap."""
    if device not in _counters:
        _counters[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return _counters[device]


def tile_of(channels: int) -> dict[str, int]:
    """Tile sizes for rows of so many channels."""
    width = triton.next_power_of_2(channels)
    return {"ROWS": max(1, TILE // width), "CHANNELS": width}


def reduction_of(rows: int, tile: dict[str, int]) -> tuple[int, int]:
    """Programs that share a reduction over so many rows, and tiles that each of them reads."""
    tiles = triton.cdiv(rows, tile["ROWS"])
    programs = min(MOST_PROGRAMS, triton.cdiv(tiles, STEPS_EACH))
    return programs, triton.cdiv(tiles, programs)


class _BatchNormPReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, momentum: float, eps: float, buffers: Sequence[Tensor], *parameters: Tensor
    ) -> Tensor:
        channels, half = x.shape[1], parameters[0].numel()
        rows = x.numel() // channels
        tile = tile_of(channels)
        programs, steps = reduction_of(rows, tile)
        partial = x.new_empty(programs, 2, channels, dtype=torch.float32)
        mean, rstd = x.new_empty(2, channels, dtype=torch.float32)
        parts = {"programs": programs, "steps": steps, "PARTS": max(1, 2 * TILE // tile["CHANNELS"])}
        _moments[(programs,)](x, partial, counter_on(x.device), mean, rstd, *buffers,
                              rows, channels, half, momentum, eps, **tile, **parts, num_warps=8)  # fmt: skip
        y = torch.empty_like(x)
        _apply[(triton.cdiv(rows, tile["ROWS"]),)](x, y, mean, rstd, *parameters, rows, channels, half, **tile)
        ctx.save_for_backward(x, mean, rstd, *parameters)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, *parameters = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        channels, half = x.shape[1], parameters[0].numel()
        rows = x.numel() // channels
        tile = tile_of(channels)
        programs, steps = reduction_of(rows, tile)
        partial = x.new_empty(3, programs, channels, dtype=torch.float32)
        sums = x.new_empty(3, channels, dtype=torch.float32)
        parts = {"programs": programs, "steps": steps, "PARTS": max(1, 2 * TILE // tile["CHANNELS"])}
        _gradient_sums[(programs,)](x, dy, partial, counter_on(x.device), sums, mean, rstd, *parameters,
                                    rows, channels, half, **tile, **parts, num_warps=8)  # fmt: skip
        dx = torch.empty_like(x)
        _gradient[(triton.cdiv(rows, tile["ROWS"]),)](x, dy, dx, sums, mean, rstd, *parameters,
                                                      rows, channels, half, **tile)  # fmt: skip
        first, second = sums[:, :half], sums[:, half:]
        return dx, None, None, None, *first.unbind(), *(second.unbind() if half < channels else (None,) * 3)


def batch_norm_prelu(x: Tensor, layers: Sequence[nn.Sequential]) -> Tensor:
    """Batch norm (training mode, running statistics updated) and PReLU.

    Args:
        x: (B, C, H, W), channels-last, float32 or bfloat16.
        layers: one or two pairs of `nn.BatchNorm2d` and `nn.PReLU`, whose channels lie one after the other
            in x; of two pairs each has half.

    Returns:
        The shape and dtype of x, channels-last.
    """
    first, last = layers[0], layers[-1]
    parameters = [p for norm, act in (first, last) for p in (norm.weight, norm.bias, act.weight)]
    buffers = [b for norm, _ in (first, last) for b in (norm.running_mean, norm.running_var)]
    norm = first[0]
    x = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = _BatchNormPReLU.apply(x, norm.momentum, norm.eps, buffers, *parameters)
    return y
