"""The selective scan as it is defined: a plain loop over time. Everything else is checked against it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["selective_scan"]


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """See `ecmnet_app.network.scan.selective_scan` for shapes."""
    channels_per_group = u.shape[1] // B.shape[1]
    B = B.repeat_interleave(channels_per_group, dim=1)  # (batch, dim, state, length)
    C = C.repeat_interleave(channels_per_group, dim=1)
    h = u.new_zeros(u.shape[0], *A.shape)  # (batch, dim, state)
    y = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        y.append((C[..., t] * h).sum(-1) + D * u[:, :, t])
    return torch.stack(y, dim=-1)
