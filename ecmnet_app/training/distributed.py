"""Data-parallel training by torchrun: sums over processes that autograd can follow."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

__all__ = ["DistributedBatchNorm", "average", "rank", "start", "sum_over_processes", "synchronise", "world_size"]


def start(device_type: str) -> None:
    """Join the group that torchrun describes in the environment; does nothing without torchrun."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_processes(t: Tensor) -> Tensor:
    """The sum of a tensor over all processes; its gradient is summed in turn."""
    return all_reduce(t) if world_size() > 1 else t


def average(t: Tensor) -> None:
    """Replace a tensor by its mean over all processes."""
    if world_size() > 1:
        dist.all_reduce(t)
        t /= world_size()


class DistributedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of the whole batch, on any device (SyncBatchNorm needs CUDA)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = input.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
        sums = sum_over_processes(torch.cat([x.sum(dim=(0, 2, 3)), (x * x).sum(dim=(0, 2, 3)), count]))
        total, squares, number = sums.split([self.num_features, self.num_features, 1])
        mean = total / number
        variance = squares / number - mean * mean
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            unbiased = variance * (number / (number - 1))
            self.running_mean.lerp_(mean, self.momentum or 0.1)
            self.running_var.lerp_(unbiased, self.momentum or 0.1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


def synchronise(network: nn.Module) -> None:
    """Give every batch norm of a network the statistics of all processes, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = DistributedBatchNorm  # the same parameters and buffers, another forward
