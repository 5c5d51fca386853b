"""What a camera does to a picture on a bad day: eight corruptions, each of five severities.

After Hendrycks and Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
ICLR 2019 (ImageNet-C). Noise, defocus blur, motion blur, fog and JPEG have its parameters, and are written anew; rain,
night and the tilted camera are this project's own. They are there to report what weights bear, and choose nothing.

Every function takes a picture as RGB float32 of 0 to 1, its severity 1 to 5 and a generator, and returns a picture like
it. `corrupt` is the way in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core.labels import UNLABELLED

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)

Picture = NDArray[np.floating[Any]]


def corrupt(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], kind: str, severity: int, name: str = ""
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A corrupted picture and its labels, which only a tilted camera changes: the same ones every time.

    One picture meets the same clouds, drops and tilt at every severity, only more of them.

    Args:
        image: RGB, uint8. Shape: (H, W, 3).
        labels: class ids, uint8. Shape: (H, W).
        kind: a key of `CORRUPTIONS`, or "tilt".
        severity: 1 to 5.
        name: of the picture, so that no two share their noise.

    Returns:
        Picture and labels, uint8, of the same shapes; labels are 255 where the scene was not in view.
    """
    rng = np.random.default_rng([crc32(text.encode()) for text in (name, kind)])
    if kind == "tilt":
        return _tilt(image, labels, severity, rng)
    corrupted = CORRUPTIONS[kind](image.astype(np.float32) / 255, severity, rng)
    return np.rint(corrupted.clip(0, 1) * 255).astype(np.uint8), labels


def noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Gaussian noise of every channel of every pixel."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return x + deviation * rng.standard_normal(x.shape, np.float32)


def defocus(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """A disk in place of each point, its edge softened."""
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    y, x_ = np.mgrid[-radius - 2 : radius + 3, -radius - 2 : radius + 3]
    disk = cv2.GaussianBlur((x_**2 + y**2 <= radius**2).astype(np.float32), (5, 5), softness)
    return _filter(x, disk)


def motion(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """A trace that fades along a line at a random angle within 45 degrees of level."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return _filter(x, _line(radius, deviation, rng.uniform(-45, 45)))


def fog(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """A bright veil of clouds over the whole picture, as thick near as far: no depth is known."""
    thickness, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    brightest = float(x.max())
    veil = _clouds(x.shape[0], x.shape[1], decay, rng)[..., None]
    return (x + thickness * veil) * (brightest / (brightest + thickness))


def rain(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Bright streaks, all falling one way, in a scene that has lost light and contrast."""
    share, length, dimming = ((0.002, 8, 0.9), (0.004, 10, 0.85), (0.006, 12, 0.8), (0.009, 15, 0.7), (0.013, 18, 0.6))[
        severity - 1
    ]
    height, width = x.shape[:2]
    drops = (rng.random((height, width)) < share).astype(np.float32) * rng.uniform(0.5, 1, (height, width))
    trace = _line(length, length, 90 + rng.uniform(-15, 15))
    streaks = cv2.filter2D(drops.astype(np.float32), -1, trace / trace.max(), borderType=cv2.BORDER_REFLECT)
    mean = x.mean(dtype=np.float32)
    dull = dimming * (mean + dimming * (x - mean))
    return dull + (0.85 - dull) * (0.6 * streaks.clip(0, 1))[..., None]


def night(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """The scene by little light: dark, bluish, with the noise of few photons, and the gain that a camera answers with.

    It stays a scene of the day: nothing in it shines.
    """
    exposure = (0.3, 0.15, 0.08, 0.04, 0.02)[severity - 1]
    light = x**2.2 * exposure * np.array([0.8, 0.9, 1.1], np.float32)
    photons = 3000.0  # of a white pixel by full light
    seen = rng.poisson(light * photons) / photons + rng.normal(0, 0.001, x.shape)
    gain = exposure**-0.4
    return np.asarray((seen.clip(0) * gain).clip(0, 1) ** (1 / 2.2), np.float32)


def jpeg(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Blocks and lost detail of strong compression."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    pixels = np.rint(x[..., ::-1] * 255).astype(np.uint8)
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


CORRUPTIONS: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "noise": noise,
    "defocus": defocus,
    "motion": motion,
    "fog": fog,
    "rain": rain,
    "night": night,
    "jpeg": jpeg,
}
"""What changes the pixels and leaves the labels."""


def _tilt(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], severity: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A camera turned about its axis, to either side. What it would see beyond the picture is mirrored and ignored."""
    degrees = (4, 8, 12, 16, 20)[severity - 1] * rng.choice([-1, 1])
    height, width = labels.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(degrees), 1)
    size = (width, height)
    turned = cv2.warpAffine(image, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    moved = cv2.warpAffine(
        labels, turn, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(UNLABELLED,)
    )
    return np.asarray(turned, np.uint8), np.asarray(moved, np.uint8)


def _filter(x: Picture, kernel: NDArray[np.float32]) -> Picture:
    """The picture under a kernel, which is scaled to keep its brightness."""
    return np.asarray(cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101), np.float32)


def _line(radius: int, deviation: float, degrees: float) -> NDArray[np.float32]:
    """A line from the middle of a square outwards, fading as a Gaussian does. Shape: (2 * radius + 1,) * 2."""
    side = 2 * radius + 1
    level = np.zeros((side, side), np.float32)
    level[radius, radius:] = np.exp(-(np.arange(radius + 1) ** 2) / (2 * deviation**2))
    turn = cv2.getRotationMatrix2D((radius, radius), degrees, 1)
    return np.asarray(cv2.warpAffine(level, turn, (side, side), flags=cv2.INTER_LINEAR), np.float32)


def _clouds(height: int, width: int, decay: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of every scale, each octave `decay` times weaker than the one before, from 0 to 1. Shape: (H, W)."""
    clouds = np.zeros((height, width), np.float32)
    weight, cells = 1.0, 2
    while cells <= max(height, width):
        octave = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        clouds += weight * cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC)
        weight, cells = weight / decay, cells * 2
    clouds -= clouds.min()
    return clouds / max(float(clouds.max()), 1e-6)
