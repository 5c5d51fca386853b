"""A network's parameters as two vectors, so that optimiser, clipping, average and all-reduce are one pass each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FlatParameters"]

ALIGNMENT = 4
"""Elements: every parameter starts at a multiple of 16 bytes, which compiled kernels take for granted."""

_SCAN_PARAMETERS = ("A_log", "D", "dt_bias", "dt_proj")


class FlatParameters:
    """Moves a network's parameters into one vector that decays and one that does not.

    Each parameter becomes a view into its vector, convolution weights in channels-last order. The
    vectors' `.grad` must be set by `set_gradients`, since autograd sees the views.
    """

    def __init__(self, network: nn.Module) -> None:
        decaying: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            kept = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in _SCAN_PARAMETERS
            (others if kept else decaying).append(parameter)
        self.groups = (decaying, others)
        self.parameters = [*decaying, *others]
        self.vectors = tuple(self._move(group) for group in self.groups)

    @staticmethod
    def _move(group: Sequence[nn.Parameter]) -> nn.Parameter:
        vector = nn.Parameter(torch.cat([_flatten(p.detach()) for p in group]))
        for p, view in zip(group, _views(vector.detach(), group), strict=True):
            p.data = view
        return vector

    def views(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Any pair of such vectors as tensors of the parameters' shapes, in the order of `self.parameters`."""
        return [view for v, group in zip(vectors, self.groups, strict=True) for view in _views(v, group)]

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Give the vectors the gradients of `self.parameters`, in that order."""
        split = len(self.groups[0])
        for vector, part in zip(self.vectors, (gradients[:split], gradients[split:]), strict=True):
            vector.grad = torch.cat([_flatten(g) for g in part])


def _views(vector: Tensor, group: Sequence[nn.Parameter]) -> list[Tensor]:
    runs = vector.split([p.numel() + -p.numel() % ALIGNMENT for p in group])
    return [_unflatten(run[: p.numel()], p.shape) for run, p in zip(runs, group, strict=True)]


def _flatten(t: Tensor) -> Tensor:
    run = t.permute(0, 2, 3, 1).reshape(-1) if t.ndim == 4 else t.reshape(-1)
    return F.pad(run, (0, -run.numel() % ALIGNMENT)) if run.numel() % ALIGNMENT else run


def _unflatten(run: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return run.view(shape)
    o, i, h, w = shape
    return run.view(o, h, w, i).permute(0, 3, 1, 2)
