"""EDAB, MSAU and the layers under them, against the paper's equations written out plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecmnet_app.network.edab import DDA, ECA, EDAB, channel_shuffle
from ecmnet_app.network.layers import AxialDepthwise, BatchNormPReLU
from ecmnet_app.network.msau import MSAU


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lived_in(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with batch-norm statistics and slopes that differ from channel to channel."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias)
        elif isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, 0, 0.5)
    return module.double().eval()


def norm_act(module: BatchNormPReLU, x: Tensor) -> Tensor:
    """Batch norm by its formula with eps 1e-3, then max(0, y) + slope min(0, y)."""
    norm, act = module

    def per_channel(v: Tensor) -> Tensor:
        return v.view(1, -1, 1, 1)

    scale = norm.weight / torch.sqrt(norm.running_var + 1e-3)
    y = (x - per_channel(norm.running_mean)) * per_channel(scale) + per_channel(norm.bias)
    return y.clamp_min(0) + per_channel(act.weight) * y.clamp_max(0)


# Layers


@pytest.mark.parametrize("rate", [1, 2, 4, 8])
def test_a_dilated_pair_reaches_2r_plus_1(rate: int):
    """Impulse response of 3x1 then 1x3 of dilation R: nine taps R apart, 2R+1 rows and columns in all."""
    pair = nn.Sequential(AxialDepthwise(1, "height", rate), AxialDepthwise(1, "width", rate))
    for conv in pair:
        nn.init.ones_(conv.weight)
    size, middle = 4 * rate + 1, 2 * rate
    impulse = torch.zeros(1, 1, size, size)
    impulse[0, 0, middle, middle] = 1
    rows, columns = torch.nonzero(pair(impulse)[0, 0], as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 2 * rate + 1
    assert sorted(set(rows.tolist())) == [middle - rate, middle, middle + rate]
    assert len(rows) == 9


def test_a_pair_has_two_thirds_of_a_3x3s_parameters():
    _, _, column, _, row, _ = EDAB(32, dilation=2).reduce
    square = nn.Conv2d(16, 16, 3, bias=False)
    assert column.kernel_size == (3, 1)
    assert row.kernel_size == (1, 3)
    assert 3 * (column.weight.numel() + row.weight.numel()) == 2 * square.weight.numel()


# EDAB


def test_channel_shuffle_known_answer():
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 2, 3)
    assert channel_shuffle(x)[0, :, 1, 2].tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, groups=3)[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]


def test_channel_shuffle_of_channels_last():
    x = torch.randn(2, 8, 3, 5)
    assert torch.equal(channel_shuffle(x.to(memory_format=torch.channels_last)), channel_shuffle(x))


def plain_eca(module: ECA, x: Tensor) -> Tensor:
    taps = module.conv.weight.flatten()
    pooled = F.pad(x.mean((2, 3)), (1, 1))
    gates = [torch.sigmoid(pooled[:, c : c + 3] @ taps) for c in range(x.shape[1])]
    return torch.stack([x[:, c] * gate[:, None, None] for c, gate in enumerate(gates)], dim=1)


def plain_dda(module: DDA, x: Tensor) -> Tensor:
    """A 1x1 at every position first, then the mean: the order in which we believe the authors ran it."""
    rows = torch.einsum("oc,bchw->bohw", module.rows.weight[:, :, 0, 0], x).mean(3, keepdim=True)
    columns = torch.einsum("oc,bchw->bohw", module.columns.weight[:, :, 0, 0], x).mean(2, keepdim=True)
    return x * torch.sigmoid(rows) * torch.sigmoid(columns)


def test_eca_equals_its_definition():
    module, x = ECA().double(), torch.randn(2, 7, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), plain_eca(module, x))


def test_dda_mean_and_1x1_commute():
    """The gates are the same whether the 1x1 runs at every position or once a row and once a column."""
    module, x = DDA(7).double(), torch.randn(2, 7, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), plain_dda(module, x))


@pytest.mark.parametrize("dilation", [1, 4])
def test_edab_equals_equations_1_to_4(dilation: int):
    block = lived_in(EDAB(8, dilation))
    x = torch.randn(2, 8, 9, 10, dtype=torch.float64)
    first, squeeze, column, norm_1, row, norm_2 = block.reduce
    up = F.conv2d(norm_act(first, x), squeeze.weight)
    up = norm_act(norm_1, F.conv2d(up, column.weight, padding=(1, 0)))
    up = norm_act(norm_2, F.conv2d(up, row.weight, padding=(0, 1)))  # eq. 1

    def pair(branch: nn.Sequential, rate: int) -> Tensor:
        column, norm_1, row, norm_2, _ = branch
        y = F.conv2d(up, column.weight, padding=(rate, 0), dilation=(rate, 1), groups=4)
        y = F.conv2d(norm_act(norm_1, y), row.weight, padding=(0, rate), dilation=(1, rate), groups=4)
        return norm_act(norm_2, y)

    b1 = plain_eca(block.local[-1], pair(block.local, 1))  # eq. 2
    b2 = plain_dda(block.context[-1], pair(block.context, dilation))  # eq. 3
    last, widen = block.expand
    y = F.conv2d(norm_act(last, up + b1 + b2), widen.weight) + x
    expected = torch.stack([y[:, :4], y[:, 4:]], dim=2).flatten(1, 2)  # eq. 4: the halves interleaved
    torch.testing.assert_close(block(x), expected)


# MSAU


def test_msau_equals_equations_5_to_9():
    unit = MSAU(8).double()
    for bias in (p for name, p in unit.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias)
    x = torch.randn(2, 8, 6, 11, dtype=torch.float64)
    reduced = F.conv2d(x, unit.reduce.weight)
    x1 = torch.zeros_like(reduced)
    for conv, k in zip(unit.scales, (3, 5, 7), strict=True):
        x1 += F.conv2d(reduced, conv.weight, padding=k // 2, groups=4)  # eq. 5
    depthwise, pointwise, _ = unit.columns
    line = F.adaptive_avg_pool2d(x1, (1, None))
    # The paper's 7x7 on a map of height 1: only the middle row of its kernel meets anything but padding.
    square = torch.randn(4, 1, 7, 7, dtype=torch.float64)
    square[:, :, 3:4] = depthwise.weight
    line = F.conv2d(line, square, padding=3, groups=4)
    attention = torch.sigmoid(F.conv2d(line, pointwise.weight, pointwise.bias))  # eq. 6
    x2 = F.conv2d(x1 * attention, unit.expand.weight)  # eq. 7

    def gate(head: nn.Sequential, pooled: Tensor) -> Tensor:
        first, _, second = head
        hidden = torch.relu(pooled @ first.weight[:, :, 0, 0].T + first.bias)
        return (hidden @ second.weight[:, :, 0, 0].T + second.bias)[:, :, None, None]

    mean = F.conv2d(x, unit.mean_features.weight, padding=1).mean((2, 3))
    peak = F.conv2d(x, unit.max_features.weight, padding=1).flatten(2).max(2).values
    x3 = gate(unit.mean_gate, mean)  # eq. 8
    x4 = gate(unit.max_gate, peak)
    torch.testing.assert_close(unit(x), x + x2 * (x3 + x4))  # eq. 9
