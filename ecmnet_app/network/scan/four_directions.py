"""SS2D's four selective scans in one Triton launch for inference: no map is flipped, transposed or unrolled.

The same as, in plain torch, for channels-last maps and `projected = value @ x_proj.flatten(0, 1).T`:

    ss2d.scan(value)        the sum over the directions of what is returned here

A program owns one direction and a few channels of one picture. Step t of direction k is the map's position

    t,    t % H * W + t // H,    L - 1 - t,    (L - 1 - t) % H * W + (L - 1 - t) // H        for k = 0, 1, 2, 3

and the step size is made where it is used, from its few factors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ss2d import DIRECTIONS, SS2D

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it
    triton = None

__all__ = ["ScanWeights", "scan_four_directions"]

STEPS = (256, 128)
"""Length of a block of time, for few pictures and for many."""

CHANNELS = (4, 8)
"""Channels of a program, at most, likewise: powers of two."""

MANY = 4
"""Pictures that occupy a GPU with the larger programs."""


class ScanWeights(NamedTuple):
    """What the scan takes from an SS2D, float32."""

    dt_proj: Tensor
    """(4, inner, rank)."""
    dt_bias: Tensor
    """(4, inner)."""
    A: Tensor
    """(4, inner, state), negative."""
    D: Tensor
    """(4, inner)."""

    @classmethod
    def of(cls, ss2d: SS2D) -> ScanWeights:
        """Copies of the layer's own."""
        return cls(
            *(
                values.detach().float().contiguous()
                for values in (ss2d.dt_proj, ss2d.dt_bias, -torch.exp(ss2d.A_log), ss2d.D)
            )
        )


if triton is not None:

    @triton.jit
    def _follow(a, b, later_a, later_b):
        """The pair (decay, input) of two stretches of time, one after the other."""
        return a * later_a, later_a * b + later_b

    @triton.jit(do_not_specialize=["height", "width"])
    def _scan_four_directions(u, projected, y, dt_proj, dt_bias, A, D, height, width,
                              INNER: tl.constexpr, RANK: tl.constexpr, N: tl.constexpr, STRIDE: tl.constexpr,
                              CHANNELS: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
        k = tl.program_id(1)
        b = tl.program_id(2)
        length = height * width
        d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        own = k * INNER + d
        bias = tl.load(dt_bias + own)
        skip = tl.load(D + own)
        t = tl.arange(0, STEPS)
        first = k * (RANK + 2 * N)  # the direction's own inputs: factors of the step, then B, then C
        for n in tl.static_range(N):
            a_n = tl.load(A + own * N + n)
            carried = tl.zeros([CHANNELS], tl.float32)
            for start in range(0, length, STEPS):
                now = start + t
                real = now < length
                ordered = tl.where(k < 2, now, length - 1 - now)
                position = tl.where(k % 2 == 0, ordered, ordered % height * width + ordered // height)
                cell = b * length + position
                mask = real[None, :]
                value = tl.load(u + cell[None, :] * INNER + d[:, None], mask=mask, other=0.0).to(tl.float32)
                step = tl.zeros([CHANNELS, STEPS], tl.float32) + bias[:, None]
                for r in tl.static_range(RANK):
                    factor = tl.load(projected + cell * STRIDE + first + r, mask=real, other=0.0)
                    step += tl.load(dt_proj + own * RANK + r)[:, None] * factor[None, :]
                step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(step)))
                step = tl.where(mask, step, 0.0)
                matrix_b = tl.load(projected + cell * STRIDE + first + RANK + n, mask=real, other=0.0)
                matrix_c = tl.load(projected + cell * STRIDE + first + RANK + N + n, mask=real, other=0.0)
                decay = tl.exp(step * a_n[:, None])
                total, h = tl.associative_scan((decay, step * value * matrix_b[None, :]), 1, _follow)
                h += total * carried[:, None]
                carried = tl.sum(tl.where(t[None, :] == STEPS - 1, h, 0.0), 1)
                at = ((b * 4 + k) * length + position)[None, :] * INNER + d[:, None]
                out = h * matrix_c[None, :]
                if n == 0:
                    out += skip[:, None] * value
                else:
                    out += tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
                tl.store(y + at, out.to(y.dtype.element_ty), mask=mask)


def scan_four_directions(u: Tensor, projected: Tensor, weights: ScanWeights, many: bool | None = None) -> Tensor:
    """Run the four scans, without gradients, states in float32.

    Args:
        u: values, (B, H, W, inner), contiguous, any float type.
        projected: by direction the factors of the step, B and C, (B, H, W, 4 * (rank + 2 * state) or more), float32.
        weights: of the layer.
        many: whether programs are those for many pictures; by their number by default.

    Returns:
        What each direction gives to each position, (B, 4, H, W, inner), float32.
    """
    batch, height, width, inner = u.shape
    rank, state = weights.dt_proj.shape[2], weights.A.shape[2]
    y = u.new_empty((batch, DIRECTIONS, height, width, inner), dtype=torch.float32)
    many = batch >= MANY if many is None else many
    channels = min(CHANNELS[many], inner & -inner)
    _scan_four_directions[(inner // channels, DIRECTIONS, batch)](
        u, projected, y, *weights, height, width,
        INNER=inner, RANK=rank, N=state, STRIDE=projected.shape[-1], CHANNELS=channels, STEPS=STEPS[many],
        num_warps=2 if many else 4,
    )  # fmt: skip
    return y
