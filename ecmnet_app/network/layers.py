"""Layers that every part of the network shares."""

from __future__ import annotations

from torch import nn

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
    """Depthwise convolution of three taps along one axis: 3x1 ("height") or 1x3 ("width"), dilated."""

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
