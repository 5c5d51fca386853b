"""The fused kernels against the plain torch lines that they stand for, on a GPU or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.network.edab import EDAB, channel_shuffle
from ecmnet_app.network.layers import BatchNormPReLU

pytest.importorskip("triton", reason="Triton, which comes with torch for GPUs and with the extra dev, is missing")
from ecmnet_app.training import fused
from ecmnet_app.training.kernels import batch_norm_prelu as bn
from ecmnet_app.training.kernels.axial_depthwise import axial_depthwise_pair
from ecmnet_app.training.kernels.shuffle_add import shuffle_add

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["one program", "many programs"])
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles make a reduction of several programs and several steps out of a small map."""
    if request.param == "many programs":
        monkeypatch.setattr(bn, "TILE", 64)
        monkeypatch.setattr(bn, "MOST_PROGRAMS", 5)
        monkeypatch.setattr(bn, "STEPS_EACH", 2)


def random(*shape: int, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale + offset
    return values.to(DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()


def random_layer(channels: int, seed: int) -> BatchNormPReLU:
    layer = BatchNormPReLU(channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.5)
    return layer.to(DEVICE)


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm())


def gradients(f: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The answer and the gradients of a random sum of it."""
    y = f()
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(DEVICE)
    return [y, *torch.autograd.grad((y * weight).sum(), inputs)]


@pytest.mark.parametrize(("channels", "number"), [(8, 1), (6, 1), (16, 2), (20, 2)])
def test_batch_norm_prelu(programs: None, channels: int, number: int) -> None:
    layers = [random_layer(channels // number, seed) for seed in range(number)]
    plain = deepcopy(layers)
    x = random(3, channels, 9, 7, scale=3, offset=5)
    ours = gradients(lambda: bn.batch_norm_prelu(x, layers), [x, *(p for layer in layers for p in layer.parameters())])
    theirs = gradients(
        lambda: torch.cat([layer(part) for layer, part in zip(plain, x.chunk(number, 1), strict=True)], 1),
        [x, *(p for layer in plain for p in layer.parameters())],
    )
    assert_same(ours, theirs)
    for a, b in zip(layers, plain, strict=True):
        assert_same([a[0].running_mean, a[0].running_var], [b[0].running_mean, b[0].running_var])


def test_moments_survive_a_mean_far_from_zero() -> None:
    """A mean of 1,000 and a deviation of 0.1: the difference of two squares would leave nothing of the variance."""
    layer = random_layer(8, 0)
    x = random(2, 8, 16, 16, scale=0.1, offset=1000)
    with torch.no_grad():
        expected = F.prelu(
            F.batch_norm(x.double(), None, None, layer[0].weight.double(), layer[0].bias.double(), True, 0, 1e-3),
            layer[1].weight.double(),
        )
        ours = bn.batch_norm_prelu(x, [layer])
    assert float((ours - expected).norm() / expected.norm()) < 1e-2


@pytest.mark.parametrize("axis", ["height", "width"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("channels", "dilations"), [(4, (1, 4)), (8, (1, 2)), (4, (1, 32))])
def test_axial_depthwise_pair(
    programs: None, axis: str, shared: bool, channels: int, dilations: tuple[int, int]
) -> None:
    kernel = (3, 1) if axis == "height" else (1, 3)
    weights = [random(channels, 1, *kernel, seed=seed) for seed in (1, 2)]
    x = random(2, channels if shared else 2 * channels, 9, 11)

    def plain() -> Tensor:
        parts = [x, x] if shared else x.chunk(2, 1)
        return torch.cat(
            [
                F.conv2d(
                    part,
                    weight,
                    padding=(d, 0) if axis == "height" else (0, d),
                    dilation=(d, 1) if axis == "height" else (1, d),
                    groups=channels,
                )
                for part, weight, d in zip(parts, weights, dilations, strict=True)
            ],
            1,
        )

    ours = gradients(lambda: axial_depthwise_pair(x, *weights, dilations), [x, *weights])
    assert_same(ours, gradients(plain, [x, *weights]))


@pytest.mark.parametrize("channels", [8, 12])
def test_shuffle_add(programs: None, channels: int) -> None:
    a, b = random(2, channels, 3, 5, seed=1), random(2, channels, 3, 5, seed=2)
    ours = gradients(lambda: shuffle_add(a, b), [a, b])
    theirs = gradients(lambda: channel_shuffle(a + b), [a, b])
    assert all(torch.equal(mine, plain) for mine, plain in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("channels", "dilation"), [(16, 2), (8, 16)])
def test_edab(monkeypatch: pytest.MonkeyPatch, channels: int, dilation: int) -> None:
    monkeypatch.setattr(fused, "gated_sum", fused._gated_sum)  # uncompiled: the CPU may have no compiler
    torch.manual_seed(0)
    plain = EDAB(channels, dilation).to(DEVICE)
    ours = deepcopy(plain)
    fused.fuse(ours)
    x = random(2, channels, 10, 8)
    assert_same(
        gradients(lambda: ours(x), [x, *ours.parameters()]), gradients(lambda: plain(x), [x, *plain.parameters()])
    )


def test_a_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer and running statistics of a training pass; names of parameters and buffers stay."""
    monkeypatch.setattr(fused, "gated_sum", fused._gated_sum)
    torch.manual_seed(0)
    plain = ECMNet(ECMNetConfig(num_classes=3, dilations=((1,), (1, 2), (4,)), decoder_dilations=(1,))).to(DEVICE)
    ours = deepcopy(plain)
    fused.fuse(ours)
    x = random(2, 3, 34, 48)
    assert_same([ours(x)], [plain(x)])
    assert ours.state_dict().keys() == plain.state_dict().keys()
    statistics = [name for name in plain.state_dict() if "running" in name]
    assert_same([ours.state_dict()[name] for name in statistics], [plain.state_dict()[name] for name in statistics])
