"""What runs the network, behind one dispatch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ecmnet_app.core.engines.base import Engine, answer_from_logits
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import DeviceError

__all__ = ["Engine", "answer_from_logits", "available_devices", "available_engines", "choose_device", "make_engine"]

_ENGINES: dict[str, Callable[[Weights, torch.device], Engine]] = {"eager": EagerEngine}


def available_devices() -> list[str]:
    """Names of the devices here, the one that "auto" takes first."""
    return [*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu"]


def available_engines(device: torch.device) -> list[str]:
    """Names of the engines that run on this device, the one that "auto" takes first."""
    return list(_ENGINES)


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
    """The engine called "auto" or by its own name.

    Raises:
        DeviceError: there is no such engine for this device; the message lists those there are.
        WeightsError: the tensors do not fit their architecture.
    """
    engines = available_engines(device)
    wanted = engines[0] if name == "auto" else name
    if wanted not in engines:
        raise DeviceError(f"there is no engine {name!r} for {device}; choose one of auto, {', '.join(engines)}")
    return _ENGINES[wanted](weights, device)
