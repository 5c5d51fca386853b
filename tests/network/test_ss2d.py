"""SS2D: its directions, its symmetries, and what it reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ecmnet_app.network.ffm import FFM
from ecmnet_app.network.ss2d import SS2D, cross_merge, cross_scan

ROTATION = [2, 3, 0, 1]  # both axes flipped: each traversal becomes the one from the end
TRANSPOSE = [1, 0, 3, 2]  # rows become columns
ANTI_TRANSPOSE = [3, 2, 1, 0]

SYMMETRIES: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "rotation by 180 degrees": (lambda x: x.flip(-2, -1), ROTATION),
    "transpose": (lambda x: x.transpose(-2, -1), TRANSPOSE),
    "anti-transpose": (lambda x: x.transpose(-2, -1).flip(-2, -1), ANTI_TRANSPOSE),
}


def permuted(module: SS2D, order: list[int], change: Callable[[Tensor], Tensor]) -> SS2D:
    """A copy whose directions take each other's parameters and whose 3x3 kernels are changed alike."""
    copy = SS2D(module.in_proj.in_features, module.inner // module.in_proj.in_features, module.state_size).double()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for name in ("x_proj", "dt_proj", "dt_bias", "A_log", "D"):
        state[name] = state[name][order]
    state["conv.weight"] = change(state["conv.weight"])
    copy.load_state_dict(state)
    return copy


@pytest.fixture
def ss2d() -> SS2D:
    torch.manual_seed(0)
    module = SS2D(6, expand=2, state_size=3).double()
    for parameter in (module.D, module.A_log):  # all directions differ in everything
        torch.nn.init.normal_(parameter)
    return module


def channels_first(module: SS2D, x: Tensor) -> Tensor:
    return module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_cross_scan_known_answer():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    expected = [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    assert cross_scan(x).squeeze().tolist() == expected


def test_cross_merge_is_the_adjoint_of_cross_scan():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = torch.randn(2, 4, 3, 20, dtype=torch.float64)
    torch.testing.assert_close((cross_scan(x) * y).sum(), (x * cross_merge(y, 4, 5)).sum())
    torch.testing.assert_close(cross_merge(cross_scan(x), 4, 5), 4 * x)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_commutes_with_the_symmetries_of_its_directions(ss2d: SS2D, name: str):
    change, order = SYMMETRIES[name]
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    expected = change(channels_first(ss2d, x))
    torch.testing.assert_close(channels_first(permuted(ss2d, order, change), change(x)), expected)
    unpermuted = channels_first(permuted(ss2d, [0, 1, 2, 3], change), change(x))
    assert (unpermuted - expected).abs().max() > 1e-3, "the permutation is what makes it commute"


@pytest.mark.parametrize("axis", [-2, -1])
def test_a_flip_of_one_axis_turns_a_traversal_into_none_of_the_four(axis: int):
    """Row by row, flipped left to right, is top-down and right-to-left: VMamba's four have no such path."""
    x = torch.arange(12.0).view(1, 1, 3, 4)
    flipped = {tuple(path) for path in cross_scan(x.flip(axis)).squeeze().tolist()}
    assert flipped.isdisjoint(tuple(path) for path in cross_scan(x).squeeze().tolist())


@pytest.mark.parametrize(("shape", "axis"), [((1, 9), -1), ((9, 1), -2)])
def test_a_flip_commutes_on_a_line(ss2d: SS2D, shape: tuple[int, int], axis: int):
    """On a single row or column one flip is the rotation, and the permuted directions match again."""
    x = torch.randn(2, 6, *shape, dtype=torch.float64)
    both = permuted(ss2d, ROTATION, lambda kernel: kernel.flip(-2, -1))
    torch.testing.assert_close(channels_first(both, x.flip(axis)), channels_first(ss2d, x).flip(axis))


def test_every_position_depends_on_every_other_through_the_ffm():
    """Gradients of each output position of the FFM: whole with the scan, 3x3 with the scan taken out."""
    torch.manual_seed(0)
    ffm = FFM(4, expand=2, state_size=1, fed_by_connections=False).double()

    def reach(scan: Callable[[Tensor], Tensor] | None) -> Tensor:
        if scan:
            ffm.ss2d.scan = scan  # type: ignore[method-assign]
        x = torch.randn(1, 4, 6, 9, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda x: ffm(x, []).sum((0, 1)), x)
        return jacobian.abs().sum((2, 3)) > 0  # (height, width) of the output, then of the input

    assert reach(None).all()
    rows, columns = torch.arange(6), torch.arange(9)
    near = ((rows[:, None] - rows).abs() <= 1)[:, None, :, None] & ((columns[:, None] - columns).abs() <= 1)[:, None]
    assert torch.equal(reach(lambda value: value), near)


def test_scan_stays_in_float32_under_autocast(ss2d: SS2D):
    module = ss2d.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert module.scan(torch.randn(1, 12, 4, 4).bfloat16()).dtype == torch.float32
