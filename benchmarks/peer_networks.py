"""Networks that a person might pick instead, written from their papers in plain torch, with random weights.

They are here to be timed, so only what costs time is kept: no dropout, no auxiliary heads, torch's own initialisation.
Each takes normalised RGB, (B, 3, H, W), and gives logits at the resolution at which its classifier stands, before the
interpolation to the picture's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PEERS", "DABNet", "ERFNet", "FastSCNN", "LETNet", "Peer", "SegFormerB0"]

DILATIONS = (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32)


def conv(
    channels: int,
    out: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution that keeps ceil(size / stride)."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (rows // 2 * dilation, columns // 2 * dilation)
    return nn.Conv2d(channels, out, (rows, columns), stride, padding, dilation, groups, bias)


class NormAct(nn.Sequential):
    """Batch norm and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.PReLU(channels))


def conv_norm(channels: int, out: int, kernel: int | tuple[int, int] = 3, **how: int) -> nn.Sequential:
    """A convolution, batch norm and PReLU."""
    return nn.Sequential(conv(channels, out, kernel, **how), nn.BatchNorm2d(out), nn.PReLU(out))


def conv_relu(channels: int, out: int, kernel: int = 3, **how: int) -> nn.Sequential:
    """A convolution, batch norm and ReLU."""
    return nn.Sequential(conv(channels, out, kernel, **how), nn.BatchNorm2d(out), nn.ReLU())


class HalveConcat(nn.Module):
    """A 3x3 convolution of stride 2 beside a 2x2 maximum, where channels grow; else the convolution alone."""

    def __init__(self, channels: int, out: int, act: nn.Module) -> None:
        super().__init__()
        self.grows = out > channels
        self.conv = conv(channels, out - channels if self.grows else out, stride=2)
        self.act = nn.Sequential(nn.BatchNorm2d(out), act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.grows:
            y = torch.cat([y, F.max_pool2d(x, 2, ceil_mode=True)], dim=1)
        return self.act(y)


# ERFNet: Romera et al., IEEE T-ITS 2018.


class NonBottleneck1D(nn.Module):
    """Two pairs of 3x1 and 1x3 convolutions, the second dilated, around an identity."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, (3, 1), bias=True),
            nn.ReLU(),
            conv(channels, channels, (1, 3), bias=True),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, channels, (3, 1), dilation=dilation, bias=True),
            nn.ReLU(),
            conv(channels, channels, (1, 3), dilation=dilation, bias=True),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class ERFNet(nn.Sequential):
    """Encoder to 1/8 and a decoder of transposed convolutions; logits at full size."""

    def __init__(self, classes: int) -> None:
        def double(channels: int, out: int) -> list[nn.Module]:
            deconv = nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1)
            return [deconv, nn.BatchNorm2d(out), nn.ReLU()]

        super().__init__(
            HalveConcat(3, 16, nn.ReLU()),
            HalveConcat(16, 64, nn.ReLU()),
            *(NonBottleneck1D(64) for _ in range(5)),
            HalveConcat(64, 128, nn.ReLU()),
            *(NonBottleneck1D(128, d) for d in (2, 4, 8, 16) * 2),
            *double(128, 64),
            *(NonBottleneck1D(64) for _ in range(2)),
            *double(64, 16),
            *(NonBottleneck1D(16) for _ in range(2)),
            nn.ConvTranspose2d(16, classes, 2, stride=2),
        )


# DABNet: Li et al., BMVC 2019.


class DAB(nn.Module):
    """A 3x3 to half of the channels, a plain and a dilated depthwise pair side by side, a 1x1 back."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(NormAct(channels), conv(channels, half), nn.BatchNorm2d(half), nn.PReLU(half))
        self.local, self.context = (depthwise_pair(half, d) for d in (1, dilation))
        self.expand = nn.Sequential(NormAct(half), conv(half, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        return x + self.expand(self.local(y) + self.context(y))


def depthwise_pair(channels: int, dilation: int) -> nn.Sequential:
    """Depthwise 3x1 and 1x3, each with batch norm and PReLU."""
    return nn.Sequential(
        conv_norm(channels, channels, (3, 1), dilation=dilation, groups=channels),
        conv_norm(channels, channels, (1, 3), dilation=dilation, groups=channels),
    )


class DABNet(nn.Module):
    """Three stages, into each of which the shrunken picture is fed again; logits at 1/8."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 32, stride=2), conv_norm(32, 32), conv_norm(32, 32))
        self.half_act = NormAct(35)
        self.to_quarter = HalveConcat(35, 64, nn.PReLU(64))
        self.quarter = nn.Sequential(*(DAB(64, 2) for _ in range(3)))
        self.quarter_act = NormAct(131)
        self.to_eighth = HalveConcat(131, 128, nn.PReLU(128))
        self.eighth = nn.Sequential(*(DAB(128, d) for d in (4, 4, 8, 8, 16, 16)))
        self.classify = nn.Sequential(NormAct(259), conv(259, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        pictures = []
        picture = x
        for _ in range(3):
            picture = F.avg_pool2d(picture, 3, stride=2, padding=1)
            pictures.append(picture)
        x = self.to_quarter(self.half_act(torch.cat([self.stem(x), pictures[0]], dim=1)))
        x = self.to_eighth(self.quarter_act(torch.cat([self.quarter(x), x, pictures[1]], dim=1)))
        return self.classify(torch.cat([self.eighth(x), x, pictures[2]], dim=1))


# Fast-SCNN: Poudel et al., BMVC 2019.


def separable(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1, each with batch norm and ReLU."""
    return nn.Sequential(conv_relu(channels, channels, stride=stride, groups=channels), conv_relu(channels, out, 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's bottleneck, six times as wide inside."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 6 * channels
        self.keeps = stride == 1 and channels == out
        self.body = nn.Sequential(
            conv_relu(channels, wide, 1),
            conv_relu(wide, wide, stride=stride, groups=wide),
            conv(wide, out, 1),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.keeps else y


class PyramidPooling(nn.Module):
    """Means over grids of 1, 2, 3 and 6 cells a side, beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(conv_relu(channels, channels // 4, 1) for _ in range(4))
        self.out = conv_relu(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for cells, level in zip((1, 2, 3, 6), self.levels, strict=True):
            maps.append(resize(level(F.adaptive_avg_pool2d(x, cells)), x))
        return self.out(torch.cat(maps, dim=1))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the size of another map."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class FastSCNN(nn.Module):
    """A shallow branch at 1/8 and a deep one at 1/32, added; logits at 1/8."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(conv_relu(3, 32, stride=2), separable(32, 48, 2), separable(48, 64, 2))

        def stage(channels: int, out: int, stride: int) -> list[nn.Module]:
            return [
                InvertedResidual(channels, out, stride),
                InvertedResidual(out, out, 1),
                InvertedResidual(out, out, 1),
            ]

        self.deep = nn.Sequential(*stage(64, 64, 2), *stage(64, 96, 2), *stage(96, 128, 1), PyramidPooling(128))
        self.from_deep = nn.Sequential(
            conv_relu(128, 128, dilation=4, groups=128), conv(128, 128, 1, bias=True), nn.BatchNorm2d(128)
        )
        self.from_shallow = nn.Sequential(conv(64, 128, 1, bias=True), nn.BatchNorm2d(128))
        self.classify = nn.Sequential(separable(128, 128), separable(128, 128), conv(128, classes, 1, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.shallow(x)
        fused = self.from_deep(resize(self.deep(fine), fine)) + self.from_shallow(fine)
        return self.classify(F.relu(fused))


# LETNet: Xu et al., arXiv 2302.10484. As far as its paper tells; the rest by its parameters.


class ChannelAttention(nn.Module):
    """ECA: three taps over the pooled channels, as a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3)).unsqueeze(1)
        return x * torch.sigmoid(self.taps(pooled)).transpose(1, 2).unsqueeze(3)


class DilatedBottleneck(nn.Module):
    """LETNet's block: halve, a dense 3x1 and 1x3, a plain and a dilated depthwise pair with gates, widen, shuffle."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(
            NormAct(channels),
            conv(channels, half, 1),
            conv_norm(half, half, (3, 1)),
            conv_norm(half, half, (1, 3)),
        )
        self.local = nn.Sequential(depthwise_pair(half, 1), ChannelAttention())
        self.context = nn.Sequential(depthwise_pair(half, dilation), ChannelAttention())
        self.expand = nn.Sequential(NormAct(half), conv(half, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        up = self.reduce(x)
        y = x + self.expand(up + self.local(up) + self.context(up))
        # The channels' shuffle, written so that they stay last in memory where they are.
        return y.permute(0, 2, 3, 1).unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)


class PatchTransformer(nn.Module):
    """A transformer layer over the 3x3 neighbourhood of every position, in half of their width, eight heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        dim = 9 * channels
        half = dim // 2
        self.norm, self.reduce = nn.LayerNorm(dim), nn.Linear(dim, half, bias=False)
        self.qkv, self.project = nn.Linear(half, 3 * half, bias=False), nn.Linear(half, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim // 4), nn.ReLU(), nn.Linear(dim // 4, dim))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        patches = F.unfold(x, 3, padding=1).transpose(1, 2)
        q, k, v = self.qkv(self.reduce(self.norm(patches))).unflatten(-1, (3, 8, -1)).permute(2, 0, 3, 1, 4)
        # The paper splits the queries and keys into parts to save memory; fused attention needs none.
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        patches = patches + self.project(attended)
        patches = patches + self.mlp(patches)
        return F.fold(patches.transpose(1, 2), size, 3, padding=1)


class PixelAttention(nn.Module):
    """A gate for every value, from a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = conv(channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x))


class LETNet(nn.Module):
    """U shape with a transformer at 1/16 and three long connections; logits at 1/2."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def stage(channels: int, dilations: tuple[int, ...]) -> nn.Sequential:
            return nn.Sequential(*(DilatedBottleneck(channels, d) for d in dilations), NormAct(channels))

        self.stem = nn.Sequential(conv_norm(3, 32), conv_norm(32, 32), conv_norm(32, 32, stride=2))
        widths = (32, 64, 128, 32)
        self.downs = nn.ModuleList(HalveConcat(a, b, nn.PReLU(b)) for a, b in pairwise(widths))
        self.encoder = nn.ModuleList([stage(64, (2, 2, 2)), stage(128, DILATIONS), stage(32, DILATIONS)])
        self.transformer = PatchTransformer(32)
        self.connections = nn.ModuleList(
            nn.Sequential(conv_norm(channels, out), PixelAttention(out))
            for channels, out in ((32, 32), (128, 16), (64, 16))
        )
        self.decoder = nn.ModuleList([stage(32, (2, 2, 2)), stage(16, (2, 2, 2)), stage(16, (2, 2, 2))])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(c, 16, 3, stride=2, padding=1) for c in (32, 16, 16))
        self.classify = conv(16, classes, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for down, blocks in zip(self.downs, self.encoder, strict=True):
            maps.append(blocks(down(maps[-1])))
        x = self.transformer(maps[-1])
        for i, (blocks, up, connect) in enumerate(zip(self.decoder, self.ups, self.connections, strict=True)):
            size = maps[2 - i].shape[-2:]
            x = up(blocks(x + connect(maps[3 - i])), output_size=size)
        return self.classify(x)


# SegFormer-B0: Xie et al., NeurIPS 2021.


class MixTransformerLayer(nn.Module):
    """Attention whose keys and values are shrunk, and an MLP with a depthwise 3x3 in it."""

    def __init__(self, dim: int, heads: int, shrink: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.q, self.kv, self.project = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.shrink = nn.Conv2d(dim, dim, shrink, stride=shrink) if shrink > 1 else None
        self.shrink_norm = nn.LayerNorm(dim) if shrink > 1 else None
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.depthwise = conv(4 * dim, 4 * dim, groups=4 * dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        normed = self.norm(x)
        source = normed
        if self.shrink is not None and self.shrink_norm is not None:
            source = self.shrink_norm(self.shrink(normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        q = self.q(normed).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(source).flatten(1, 2).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.project(attended)
        wide = self.depthwise(self.widen(self.mlp_norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.narrow(F.gelu(wide))


class MixTransformerStage(nn.Module):
    """Overlapping patches, two layers, a norm."""

    def __init__(self, channels: int, dim: int, patch: int, stride: int, heads: int, shrink: int) -> None:
        super().__init__()
        self.patches, self.patch_norm = conv(channels, dim, patch, stride, bias=True), nn.LayerNorm(dim)
        self.layers = nn.Sequential(*(MixTransformerLayer(dim, heads, shrink) for _ in range(2)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_norm(self.patches(x).permute(0, 2, 3, 1))
        return self.norm(self.layers(patches)).permute(0, 3, 1, 2)


class SegFormerB0(nn.Module):
    """MiT-B0 and a head of linear layers; logits at 1/4."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                MixTransformerStage(3, 32, 7, 4, heads=1, shrink=8),
                MixTransformerStage(32, 64, 3, 2, heads=2, shrink=4),
                MixTransformerStage(64, 160, 3, 2, heads=5, shrink=2),
                MixTransformerStage(160, 256, 3, 2, heads=8, shrink=1),
            ]
        )
        self.project = nn.ModuleList(conv(dim, 256, 1, bias=True) for dim in (32, 64, 160, 256))
        self.classify = nn.Sequential(conv_relu(1024, 256, 1), conv(256, classes, 1, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for stage, project in zip(self.stages, self.project, strict=True):
            x = stage(x)
            maps.append(project(x))
        return self.classify(torch.cat([resize(m, maps[0]) for m in reversed(maps)], dim=1))


@dataclass(frozen=True)
class Peer:
    """A network, and what its authors publish of it."""

    name: str
    build: Callable[[int], nn.Module]
    """From the number of classes."""
    parameters_m: float
    """Millions, with 19 classes, as published."""
    source: str


PEERS = (
    Peer("SegFormer-B0", SegFormerB0, 3.8, "Xie et al., NeurIPS 2021, Table 1"),
    Peer("LETNet", LETNet, 0.95, "Xu et al., arXiv 2302.10484"),
    Peer("Fast-SCNN", FastSCNN, 1.11, "Poudel et al., BMVC 2019"),
    Peer("DABNet", DABNet, 0.76, "Li et al., BMVC 2019"),
    Peer("ERFNet", ERFNet, 2.06, "Romera et al., T-ITS 2018"),
)
