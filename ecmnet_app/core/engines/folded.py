"""ECMNet for inference: the same function in fewer operations, as plain torch modules that run and export anywhere.

What `fold` does, each step exact but for rounding:

- a batch norm after a convolution becomes part of its weights and bias; elsewhere it becomes one product and one sum;
- convolutions with nothing between them become one: the 1x1 and 3x1 of an EDAB, the depthwise 3x3, 5x5 and 7x7 of the
  MSAU, the last transposed convolution and the classifier;
- an EDAB's channel shuffle is not executed. It only renames the channels of the residual stream, so whatever reads
  or writes the stream has its weights in the order in which the channels lie.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecmnet_app.network import ECMNet
from ecmnet_app.network.edab import EDAB, ResidualBlock, channel_shuffle
from ecmnet_app.network.layers import BatchNormPReLU, ConvNormAct

__all__ = ["FoldedECMNet", "fold"]

Layer: TypeAlias = Any
"""A part of the network: torch's own types do not say what is inside a module."""


def fold(net: ECMNet) -> FoldedECMNet:
    """The function of `net` in eval mode, with weights of its own; `net` stays as it is."""
    device = net.classifier.weight.device
    with torch.no_grad():
        return FoldedECMNet(deepcopy(net).cpu()).eval().requires_grad_(False).to(device)


class ScaledPReLU(nn.Module):
    """A batch norm that no convolution can take, and the PReLU after it: prelu(scale * x + shift)."""

    def __init__(self, layer: Layer, order: Tensor) -> None:
        super().__init__()
        norm, act = layer
        scale, shift = _scale_and_shift(norm)
        self.scale = nn.Parameter(scale[order].float()[:, None, None])
        self.shift = nn.Parameter(shift[order].float()[:, None, None])
        self.act = _prelu(act, order)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.act(x * self.scale + self.shift)


class FoldedDownsample(nn.Module):
    """See `network.ecmnet.Downsample`; in growing ones, the norm of the pooled channels stays."""

    def __init__(self, block: Layer, order_in: Tensor, order_out: Tensor) -> None:
        super().__init__()
        norm, act = block.norm
        scale, shift = _scale_and_shift(norm)
        wide = block.conv.out_channels
        rows = order_out[:wide]
        self.conv = _conv_like(block.conv, block.conv.weight[rows][:, order_in], scale[rows], shift[rows])
        self.grows = block.grows
        if self.grows:
            self.scale = nn.Parameter(scale[order_out[wide:]].float()[:, None, None])
            self.shift = nn.Parameter(shift[order_out[wide:]].float()[:, None, None])
        self.act = _prelu(act, order_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2))."""
        y = self.conv(x)
        if self.grows:
            y = torch.cat([y, F.max_pool2d(x, 2, ceil_mode=True) * self.scale + self.shift], dim=1)
        return self.act(y)


class FoldedEDAB(nn.Module):
    """See `network.edab.EDAB`: the sum before the shuffle, in the order in which the channels come."""

    def __init__(self, block: Layer, order: Tensor) -> None:
        super().__init__()
        before, narrow, high, high_norm, wide, wide_norm = block.reduce
        after, expand = block.expand
        # The 1x1 before the 3x1 has no bias, so what it makes of padding is padding.
        merged = torch.einsum("omyx,mc->ocyx", high.weight.double(), narrow.weight.double()[:, order, 0, 0])
        self.before = ScaledPReLU(before, order)
        self.high = nn.Sequential(
            _conv_like(high, merged, *_scale_and_shift(high_norm[0])), _prelu(high_norm[1], slice(None))
        )
        self.wide = _conv_act(wide, wide_norm)
        self.local, self.context = (
            nn.Sequential(_conv_act(branch[0], branch[1]), _conv_act(branch[2], branch[3]), deepcopy(branch[4]))
            for branch in (block.local, block.context)
        )
        self.after = ScaledPReLU(after, torch.arange(expand.in_channels))
        self.expand = _conv_like(expand, expand.weight[order])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        up = self.wide(self.high(self.before(x)))
        return x + self.expand(self.after(up + self.local(up) + self.context(up)))


class FoldedResidualBlock(nn.Module):
    """See `network.edab.ResidualBlock`."""

    def __init__(self, block: Layer) -> None:
        super().__init__()
        before, conv, norm, last = block.body
        self.before = ScaledPReLU(before, torch.arange(conv.in_channels))
        self.conv = _conv_act(conv, norm)
        self.last = _conv_like(last, last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.last(self.conv(self.before(x)))


class FoldedMSAU(nn.Module):
    """See `network.msau.MSAU`; its three depthwise scales are one depthwise 7x7."""

    def __init__(self, block: Layer) -> None:
        super().__init__()
        largest = block.scales[-1]
        side = largest.kernel_size[0]
        padded = [F.pad(conv.weight.double(), [(side - conv.kernel_size[0]) // 2] * 4) for conv in block.scales]
        self.reduce, self.columns, self.expand = (deepcopy(m) for m in (block.reduce, block.columns, block.expand))
        self.scales = _conv_like(largest, torch.stack(padded).sum(0))
        self.mean_features, self.max_features = deepcopy(block.mean_features), deepcopy(block.max_features)
        self.mean_gate, self.max_gate = deepcopy(block.mean_gate), deepcopy(block.max_gate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x1 = self.scales(self.reduce(x))
        x2 = self.expand(x1 * self.columns(x1.mean(dim=2, keepdim=True)))
        x3 = self.mean_gate(self.mean_features(x).mean(dim=(2, 3), keepdim=True))
        x4 = self.max_gate(torch.amax(self.max_features(x), dim=(2, 3), keepdim=True))
        return x + x2 * (x3 + x4)


class FoldedUpsample(nn.Module):
    """See `network.ecmnet.Upsample`; `head`, a 1x1 convolution, becomes part of it."""

    def __init__(self, block: Layer, order_in: Tensor, head: Layer | None = None) -> None:
        super().__init__()
        weight, bias = block.conv.weight.double()[order_in], block.conv.bias.double()
        if head is not None:
            matrix = head.weight.double()[:, :, 0, 0]
            weight = torch.einsum("iokl,no->inkl", weight, matrix)
            bias = matrix @ bias + head.bias.double()
        conv: Layer = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 3, stride=2, padding=1)
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
        self.conv = conv

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, ceil(h/2), ceil(w/2)) -> (B, C', h, w) for size (h, w)."""
        return self.conv(x, output_size=size)


class FoldedECMNet(nn.Module):
    """Normalised RGB in, logits of every class at half of its size out. Made by `fold`.

    Its parts have the names that they have in `ECMNet`, but for the classifier, which is in the last of `upsamples`.
    """

    def __init__(self, net: ECMNet) -> None:
        super().__init__()
        parts: Layer = net
        self.config = net.config
        shuffles = net.config.block == "edab"
        self.stem = nn.Sequential(*(_folded_conv_norm_act(layer) for layer in parts.stem))
        # order[j] is the channel, as the network numbers them, that lies at place j.
        order = torch.arange(net.config.stem_width)
        self.downsamples, self.encoder = nn.ModuleList(), nn.ModuleList()
        orders = []
        for downsample, blocks in zip(parts.downsamples, parts.encoder, strict=True):
            wide = downsample.conv.out_channels
            if downsample.grows:
                entry = torch.cat([torch.arange(wide), wide + order])
            else:  # an order that the shuffles of this stage undo
                entry = torch.arange(wide)
                for _ in range(len(blocks) - 1 if shuffles else 0):
                    entry = _shuffled(wide)[entry]
            self.downsamples.append(FoldedDownsample(downsample, order, entry))
            stage, order = _folded_stage(blocks, entry)
            self.encoder.append(stage)
            orders.append(order)
        deepest_first = orders[::-1]
        self.connections = nn.ModuleList(
            _folded_conv_norm_act(conv, o) for conv, o in zip(parts.connections, deepest_first, strict=False)
        )
        self.msau = FoldedMSAU(parts.msau) if net.config.msau else nn.Identity()
        if net.config.ffm:
            self.ffm = deepcopy(parts.ffm)
            _fold_convs(self.ffm)
        self.bridge = _folded_bridge(parts.bridge, order)
        self.decoder, self.upsamples = nn.ModuleList(), nn.ModuleList()
        for i, (blocks, upsample) in enumerate(zip(parts.decoder, parts.upsamples, strict=True)):
            stage, order = _folded_stage(blocks, torch.arange(net.config.decoder_width))
            self.decoder.append(stage)
            self.upsamples.append(FoldedUpsample(upsample, order, parts.classifier if i == 2 else None))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every class at half of the size: what `ECMNet` interpolates.

        Args:
            x: pictures, (B, 3, H, W), float, normalised; H and W at least `network.MIN_SIZE`.

        Returns:
            (B, num_classes, ceil(H / 2), ceil(W / 2)).
        """
        half = x = self.stem(x)
        stages = []
        for downsample, blocks in zip(self.downsamples, self.encoder, strict=True):
            x = blocks(downsample(x))
            stages.append(x)
        deepest_first = stages[::-1]
        lines = [self.msau(conv(s)) for conv, s in zip(self.connections, deepest_first, strict=False)]
        x = self.bridge(x)
        if self.config.ffm:
            x = self.ffm(x, lines[1:] if len(lines) == 3 else [])
        sizes = [s.shape[-2:] for s in (*deepest_first[1:], half)]
        for i, (blocks, upsample, size) in enumerate(zip(self.decoder, self.upsamples, sizes, strict=True)):
            if i < len(lines):
                x = x + lines[i]
            x = upsample(blocks(x), size)
        return x


def _scale_and_shift(norm: Layer) -> tuple[Tensor, Tensor]:
    """What a batch norm in eval mode does to a channel: scale * x + shift. In float64."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _conv_like(conv: Layer, weight: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> nn.Conv2d:
    """A convolution of `conv`'s geometry with this weight, and with what a norm makes of its output."""
    made: Layer = nn.Conv2d(
        weight.shape[1] * conv.groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        bias=shift is not None,
    )
    made.weight.copy_(weight if scale is None else weight.double() * scale[:, None, None, None])
    if shift is not None:
        made.bias.copy_(shift)
    return made


def _prelu(act: Layer, order: Tensor | slice) -> nn.PReLU:
    slope = act.weight[order]
    made = nn.PReLU(len(slope))
    made.weight.copy_(slope)
    return made


def _conv_act(conv: Layer, layer: Layer) -> nn.Sequential:
    """Convolution, norm, PReLU -> convolution, PReLU."""
    norm, act = layer
    return nn.Sequential(_conv_like(conv, conv.weight, *_scale_and_shift(norm)), _prelu(act, slice(None)))


def _folded_conv_norm_act(layer: Layer, order_in: Tensor | None = None) -> nn.Sequential:
    conv, norm_act = layer
    if order_in is not None:
        conv = _conv_like(conv, conv.weight[:, order_in])
    return _conv_act(conv, norm_act)


def _folded_stage(blocks: Layer, order: Tensor) -> tuple[nn.Sequential, Tensor]:
    """The stage, for channels that come in `order`, and the order in which it leaves them."""
    folded: list[nn.Module] = []
    for block in blocks:
        if isinstance(block, EDAB):
            folded.append(FoldedEDAB(block, order))
            order = torch.argsort(_shuffled(len(order)))[order]
        elif isinstance(block, ResidualBlock):
            folded.append(FoldedResidualBlock(block))
        elif isinstance(block, BatchNormPReLU):
            folded.append(ScaledPReLU(block, order))
    return nn.Sequential(*folded), order


def _shuffled(channels: int) -> Tensor:
    """Which channel `channel_shuffle` puts at each place."""
    return channel_shuffle(torch.arange(channels)[None, :, None, None]).flatten()


def _folded_bridge(bridge: Layer, order: Tensor) -> nn.Module:
    if isinstance(bridge, nn.Conv2d):
        return _conv_like(bridge, bridge.weight[:, order])
    if torch.equal(order, torch.arange(len(order))):
        return nn.Identity()
    put_back = nn.Conv2d(len(order), len(order), 1, bias=False)  # a last stage that grows keeps the order it is given
    put_back.weight.copy_(torch.eye(len(order))[:, order, None, None])
    return put_back


def _fold_convs(ffm: Layer) -> None:
    for name, layer in ffm.named_children():
        if isinstance(layer, ConvNormAct):
            setattr(ffm, name, _folded_conv_norm_act(layer))
        elif name == "from_quarter":
            setattr(ffm, name, nn.Sequential(*(_folded_conv_norm_act(part) for part in layer.children())))
