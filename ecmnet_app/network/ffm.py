"""The feature fusion module: a two-dimensional selective scan over the deepest features (eq. 10-11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import ConvNormAct
from .ss2d import SS2D

__all__ = ["FFM"]

SOURCES = 3
"""The encoder's output and the two finer long connections."""


class FFM(nn.Module):
    """y = FFN(SS2D(Concat(x_encoder, x_MSAU1, x_MSAU2))) + x_encoder, at 1/16 of the input.

    The finer maps come down by 3x3 convolutions of stride 2 (the dashed arrows of Fig. 1). Without
    long connections (row C1 of Table 1) a 1x1 widens the encoder's output to the same three widths.
    """

    def __init__(self, channels: int, expand: int, state_size: int, fed_by_connections: bool) -> None:
        super().__init__()
        dim = SOURCES * channels
        if fed_by_connections:
            self.from_eighth = ConvNormAct(channels, channels, stride=2)
            self.from_quarter = nn.Sequential(
                ConvNormAct(channels, channels, stride=2), ConvNormAct(channels, channels, stride=2)
            )
        else:
            self.widen = nn.Conv2d(channels, dim, 1, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.ss2d = SS2D(dim, expand, state_size)
        self.ffn = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, channels))

    def forward(self, x: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Fuse the encoder's output with the finer connections.

        Args:
            x: (B, C, H/16, W/16).
            finer: the connections at 1/8 and 1/4, each with C channels; empty where there are none.
        """
        if finer:
            eighth, quarter = finer
            fused = torch.cat([x, self.from_eighth(eighth), self.from_quarter(quarter)], dim=1)
        else:
            fused = self.widen(x)
        scanned = self.ss2d(self.norm(fused.permute(0, 2, 3, 1)))
        update: Tensor = self.ffn(scanned).permute(0, 3, 1, 2)
        return x + update
