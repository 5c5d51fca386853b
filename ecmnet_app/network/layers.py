"""Layers that every part of the network shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AxialDepthwise", "BatchNormPReLU", "ConvNormAct"]

BATCH_NORM_EPS = 1e-3


class BatchNormPReLU(nn.Sequential):
    """Batch norm (eps 1e-3), then PReLU with one slope a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS), nn.PReLU(channels))


class ConvNormAct(nn.Sequential):
    """3x3 convolution without bias, padded to keep ceil(size / stride), then BatchNormPReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            BatchNormPReLU(out_channels),
        )


class AxialDepthwise(nn.Conv2d):
    """Depthwise convolution of three taps along one axis: 3x1 ("height") or 1x3 ("width"), dilated.

    Under `torch.compile` it is written as three shifted products, which the compiler fuses with the
    norm and activation around it; cuDNN's depthwise kernels are a pass of their own. Exports keep
    the convolution.
    """

    def __init__(self, channels: int, axis: str, dilation: int = 1) -> None:
        vertical = axis == "height"
        super().__init__(
            channels,
            channels,
            kernel_size=(3, 1) if vertical else (1, 3),
            padding=(dilation, 0) if vertical else (0, dilation),
            dilation=(dilation, 1) if vertical else (1, dilation),
            groups=channels,
            bias=False,
        )
        self.vertical = vertical

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
            return super().forward(input)
        return self._shifted(input)

    def _shifted(self, x: Tensor) -> Tensor:
        dim = 2 if self.vertical else 3
        size, dilation = x.shape[dim], self.dilation[0 if self.vertical else 1]
        pad = (0, 0, dilation, dilation) if self.vertical else (dilation, dilation)
        padded = F.pad(x, pad)
        taps = self.weight.to(x.dtype).view(self.out_channels, 3)
        shifted = [padded.narrow(dim, k * dilation, size) * taps[:, k, None, None] for k in range(3)]
        return shifted[0] + shifted[1] + shifted[2]
