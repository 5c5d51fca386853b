"""The Enhanced Dual-Attention Block (paper, eq. 1-4) and the plain block it is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import AxialDepthwise, BatchNormPReLU

__all__ = ["DDA", "ECA", "EDAB", "ResidualBlock", "channel_shuffle"]


def channel_shuffle(x: Tensor, groups: int = 2) -> Tensor:
    """Interleave `groups` runs of channels (ShuffleNet): (B, C, H, W) -> the same, channels permuted."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ECA(nn.Module):
    """Channel attention of ECA-Net: a convolution of three taps over the pooled channels, as a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled = x.mean(dim=(2, 3))
        gate = torch.sigmoid(self.conv(pooled.unsqueeze(1))).transpose(1, 2).unsqueeze(3)
        return x * gate


class DDA(nn.Module):
    """Dual-direction attention: a gate for each row and one for each column.

    A 1x1 convolution and a mean over one axis make each gate. Both are linear, so they commute: the
    mean is taken first, which is the same function at 1/W (or 1/H) of the arithmetic.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Conv2d(channels, channels, 1, bias=False)
        self.columns = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        rows = torch.sigmoid(self.rows(x.mean(dim=3, keepdim=True)))
        columns = torch.sigmoid(self.columns(x.mean(dim=2, keepdim=True)))
        return x * rows * columns


class EDAB(nn.Module):
    """Enhanced Dual-Attention Block (eq. 1-4).

    up = Conv1x3(Conv3x1(Conv1x1(x))), the 1x1 halving the channels;
    y  = ChannelShuffle(Conv1x1(up + CA(DW(up)) + DDA(DW_dilated(up))) + x),
    where DW is a depthwise 3x1 and 1x3 pair.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(
            BatchNormPReLU(channels),
            nn.Conv2d(channels, half, 1, bias=False),
            nn.Conv2d(half, half, (3, 1), padding=(1, 0), bias=False),
            BatchNormPReLU(half),
            nn.Conv2d(half, half, (1, 3), padding=(0, 1), bias=False),
            BatchNormPReLU(half),
        )
        self.local = nn.Sequential(
            AxialDepthwise(half, "height"),
            BatchNormPReLU(half),
            AxialDepthwise(half, "width"),
            BatchNormPReLU(half),
            ECA(),
        )
        self.context = nn.Sequential(
            AxialDepthwise(half, "height", dilation),
            BatchNormPReLU(half),
            AxialDepthwise(half, "width", dilation),
            BatchNormPReLU(half),
            DDA(half),
        )
        self.expand = nn.Sequential(BatchNormPReLU(half), nn.Conv2d(half, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        up = self.reduce(x)
        return channel_shuffle(self.expand(up + self.local(up) + self.context(up)) + x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity: the block of the paper's EDAB ablation."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            BatchNormPReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNormPReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        residual: Tensor = self.body(x)
        return x + residual
