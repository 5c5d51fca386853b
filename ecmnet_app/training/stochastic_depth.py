"""Stochastic depth (Huang et al., ECCV 2016): in training, blocks are left out at random, for each picture anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ecmnet_app.network.edab import EDAB, channel_shuffle

__all__ = ["drop_blocks"]


def drop_blocks(network: nn.Module, share: float) -> None:
    """Have the EDABs of `network` leave out what they add to their input, in training mode alone, from now on.

    For which pictures, torch's own generator decides: a training seeds it for every step.

    Args:
        network: changed in place; its parameters and buffers stay.
        share: of the pictures for which the last block is left out, 0 to 1 (1 excluded); of the n-th of N blocks it is
            n / N of that. For the others what it adds is scaled up, so that the mean stays.
    """
    blocks = [module for module in network.modules() if isinstance(module, EDAB)]
    for n, block in enumerate(blocks, start=1):
        block.register_forward_hook(_dropping(1 - share * n / len(blocks)))


def _dropping(kept: float) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def drop(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if not block.training:
            return output
        without = channel_shuffle(inputs[0]).to(output.dtype)
        chosen = torch.rand(len(output), 1, 1, 1, device=output.device) < kept
        return without + (output - without) * (chosen.to(output.dtype) / kept)

    return drop
