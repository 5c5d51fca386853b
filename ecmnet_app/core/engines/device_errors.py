"""What a GPU says when it fails, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ecmnet_app.errors import DeviceError

__all__ = ["device_errors", "is_out_of_memory"]

_ACCELERATOR_ERROR: type[BaseException] = getattr(
    torch, "AcceleratorError", torch.OutOfMemoryError
)  # from torch 2.8 on


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the device had too little memory: also as CUDA and Triton say it themselves, past PyTorch's allocator."""
    return isinstance(error, RuntimeError) and "out of memory" in str(error)


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turn what torch and Triton raise of a device that ran out of memory or failed into a `DeviceError`.

    Raises:
        DeviceError: in place of such an error; others go through.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceError(
                f"{device} ran out of memory; send fewer or smaller pictures, or use the device cpu"
            ) from error
        if isinstance(error, _ACCELERATOR_ERROR) or "CUDA" in str(error):
            first_line = str(error).strip().splitlines()[0]
            raise DeviceError(f"{device} failed ({first_line}); start again, or use the device cpu") from error
        raise
