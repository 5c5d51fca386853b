"""How fast each engine is on this machine, and how near to what the machine allows: `ecmnet benchmark`.

Host pictures in, host labels and confidence out. Each row is measured in a process of its own, so that its first answer
and its peak of memory are its own.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from ecmnet_app.core.engines import available_engines, choose_device, make_engine
from ecmnet_app.core.weights import load_weights
from ecmnet_app.errors import ConfigError, DeviceError
from ecmnet_app.network import MIN_SIZE
from ecmnet_app.network.traffic import layer_groups
from ecmnet_app.roofline import Bound, Rates, bounds, estimate_ms

__all__ = ["MIN_RUNS", "SIZES", "Case", "Report", "Row", "Timing", "measure", "plan", "run"]

SIZES = ((360, 480), (512, 1024), (1024, 1024))
"""(height, width) that are measured unless others are asked for."""
MIN_RUNS, MAX_RUNS = 10, 1000


@dataclass(frozen=True)
class Case:
    """What one row measures."""

    weights: str
    device: str
    engine: str
    size: tuple[int, int]
    batch: int
    threads: int | None = None
    seconds: float = 3.0
    """For the timed runs, of which there are at least `MIN_RUNS`."""

    def __str__(self) -> str:
        return f"{self.engine}, {self.size[0]}x{self.size[1]}, batch {self.batch}"


@dataclass(frozen=True)
class Timing:
    """What the process of one row measured."""

    dtype: str
    """Of the engine's activations."""
    runs: int
    first_ms: float
    """The first answer, with what it compiles and allocates."""
    p50_ms: float
    p99_ms: float
    peak_memory: int | None
    """Bytes: of the GPU's allocator, or of the whole process on a CPU; None where the system does not tell."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: Case
    timing: Timing
    bounds: list[Bound]

    @property
    def frames_per_second(self) -> float:
        """Pictures a second, at the median."""
        return 1e3 * self.case.batch / self.timing.p50_ms

    @property
    def roofline_ms(self) -> float:
        """The estimate of `roofline.estimate_ms`."""
        return estimate_ms(self.bounds)

    @property
    def share(self) -> float:
        """Of the estimate in the median: 1 is as fast as the estimate."""
        return self.roofline_ms / self.timing.p50_ms


def plan(
    weights: str = "default",
    device: str = "auto",
    engines: Sequence[str] = (),
    sizes: Sequence[tuple[int, int]] = SIZES,
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    seconds: float = 3.0,
) -> list[Case]:
    """The rows to measure, smallest first.

    Args:
        weights, device, threads: see `Segmenter.from_pretrained`.
        engines: names; all that run on the device by default.
        sizes: (height, width), pixels.
        batches: pictures that are answered together.
        seconds: for the timed runs of each row; there are at least `MIN_RUNS` of them.

    Raises:
        WeightsError: there are no such weights.
        DeviceError: there is no such device or engine.
        ConfigError: a number that cannot work.
    """
    for height, width in sizes:
        if min(height, width) < MIN_SIZE:
            raise ConfigError(f"a size must be at least {MIN_SIZE}x{MIN_SIZE}, not {height}x{width}")
    for name, value in (("batch", min(batches)), ("threads", 1 if threads is None else threads)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    load_weights(weights)
    chosen = choose_device(device)
    there = available_engines(chosen)
    for engine in engines:
        if engine not in there:
            raise DeviceError(f"there is no engine {engine!r} for {chosen}; choose from {', '.join(there)}")
    return [
        Case(weights, str(chosen), engine, size, batch, threads, seconds)
        for size in sorted(sizes, key=lambda size: size[0] * size[1])
        for batch in sorted(batches)
        for engine in engines or there
    ]


def run(cases: Sequence[Case]) -> Iterator[Row]:
    """Measure the rows one after the other, each in a process of its own.

    Raises:
        DeviceError: memory ran out.
    """
    if not cases:
        return
    if cases[0].threads is not None:
        torch.set_num_threads(cases[0].threads)  # the rates are measured here
    rates = Rates(torch.device(cases[0].device))
    config = load_weights(cases[0].weights).architecture
    for case in cases:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                timing = pool.submit(measure, case).result()
            except BrokenProcessPool as error:
                raise DeviceError(
                    f"the process that measured {case} was ended, as systems do when memory runs out; "
                    "measure smaller pictures or batches"
                ) from error
        dtype: torch.dtype = getattr(torch, timing.dtype)
        yield Row(case, timing, bounds(layer_groups(config, case.size), case.batch, dtype, rates))


def measure(case: Case) -> Timing:
    """Time one engine on random pictures, in this process.

    Raises:
        DeviceError: the device ran out of memory.
    """
    device = torch.device(case.device)
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    weights = load_weights(case.weights)
    pictures = np.random.default_rng(0).integers(0, 256, (case.batch, *case.size, 3), dtype=np.uint8)
    try:
        engine = make_engine(case.engine, weights, device)

        def answer() -> float:
            start = time.perf_counter()
            engine.segment(pictures, case.size, weights.temperature)
            return 1e3 * (time.perf_counter() - start)

        first = answer()
        engine.wait()
        for _ in range(3):
            answer()
        spent: list[float] = []
        while len(spent) < MIN_RUNS or (sum(spent) < 1e3 * case.seconds and len(spent) < MAX_RUNS):
            spent.append(answer())
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"{device} ran out of memory at {case}; measure smaller pictures or batches") from error
    p50, p99 = np.percentile(spent, [50, 99])
    dtype = str(engine.dtype).removeprefix("torch.")
    return Timing(dtype, len(spent), first, float(p50), float(p99), _peak_memory(device))


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: its peak comes down from the process that started this one.
    status = Path("/proc/self/status")
    peaks = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else []
    return 1024 * int(peaks[0]) if peaks else None


@dataclass(frozen=True)
class Report:
    """All rows of one run."""

    rows: list[Row]

    @property
    def machine(self) -> str:
        """Device, threads and torch in words."""
        case = self.rows[0].case
        device = torch.device(case.device)
        if device.type == "cuda":
            return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
        threads = case.threads or torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"

    def table(self) -> str:
        """One line a row, in Markdown."""
        lines = [
            "| engine | size | batch | first, ms | p50, ms | p99, ms | frames/s | peak MB | roofline, ms | share |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in self.rows:
            case, timing = row.case, row.timing
            memory = "-" if timing.peak_memory is None else f"{timing.peak_memory / 1e6:.0f}"
            lines.append(
                f"| {case.engine} | {case.size[0]}x{case.size[1]} | {case.batch} | {timing.first_ms:.0f} "
                f"| {timing.p50_ms:.2f} | {timing.p99_ms:.2f} | {row.frames_per_second:.1f} | {memory} "
                f"| {row.roofline_ms:.3f} | {100 * row.share:.1f} % |"
            )
        return "\n".join(
            [
                *lines,
                "",
                f"{self.machine}, weights {load_weights(self.rows[0].case.weights).name}, {date.today().isoformat()}",
            ]
        )

    def to_json(self) -> str:
        """The same, with both bounds of every layer group."""
        rows = [
            asdict(row)
            | {"frames_per_second": row.frames_per_second, "roofline_ms": row.roofline_ms, "share": row.share}
            for row in self.rows
        ]
        return json.dumps({"machine": self.machine, "date": date.today().isoformat(), "rows": rows}, indent=2)
