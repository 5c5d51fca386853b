"""The kernels of inference against the plain torch lines that they stand for, on a GPU or in Triton's interpreter."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_nets import random_net, with_norms_of_all_signs
from torch import Tensor

from ecmnet_app.core.engines import answer_from_logits
from ecmnet_app.core.engines.folded import FoldedDownsample, FoldedECMNet, fold
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.network.ss2d import SS2D

pytest.importorskip("triton", reason="Triton, which comes with torch for GPUs and with the extra dev, is missing")
from ecmnet_app.core.engines.fused import FusedECMNet, can_fuse
from ecmnet_app.core.engines.kernels import ffm
from ecmnet_app.core.engines.kernels.answer import answer
from ecmnet_app.core.engines.kernels.common import FIXED, Norm
from ecmnet_app.core.engines.kernels.convolution import Convolution, convolution
from ecmnet_app.core.engines.kernels.downsample import Downsample, downsample
from ecmnet_app.core.engines.kernels.edab_depthwise import EdabDepthwise, edab_depthwise
from ecmnet_app.core.engines.kernels.edab_expand import EdabExpand, edab_expand
from ecmnet_app.core.engines.kernels.edab_reduce import EdabReduce, edab_reduce
from ecmnet_app.core.engines.kernels.msau import Connection, Msau, msau, msau_sums
from ecmnet_app.core.engines.kernels.picture_convolution import PictureConvolution, picture_convolution
from ecmnet_app.core.engines.kernels.upsample import Upsample, upsample_add, upsample_logits
from ecmnet_app.network.scan import four_directions
from ecmnet_app.network.scan.four_directions import ScanWeights, scan_four_directions

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = ECMNetConfig(
    stem_width=8, widths=(12, 36, 8), dilations=((2,), (3,), (1,)), decoder_width=8, decoder_dilations=(2,), expand=3
)
"""Widths that are no powers of two, so that every mask is met."""
tiles = pytest.mark.parametrize("large", [False, True], ids=["small tiles", "large tiles"])


@pytest.fixture(scope="module")
def net() -> ECMNet:
    return with_norms_of_all_signs(random_net(CONFIG)).to(DEVICE)


@pytest.fixture(scope="module")
def folded(net: ECMNet) -> Any:
    return fold(net)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Channels-last and contiguous: (B, H, W, C)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def first(x: Tensor) -> Tensor:
    """Channels to where torch has them."""
    return x.permute(0, 3, 1, 2)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= tolerance * max(1.0, float(theirs.abs().max()))


@tiles
def test_picture_convolution(folded: FoldedECMNet, large: bool) -> None:
    pictures = torch.randint(0, 256, (2, 7, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale, shift = random(3), random(3, seed=1)
    weights = PictureConvolution.pack(folded.stem[0], scale, shift, torch.float32)
    theirs = folded.stem[0](first(pictures.to(DEVICE)) * scale[:, None, None] + shift[:, None, None])
    assert_same(first(picture_convolution(pictures.to(DEVICE), weights, large)), theirs, 1e-3)


@tiles
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(folded: FoldedECMNet, large: bool, stride: int) -> None:
    layer: Any = folded.stem[stride]
    assert layer[0].stride == (stride, stride)
    x = random(2, 7, 10, 8)
    assert_same(first(convolution(x, Convolution.pack(layer, torch.float32), large)), layer(first(x)))


@tiles
@pytest.mark.parametrize("level", [0, 1, 2])
def test_downsample(folded: Any, large: bool, level: int) -> None:
    layer: FoldedDownsample = folded.downsamples[level]
    following = folded.encoder[level][0].before
    x = random(2, 7, 10, (8, 12, 36)[level])
    y, z = downsample(x, Downsample.pack(layer, torch.float32), Norm.pack(following), large)
    theirs = layer(first(x))
    assert_same(first(y), theirs)
    assert_same(first(z), following(theirs))


@tiles
@pytest.mark.parametrize(("dilation", "size"), [(1, (5, 7)), (5, (4, 19))])
def test_edab(net: ECMNet, large: bool, dilation: int, size: tuple[int, int]) -> None:
    config = replace(CONFIG, dilations=((2,), (dilation,), (1,)))
    folded: Any = fold(with_norms_of_all_signs(random_net(config, seed=dilation)).to(DEVICE))
    block, following = folded.encoder[1]
    x = random(2, *size, 36)
    with torch.no_grad():
        z = block.before(first(x))
        up = edab_reduce(z.permute(0, 2, 3, 1).contiguous(), EdabReduce.pack(block, torch.float32), large)
        plain_up = block.wide(block.high(z))
        assert_same(first(up), plain_up)

        sums = torch.zeros(2, sum(size) + 1, 18, dtype=torch.int64, device=DEVICE)
        y = edab_depthwise(up, sums, EdabDepthwise.pack(block), large)
        local, context = block.local[:2](plain_up), block.context[:2](plain_up)
        assert_same(first(y), torch.cat([local, context], dim=1))
        rows, columns, whole = sums.double().div(FIXED.value).float().split([*size, 1], dim=1)
        assert_same(rows, context.sum(3).transpose(1, 2))
        assert_same(columns, context.sum(2).transpose(1, 2))
        assert_same(whole[:, 0], local.sum((2, 3)))

        x_out, z_out = edab_expand(up, y, x, sums, EdabExpand.pack(block, torch.float32), Norm.pack(following))
        theirs = block(first(x))
        assert_same(first(x_out), theirs)
        assert_same(first(z_out), following(theirs))


@tiles
def test_the_sums_of_an_edab_do_not_depend_on_the_batch(folded: Any, large: bool) -> None:
    block = folded.encoder[0][0]
    up = random(2, 5, 20, 6)
    weights = EdabDepthwise.pack(block)
    together, alone = (torch.zeros(2, 5 + 20 + 1, 6, dtype=torch.int64, device=DEVICE) for _ in range(2))
    edab_depthwise(up, together, weights, large)
    for index in range(2):
        edab_depthwise(up[index : index + 1], alone[index], weights, large)
    assert torch.equal(together, alone)


@tiles
@pytest.mark.parametrize(("level", "size"), [(0, (3, 4)), (2, (4, 18))])
def test_msau(folded: Any, large: bool, level: int, size: tuple[int, int]) -> None:
    channels = (12, 36, 8)[level]
    connection, x = folded.connections[2 - level], random(2, *size, channels)
    sums = torch.zeros(2, msau_sums(size[1], 8), dtype=torch.int64, device=DEVICE)
    weights = Msau.pack(folded.msau, torch.float32)
    ours = msau(x, sums, Connection.pack(connection, torch.float32), weights, 8, large)
    assert_same(first(ours), folded.msau(connection(first(x))))


def test_a_maximum_below_zero(folded: Any) -> None:
    """The maximum starts from a whole number that stands for less than any float."""
    layer, connection = deepcopy(folded.msau), deepcopy(folded.connections[0])
    x = random(1, 6, 7, 8)
    connection[1].weight.fill_(1.0)
    connection[0].bias.sub_(10 + float(connection[0](first(x)).max()))
    line = connection(first(x))
    layer.max_features.weight.zero_()
    layer.max_features.weight[:, 0, 1, 1] = 1
    assert float(layer.max_features(line).max()) < -5
    sums = torch.zeros(1, msau_sums(7, 8), dtype=torch.int64, device=DEVICE)
    ours = msau(x, sums, Connection.pack(connection, torch.float32), Msau.pack(layer, torch.float32), 8, False)
    assert_same(first(ours), layer(line))


@pytest.mark.parametrize("size", [(7, 10), (1, 2)])
def test_upsample(folded: Any, size: tuple[int, int]) -> None:
    x = random(2, -(-size[0] // 2), -(-size[1] // 2), 8)
    line, following = random(2, *size, 8, seed=1), folded.decoder[1][0].before
    layer = folded.upsamples[0]
    ours, z = upsample_add(x, line, Upsample.pack(layer, torch.float32), Norm.pack(following))
    theirs = layer(first(x), size) + first(line)
    assert_same(first(ours), theirs)
    assert_same(first(z), following(theirs))

    logits = upsample_logits(x, size, Upsample.pack(folded.upsamples[2], torch.float32))
    assert_same(first(logits)[:, : CONFIG.num_classes], folded.upsamples[2](first(x), size))


@tiles
def test_ffm(folded: Any, large: bool) -> None:
    size = (3, 6)
    x, eighth, quarter, line = (random(2, *size, 8, seed=seed) for seed in range(4))
    layer, following = folded.ffm, folded.decoder[0][0].before
    weights = ffm.Ffm.pack(layer, torch.float32)
    fused = torch.cat([x, eighth, quarter], dim=-1)
    value_and_gate = ffm.project_in(x, eighth, quarter, weights)
    assert_same(value_and_gate, layer.ss2d.in_proj(layer.norm(fused)))

    u, projected = ffm.look_around(value_and_gate, weights)
    value, gate = value_and_gate.chunk(2, dim=-1)
    plain_u = F.silu(layer.ss2d.conv(first(value)))
    assert_same(first(u), plain_u)
    x_proj = layer.ss2d.x_proj.flatten(0, 1)
    assert_same(projected[..., : len(x_proj)], plain_u.permute(0, 2, 3, 1) @ x_proj.t())

    scanned = random(2, 4, *size, layer.ss2d.inner, seed=5)
    ours, z = ffm.project_out(scanned, value_and_gate, x, line, weights, Norm.pack(following), large)
    merged = layer.ss2d.out_proj(layer.ss2d.out_norm(scanned.sum(1)) * F.silu(gate))
    theirs = first(x + layer.ffn(merged) + line)
    assert_same(first(ours), theirs)
    assert_same(first(z), following(theirs))


@pytest.mark.parametrize(
    ("state", "size", "many"), [(1, (1, 1), False), (3, (4, 7), True), (3, (5, 9), False), (1, (5, 9), True)]
)
def test_scan_of_four_directions(
    monkeypatch: pytest.MonkeyPatch, state: int, size: tuple[int, int], many: bool
) -> None:
    """The largest map is several blocks of time long."""
    monkeypatch.setattr(four_directions, "STEPS", (16, 8))
    torch.manual_seed(state)
    layer = SS2D(4, 3, state)
    with torch.no_grad():
        layer.A_log.add_(torch.randn_like(layer.A_log))
        layer.dt_proj.mul_(10)  # steps of all sizes
    layer = layer.to(DEVICE)
    u = random(2, *size, layer.inner).half()  # the step, the states and the sums are float32 whatever the values are
    projected = u.float() @ layer.x_proj.detach().flatten(0, 1).t()
    ours = scan_four_directions(u, projected.contiguous(), ScanWeights.of(layer), many)
    with torch.no_grad():
        assert_same(first(ours.sum(1)), layer.scan(first(u.float())))


@pytest.mark.parametrize(("half", "size"), [((9, 12), (17, 24)), ((6, 5), (31, 29)), ((20, 20), (9, 33))])
def test_answer(half: tuple[int, int], size: tuple[int, int]) -> None:
    logits = torch.full((2, *half, 16), torch.nan)  # what lies beyond the classes counts for nothing
    logits[..., :11] = 3 * random(2, *half, 11).cpu()
    labels, confidence = answer(logits.to(DEVICE), 11, size, 1.7)
    theirs = answer_from_logits(first(logits[..., :11]).contiguous(), size, 1.7)
    assert (labels.cpu().numpy() == theirs[0]).mean() > 0.999
    torch.testing.assert_close(confidence.cpu(), torch.from_numpy(theirs[1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "large"),
    [
        pytest.param(torch.float32, 1e-4, False),
        pytest.param(torch.float32, 1e-4, True, marks=pytest.mark.long),
        pytest.param(torch.float16, 1e-2, False, marks=pytest.mark.long),
    ],
)
def test_the_whole_network(
    monkeypatch: pytest.MonkeyPatch, net: ECMNet, folded: Any, large: bool, dtype: torch.dtype, tolerance: float
) -> None:
    if DEVICE.type == "cpu":  # the interpreter takes each step of a block by itself, and the deepest map has nine
        monkeypatch.setattr(four_directions, "STEPS", (16, 16))
    pictures = torch.randint(0, 256, (1, 33, 38, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = pictures.to(DEVICE)
    fused = FusedECMNet(net, IMAGENET_MEAN, IMAGENET_STD, DEVICE, dtype)
    mean, std = (torch.tensor(values, device=DEVICE).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    theirs = folded((first(pictures) / 255 - mean) / std)
    ours = first(fused.logits(pictures, large))[:, : CONFIG.num_classes]
    assert_same(ours, theirs, tolerance)


def test_ablations_have_no_kernels() -> None:
    assert can_fuse(ECMNetConfig())
    assert not any(can_fuse(ECMNetConfig.named(name)) for name in ("baseline", "B2", "A3", "residual"))
