"""Two real processes by torchrun against one with the whole batch."""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_step import CONFIG, RECIPE, WEIGHTS
from tiny import RECIPE as TINY
from tiny import write_blocks
from torch import Tensor, nn

from ecmnet_app.core import load_weights
from ecmnet_app.network import ECMNet
from ecmnet_app.training import distributed
from ecmnet_app.training.recipe import load_recipe
from ecmnet_app.training.step import Trainee, TrainStep
from ecmnet_app.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = 5
"""The first process takes three, the second two."""
SEEDS = range(5)


def one_step(share: slice, seed: int) -> dict[str, Tensor]:
    """Gradients, loss and running statistics after a step on a share of the batch."""
    torch.manual_seed(seed)
    # Unclipped, since clipping hides a wrong scale.
    step = TrainStep(Trainee(ECMNet(CONFIG)), replace(RECIPE, clip_norm=1e9, teacher_weight=2.0), WEIGHTS)
    images, target = torch.randn(PICTURES, 3, 32, 48), torch.randint(4, (PICTURES, 32, 48))
    answers = torch.randn(PICTURES, 3, 16, 24).softmax(1)
    target = target.masked_fill(target == 3, 255)
    target[0] = 255  # the processes' shares do not have the same number of labelled pixels
    found = {"loss": step(images[share], target[share], 0, answers[share])}
    for i, vector in enumerate(step.flat.vectors):
        assert vector.grad is not None
        found[f"gradient.{i}"] = vector.grad.clone()
        found[f"vector.{i}"] = vector.detach().clone()
    for name, buffer in step.trainee.named_buffers():
        if "running" in name:
            found[name] = buffer.clone()
    return found


def work(folder: Path) -> None:
    """What each of the two processes does; everything it learns is written to `folder`."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    distributed.start("cpu")
    rank = distributed.rank()
    assert distributed.world_size() == 2
    for seed in SEEDS:
        save_file(one_step(slice(rank, None, 2), seed), folder / f"step{rank}_{seed}.safetensors")

    recipe, paths = load_recipe(str(folder / "tiny.toml"), steps=3), {"blocks": folder / "blocks"}
    train(recipe, paths, folder / f"own{rank}", device="cpu")
    # Only one clock runs out, but both must stop.
    stopped = train(recipe, paths, folder / "shared", device="cpu", stop_after=0 if rank else 1e6)
    assert stopped is None
    torch.distributed.barrier()
    resumed = train(recipe, paths, folder / "shared", device="cpu", resume=True)
    assert (resumed is None) == (rank != 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed")
    write_blocks(root / "blocks")
    (root / "tiny.toml").write_text(TINY)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, __file__, str(root)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-5000:]
    return root


def test_two_processes_step_as_one_with_the_whole_batch(folder: Path) -> None:
    errors = []
    for seed in SEEDS:
        whole = one_step(slice(None), seed)
        first, second = (load_file(folder / f"step{rank}_{seed}.safetensors") for rank in (0, 1))
        for name, value in whole.items():
            assert torch.equal(first[name], second[name]), f"{name} differs between the processes"
            if name.startswith("gradient"):
                errors.append(float((first[name] - value).norm() / value.norm()))
            elif not name.startswith("vector"):  # Adam makes much of a gradient that is nothing but rounding
                assert torch.allclose(first[name], value, rtol=1e-4, atol=1e-5), name
    # Rounding can carry a value over the kink of a PReLU, which even another number of threads does; seldom.
    assert statistics.median(errors) < 1e-5
    assert max(errors) < 1e-2


def test_only_the_first_process_writes(folder: Path) -> None:
    names = ["checkpoint.safetensors", "curves.png", "log.csv", "predictions.png", "tiny.json", "tiny.safetensors"]
    assert sorted(file.name for file in (folder / "own0").iterdir()) == names
    assert list((folder / "own1").iterdir()) == []
    load_weights(folder / "own0" / "tiny.safetensors")


def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(folder / "tiny.toml"), steps=3)
    train(recipe, {"blocks": folder / "blocks"}, tmp_path, device="cpu")
    losses = []
    for out in (tmp_path, folder / "own0"):
        with (out / "log.csv").open(newline="") as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file) if row["loss"]])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # Adam makes much of what is nothing but rounding


def test_both_stop_when_one_is_late_and_resume_alike(folder: Path) -> None:
    for name in ("tiny.safetensors", "checkpoint.safetensors"):
        assert (folder / "shared" / name).read_bytes() == (folder / "own0" / name).read_bytes()


def test_batch_norm_alone_equals_torchs() -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(6, eps=1e-3)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    ours = nn.Sequential(nn.BatchNorm2d(6, eps=1e-3))
    ours[0].load_state_dict(plain.state_dict())
    distributed.synchronise(ours)
    assert isinstance(ours[0], distributed.DistributedBatchNorm)
    x = (3 * torch.randn(4, 6, 5, 7) + 2).requires_grad_()
    y = x.detach().clone().requires_grad_()
    pattern = torch.randn(4, 6, 5, 7)
    for a, b in ((plain(x), ours(y)), (plain.eval()(x), ours.eval()(y))):
        assert torch.allclose(a, b, atol=1e-5)
        (a * pattern).sum().backward()
        (b * pattern).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert torch.allclose(x.grad, y.grad, atol=1e-4)
    assert torch.allclose(plain.running_mean, ours[0].running_mean, atol=1e-6)
    assert torch.allclose(plain.running_var, ours[0].running_var, atol=1e-5)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
