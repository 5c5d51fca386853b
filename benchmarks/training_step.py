"""Rate and losses of a training step on one GPU: plain operations against fused kernels, both as one CUDA graph.

    python benchmarks/training_step.py PATH/camvid --steps 200

Both see the same batches from the same start. Prints, for each: pictures a second without and with the drawing of
batches, GPU memory, and the mean loss of each quarter of the steps; the plain step runs twice, to show how far two
equal runs drift apart. `--profile` adds the kernels that the fused step spends its time in.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ecmnet_app.network import ECMNet
from ecmnet_app.training.datasets import load_dataset
from ecmnet_app.training.losses import class_weights
from ecmnet_app.training.mixture import Mixture, batch
from ecmnet_app.training.recipe import load_recipe
from ecmnet_app.training.step import Trainee, TrainStep

DEVICE = torch.device("cuda")


@dataclass
class Run:
    """What one kind of step did."""

    losses: torch.Tensor
    started: float
    """Seconds for the first step: compiling and recording."""
    replay: float
    """Seconds of one replay of the graph."""
    step: float
    """Seconds of a step with its batch."""
    memory: float
    """GiB, at most."""


def run(data: Path, steps: int, fused: bool, profile: bool = False) -> Run:
    """Train for `steps` steps by the recipe `camvid`."""
    recipe = load_recipe("camvid")
    mixture = Mixture([load_dataset(data, "train").to(DEVICE)], [1.0])
    shares = mixture.class_shares(11)
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step = TrainStep(
        Trainee(ECMNet()).to(DEVICE), recipe, class_weights(shares, recipe.class_weight_offset), fused=fused
    )
    step.captures = True
    losses = [step(*batch(mixture, recipe, 0, DEVICE)[:2], 0).clone()]
    torch.cuda.synchronize()
    started = time.perf_counter() - began
    for i in range(1, steps):
        if i == steps // 4:
            torch.cuda.synchronize()
            began = time.perf_counter()
        losses.append(step(*batch(mixture, recipe, i, DEVICE)[:2], i).clone())
    torch.cuda.synchronize()
    per_step = (time.perf_counter() - began) / (steps - steps // 4)
    memory = torch.cuda.max_memory_allocated() / 2**30
    assert step.graph is not None
    began = time.perf_counter()
    for _ in range(50):
        step.graph.replay()
    torch.cuda.synchronize()
    replay = (time.perf_counter() - began) / 50
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
            for _ in range(3):
                step.graph.replay()
            torch.cuda.synchronize()
        print(recorded.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=70))
    return Run(torch.stack(losses).float().cpu(), started, replay, per_step, memory)


def main() -> None:
    """Parse arguments, run, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of CamVid")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="print the fused step's kernels")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    runs = {
        "fused": run(args.data, args.steps, True, args.profile),
        "plain": run(args.data, args.steps, False),
        "plain, again": run(args.data, args.steps, False),
    }
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch 16 at 360x480")
    for name, r in runs.items():
        quarters = " ".join(f"{float(part.mean()):.4f}" for part in r.losses.chunk(4))
        print(
            f"{name:13} {16 / r.replay:6.0f} pictures/s in the graph, {16 / r.step:6.0f} with batches, "
            f"{r.memory:4.1f} GiB, first step {r.started:5.1f} s; mean loss by quarter {quarters}"
        )
    print("first losses:", *(f"{name} {[round(float(v), 4) for v in r.losses[:5]]}" for name, r in runs.items()))


if __name__ == "__main__":
    main()
