"""ECMNet (arXiv 2506.08629): the U shape of the paper's Fig. 1, to be read beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ECMNetConfig
from .edab import EDAB, ResidualBlock
from .ffm import FFM
from .layers import BatchNormPReLU, ConvNormAct
from .msau import MSAU

__all__ = ["MIN_SIZE", "ECMNet"]

MIN_SIZE = 32
"""Least height and width of an input, pixels: two positions at 1/16."""


class Downsample(nn.Module):
    """Halve the size: a 3x3 convolution of stride 2, beside a 2x2 maximum where channels grow."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.grows = out_channels > in_channels
        kept = in_channels if self.grows else 0
        self.conv = nn.Conv2d(in_channels, out_channels - kept, 3, stride=2, padding=1, bias=False)
        self.norm = BatchNormPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2))."""
        y = self.conv(x)
        if self.grows:
            y = torch.cat([y, F.max_pool2d(x, 2, ceil_mode=True)], dim=1)
        normed: Tensor = self.norm(y)
        return normed


class Upsample(nn.Module):
    """A transposed 3x3 convolution of stride 2, to the exact size of the stage it feeds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, ceil(h/2), ceil(w/2)) -> (B, C, h, w) for size (h, w)."""
        y: Tensor = self.conv(x, output_size=size)
        return y


class ECMNet(nn.Module):
    """Semantic segmentation network: normalised RGB in, logits of every class for every pixel out."""

    def __init__(self, config: ECMNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ECMNetConfig()
        block = {"edab": EDAB, "residual": ResidualBlock}[config.block]

        def stage(channels: int, dilations: tuple[int, ...]) -> nn.Sequential:
            return nn.Sequential(*(block(channels, d) for d in dilations), BatchNormPReLU(channels))

        self.stem = nn.Sequential(
            ConvNormAct(3, config.stem_width),
            ConvNormAct(config.stem_width, config.stem_width),
            ConvNormAct(config.stem_width, config.stem_width, stride=2),
        )
        quarter, eighth, sixteenth = config.widths
        self.downsamples = nn.ModuleList(
            [
                Downsample(config.stem_width, quarter),
                Downsample(quarter, eighth),
                Downsample(eighth, sixteenth),
            ]
        )
        self.encoder = nn.ModuleList(stage(w, d) for w, d in zip(config.widths, config.dilations, strict=True))
        # Long connections from the deepest up, as Table 1 numbers them; one MSAU serves them all.
        width = config.decoder_width
        self.connections = nn.ModuleList(
            ConvNormAct(w, width) for w in reversed(config.widths[3 - config.long_connections :])
        )
        self.msau = MSAU(width) if config.msau else nn.Identity()
        if config.ffm:
            self.ffm = FFM(width, config.expand, config.state_size, config.long_connections == 3)
        self.bridge = nn.Identity() if sixteenth == width else nn.Conv2d(sixteenth, width, 1, bias=False)
        self.decoder = nn.ModuleList(stage(width, config.decoder_dilations) for _ in range(3))
        self.upsamples = nn.ModuleList(Upsample(width) for _ in range(3))
        self.classifier = nn.Conv2d(width, config.num_classes, 1)
        if not self.classifier.weight.is_meta:  # nothing to fill, and torch would import its compiler for it
            self.apply(_initialise)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Logits of every class.

        Args:
            x: pictures, (B, 3, H, W), float, normalised; H and W at least `MIN_SIZE`, odd sizes too.
            size: (height, width) of the answer; the input's own by default.

        Returns:
            (B, num_classes, *size), interpolated bilinearly from half of the input's resolution.

        Raises:
            ValueError: the pictures are smaller than `MIN_SIZE` or do not have three channels.
        """
        half, encoded = self.encode(x)
        logits = self.classifier(self.decode(half, encoded))
        return F.interpolate(logits.float(), size or x.shape[-2:], mode="bilinear", align_corners=False)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run initial block and encoder.

        Returns:
            The initial block's output at 1/2, and the stages' outputs at 1/4, 1/8 and 1/16.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"ECMNet takes pictures of shape (B, 3, H, W), not {tuple(x.shape)}")
        if min(x.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f"ECMNet takes pictures of {MIN_SIZE}x{MIN_SIZE} pixels or more, not {x.shape[-1]}x{x.shape[-2]}"
            )
        half = x = self.stem(x)
        stages = []
        for downsample, blocks in zip(self.downsamples, self.encoder, strict=True):
            x = blocks(downsample(x))
            stages.append(x)
        return half, stages

    def decode(self, half: Tensor, stages: list[Tensor]) -> Tensor:
        """Run FFM and decoder on `encode`'s output: features at 1/2, (B, decoder_width, H/2, W/2)."""
        deepest_first = stages[::-1]
        lines = [self.msau(conv(s)) for conv, s in zip(self.connections, deepest_first, strict=False)]
        x = self.bridge(stages[-1])
        if self.config.ffm:
            x = self.ffm(x, lines[1:] if len(lines) == 3 else [])
        sizes = [s.shape[-2:] for s in (*deepest_first[1:], half)]
        for i, (blocks, upsample, size) in enumerate(zip(self.decoder, self.upsamples, sizes, strict=True)):
            if i < len(lines):
                x = x + lines[i]
            x = upsample(blocks(x), size)
        return x


def _initialise(module: nn.Module) -> None:
    """Kaiming (fan out) for the convolutions, as the authors' script does; linear layers keep torch's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
