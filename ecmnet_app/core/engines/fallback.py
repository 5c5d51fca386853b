"""The engine of the device "auto": the GPU's, with the CPU behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines.base import Engine
from ecmnet_app.core.engines.device_errors import device_errors, is_out_of_memory
from ecmnet_app.errors import DeviceError

__all__ = ["FallbackEngine"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class FallbackEngine(Engine):
    """Runs on a GPU, and on the CPU with a warning what the GPU fails at.

    What it has no memory for, it may have memory for the next time; a GPU that failed is not asked again.

    Args:
        make_first, make_second: the GPU's engine, made at once, and the CPU's, made when it is needed.
    """

    def __init__(self, make_first: Callable[[], Engine], make_second: Callable[[], Engine]) -> None:
        self._make_second = make_second
        self._first: Engine | None = None
        self._second: Engine | None = None
        try:
            self._first = make_first()
        except DeviceError as error:
            _log.warning("%s; the CPU takes over", error)
            self._second = make_second()

    @property
    def _main(self) -> Engine:
        return self._first or self._cpu()

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the engine that is asked first."""
        return self._main.name

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Of the engine that is asked first."""
        return self._main.device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Of the activations of the engine that is asked first."""
        return self._main.dtype

    def wait(self) -> None:
        """See `Engine.wait`."""
        self._main.wait()

    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        """See `Engine.logits`; on the CPU where the GPU failed."""
        return self._run(lambda engine: engine.logits(pictures))

    def segment(
        self, pictures: NDArray[np.uint8], size: tuple[int, int], temperature: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See `Engine.segment`."""
        return self._run(lambda engine: engine.segment(pictures, size, temperature))

    def _run(self, call: Callable[[Engine], T]) -> T:
        if self._first is not None:
            try:
                with device_errors(self._first.device):
                    return call(self._first)
            except DeviceError as error:
                _log.warning("%s; the CPU takes over", error)
                if not is_out_of_memory(error.__cause__):
                    self._first = None
        return call(self._cpu())

    def _cpu(self) -> Engine:
        if self._second is None:
            self._second = self._make_second()
        return self._second
