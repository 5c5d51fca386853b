"""What runs the network, behind one dispatch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable

import torch

from ecmnet_app.core.engines.answer import answer_from_logits
from ecmnet_app.core.engines.base import Engine
from ecmnet_app.core.engines.device_errors import device_errors
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.engines.fallback import FallbackEngine
from ecmnet_app.core.engines.openvino_cpu import engines_here
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import DeviceError

__all__ = [
    "Engine",
    "answer_from_logits",
    "available_devices",
    "available_engines",
    "choose_device",
    "make_engine",
    "open_engine",
]

_log = logging.getLogger(__name__)


def available_devices() -> list[str]:
    """Names of the devices here, the one that "auto" takes first."""
    return [*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu"]


def available_engines(device: torch.device) -> list[str]:
    """Names of the engines that run on this device, the one that "auto" takes first."""
    return list(_engines(device))


def _engines(device: torch.device) -> dict[str, Callable[[Weights, torch.device], Engine]]:
    """By name, the fastest first; eager, which runs everywhere, last."""
    faster: dict[str, Callable[[Weights, torch.device], Engine]] = {}
    if device.type == "cpu":
        faster.update(engines_here())
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from ecmnet_app.core.engines.cuda_graph import CudaGraphEngine

        faster[CudaGraphEngine.name] = CudaGraphEngine
    return {**faster, "eager": EagerEngine}


def choose_device(name: str) -> torch.device:
    """The device called "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: there is no such device here; the message lists those there are.
    """
    devices = available_devices()
    wanted = {"auto": devices[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in devices:
        raise DeviceError(f"there is no device {name!r} here; choose one of auto, {', '.join(devices)}")
    return torch.device(wanted)


def make_engine(name: str, weights: Weights, device: torch.device) -> Engine:
    """The engine called by its own name, or for "auto" the first that starts.

    Raises:
        DeviceError: there is no such engine for this device, and the message lists those there are; or it cannot start.
        WeightsError: the tensors do not fit their architecture.
    """
    engines = _engines(device)
    _check_name(name, engines, device)
    *faster, last = engines if name == "auto" else [name]
    for candidate in faster:
        try:
            return engines[candidate](weights, device)
        except DeviceError as error:
            _log.warning("the engine %s is passed over: %s", candidate, error)
    with device_errors(device):
        return engines[last](weights, device)


def open_engine(name: str, weights: Weights, device: str) -> Engine:
    """The engine of this name on the device of this name; on "auto", the CPU takes over what a GPU fails at.

    Raises:
        DeviceError, WeightsError: see `choose_device` and `make_engine`.
    """
    chosen = choose_device(device)
    if device != "auto" or chosen.type == "cpu":
        return make_engine(name, weights, chosen)
    _check_name(name, _engines(chosen), chosen)  # a wrong name is no failure of the GPU
    return FallbackEngine(
        lambda: make_engine(name, weights, chosen), lambda: make_engine("auto", weights, torch.device("cpu"))
    )


def _check_name(name: str, engines: Iterable[str], device: torch.device) -> None:
    if name != "auto" and name not in engines:
        raise DeviceError(f"there is no engine {name!r} for {device}; choose one of auto, {', '.join(engines)}")
