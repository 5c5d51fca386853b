"""The whole network: sizes, variants, its arrows, and what the fusion module is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ecmnet_app.network import MIN_SIZE, TABLE_1, ECMNet, ECMNetConfig

SMALL = ECMNetConfig(
    num_classes=5,
    stem_width=4,
    widths=(8, 12, 8),
    dilations=((2,), (1, 2), (1, 4)),
    decoder_width=8,
    decoder_dilations=(2,),
    expand=2,
    state_size=2,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def settled(config: ECMNetConfig) -> ECMNet:
    """An untrained network in evaluation mode whose batch-norm statistics are of random pictures."""
    net = ECMNet(config).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 96))
    return net.eval()


@pytest.fixture(scope="module")
def small() -> ECMNet:
    return settled(SMALL)


# Sizes


@pytest.mark.parametrize("size", [(32, 32), (32, 33), (47, 32), (33, 65), (97, 130), (101, 211)])
def test_any_size_gives_its_own_size(size: tuple[int, int]):
    net = settled(ECMNetConfig())
    with torch.inference_mode():
        logits = net(torch.randn(1, 3, *size))
    assert logits.shape == (1, 11, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(height=st.integers(32, 140), width=st.integers(32, 140))
def test_any_size_of_a_small_network(small: ECMNet, height: int, width: int):
    with torch.inference_mode():
        assert small(torch.randn(1, 3, height, width)).shape == (1, 5, height, width)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_smaller_pictures_name_the_least_size(small: ECMNet, size: tuple[int, int]):
    assert MIN_SIZE == 32
    with pytest.raises(ValueError, match=f"32x32 pixels or more, not {size[1]}x{size[0]}"):
        small(torch.randn(1, 3, *size))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)])
def test_other_shapes_are_refused(small: ECMNet, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), not"):
        small(torch.randn(shape))


def test_the_answer_comes_at_the_size_asked_for(small: ECMNet):
    """Straight from half resolution: not the input's size first, which would blur twice."""
    x = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        half, stages = small.encode(x)
        logits = small.classifier(small.decode(half, stages))
        expected = F.interpolate(logits, (100, 90), mode="bilinear", align_corners=False)
        assert logits.shape[-2:] == (24, 32)
        torch.testing.assert_close(small(x, size=(100, 90)), expected)


def test_pictures_of_a_batch_do_not_touch(small: ECMNet):
    x = torch.randn(3, 3, 40, 56)
    with torch.inference_mode():
        alone = torch.cat([small(picture) for picture in x.split(1)])
        torch.testing.assert_close(small(x), alone, rtol=1e-4, atol=1e-4)


# Variants


@pytest.mark.parametrize("variant", TABLE_1)
def test_every_variant_builds_runs_saves_and_loads(variant: str, tmp_path: Path):
    net = settled(ECMNetConfig.named(variant, num_classes=7))
    x = torch.randn(1, 3, 45, 70)
    with torch.inference_mode():
        expected = net(x)
    assert expected.shape == (1, 7, 45, 70)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps(net.config.to_dict()))
    again = ECMNet(ECMNetConfig.from_dict(json.loads((tmp_path / "net.json").read_text()))).eval()
    again.load_state_dict(load_file(tmp_path / "net.safetensors"))
    with torch.inference_mode():
        assert torch.equal(again(x), expected)


@pytest.mark.parametrize("variant", ["baseline", "A2", "B3", "C1", "C2", "ecmnet", "residual"])
def test_gradient_reaches_every_parameter(variant: str):
    net = ECMNet(ECMNetConfig.named(variant)).train()
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_exported_network_gives_the_same_answer(small: ECMNet):
    x = torch.randn(1, 3, 64, 96)
    exported = torch.export.export(small, (x,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(x), small(x), rtol=1e-4, atol=1e-4)


def test_compiled_network_gives_the_same_answer(small: ECMNet):
    """The graph that compilers get: shifted products and all-pairs blocks instead of the plain forms."""
    x = torch.randn(1, 3, 64, 96)
    compiled = torch.compile(small, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), small(x), rtol=1e-4, atol=1e-4)


def test_training_step_is_finite_in_bfloat16():
    net = ECMNet(ECMNetConfig()).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.randn(2, 3, 64, 96))
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, torch.randint(11, (2, 64, 96))).backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


# The arrows of Fig. 1


def recorded(module: nn.Module) -> list[Tensor]:
    """What the module gives, call by call, each keeping its gradient."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    module.register_forward_hook(record)
    return outputs


def test_each_arrow_of_fig_1_carries_gradient():
    net = ECMNet(ECMNetConfig()).train()
    arrows = {
        "initial block": recorded(net.stem),
        **{f"downsample {i}": recorded(m) for i, m in enumerate(net.downsamples)},
        **{f"encoder stage {i}": recorded(m) for i, m in enumerate(net.encoder)},
        **{f"long connection {i}": recorded(m) for i, m in enumerate(net.connections)},
        "MSAU": recorded(net.msau),
        "dashed arrow from 1/8": recorded(net.ffm.from_eighth),
        "dashed arrow from 1/4": recorded(net.ffm.from_quarter),
        "FFM": recorded(net.ffm),
        **{f"decoder stage {i}": recorded(m) for i, m in enumerate(net.decoder)},
        **{f"upsample {i}": recorded(m) for i, m in enumerate(net.upsamples)},
    }
    net(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert {name: len(outputs) for name, outputs in arrows.items() if len(outputs) != 1} == {"MSAU": 3}
    assert all(output.grad.abs().max() > 0 for outputs in arrows.values() for output in outputs)
    shapes = [tuple(output.shape[1:]) for output in arrows["MSAU"]]
    assert shapes == [(16, 4, 6), (16, 8, 12), (16, 16, 24)], "the deepest first, each at its stage's resolution"
    assert [tuple(arrows[f"encoder stage {i}"][0].shape[1:]) for i in range(3)] == [
        (64, 16, 24),
        (128, 8, 12),
        (16, 4, 6),
    ]
    for arrow in ("dashed arrow from 1/8", "dashed arrow from 1/4", "FFM"):
        assert arrows[arrow][0].shape[1:] == (16, 4, 6)


def test_long_connections_are_added_at_the_decoder_stage_of_their_resolution():
    """Fig. 1's solid arrows: what enters a decoder stage is the stage below plus the MSAU's output."""
    net = settled(ECMNetConfig())
    lines: list[Tensor] = []
    entering: list[Tensor] = []
    below: list[Tensor] = []
    net.msau.register_forward_hook(lambda m, args, output: lines.append(output))
    for module in (net.ffm, *net.upsamples):
        module.register_forward_hook(lambda m, args, output: below.append(output))
    for stage in net.decoder:
        stage.register_forward_pre_hook(lambda m, args: entering.append(args[0]))
    with torch.inference_mode():
        net(torch.randn(1, 3, 64, 96))
    for line, x, y in zip(lines, entering, below, strict=False):
        assert torch.equal(x, y + line)
    assert len(lines) == len(entering) == 3


@pytest.mark.parametrize("arrow", ["from_eighth", "from_quarter"])
def test_cutting_a_dashed_arrow_changes_the_answer(arrow: str):
    net, x = settled(ECMNetConfig()), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = net(x)
        getattr(net.ffm, arrow).register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        assert not torch.allclose(net(x), whole, rtol=1e-3, atol=1e-3)


# What the scan is for

NARROW = {"block": "residual", "long_connections": 0, "msau": False, "stem_width": 8, "widths": (12, 16, 8)}
NARROW |= {"dilations": ((1,), (1,), (1,)), "decoder_width": 8, "decoder_dilations": (1,), "expand": 2}


def narrow(ffm: bool, **changes: object) -> ECMNet:
    """A network of plain blocks only: EDAB's gates pool over the whole map, and would see everything anyway."""
    return ECMNet(ECMNetConfig(**{**NARROW, "ffm": ffm, **changes}))


def reached(net: ECMNet, width: int) -> int:
    """Columns of the input that the answer's last column depends on."""
    net = net.double().eval()
    x = torch.randn(1, 3, 32, width, dtype=torch.float64, requires_grad=True)
    half, stages = net.encode(x)
    features = net.decode(half, stages)[..., -1]
    (gradient,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), x)
    return int((gradient.abs().sum((0, 1, 2)) > 0).sum())


def test_only_with_the_ffm_does_the_last_column_see_the_first():
    assert reached(narrow(ffm=True), 320) == 320
    assert 100 < reached(narrow(ffm=False), 320) < 160


def marked_pictures(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Noise with a coloured stripe at the left edge, (count, 3, 32, 320), and which of two colours it is."""
    x = 0.1 * torch.randn(count, 3, 32, 320, generator=generator)
    kind = torch.arange(count) % 2
    for picture, colour in zip(x, kind, strict=True):
        picture[colour, :, :16] += 6
    return x, kind


def far_accuracy(net: ECMNet, steps: int) -> float:
    """Teach every pixel to name the stripe's colour; the share right on new pictures, 200 columns away and more."""
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)

    def answer(count: int) -> tuple[Tensor, Tensor]:
        x, kind = marked_pictures(generator, count)
        half, stages = net.encode(x)
        logits = net.classifier(net.decode(half, stages))
        return logits, kind[:, None, None].expand(-1, *logits.shape[-2:])

    for _ in range(steps):
        loss = F.cross_entropy(*answer(8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        logits, target = answer(32)
    return float((logits.argmax(1) == target)[..., 100:].float().mean())


def test_a_far_stripe_is_named_with_the_scan_and_not_without():
    assert far_accuracy(narrow(ffm=True, num_classes=2), steps=80) > 0.95
    assert far_accuracy(narrow(ffm=False, num_classes=2), steps=80) < 0.6
