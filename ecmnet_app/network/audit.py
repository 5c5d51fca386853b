"""Parameters and arithmetic of every row of the paper's Table 1, beside the paper's own figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .config import ECMNetConfig
from .ecmnet import ECMNet
from .edab import DDA
from .ss2d import DIRECTIONS, SS2D

__all__ = ["PAPER", "Count", "Tally", "audit_table", "count"]

PAPER: dict[str, tuple[float, float]] = {
    "baseline": (775.57, 7.56),
    "A1": (777.93, 7.57),
    "A2": (796.41, 7.64),
    "A3": (805.67, 7.79),
    "B1": (787.34, 7.57),
    "B2": (805.82, 7.67),
    "B3": (815.08, 7.90),
    "C1": (827.80, 7.80),
    "C2": (863.93, 8.06),
    "C3": (871.11, 8.27),
}
"""Parameters (thousands) and "G" of the paper's Table 1."""

RULE = """\
G, our counting rule. The paper states neither rule nor size; its steps fit 512x512 only.
  1 for each multiply-accumulate of a convolution, linear layer or matrix product. A transposed convolution counts at
    its output positions, and DDA's two 1x1 convolutions count at every position of the map (we run them after the
    mean, which is the same function).
  1 for each other arithmetic operation on each element: 4 for a norm, 2 for a PReLU, 11 for bilinear interpolation,
    1 for an addition, a product, an activation or a pooled input. The scan counts as its plain torch form runs.
thop: what thop 0.1.1 would count of it: modules only, so a PReLU as 1 and functions not at all.
MACs: the multiply-accumulates that are executed by convolutions, linear layers and the scan; nothing else."""


@dataclass
class Count:
    """What one picture costs."""

    parameters: int = 0
    macs: int = 0
    """Multiply-accumulates executed: convolutions, linear layers and the scan."""
    operations: Counter[str] = field(default_factory=Counter)
    """Operations under the audit's counting rule, by kind."""

    @property
    def g(self) -> float:
        """Operations under the counting rule, in billions: the paper's "G"."""
        return sum(self.operations.values()) / 1e9

    @property
    def thop_g(self) -> float:
        """The part of `g` that the counter thop sees."""
        operations = self.operations
        return self.g - (operations["PReLU"] / 2 + operations["functions"]) / 1e9


def count(config: ECMNetConfig, size: tuple[int, int]) -> Count:
    """Run the network on one blank picture of `size` (height, width), pixels, and count what it does.

    Raises:
        RuntimeError: it ran an operation that the counting rule does not name.
    """
    net = ECMNet(config).eval()
    tally = Tally(Count(parameters=sum(p.numel() for p in net.parameters())))
    for module in net.modules():
        if isinstance(module, DDA):
            module.register_forward_hook(tally.see_dda)
        elif isinstance(module, SS2D):
            module.register_forward_hook(tally.see_scan)
    with torch.no_grad(), tally:
        net(torch.zeros(1, 3, *size))
    return tally.count


def audit_table() -> str:
    """The table of `ecmnet info --audit`, with the counting rule under it. Takes some ten seconds."""
    lines = [
        "             parameters, K           |        G at 512x512        | thop, G | MACs, G",
        "variant      ours    paper     diff  |   ours   paper      diff   |         | executed",
    ]
    for variant, (paper_k, paper_g) in PAPER.items():
        row = count(ECMNetConfig.named(variant), (512, 512))
        k, g = row.parameters / 1e3, row.g
        lines.append(
            f"{variant:8}  {k:7.2f}  {paper_k:7.2f}  {k / paper_k - 1:+7.2%}  |  {g:5.3f}  {paper_g:6.2f}"
            f"  {g / paper_g - 1:+8.2%}   |  {row.thop_g:5.3f}  | {row.macs / 1e9:8.3f}"
        )
    lines += ["", "G of C3 at 512x512 by kind:"]
    lines += [f"  {kind:21} {n / 1e9:6.3f}" for kind, n in sorted(row.operations.items(), key=lambda item: -item[1])]
    lines += ["", "executed MACs of C3, G:"]
    for h, w in ((360, 480), (512, 512), (1024, 1024)):
        lines.append(f"  {f'{h}x{w}':21} {count(ECMNetConfig(), (h, w)).macs / 1e9:6.3f}")
    return "\n".join([*lines, "", RULE])


class Tally(TorchDispatchMode):
    """Counts every tensor operation that runs inside it; the hooks add what single operations do not show."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _RULES:
            kind, rule = _RULES[name]
            self.count.operations[kind] += rule(args, output)
            if name == "convolution":
                self.count.macs += _executed_by_convolution(args, output)
            elif rule is _matrix_product:
                self.count.macs += rule(args, output)
        elif name not in _MOVES:
            raise RuntimeError(f"the audit's counting rule does not name the operation {name!r}: add it to audit.py")
        return output

    def see_dda(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        _, channels, height, width = args[0].shape
        self.count.operations["DDA at all positions"] += channels**2 * (2 * height * width - height - width)

    def see_scan(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        # A state multiplies by A, B, its decay and C; a channel's delta by u, and u by D.
        assert isinstance(module, SS2D)
        _, height, width, _ = args[0].shape
        self.count.macs += height * width * DIRECTIONS * module.inner * (4 * module.state_size + 2)


def _convolution(args: Any, output: Tensor) -> int:
    positions: int = output[:, 0].numel()
    return positions * args[1].numel()


def _executed_by_convolution(args: Any, output: Tensor) -> int:
    transposed = args[6]
    return _convolution(args, args[0] if transposed else output)


def _matrix_product(args: Any, output: Tensor) -> int:
    inner: int = args[-1].shape[-2]
    return output.numel() * inner


def _each_input(times: int = 1) -> Callable[[Any, Any], int]:
    return lambda args, output: times * args[0].numel()


def _each_output(times: int = 1) -> Callable[[Any, Any], int]:
    return lambda args, output: times * output.numel()


_RULES: dict[str, tuple[str, Callable[[Any, Any], int]]] = {
    "convolution": ("convolutions", _convolution),
    "mm": ("linear layers", _matrix_product),
    "addmm": ("linear layers", _matrix_product),
    "bmm": ("functions", _matrix_product),
    "native_batch_norm": ("norms", _each_input(4)),
    "native_layer_norm": ("norms", _each_input(4)),
    "_prelu_kernel": ("PReLU", _each_input(2)),
    "upsample_bilinear2d": ("functions", _each_output(11)),
    "addcmul": ("functions", _each_output(2)),
    **dict.fromkeys(("mean", "sum", "amax", "cumsum", "max_pool2d_with_indices"), ("functions", _each_input())),
    **dict.fromkeys(
        ("add", "mul", "neg", "exp", "sigmoid", "relu", "silu", "gelu", "softplus"), ("functions", _each_output())
    ),
}

# fmt: off
_MOVES = {
    "_unsafe_view", "alias", "cat", "clone", "constant_pad_nd", "copy_", "detach", "device", "empty", "empty_like",
    "flip", "permute", "select", "slice", "split", "split_with_sizes", "stack", "t", "transpose", "unbind",
    "unsqueeze", "view", "zeros",
}
# fmt: on
"""Operations that compute nothing."""
