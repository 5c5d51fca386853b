"""Segmenter: from a picture to the class of each of its pixels. The one way to run the network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ecmnet_app.core.engines import Engine, choose_device, make_engine
from ecmnet_app.core.labels import UNLABELLED, LabelSet
from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.core.weights import Weights, load_weights
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.images import check_image
from ecmnet_app.network import MIN_SIZE

__all__ = ["Segmenter"]


class Segmenter:
    """Segments pictures with one set of weights on one device. Safe to share between threads.

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
            engine: "auto" or "eager".
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
        chosen = choose_device(device)
        weights = load_weights(name)
        return cls(weights, make_engine(engine, weights, chosen))

    @property
    def label_set(self) -> LabelSet:
        """The classes that these weights know."""
        return self.weights.label_set

    def working_size(self, height: int, width: int, resolution: int | None = None) -> tuple[int, int]:
        """Height and width at which the network sees a picture of this size; `resolution` as in `predict`."""
        scale = min(1.0, (resolution or self.weights.working_short_side) / min(height, width))
        return round(height * scale), round(width * scale)

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
            resolution: short side, in pixels, that a larger picture is resized down to; that of the weights by
                default.
            tile: run the picture at its full resolution.
            threshold: pixels with less confidence become 255, unlabelled.
        """
        return self.predict_batch([image], resolution, tile, threshold)[0]

    def predict_batch(
        self,
        images: Iterable[NDArray[np.uint8]],
        resolution: int | None = None,
        tile: bool = False,
        threshold: float | None = None,
    ) -> list[Segmentation]:
        """Name every pixel of several pictures, of any sizes. See `predict`."""
        images = list(images)
        for image in images:
            check_image(image)
        short_side = resolution or self.weights.working_short_side
        return [self._predict(image, short_side, threshold) for image in images]

    def _predict(self, image: NDArray[np.uint8], short_side: int, threshold: float | None) -> Segmentation:
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIZE:
            raise ImageError(f"the picture is {width}x{height}; the least size is {MIN_SIZE}x{MIN_SIZE}")
        small_height, small_width = self.working_size(height, width, short_side)
        small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
        with self._lock:
            labels, confidence = self.engine.segment(small[None], (height, width), self.weights.temperature)
        if threshold is not None:
            labels[confidence < threshold] = UNLABELLED
        return Segmentation(labels[0], confidence[0], self.label_set)
