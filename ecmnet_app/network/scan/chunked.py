"""The selective scan in plain torch: every block of time at once, then the blocks' ends by recursion.

A block of Q steps starts from a zero state; its steps run one after the other, all blocks side by
side. The last states of the blocks follow the same recurrence with the blocks' total decays, Q times
shorter, and what each block should have started from is added afterwards. The work is linear in the
length, the depth logarithmic, no exponent is ever positive, so nothing overflows, and every operation
is an ordinary tensor operation: it differentiates and exports.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear_recurrence", "selective_scan"]

BLOCK = 8
"""Q: fewer steps a level, more levels; 8 is the fastest of 8, 16 and 32 on a CPU."""

PIECE = 2**20
"""States worked on at once where no gradient is wanted: bounds the memory and stays in the cache."""


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """See `ecmnet_app.network.scan.selective_scan` for shapes."""
    batch, dim, length = u.shape
    groups, state = B.shape[1:3]
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or u.numel() * state <= PIECE:
        return _scan(u, delta, A, B, C, D)
    y = torch.empty_like(u)
    channels = max(1, PIECE // (batch * state * length))
    for group in range(groups):
        stop = (group + 1) * (dim // groups)
        own = slice(group, group + 1)
        for start in range(group * (dim // groups), stop, channels):
            s = slice(start, min(start + channels, stop))
            y[:, s] = _scan(u[:, s], delta[:, s], A[s], B[:, own], C[:, own], D[s])
    return y


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
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
        return _within(log_decay, b)
    if padding := -length % BLOCK:
        log_decay, b = F.pad(log_decay, (0, padding)), F.pad(b, (0, padding))
    log_decay, b = log_decay.unflatten(-1, (-1, BLOCK)), b.unflatten(-1, (-1, BLOCK))
    h = _within(log_decay, b)
    total = log_decay.cumsum(-1)
    ends = linear_recurrence(total[..., -1], h[..., -1])
    carried = F.pad(ends[..., :-1], (1, 0))  # the state that each block starts from
    h = torch.addcmul(h, torch.exp(total), carried[..., None])
    return h.flatten(-2)[..., :length]


def _within(log_decay: Tensor, b: Tensor) -> Tensor:
    """States of one block from zero: log-decays and inputs (..., Q) -> (..., Q)."""
    decay = torch.exp(log_decay)
    states = [b[..., 0]]
    for t in range(1, b.shape[-1]):
        states.append(torch.addcmul(b[..., t], decay[..., t], states[-1]))
    return torch.stack(states, dim=-1)
