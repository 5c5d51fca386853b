"""Every back end of the selective scan that runs here, side by side: its time, and how far it is from float64.

    python benchmarks/selective_scan.py                    # on a GPU, with mamba-ssm's kernel where it is installed
    python benchmarks/selective_scan.py --device cpu --rows 32 --length 300

Rows are channels times pictures; 1024 rows of 2,700 positions are those of four pictures of 360x480 at 1/8.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ecmnet_app.network.scan import available_backends, selective_scan

STATES = (1, 16)
GROUPS = 4
"""As SS2D's four directions."""
SECONDS = 1.0
"""Of measuring, at the least, for each figure."""


def inputs(rows: int, length: int, state: int, device: str) -> list[Tensor]:
    """u, delta, A, B, C, D of the sizes that `selective_scan` takes, float32, with gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    values = [
        normal(1, rows, length),
        torch.nn.functional.softplus(normal(1, rows, length) - 2),
        -torch.exp(normal(rows, state)),
        normal(1, GROUPS, state, length),
        normal(1, GROUPS, state, length),
        normal(rows),
    ]
    return [value.to(device).requires_grad_() for value in values]


def milliseconds(call: Callable[[], object]) -> float:
    """Median; on a GPU until it has answered."""
    return 1e3 * Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=SECONDS).median


def main() -> None:
    """Parse arguments, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--length", type=int, default=2700)
    args = parser.parse_args()
    machine = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "CPU"
    print(f"{machine}, torch {torch.__version__}; {args.rows} rows, length {args.length}, float32\n")
    print("| state | back end | forward, ms | forward and backward, ms | relative distance |")
    print("|--:|---|--:|--:|--:|")
    for state in STATES:
        tensors = inputs(args.rows, args.length, state, args.device)
        with torch.no_grad():
            wanted = selective_scan(*(t.double() for t in tensors), backend="torch")
        for backend in available_backends(torch.device(args.device).type):
            if backend == "reference":
                continue  # a loop over positions, which is no contender

            def forward(tensors: list[Tensor] = tensors, backend: str = backend) -> Tensor:
                with torch.no_grad():
                    return selective_scan(*tensors, backend=backend)

            def both(tensors: list[Tensor] = tensors, backend: str = backend) -> object:
                return torch.autograd.grad(selective_scan(*tensors, backend=backend).sum(), tensors)

            far = float((forward().double() - wanted).norm() / wanted.norm())
            print(
                f"| {state} | {backend} | {milliseconds(forward):.3f} | {milliseconds(both):.3f} | {far:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
