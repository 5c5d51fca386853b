"""The selective scan as one Triton kernel forward and one backward, for GPUs; `reference` says what it computes.

A program owns one sequence and a few channels of it. It walks along time in blocks; within a block the
states come from an associative scan of the pairs (decay, input), between blocks they are carried. The
states are kept for the gradient, which is the same walk from the end: with a_t = exp(delta_t A),

    g_t = C_t dy_t + a_{t+1} g_{t+1}        the gradient of h_t, from the last step to the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it
    triton = None

__all__ = ["is_available", "selective_scan"]

STEPS = 256
"""Length of a block of time."""

CHANNELS = 4
"""Channels that a program works on, at most, all of one group: 1,024 states at a time."""


def is_available() -> bool:
    """Whether Triton is installed; its kernels need a GPU as well."""
    return triton is not None


if triton is not None:

    @triton.jit
    def _follow(a, b, later_a, later_b):
        """The pair (decay, input) of two stretches of time, one after the other."""
        return a * later_a, later_a * b + later_b

    @triton.jit
    def _at(values, t, wanted):
        """One column of a block: (CHANNELS, STEPS) -> (CHANNELS,)."""
        return tl.sum(tl.where(t[None, :] == wanted, values, 0.0), 1)

    @triton.jit
    def _forward(u, delta, A, B, C, D, y, states, dim, length,
                 PER_GROUP: tl.constexpr, N: tl.constexpr, BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
                 STEPS: tl.constexpr, KEEP: tl.constexpr):  # fmt: skip
        batch = tl.program_id(1).to(tl.int64)
        d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        group = batch * (dim // PER_GROUP) + d // PER_GROUP  # row of B and C, for each channel
        skip = tl.load(D + d)
        t = tl.arange(0, STEPS)
        for n in tl.static_range(N):
            a_n = tl.load(A + d * N + n)
            carried = tl.zeros([CHANNELS], tl.float32)
            for block in range(BLOCKS):
                now = block * STEPS + t
                mask = (now < length)[None, :]
                at = (batch * dim + d)[:, None] * length + now[None, :]
                matrix = (group * N + n)[:, None] * length + now[None, :]
                value = tl.load(u + at, mask=mask, other=0.0)
                step = tl.load(delta + at, mask=mask, other=0.0)
                driven = step * value * tl.load(B + matrix, mask=mask, other=0.0)
                decay = tl.exp(step * a_n[:, None])
                total, h = tl.associative_scan((decay, driven), 1, _follow)
                h += total * carried[:, None]
                carried = _at(h, t, STEPS - 1)
                if KEEP:
                    tl.store(states + ((batch * dim + d) * N + n)[:, None] * length + now[None, :], h, mask=mask)
                out = h * tl.load(C + matrix, mask=mask, other=0.0)
                if n == 0:
                    out += skip[:, None] * value
                else:
                    out += tl.load(y + at, mask=mask, other=0.0)
                tl.store(y + at, out, mask=mask)

    @triton.jit
    def _backward(u, delta, A, B, C, D, states, dy, du, d_delta, dA, dB, dC, dD, dim, length,
                  PER_GROUP: tl.constexpr, N: tl.constexpr, BLOCKS: tl.constexpr,
                  CHANNELS: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
        """dA and dD by sequence, dB and dC by program: their sums follow in torch, always in one order."""
        batch = tl.program_id(1).to(tl.int64)
        d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        group = batch * (dim // PER_GROUP) + d // PER_GROUP
        skip = tl.load(D + d)
        t = tl.arange(0, STEPS)
        skipped = tl.zeros([CHANNELS], tl.float32)
        for n in tl.static_range(N):
            a_n = tl.load(A + d * N + n)
            carried = tl.zeros([CHANNELS], tl.float32)  # a_{t+1} g_{t+1} of the step after the block
            d_a = tl.zeros([CHANNELS], tl.float32)
            for back in range(BLOCKS):
                now = (BLOCKS - 1 - back) * STEPS + t
                mask = (now < length)[None, :]
                at = (batch * dim + d)[:, None] * length + now[None, :]
                matrix = (group * N + n)[:, None] * length + now[None, :]
                value = tl.load(u + at, mask=mask, other=0.0)
                step = tl.load(delta + at, mask=mask, other=0.0)
                b = tl.load(B + matrix, mask=mask, other=0.0)
                c = tl.load(C + matrix, mask=mask, other=0.0)
                grad = tl.load(dy + at, mask=mask, other=0.0)
                state = ((batch * dim + d) * N + n)[:, None] * length + now[None, :]
                h = tl.load(states + state, mask=mask, other=0.0)
                before = tl.load(states + state - 1, mask=mask & (now > 0)[None, :], other=0.0)
                inside = mask & (now + 1 < length)[None, :]
                next_decay = tl.exp(tl.load(delta + at + 1, mask=inside, other=0.0) * a_n[:, None])
                # The block's last step takes what is carried; its own factor must not count twice.
                last = t[None, :] == STEPS - 1
                source = tl.where(last, c * grad + carried[:, None], c * grad)
                _, g = tl.associative_scan((tl.where(last, 1.0, next_decay), source), 1, _follow, reverse=True)
                decay = tl.exp(step * a_n[:, None])
                carried = _at(g * decay, t, 0)
                by_decay = g * decay * before
                d_a += tl.sum(by_decay * step, 1)
                d_value = g * step * b
                d_step = by_decay * a_n[:, None] + g * b * value
                if n == 0:
                    d_value += skip[:, None] * grad
                    skipped += tl.sum(grad * value, 1)
                else:
                    d_value += tl.load(du + at, mask=mask, other=0.0)
                    d_step += tl.load(d_delta + at, mask=mask, other=0.0)
                tl.store(du + at, d_value, mask=mask)
                tl.store(d_delta + at, d_step, mask=mask)
                part = ((batch * tl.num_programs(0) + tl.program_id(0)) * N + n) * length + now
                tl.store(dB + part, tl.sum(g * step * value, 0), mask=now < length)
                tl.store(dC + part, tl.sum(grad * h, 0), mask=now < length)
            tl.store(dA + (batch * dim + d) * N + n, d_a)
        tl.store(dD + batch * dim + d, skipped)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, differentiable: bool
    ) -> Tensor:
        u, delta, A, B, C, D = (t.contiguous() for t in (u, delta, A, B, C, D))
        batch, dim, length = u.shape
        groups, n = B.shape[1:3]
        y = torch.empty_like(u)
        states = u.new_empty((batch, dim, n, length) if differentiable else 0)
        per_group = dim // groups
        channels = min(CHANNELS, per_group & -per_group)  # a power of two that divides the group
        ctx.programs = (dim // channels, batch)
        ctx.settings = {
            "PER_GROUP": per_group,
            "N": n,
            "BLOCKS": -(-length // STEPS),
            "CHANNELS": channels,
            "STEPS": STEPS,
        }
        _forward[ctx.programs](u, delta, A, B, C, D, y, states, dim, length, KEEP=differentiable, **ctx.settings)
        if differentiable:
            ctx.save_for_backward(u, delta, A, B, C, D, states)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, states = ctx.saved_tensors
        batch, dim, length = u.shape
        groups, n = B.shape[1:3]
        du, d_delta = torch.empty_like(u), torch.empty_like(u)
        d_a, d_d = u.new_empty(batch, dim, n), u.new_empty(batch, dim)
        d_b, d_c = u.new_empty(2, batch, groups, ctx.programs[0] // groups, n, length)
        _backward[ctx.programs](
            u, delta, A, B, C, D, states, dy.contiguous(), du, d_delta, d_a, d_b, d_c, d_d, dim, length, **ctx.settings
        )
        return du, d_delta, d_a.sum(0), d_b.sum(2), d_c.sum(2), d_d.sum(0), None


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """See `ecmnet_app.network.scan.selective_scan` for shapes; float32 on a GPU."""
    y: Tensor = _SelectiveScan.apply(u, delta, A, B, C, D, torch.is_grad_enabled())
    return y
