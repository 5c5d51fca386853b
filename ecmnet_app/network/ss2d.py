"""SS2D: the two-dimensional selective scan of VMamba (arXiv 2401.10166), built on Mamba-1's scan."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scan import selective_scan

__all__ = ["DIRECTIONS", "SS2D", "cross_merge", "cross_scan"]

DIRECTIONS = 4
"""Row by row, column by column, and both from the end."""


def cross_scan(x: Tensor) -> Tensor:
    """Unroll a map along the four directions: (B, D, H, W) -> (B, 4, D, H*W)."""
    rows = x.flatten(2)
    columns = x.transpose(2, 3).flatten(2)
    forward = torch.stack([rows, columns], dim=1)
    return torch.cat([forward, forward.flip(-1)], dim=1)


def cross_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Fold the four sequences back and add them: (B, 4, D, H*W) -> (B, D, H, W); adjoint of `cross_scan`."""
    rows, columns = (y[:, :2] + y[:, 2:].flip(-1)).unbind(1)
    return rows.unflatten(-1, (height, width)) + columns.unflatten(-1, (width, height)).transpose(2, 3)


class SS2D(nn.Module):
    """Every position sees every other through four selective scans, at a cost linear in their number.

    in_proj splits into a value and a gate; the value passes a depthwise 3x3, is unrolled in four
    directions, scanned with input-dependent step and matrices, merged, normalised, gated, projected.
    """

    def __init__(self, channels: int, expand: int, state_size: int) -> None:
        super().__init__()
        inner, rank = expand * channels, math.ceil(channels / 16)
        self.inner, self.rank, self.state_size = inner, rank, state_size
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * state_size, inner))
        self.dt_proj = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_log = nn.Parameter(torch.empty(DIRECTIONS, inner, state_size))
        self.D = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """Mamba's initialisation: A = -(1..N), D = 1, steps log-uniform in 0.001 to 0.1."""
        if self.D.is_meta:  # nothing to fill, and torch would import its compiler to work out the shapes
            return
        nn.init.uniform_(self.x_proj, -(self.inner**-0.5), self.inner**-0.5)
        nn.init.uniform_(self.dt_proj, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            step = torch.exp(torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
            self.A_log.copy_(torch.arange(1.0, self.state_size + 1).log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        value, gate = self.in_proj(x).chunk(2, dim=-1)
        value = F.silu(self.conv(value.permute(0, 3, 1, 2)))
        merged = self.scan(value).permute(0, 2, 3, 1)
        y: Tensor = self.out_proj(self.out_norm(merged) * F.silu(gate))
        return y

    def scan(self, value: Tensor) -> Tensor:
        """The four directional selective scans and their sum: (B, D, H, W) -> (B, D, H, W)."""
        batch, _, height, width = value.shape
        with torch.autocast(value.device.type, enabled=False):  # the recurrence needs float32's range
            value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
            u = cross_scan(value)
            projected = torch.einsum("kpd,bkdl->bkpl", self.x_proj, u)
            dt, B, C = projected.split([self.rank, self.state_size, self.state_size], dim=2)
            dt = torch.einsum("kdr,bkrl->bkdl", self.dt_proj, dt)
            delta = F.softplus(dt + self.dt_bias[:, :, None])
            y = selective_scan(
                u.flatten(1, 2),
                delta.flatten(1, 2),
                -torch.exp(self.A_log).flatten(0, 1),
                B.contiguous(),
                C.contiguous(),
                self.D.flatten(),
            )
            return cross_merge(y.view(batch, DIRECTIONS, self.inner, height * width), height, width)
