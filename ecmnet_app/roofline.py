"""The least time that a device needs for the network: bytes over its memory's rate, arithmetic over its arithmetic's.

Both rates are measured, by a large copy and a large matrix product, not taken from a data sheet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ecmnet_app.network.traffic import LayerGroup

__all__ = ["Bound", "Rates", "bounds", "estimate_ms"]


class Rates:
    """What memory and arithmetic of a device reach, each measured when it is first asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copy: float | None = None
        self._products: dict[torch.dtype, float] = {}

    @property
    def copy(self) -> float:
        """Bytes a second that a large copy reads and writes together."""
        if self._copy is None:
            length = 2**30 if self.device.type == "cuda" else 2**28
            source = torch.ones(length, dtype=torch.uint8, device=self.device)
            target = torch.empty_like(source)
            self._copy = 2 * length / self._fastest(lambda: target.copy_(source))
        return self._copy

    def product(self, dtype: torch.dtype) -> float:
        """Floating point operations a second of a large matrix product; infinite for integers, not measured."""
        if not dtype.is_floating_point:
            return float("inf")
        if dtype not in self._products:
            side = 8192 if self.device.type == "cuda" else 1024
            a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
            self._products[dtype] = 2 * side**3 / self._fastest(lambda: a @ b)
        return self._products[dtype]

    def _fastest(self, run: Callable[[], object], runs: int = 7) -> float:
        """Seconds."""
        seconds = []
        for _ in range(runs):
            self._wait()
            start = time.perf_counter()
            run()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Bound:
    """The least time of one layer group, from either side."""

    group: str
    megabytes: float
    memory_ms: float
    gflops: float
    """Two for each multiply-accumulate."""
    arithmetic_ms: float


def bounds(groups: Sequence[LayerGroup], batch: int, dtype: torch.dtype, rates: Rates) -> list[Bound]:
    """Both sides of each layer group, for a batch whose activations are of this type."""
    answer = []
    for group in groups:
        moved = group.bytes_moved(dtype.itemsize, batch)
        operations = 2 * batch * group.macs
        memory, arithmetic = moved / rates.copy, operations / rates.product(dtype)
        answer.append(Bound(group.name, moved / 1e6, 1e3 * memory, operations / 1e9, 1e3 * arithmetic))
    return answer


def estimate_ms(groups: Sequence[Bound]) -> float:
    """The roofline's estimate: the larger side of each group, one group after the other."""
    return sum(max(bound.memory_ms, bound.arithmetic_ms) for bound in groups)
