"""The selective scan by mamba-ssm's CUDA kernel, where that package was built (extra `mamba`)."""

from __future__ import annotations

from functools import cache

from torch import Tensor

__all__ = ["is_available", "selective_scan"]


@cache
def is_available() -> bool:
    """Whether mamba-ssm imports; it needs CUDA to be built."""
    try:
        import mamba_ssm.ops.selective_scan_interface  # noqa: F401
    except ImportError:
        return False
    return True


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """See `ecmnet_app.network.scan.selective_scan` for shapes; float32 on a GPU only."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    y: Tensor = selective_scan_fn(u, delta, A, B, C, D)
    return y
