"""What each layer group must move through memory and compute: the two sides of a roofline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .audit import Count, Tally
from .config import ECMNetConfig
from .ecmnet import Downsample, ECMNet, Upsample
from .edab import EDAB, ResidualBlock
from .layers import ConvNormAct
from .msau import MSAU
from .ss2d import SS2D

__all__ = ["GROUPS", "LayerGroup", "layer_groups"]

GROUPS = {
    "stem": "initial block",
    "downsamples": "downsampling",
    "encoder.0": "encoder, 1/4",
    "encoder.1": "encoder, 1/8",
    "encoder.2": "encoder, 1/16",
    "connections": "long connections",
    "msau": "long connections",
    "ffm": "FFM",
    "bridge": "decoder",
    "decoder": "decoder",
    "upsamples": "decoder",
    "classifier": "classes of pixels",
}
"""Groups, in order, by the first part of their modules' names."""

TWICE = (EDAB, MSAU, SS2D)
"""Blocks that weigh their values by what they find on the whole map, so that their input is read a second time."""


@dataclass
class LayerGroup:
    """The least that a group of layers does for one picture.

    Each block, and each convolution outside of a block, reads its input once (twice where it is one of `TWICE`) and
    writes its output once; what is inside stays on the chip, and norms, activations and additions ride along. An engine
    that joins two of them moves less, one that runs them operation by operation several times as much.
    """

    name: str
    macs: int = 0
    """Multiply-accumulates of convolutions, linear layers and the scan."""
    values: int = 0
    """Activations read and written."""
    parameters: int = 0
    """Read once for all pictures of a batch."""
    picture_bytes: int = 0
    """Of the uint8 picture that comes in, or of uint8 labels and float32 confidence that go out."""

    def bytes_moved(self, value_bytes: int, batch: int = 1) -> int:
        """By a batch, where an activation and a parameter take `value_bytes` each."""
        return batch * (self.values * value_bytes + self.picture_bytes) + self.parameters * value_bytes


def layer_groups(config: ECMNetConfig, size: tuple[int, int]) -> list[LayerGroup]:
    """Follow one picture of `size` (height, width) through the network without computing anything."""
    with torch.inference_mode(False), FakeTensorMode():  # shapes without values
        return _follow(ECMNet(config).eval(), torch.empty(1, 3, *size))


def _follow(net: ECMNet, pictures: Tensor) -> list[LayerGroup]:
    groups = {name: LayerGroup(name) for name in GROUPS.values()}
    tally = Tally(Count())
    for module in net.modules():
        if isinstance(module, SS2D):
            module.register_forward_hook(tally.see_scan)
    for name, module in net.named_modules():
        if _is_unit(name, module):
            _watch(module, groups[_group(name)], tally)
    for name, parameter in net.named_parameters():
        groups[_group(name)].parameters += parameter.numel()

    with torch.no_grad(), tally:
        net(pictures)
    # The picture comes in as bytes; the scores never leave the chip, and labels and confidence go out.
    first, last = groups[GROUPS["stem"]], groups[GROUPS["classifier"]]
    first.values -= pictures.numel()
    first.picture_bytes = pictures.numel()
    height, width = pictures.shape[-2:]
    last.values -= net.config.num_classes * ((height + 1) // 2) * ((width + 1) // 2)
    last.picture_bytes = 5 * height * width
    return [group for group in groups.values() if group.values]


def _group(name: str) -> str:
    return next(group for start, group in GROUPS.items() if name.startswith(start))


def _is_unit(name: str, module: nn.Module) -> bool:
    units = (ConvNormAct, Downsample, Upsample, EDAB, ResidualBlock, MSAU, SS2D)
    return isinstance(module, units) or name in ("ffm.widen", "ffm.ffn", "classifier", "bridge")


def _watch(module: nn.Module, group: LayerGroup, tally: Tally) -> None:
    before: list[int] = []

    def start(module: nn.Module, args: tuple[Any, ...]) -> None:
        before.append(tally.count.macs)

    def end(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        group.macs += tally.count.macs - before.pop()
        if not isinstance(module, nn.Identity):
            group.values += args[0].numel() * (2 if isinstance(module, TWICE) else 1) + output.numel()

    module.register_forward_pre_hook(start)
    module.register_forward_hook(end)
