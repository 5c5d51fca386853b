"""The Multi-Scale Attention Unit (paper, eq. 5-9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MSAU"]


class MSAU(nn.Module):
    """Refines a long connection by what stands out along its width and in its channels.

    X1 = sum over k in {3, 5, 7} of DWConv_kxk(Conv1x1(x)), the 1x1 halving the channels    (eq. 5)
    X2 = Conv1x1(X1 * sigmoid(Conv1x1(DWConv(mean of X1 over height))))                     (eq. 6-7)
    X3, X4 = Conv1x1(ReLU(Conv1x1(pool(Conv3x3(x))))) for the mean and the maximum          (eq. 8)
    y  = x + X2 * (X3 + X4)                                                                 (eq. 9)

    The paper's depthwise 7x7 works on a map of height 1, where six of its seven rows would only ever
    meet padding: it is a 1x7 here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, hidden = channels // 2, 2 * channels
        self.reduce = nn.Conv2d(channels, half, 1, bias=False)
        self.scales = nn.ModuleList(
            nn.Conv2d(half, half, k, padding=k // 2, groups=half, bias=False) for k in (3, 5, 7)
        )
        self.columns = nn.Sequential(
            nn.Conv2d(half, half, (1, 7), padding=(0, 3), groups=half, bias=False),
            nn.Conv2d(half, half, 1),
            nn.Sigmoid(),
        )
        self.expand = nn.Conv2d(half, channels, 1, bias=False)
        self.mean_features = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.max_features = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.mean_gate = _channel_gate(channels, hidden)
        self.max_gate = _channel_gate(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        reduced = self.reduce(x)
        x1 = sum(scale(reduced) for scale in self.scales)
        x2 = self.expand(x1 * self.columns(x1.mean(dim=2, keepdim=True)))
        x3 = self.mean_gate(self.mean_features(x).mean(dim=(2, 3), keepdim=True))
        x4 = self.max_gate(torch.amax(self.max_features(x), dim=(2, 3), keepdim=True))
        return x + x2 * (x3 + x4)


def _channel_gate(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
