"""Augmentation of whole batches on the training device, in one pass of resampling and one of colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD
from ecmnet_app.errors import ConfigError

__all__ = ["Augmentation", "augment", "normalise", "paste"]


OUTSIDE = -1e4
"""A place that no picture reaches."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; each picture of a batch draws its own.

    Raises:
        ConfigError: a range that cannot be drawn from; the message names it.
    """

    scale: tuple[float, float] = (0.6, 2.0)
    """Magnification, log-uniform."""
    aspect: float = 0.12
    """Width is stretched by up to this share, either way."""
    rotation_degrees: float = 5.0
    rotation_share: float = 0.4
    """Share of pictures that are rotated at all."""
    flip: bool = True
    brightness: float = 0.25
    contrast: float = 0.3
    saturation: float = 0.4
    channel_gain: float = 0.1
    gamma: float = 0.3
    """Exponent is exp(uniform(-gamma, gamma))."""
    grey_share: float = 0.06
    blur_share: float = 0.2
    noise_share: float = 0.3
    noise: float = 0.04
    """Largest standard deviation of the noise, of the range 0 to 1."""
    paste_share: float = 0.0
    """Share of pictures that receive things cut from another picture of the batch."""
    paste_classes: tuple[int, ...] = ()
    """Ids of the classes that are cut out; each is taken with probability 1/2."""

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"augmentation.scale must be a least and a largest magnification, not {self.scale}")
        if self.paste_share and not self.paste_classes:
            raise ConfigError("augmentation.paste_share needs paste_classes, the ids of what is cut out")
        if not all(0 <= k < UNLABELLED for k in self.paste_classes):
            raise ConfigError(f"augmentation.paste_classes must be class ids, not {self.paste_classes}")


def augment(
    groups: Sequence[tuple[Tensor, Tensor, Tensor]],
    crop: tuple[int, int],
    settings: Augmentation,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Random views of a batch.

    Args:
        groups: the pictures, those of each padding together, since a GPU pays for each operation: images
            (n, 3, H, W) uint8, padded at the bottom and right; labels (n, H, W) uint8, 255 where ignored; heights and
            widths of the pictures within the padding (n, 2).
        crop: (height, width) of the views.
        settings: ranges.
        generator: on the device of the pictures; the same state gives the same views.

    Returns:
        views (B, 3, *crop) float32 in 0 to 1, and their labels (B, *crop) int64; 255 outside the picture.
    """
    sizes = [size for _, _, size in groups]
    places = _random_places(torch.cat(sizes), crop, settings, generator).split([len(size) for size in sizes])
    sampled = [_sample(images, labels, where) for (images, labels, _), where in zip(groups, places, strict=True)]
    views, targets = (torch.cat(parts) for parts in zip(*sampled, strict=True))
    return _random_colour(views, settings, generator), targets


def _sample(images: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """What lies at some places of pictures of one padding: views and targets as `augment` returns them."""
    height, width = images.shape[-2:]
    grid = torch.stack([2 * places[..., 1] / width - 1, 2 * places[..., 0] / height - 1], dim=-1)
    grey = 0.45  # what lies outside the picture; near the mean of street pictures
    views = F.grid_sample(images.float() / 255 - grey, grid, mode="bilinear", align_corners=False) + grey
    # Outside reads as zero, so ids move up by one and back; 255 wraps to zero, and is ignored as well.
    ids = F.grid_sample((labels + 1).float()[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    targets = ids.round().long() - 1
    return views, targets.masked_fill(targets < 0, UNLABELLED)


def paste(views: Tensor, targets: Tensor, settings: Augmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """Copy the pixels of some classes from each picture's neighbour in the batch, with their labels (after ClassMix).

    Args and returns: views (B, 3, h, w) and targets (B, h, w) as `augment` gives them.
    """
    if not settings.paste_share:
        return views, targets
    batch, device = targets.shape[0], targets.device
    classes = torch.tensor(settings.paste_classes, device=device)
    receives = torch.rand(batch, 1, generator=generator, device=device) < settings.paste_share
    taken = receives & (torch.rand(batch, len(classes), generator=generator, device=device) < 0.5)
    table = torch.zeros(batch, UNLABELLED + 1, dtype=torch.bool, device=device)
    table[:, classes] = taken
    donor_views, donor_targets = views.roll(1, dims=0), targets.roll(1, dims=0)
    cut = table.gather(1, donor_targets.flatten(1)).view_as(targets)
    return torch.where(cut[:, None], donor_views, views), torch.where(cut, donor_targets, targets)


def normalise(views: Tensor) -> Tensor:
    """What the network takes of RGB in 0 to 1: (..., 3, h, w) float32 -> the same shape."""
    mean, std = (torch.tensor(values, device=views.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (views - mean) / std


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _random_places(sizes: Tensor, crop: tuple[int, int], settings: Augmentation, generator: Generator) -> Tensor:
    """Where each pixel of a view is taken from: (B, h, w, 2) pixels from the top and the left, or OUTSIDE."""
    batch, device = sizes.shape[0], sizes.device

    def uniform(low: float, high: float) -> Tensor:
        return _uniform(low, high, (batch,), generator)

    scale = torch.exp(uniform(math.log(settings.scale[0]), math.log(settings.scale[1])))
    aspect = torch.exp(uniform(-settings.aspect, settings.aspect) / 2)
    rotated = (uniform(0, 1) < settings.rotation_share).float()
    angle = uniform(-settings.rotation_degrees, settings.rotation_degrees) * rotated * (math.pi / 180)
    mirrored = (uniform(0, 1) < 0.5) & settings.flip
    sign = 1 - 2 * mirrored.float()

    # Extent of the view in the picture's pixels, and its centre: inside where the picture is larger
    # than the view, else anywhere that keeps the whole picture in view.
    view = torch.stack([crop[0] / (scale / aspect), crop[1] / (scale * aspect)], dim=1)
    slack = (sizes - view).abs() / 2
    centre = sizes / 2 + slack * _uniform(-1, 1, (batch, 2), generator)

    ys = (torch.arange(crop[0], device=device) + 0.5) / crop[0] - 0.5
    xs = (torch.arange(crop[1], device=device) + 0.5) / crop[1] - 0.5
    dy = ys[None, :, None] * view[:, 0, None, None]
    dx = xs[None, None, :] * view[:, 1, None, None] * sign[:, None, None]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    y = centre[:, 0, None, None] + cos * dy + sin * dx
    x = centre[:, 1, None, None] - sin * dy + cos * dx
    # What lies beyond the picture but inside the padding must read as outside.
    outside = (y < 0) | (x < 0) | (y > sizes[:, 0, None, None]) | (x > sizes[:, 1, None, None])
    return torch.stack([y, x], dim=-1).masked_fill(outside[..., None], OUTSIDE)


def _random_colour(views: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    batch = views.shape[0]

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return _uniform(low, high, (batch, channels, 1, 1), generator)

    def chosen(share: float) -> Tensor:
        return uniform(0, 1) < share

    grey = views.mean(dim=1, keepdim=True)
    saturation = 1 + uniform(-settings.saturation, settings.saturation)
    saturation = torch.where(chosen(settings.grey_share), 0.0, saturation)
    views = grey + (views - grey) * saturation
    contrast = 1 + uniform(-settings.contrast, settings.contrast)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = mean + (views - mean) * contrast
    views = views * (1 + uniform(-settings.brightness, settings.brightness))
    views = views * (1 + uniform(-settings.channel_gain, settings.channel_gain, channels=3))
    views = views.clamp(1e-4, 1) ** torch.exp(uniform(-settings.gamma, settings.gamma))
    views = torch.where(chosen(settings.blur_share), _blur(views), views)
    deviation = torch.where(chosen(settings.noise_share), uniform(0, settings.noise), 0.0)
    noise = torch.randn(views.shape, generator=generator, device=generator.device)
    return (views + noise * deviation).clamp(0, 1)


def _blur(views: Tensor) -> Tensor:
    """A binomial filter of five taps, that is a Gaussian of one pixel."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=views.device) / 16
    flat = F.pad(views, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5)).view_as(views)
