"""The network's blocks by the kernels of `training.kernels`: what a training step on a GPU runs."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ecmnet_app.network.edab import EDAB
from ecmnet_app.network.layers import BatchNormPReLU
from ecmnet_app.training.kernels.axial_depthwise import axial_depthwise_pair
from ecmnet_app.training.kernels.batch_norm_prelu import batch_norm_prelu
from ecmnet_app.training.kernels.shuffle_add import shuffle_add

__all__ = ["fuse"]


def fuse(network: nn.Module) -> None:
    """Replace the forward pass of every EDAB and BatchNormPReLU in `network` by fused kernels, in place.

    Parameters, buffers and their names stay; so does the function, within rounding, in training mode.
    """
    for module in network.modules():
        if isinstance(module, BatchNormPReLU):
            module.forward = MethodType(_batch_norm_prelu, module)  # type: ignore[method-assign]
        elif isinstance(module, EDAB):
            module.forward = MethodType(_edab, module)  # type: ignore[method-assign]


def _batch_norm_prelu(self: BatchNormPReLU, x: Tensor) -> Tensor:
    return batch_norm_prelu(x, [self])


def _edab(self: EDAB, x: Tensor) -> Tensor:
    """`EDAB.forward` with its two depthwise branches side by side on one tensor."""
    up = self.reduce(x)
    high_a, norm_a, wide_a, norm_a2, channel_gate = _layers(self.local)
    high_b, norm_b, wide_b, norm_b2, axis_gates = _layers(self.context)
    dilations = (1, high_b.dilation[0])
    y = axial_depthwise_pair(up, high_a.weight, high_b.weight, dilations)
    y = batch_norm_prelu(y, [norm_a, norm_b])
    y = axial_depthwise_pair(y, wide_a.weight, wide_b.weight, dilations)
    y = batch_norm_prelu(y, [norm_a2, norm_b2])
    gated = gated_sum(up, y, channel_gate.conv.weight, axis_gates.rows.weight, axis_gates.columns.weight)
    return shuffle_add(self.expand(gated), x)


def _layers(branch: nn.Sequential) -> list[Any]:
    """Of a depthwise branch: convolution, norm, convolution, norm, gate."""
    return list(branch)


def _gated_sum(up: Tensor, y: Tensor, channel: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """up + ECA(first half of y) + DDA(second half): see `network.edab` for both.

    Means are in float32; the means over one axis serve the mean over both.
    """
    by_row, by_column = y.mean(dim=3, dtype=torch.float32), y.float().mean(dim=2)  # (B, 2C, H), (B, 2C, W)
    half = up.shape[1]
    pooled = by_row[:, :half].mean(dim=2)  # (B, C)
    taps = channel.view(3)
    padded = nn.functional.pad(pooled, (1, 1))
    mixed = padded[:, :-2] * taps[0] + padded[:, 1:-1] * taps[1] + padded[:, 2:] * taps[2]
    gate = torch.sigmoid(mixed)[:, :, None, None]
    row_gate = torch.sigmoid(torch.matmul(rows.view(half, half), by_row[:, half:]))[:, :, :, None]
    column_gate = torch.sigmoid(torch.matmul(columns.view(half, half), by_column[:, half:]))[:, :, None, :]
    return (up + y[:, :half] * gate + y[:, half:] * row_gate * column_gate).to(up.dtype)


gated_sum = torch.compile(_gated_sum, dynamic=False)
