"""A checkpoint comes back as it was, or is refused with a reason, or was never touched."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ecmnet_app.errors import WeightsError
from ecmnet_app.training.checkpoint import load_checkpoint, save_checkpoint

TENSORS = {
    "vector": torch.arange(7.0),
    "weights": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "view": torch.arange(12).view(3, 4).T,
    "count": torch.tensor(3),
    "half": torch.tensor([1.5, float("inf")], dtype=torch.bfloat16),
}
HEADER = {"step": 3, "recipe": {"name": "Überholspur", "crop": [32, 48], "scale": 0.1, "none": None}}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    tensors, header = load_checkpoint(path)
    assert header == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    save_checkpoint(path, {"vector": torch.zeros(1)}, {"step": 6})
    assert load_checkpoint(path)[1] == {"step": 6}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no checkpoint .*none\.safetensors: start without --resume"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("what", ["empty", "text", "truncated", "no header", "header is no JSON", "header is a list"])
def test_damaged_or_foreign(tmp_path: Path, what: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    if what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_text("step,loss\n" * 100)
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        save_file({"a": torch.zeros(3)}, path, {"header is no JSON": {"header": "{"}}.get(what))
        if what == "header is a list":
            save_file({"a": torch.zeros(3)}, path, {"header": "[3]"})
    with pytest.raises(
        WeightsError, match=r"is not a checkpoint of this program .*: start in another folder, without --resume"
    ):
        load_checkpoint(path)


def test_a_write_that_fails_midway_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))  # as a full disk would
    try:
        with pytest.raises(WeightsError, match=r"cannot write .*free some space, then go on with --resume"):
            save_checkpoint(path, {"large": torch.zeros(1_000_000)}, {"step": 9})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
