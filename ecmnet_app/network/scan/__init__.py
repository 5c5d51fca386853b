"""The selective scan of Mamba-1 (arXiv 2312.00752, eq. 2-4) behind one dispatch.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = C_t h_t + D u_t

Back ends: `reference` (the definition, a plain loop), `torch` (blocked, fast on any device,
differentiable, exportable), `triton` (our kernel, on a GPU), `mamba-ssm` (its CUDA kernel, where it is
installed and a GPU is there).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import chunked, mamba_kernel, reference, triton_kernel

__all__ = ["available_backends", "selective_scan"]

_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "reference": reference.selective_scan,
    "torch": chunked.selective_scan,
    "triton": triton_kernel.selective_scan,
    "mamba-ssm": mamba_kernel.selective_scan,
}


def available_backends(device_type: str) -> list[str]:
    """Names of the back ends that can run on "cpu" or "cuda" here."""
    names = ["reference", "torch"]
    if device_type == "cuda" and triton_kernel.is_available():
        names.append("triton")
    if device_type == "cuda" and mamba_kernel.is_available():
        names.append("mamba-ssm")
    return names


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, backend: str = "auto"
) -> Tensor:
    """Run the recurrence above over sequences, from a zero state.

    Args:
        u: values, (batch, dim, length), float32 or float64.
        delta: positive step sizes, (batch, dim, length).
        A: state matrix, negative, (dim, state).
        B: input matrices, (batch, groups, state, length); dim is split evenly among the groups.
        C: output matrices, the shape of B.
        D: skip weights, (dim,).
        backend: "auto" takes "triton" for float32 on a GPU, "torch" elsewhere and in a compiler's hands.

    Returns:
        y, (batch, dim, length), the dtype of u.

    Raises:
        ValueError: an unknown back end, or one that cannot run here, or shapes that do not fit.
    """
    if u.shape != delta.shape or A.shape[0] != u.shape[1] or B.shape != C.shape or D.shape != A.shape[:1]:
        raise ValueError(
            "selective_scan: shapes do not fit: "
            f"u {tuple(u.shape)}, delta {tuple(delta.shape)}, A {tuple(A.shape)}, "
            f"B {tuple(B.shape)}, C {tuple(C.shape)}, D {tuple(D.shape)}"
        )
    if u.shape[1] % B.shape[1]:
        raise ValueError(f"selective_scan: {B.shape[1]} groups do not divide {u.shape[1]} channels")
    if backend == "auto":
        kernel = triton_kernel.is_available() and u.is_cuda and u.dtype.itemsize == 4
        backend = "triton" if kernel and not torch.compiler.is_compiling() else "torch"
    if backend not in _BACKENDS:
        raise ValueError(f"selective_scan: no back end {backend!r}; there are {', '.join(_BACKENDS)}")
    # A compiler's hands get "torch", which runs anywhere: they cannot trace the import of mamba-ssm, which may fail.
    if backend not in ("reference", "torch") and backend not in available_backends(u.device.type):
        raise ValueError(
            f"selective_scan: back end {backend!r} cannot run on {u.device.type} here; "
            f"available: {', '.join(available_backends(u.device.type))}"
        )
    return _BACKENDS[backend](u, delta, A, B, C, D)
