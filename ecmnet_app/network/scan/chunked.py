"""The selective scan in plain torch: blocks of time in parallel, then the blocks' ends by recursion.

Within a block of Q steps, with s the running sum of the log-decays, the state is
    h_i = sum over j <= i of exp(s_i - s_j) b_j,
whose exponents are never positive, so nothing overflows. The last states of the blocks follow the
same recurrence with the blocks' total decays, Q times shorter. The work is linear in the length, the
depth logarithmic, and every operation is an ordinary tensor operation: it differentiates and exports.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["selective_scan"]

BLOCK = 16
"""Q: 8 to 32 measure alike; memory grows with Q, the number of levels falls."""


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """See `ecmnet_app.network.scan.selective_scan` for shapes."""
    batch, dim, length = u.shape
    groups, state = B.shape[1:3]
    per_group = (batch, groups, dim // groups)
    log_decay = delta[:, :, None] * A[:, :, None]  # (batch, dim, state, length), <= 0
    driven = (delta * u).view(*per_group, 1, length) * B[:, :, None]
    h = linear_recurrence(log_decay, driven.view(batch, dim, state, length))
    y = (h.view(*per_group, state, length) * C[:, :, None]).sum(3)
    return y.view(batch, dim, length) + D[:, None] * u


def linear_recurrence(log_decay: Tensor, b: Tensor) -> Tensor:
    """h_t = exp(log_decay_t) h_{t-1} + b_t along the last axis, from zero: (..., L), (..., L) -> (..., L)."""
    length = b.shape[-1]
    if length <= BLOCK:
        return _within(log_decay.cumsum(-1), b)
    padding = -length % BLOCK
    log_decay = torch.nn.functional.pad(log_decay, (0, padding)).unflatten(-1, (-1, BLOCK))
    b = torch.nn.functional.pad(b, (0, padding)).unflatten(-1, (-1, BLOCK))
    total = log_decay.cumsum(-1)
    h = _within(total, b)
    ends = linear_recurrence(total[..., -1], h[..., -1])
    carried = torch.nn.functional.pad(ends[..., :-1], (1, 0))  # the state that each block starts from
    h = h + torch.exp(total) * carried[..., None]
    return h.flatten(-2)[..., :length]


def _within(total: Tensor, b: Tensor) -> Tensor:
    """States of one block from zero: running log-decays and inputs (..., Q) -> (..., Q)."""
    size = b.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=b.device).triu(1)
    exponent = (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf)
    return (torch.exp(exponent) * b[..., None, :]).sum(-1)
