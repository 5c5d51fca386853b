"""SegmenterPool: several weights to choose from, each in memory once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core.engines import open_engine
from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.core.segmenter import Segmenter
from ecmnet_app.core.weights import Weights, load_weights
from ecmnet_app.errors import ConfigError

__all__ = ["SegmenterPool"]


class SegmenterPool:
    """Segmenters of several weights on one device, by name. Threads may share one.

    All weights are read and checked at once; the network of the first is made at once, that of another when it is
    first asked for.

    Args:
        names: see `Segmenter.from_pretrained`; the first is the one that is taken where none is named.
        device, engine: see `Segmenter.from_pretrained`.

    Raises:
        WeightsError, DeviceError: see `Segmenter.from_pretrained`.
        ConfigError: two of the weights have one name.
    """

    def __init__(self, names: Sequence[str | os.PathLike[str]], device: str = "auto", engine: str = "auto") -> None:
        self._device = device
        self._engine = engine
        self.weights: dict[str, Weights] = {}
        """By name, in the order given."""
        for name in names:
            weights = load_weights(name)
            if weights.name in self.weights:
                raise ConfigError(f"two of the weights are called {weights.name!r}; give each once, or rename one")
            self.weights[weights.name] = weights
        self._segmenters: dict[str, Segmenter] = {}
        self._lock = threading.Lock()
        self.get()

    def get(self, name: str | None = None) -> Segmenter:
        """The segmenter of the weights of this name, or of the first.

        Raises:
            ConfigError: there are none such here.
        """
        name = next(iter(self.weights)) if name is None else name
        if name not in self.weights:
            raise ConfigError(f"no weights {name!r} here; choose from {', '.join(self.weights)}")
        with self._lock:
            if name not in self._segmenters:
                weights = self.weights[name]
                self._segmenters[name] = Segmenter(weights, open_engine(self._engine, weights, self._device))
            return self._segmenters[name]

    def predict_batch(
        self, images: Iterable[NDArray[np.uint8]], weights: str | None = None, **options: Any
    ) -> list[Segmentation]:
        """`Segmenter.predict_batch` by the weights of this name, or by the first."""
        return self.get(weights).predict_batch(images, **options)
