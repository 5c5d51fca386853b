"""Time and peak memory of SS2D beside self-attention on the same grid, without gradients.

    python benchmarks/scan.py                      # on the CPU, 64x64 to 1024x1024 positions
    python benchmarks/scan.py --device cuda

Each figure comes from a process of its own; on the CPU it is the processor time of one thread, which
a busy machine does not stretch. A grid is left out where it would take more memory than is free or
more time than --limit, going by the grid before it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecmnet_app.network import ECMNetConfig
from ecmnet_app.network.ss2d import SS2D

HEAD = 16
"""Channels of an attention head."""


class SelfAttention(nn.Module):
    """Attention of every position to every other, fused by torch or with its matrix written out."""

    def __init__(self, channels: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        q, k, v = self.project(x.flatten(1, 2)).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(HEAD), dim=-1) @ v
        return self.out(y.transpose(1, 2).flatten(2)).view_as(x)


@dataclass(frozen=True)
class Contender:
    """A layer, and how its time and memory grow with the number of positions."""

    name: str
    time_power: int
    memory_power: int

    def build(self, channels: int) -> nn.Module:
        """The layer for maps of so many channels."""
        config = ECMNetConfig()
        if self.name == "SS2D":
            return SS2D(channels, config.expand, config.state_size)
        return SelfAttention(channels, fused=self.name == "attention, fused")


CONTENDERS = (
    Contender("SS2D", 1, 1),
    Contender("attention, fused", 2, 1),
    Contender("attention, plain", 2, 2),
)


@dataclass(frozen=True)
class Figure:
    """Seconds of one pass, and the peak of memory above what was there before the map, bytes."""

    seconds: float
    memory: int


def measure(contender: Contender, grid: int, channels: int, device: str) -> Figure:
    """Best of several passes over one grid x grid map, in this process."""
    torch.set_num_threads(1)
    clock = time.perf_counter if device == "cuda" else time.process_time
    torch.manual_seed(0)
    layer = contender.build(channels).to(device).eval()
    with torch.inference_mode():
        layer(torch.randn(1, 16, 16, channels, device=device))
        before = _peak(device)
        x = torch.randn(1, grid, grid, channels, device=device)
        seconds: list[float] = []
        while len(seconds) < 2 or (sum(seconds) < 2 and len(seconds) < 10):
            start = clock()
            layer(x)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(clock() - start)
    return Figure(min(seconds), _peak(device) - before)


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free(device: str) -> int:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Parse arguments, measure, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="+", default=[64, 128, 256, 512, 1024], metavar="SIDE")
    parser.add_argument("--channels", type=int, default=16, help="a multiple of 16; the FFM of the network has 48")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--limit", type=float, default=120, help="longest pass to start, seconds")
    args = parser.parse_args()

    print(f"{args.channels} channels, one map, {args.device}, torch {torch.__version__}")
    print(f"{'positions':<12} | " + " | ".join(f"{c.name:^22}" for c in CONTENDERS))
    measured: dict[Contender, dict[int, Figure]] = {c: {} for c in CONTENDERS}
    for grid in args.grids:
        cells = []
        for contender, figures in measured.items():
            if why := _too_much(contender, figures, grid, args):
                cells.append(f"{why:^22}")
                continue
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                task = pool.submit(measure, contender, grid, args.channels, args.device)
                figure = figures[grid] = task.result()
            cells.append(f"{figure.seconds:9.3f} s {figure.memory / 2**20:6.0f} MiB ")
        print(f"{grid:>5} x {grid:<4} | " + " | ".join(cells), flush=True)
    print(f"{'growth':<12} | " + " | ".join(f"{_growth(figures):^22}" for figures in measured.values()))
    print("growth: p in time (and memory) ~ positions^p, fitted to the rows above")


def _too_much(contender: Contender, figures: dict[int, Figure], grid: int, args: argparse.Namespace) -> str:
    """What the next grid would take, where that is too much; else nothing."""
    if not figures:
        return ""
    last = max(figures)
    times = (grid / last) ** 2
    seconds = figures[last].seconds * times**contender.time_power
    memory = figures[last].memory * times**contender.memory_power
    if memory > 0.8 * _free(args.device):
        return f"(needs {memory / 2**30:.0f} GiB)"
    return f"(takes {seconds / 60:.0f} min)" if seconds > args.limit else ""


def _growth(figures: dict[int, Figure]) -> str:
    """Slopes of the straight lines through the logarithms."""
    if len(figures) < 2:
        return ""
    positions = np.log([grid**2 for grid in figures])
    in_time = np.polyfit(positions, np.log([f.seconds for f in figures.values()]), 1)[0]
    in_memory = np.polyfit(positions, np.log([f.memory for f in figures.values()]), 1)[0]
    return f"{in_time:.2f} ({in_memory:.2f})"


if __name__ == "__main__":
    main()
