"""Segmenter: from a picture to the class of each of its pixels. The one way to run the network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines import Engine, answer_from_logits, open_engine
from ecmnet_app.core.engines.device_errors import device_errors
from ecmnet_app.core.labels import UNLABELLED, LabelSet
from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.core.tiles import tiled_logits
from ecmnet_app.core.weights import Weights, load_weights
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.images import check_image
from ecmnet_app.network import MIN_SIZE

__all__ = ["MAX_RUN_PIXELS", "Segmenter"]

MAX_RUN_PIXELS = 2_500_000
"""Most pixels that the network sees at once, at about 0.8 KB each: batches run in parts, larger pictures not at all."""


class Segmenter:
    """Segments pictures with one set of weights on one device.

    Threads may share one: they take turns, so that memory does not grow with their number, and each gets the
    answer it would get alone.

    The size rule: a picture whose short side exceeds the weights' `working_short_side` is resized down to it by
    area; a smaller one, from 32x32 up, runs as it is. A `resolution` that is asked for holds for all: smaller
    pictures are enlarged to it, in which the network finds more of what is small. Either way the logits are
    interpolated straight to the picture's own size. Pictures of up to 50 megapixels are taken.

    Example:
        >>> segmenter = Segmenter.from_pretrained()
        >>> answer = segmenter.predict(read_image("street.jpg"))
        >>> answer.areas()["Road"]
    """

    def __init__(self, weights: Weights, engine: Engine) -> None:
        self.weights = weights
        self.engine = engine
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = "default",
        device: str = "auto",
        engine: str = "auto",
        threads: int | None = None,
    ) -> Segmenter:
        """Load weights and make ready to run them.

        Args:
            name: "default", the name of weights in the package, or the path of a .safetensors file with its
                .json beside it.
            device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
            engine: "auto", the fastest one here, or one that `ecmnet info` lists.
            threads: of the CPU, for the whole process; torch's own choice by default.

        Raises:
            WeightsError: there are no such weights, or they are damaged.
            DeviceError: there is no such device or engine.
            ConfigError: threads is below 1.
        """
        if threads is not None:
            if threads < 1:
                raise ConfigError(f"threads must be at least 1, not {threads}")
            torch.set_num_threads(threads)
        weights = load_weights(name)
        return cls(weights, open_engine(engine, weights, device))

    @property
    def label_set(self) -> LabelSet:
        """The classes that these weights know."""
        return self.weights.label_set

    def predict(
        self,
        image: NDArray[np.uint8],
        resolution: int | None = None,
        tile: bool = False,
        threshold: float | None = None,
    ) -> Segmentation:
        """Name every pixel of a picture.

        Args:
            image: RGB, uint8. Shape: (H, W, 3).
            resolution: pixels; the short side at which the network sees the picture, see the size rule.
            tile: keep full resolution, by overlapping tiles whose logits are blended: finer edges, but the network
                sees a part of the scene at a time, at a larger scale than it was trained at.
            threshold: 0 to 1; pixels with less confidence become 255, unlabelled.

        Returns:
            The answer, at the picture's own size.

        Raises:
            ImageError: the picture is not RGB uint8, is smaller than 32x32 or larger than 50 megapixels, or so long
                that the size rule leaves too much of it.
            ConfigError: a setting has a value that cannot work.
            DeviceError: the device ran out of memory, or failed.
        """
        return self.predict_batch([image], resolution, tile, threshold)[0]

    def predict_batch(
        self,
        images: Iterable[NDArray[np.uint8]],
        resolution: int | None = None,
        tile: bool = False,
        threshold: float | None = None,
        smoother: Smoother | None = None,
    ) -> list[Segmentation]:
        """Name every pixel of several pictures, of any sizes; those of one size run together. See `predict`.

        With a smoother, the pictures are consecutive frames, of one size, of the stream that it belongs to.

        A batch of one gives the bytes that `predict` gives; in larger ones, rounding may turn the odd pixel whose
        two likeliest classes are level.

        Returns:
            The answers, in the order of the pictures.
        """
        if resolution is not None and tile:
            raise ConfigError(
                "resolution and tile exclude each other: tiles keep the full resolution; give one of them"
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must be 0 to 1, not {threshold}")
        images = list(images)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            name = "the picture" if len(images) == 1 else f"picture {index + 1} of {len(images)}"
            check_image(image, name)
            height, width = image.shape[:2]
            self.check_size(height, width, resolution, tile, name)
            groups.setdefault((height, width), []).append(index)

        answers: dict[int, Segmentation] = {}
        for size, indices in groups.items():
            at_once = 1 if tile else max(1, MAX_RUN_PIXELS // int(np.prod(self.working_size(*size, resolution))))
            for start in range(0, len(indices), at_once):
                part = indices[start : start + at_once]
                labels, confidence = self._run([images[i] for i in part], size, resolution, tile, smoother)
                if threshold is not None:
                    labels[confidence < threshold] = UNLABELLED
                for row, i in enumerate(part):
                    answers[i] = Segmentation(labels[row], confidence[row], self.label_set)
        return [answers[i] for i in range(len(images))]

    def logits(self, image: NDArray[np.uint8], resolution: int | None = None) -> Tensor:
        """The scores of every class from which `predict` answers, for those who judge the answers.

        `engines.answer_from_logits(logits, image.shape[:2], temperature)` is what `predict` makes of them.

        Args:
            image, resolution: see `predict`, which raises the same errors.

        Returns:
            float32, on the engine's device. Shape: (1, K, ceil(h / 2), ceil(w / 2)) for a `working_size` of (h, w).
        """
        check_image(image)
        height, width = image.shape[:2]
        self.check_size(height, width, resolution)
        picture = _resize(image, self.working_size(height, width, resolution))
        with self._running():
            return self.engine.logits(np.ascontiguousarray(picture[None]))

    def working_size(self, height: int, width: int, resolution: int | None = None) -> tuple[int, int]:
        """The (height, width) at which the network sees a picture of this size: the size rule."""
        scale = (resolution or self.weights.working_short_side) / min(height, width)
        if resolution is None:
            scale = min(1.0, scale)
        return round(height * scale), round(width * scale)

    def check_size(
        self,
        height: int,
        width: int,
        resolution: int | None = None,
        tile: bool = False,
        name: str = "the picture",
    ) -> None:
        """Refuse what `predict` refuses for its size, before a pixel of it is read.

        Args:
            height, width: pixels, of the picture.
            resolution, tile: see `predict`.
            name: what the message calls the picture.

        Raises:
            ConfigError: the resolution is below 32.
            ImageError: the picture is too small, or too large to run at once.
        """
        if resolution is not None and resolution < MIN_SIZE:
            raise ConfigError(f"resolution must be at least {MIN_SIZE} pixels, not {resolution}")
        if min(height, width) < MIN_SIZE:
            raise ImageError(
                f"{name} is {width}x{height}, too small to segment; the least size is {MIN_SIZE}x{MIN_SIZE} pixels"
            )
        working_height, working_width = self.working_size(height, width, resolution)
        if not tile and working_height * working_width > MAX_RUN_PIXELS:
            raise ImageError(
                f"{name} would run at {working_width}x{working_height}, more than the {MAX_RUN_PIXELS / 1e6:g} "
                "megapixels that the network takes at once; crop it, lower the resolution, or use tiles "
                "(`ecmnet segment --tile`, in Python tile=True)"
            )

    def _run(
        self,
        images: list[NDArray[np.uint8]],
        size: tuple[int, int],
        resolution: int | None,
        tile: bool,
        smoother: Smoother | None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Labels and confidence of pictures of one size. Shapes: (B, *size)."""
        temperature = self.weights.temperature
        side = 2 * self.weights.working_short_side
        pictures = np.stack(
            [image if tile else _resize(image, self.working_size(*size, resolution)) for image in images]
        )
        with self._running():
            if not tile and smoother is None:
                return self.engine.segment(pictures, size, temperature)
            if tile:
                logits = tiled_logits(self.engine, pictures[0], tile=side, overlap=side // 8)
            else:
                logits = self.engine.logits(pictures)
            if smoother is not None:
                logits = smoother.smooth(logits, pictures)
            return answer_from_logits(logits, size, temperature)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """One thread at a time; a device that runs out of memory or fails says so to people."""
        with self._lock, device_errors(self.engine.device):
            yield


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an RGB picture to (height, width): smaller, each pixel the mean of the area it covers; larger, bilinear."""
    height, width = size
    if image.shape[:2] == size:
        return image
    way = cv2.INTER_LINEAR if height > image.shape[0] else cv2.INTER_AREA
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=way)
    return np.asarray(resized, np.uint8)
