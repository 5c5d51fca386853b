"""Augmentation of whole batches on the training device, in one pass of resampling and one of colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD
from ecmnet_app.errors import ConfigError
from ecmnet_app.training.fields import check_types

__all__ = ["GREY", "Augmentation", "Group", "Views", "augment", "normalise", "paste"]

OUTSIDE = -1e4
"""A place that no picture reaches."""
GREY = 0.45
"""What lies outside of a picture, of the range 0 to 1; near the mean of street pictures."""


class Group(NamedTuple):
    """Pictures of one padding, as `Dataset` has them."""

    images: Tensor
    """(n, 3, H, W) uint8, padded at the bottom and right."""
    labels: Tensor
    """(n, H, W) uint8, 255 where ignored."""
    sizes: Tensor
    """(n, 2): heights and widths of the pictures within the padding."""
    answers: Tensor | None = None
    """(n, K, ceil(H/2), ceil(W/2)) uint8, or none; all groups of a batch have them or none does."""


class Views(NamedTuple):
    """What is seen of a batch."""

    images: Tensor
    """(B, 3, h, w) float32 in 0 to 1."""
    targets: Tensor
    """(B, h, w) int64, 255 outside the picture."""
    answers: Tensor | None
    """(B, K, ceil(h/2), ceil(w/2)) float32: teachers' probabilities, which add up to less at the picture's edge and to
    0 outside of it."""


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
        check_types(self, "augmentation.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"augmentation.scale must be a least and a largest magnification, not {self.scale}")
        if self.paste_share and not self.paste_classes:
            raise ConfigError("augmentation.paste_share needs paste_classes, the ids of what is cut out")
        if not all(0 <= k < UNLABELLED for k in self.paste_classes):
            raise ConfigError(f"augmentation.paste_classes must be class ids, not {self.paste_classes}")


def augment(
    groups: Sequence[Group],
    crop: tuple[int, int],
    settings: Augmentation,
    generator: Generator,
) -> Views:
    """Random views of a batch.

    Args:
        groups: the pictures, those of each padding together, since a GPU pays for each operation.
        crop: (height, width) of the views.
        settings: ranges.
        generator: on the device of the pictures; the same state gives the same views.

    Returns:
        One view of each picture, with the targets and the answers that belong to it.
    """
    sizes = torch.cat([group.sizes for group in groups])
    places = _random_places(sizes, crop, settings, generator).split([len(group.sizes) for group in groups])
    sampled = [_sample(group, where) for group, where in zip(groups, places, strict=True)]
    images = _random_colour(torch.cat([part.images for part in sampled]), settings, generator)
    answers = [part.answers for part in sampled if part.answers is not None]
    return Views(images, torch.cat([part.targets for part in sampled]), torch.cat(answers) if answers else None)


def _sample(group: Group, places: Tensor) -> Views:
    """What lies at some places, (n, *crop, 2) pixels from the top and the left, of pictures of one padding."""
    height, width = group.images.shape[-2:]
    grid = _grid(places, height, width)
    images = F.grid_sample(group.images.float() / 255 - GREY, grid, mode="bilinear", align_corners=False) + GREY
    # Outside reads as zero, so ids move up by one and back; 255 wraps to zero, and is ignored as well.
    ids = F.grid_sample((group.labels + 1).float()[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    targets = ids.round().long() - 1
    targets = targets.masked_fill(targets < 0, UNLABELLED)
    if group.answers is None:
        return Views(images, targets, None)
    halved = F.avg_pool2d(places.movedim(-1, 1), 2, ceil_mode=True).movedim(1, -1)
    grid = _grid(halved, 2 * group.answers.shape[-2], 2 * group.answers.shape[-1])
    return Views(images, targets, F.grid_sample(group.answers.float() / 255, grid, align_corners=False))


def _grid(places: Tensor, height: int, width: int) -> Tensor:
    """Pixels from the top and the left, (..., 2), as `grid_sample` counts them in pictures of that size."""
    return torch.stack([2 * places[..., 1] / width - 1, 2 * places[..., 0] / height - 1], dim=-1)


def paste(batch: Views, settings: Augmentation, generator: Generator) -> Views:
    """Copy the pixels of some classes from each picture's neighbour in the batch, with all that belongs to them
    (after ClassMix)."""
    if not settings.paste_share:
        return batch
    views, targets, answers = batch
    count, device = targets.shape[0], targets.device
    classes = torch.tensor(settings.paste_classes, device=device)
    receives = torch.rand(count, 1, generator=generator, device=device) < settings.paste_share
    taken = receives & (torch.rand(count, len(classes), generator=generator, device=device) < 0.5)
    table = torch.zeros(count, UNLABELLED + 1, dtype=torch.bool, device=device)
    table[:, classes] = taken
    cut = table.gather(1, targets.roll(1, dims=0).flatten(1)).view_as(targets)

    def with_neighbour(x: Tensor, cut: Tensor) -> Tensor:
        return torch.where(cut, x.roll(1, dims=0), x)

    return Views(
        with_neighbour(views, cut[:, None]),
        with_neighbour(targets, cut),
        None if answers is None else with_neighbour(answers, cut[:, None, ::2, ::2]),
    )


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
