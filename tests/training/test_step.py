"""One training step against a plain loop over separate parameters: flat vectors, clipping, decay, rates, average."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ecmnet_app.errors import WeightsError
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.training.checkpoint import load_checkpoint, save_checkpoint
from ecmnet_app.training.flat import FlatParameters
from ecmnet_app.training.losses import segmentation_loss
from ecmnet_app.training.recipe import DataSource, Recipe
from ecmnet_app.training.step import Trainee, TrainStep

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(
    "test",
    (DataSource("data"),),
    steps=40,
    batch_size=2,
    crop=(32, 48),
    warmup_steps=8,
    clip_norm=1.0,
    weight_decay=0.1,
)
CONFIG = ECMNetConfig(num_classes=3, dilations=((1,), (1, 2), (4,)), decoder_dilations=(1,))
"""Every kind of block, few of each."""
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


def make_network(seed: int = 0, config: ECMNetConfig = CONFIG) -> ECMNet:
    torch.manual_seed(seed)
    return ECMNet(config)


def make_batch(step: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(100 + step)
    target = torch.randint(4, (2, 32, 48), generator=rng)
    return torch.randn(2, 3, 32, 48, generator=rng), target.masked_fill(target == 3, 255)


class Oddities(nn.Module):
    """Parameters of every number of dimensions, most of them no multiple of 16 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, (3, 1))
        self.line = nn.Conv1d(1, 1, 3)
        self.linear = nn.Linear(7, 3)
        self.slope = nn.PReLU(9)
        self.A_log = nn.Parameter(torch.randn(2, 3))
        self.x_proj = nn.Parameter(torch.randn(4, 3, 3))


@pytest.mark.parametrize("build", [Oddities, lambda: Trainee(make_network())])
def test_flat_parameters_keep_their_values_and_start_at_16_bytes(build: Callable[[], nn.Module]) -> None:
    network = build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flat = FlatParameters(network)
    assert before.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.data_ptr() % 16 == 0 for p in network.parameters())
    assert {id(p) for p in flat.parameters} == {id(p) for p in network.parameters()}
    for vector, group in zip(flat.vectors, flat.groups, strict=True):
        start, end = vector.data_ptr(), vector.data_ptr() + 4 * vector.numel()
        assert all(start <= p.data_ptr() < end for p in group)


def test_which_parameters_decay() -> None:
    network = Oddities()
    flat = FlatParameters(network)
    names = {id(p): name for name, p in network.named_parameters()}
    decaying, others = ({names[id(p)] for p in group} for group in flat.groups)
    assert decaying == {"conv.weight", "line.weight", "linear.weight", "x_proj"}
    assert others == {"conv.bias", "line.bias", "linear.bias", "slope.weight", "A_log"}


def test_gradients_land_where_they_belong() -> None:
    network = Oddities()
    flat = FlatParameters(network)
    before = [p.detach().clone() for p in flat.parameters]
    gradients = [torch.randn_like(p) for p in flat.parameters]
    flat.set_gradients(gradients)
    found = flat.views([vector.grad for vector in flat.vectors if vector.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))
    torch.optim.SGD(flat.vectors, lr=0.5).step()
    for parameter, old, gradient in zip(flat.parameters, before, gradients, strict=True):
        assert torch.allclose(parameter.detach(), old - 0.5 * gradient, atol=1e-7)


def decays(network: nn.Module) -> set[int]:
    """Weights of convolutions and linear layers, of which the scan's x_proj is one."""
    layers = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    weights = {id(m.weight) for m in network.modules() if isinstance(m, layers)}
    return weights | {id(p) for name, p in network.named_parameters() if name.endswith("x_proj")}


def test_steps_equal_a_plain_loop_over_separate_parameters() -> None:
    step = TrainStep(Trainee(make_network()), RECIPE, WEIGHTS)
    decaying = decays(step.trainee)
    names = {id(p): name for name, p in step.trainee.named_parameters()}
    plain = {name: nn.Parameter(p.detach().clone()) for name, p in step.trainee.named_parameters()}
    average = {name: p.detach().clone() for name, p in plain.items()}
    optimiser = torch.optim.AdamW(
        [
            {"params": [plain[name] for i, name in names.items() if i in decaying], "weight_decay": 0.1},
            {"params": [plain[name] for i, name in names.items() if i not in decaying], "weight_decay": 0},
        ],
        lr=1.0,
    )
    norms = []
    for i in range(4):
        images, target = make_batch(i)
        # Gradients at the very same values: Adam makes much of those that are nothing but rounding.
        copy = deepcopy(step.trainee)
        loss = float(step(images, target, i))

        logits, auxiliary = copy(images.contiguous(memory_format=torch.channels_last))
        expected = segmentation_loss(logits, auxiliary, target, WEIGHTS, 0.5, (0.3, 0.2), (), lambda t: t)
        expected.backward()
        for name, p in copy.named_parameters():
            plain[name].grad = p.grad
        norms.append(float(nn.utils.clip_grad_norm_(plain.values(), 1.0)))
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 + 2 * i / 8) / 3 * (1 - i / 40) ** 0.9
        optimiser.step()
        rate = 1 - min(0.9995, (1 + i) / (10 + i))
        for name, p in plain.items():
            average[name] = (1 - rate) * average[name] + rate * p.detach()

        assert loss == pytest.approx(expected.item(), rel=1e-6)
        for name, p in step.trainee.named_parameters():
            assert torch.allclose(p, plain[name], rtol=0, atol=1e-6), name
    assert min(norms) > 1, "the gradient is clipped"

    averaged = step.averaged_network()
    assert not averaged.training
    for name, p in averaged.named_parameters():
        assert torch.allclose(p, average[f"network.{name}"], rtol=0, atol=1e-6), name
    for (name, mine), theirs in zip(averaged.named_buffers(), copy.network.buffers(), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-6), name
    trained = step.trainee.network.classifier.weight
    assert (averaged.classifier.weight - trained).abs().max() > 1e-5, "the average is not the network in training"


def test_answers_that_come_with_a_batch_are_learnt_as_a_teachers() -> None:
    """The same loss as by a teacher that gives those very answers; where there are none, nothing is asked."""
    images, target = make_batch(0)
    generator = torch.Generator().manual_seed(3)
    half = [-(-side // 2) for side in target.shape[-2:]]
    logits = torch.randn(len(images), CONFIG.num_classes, *half, generator=generator)

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return logits

    recipe = replace(RECIPE, teacher_weight=2.0, teacher_temperature=1.5)
    by_teacher = float(TrainStep(Trainee(make_network()), recipe, WEIGHTS, teacher=Fixed())(images, target, 0))
    answers = logits.softmax(1)
    alone, given, halved, nothing = (
        float(TrainStep(Trainee(make_network()), recipe, WEIGHTS)(images, target, 0, answer))
        for answer in (None, answers, answers / 2, 0 * answers)
    )
    assert given == pytest.approx(by_teacher, rel=1e-5)
    assert given > alone + 0.1
    assert nothing == pytest.approx(alone, rel=1e-6)
    assert halved - alone == pytest.approx((given - alone) / 2, rel=1e-4), "what mixes with the outside counts for less"


def test_boundaries_and_depth_are_those_of_the_recipe() -> None:
    images, target = make_batch(0)
    target = torch.zeros_like(target)
    target[:, 20:] = 2
    losses = []
    for change in ({}, {"boundary_weight": 3.0}, {"stochastic_depth": 0.9}):
        step = TrainStep(Trainee(make_network()), replace(RECIPE, **change), WEIGHTS)
        torch.manual_seed(0)
        losses.append(float(step(images, target, 0)))
    assert len({round(loss, 4) for loss in losses}) == 3
    averaged = step.averaged_network()
    averaged.train()  # its blocks are never left out
    assert torch.equal(averaged(images), averaged(images))


def test_the_learning_rate_rises_from_a_third_then_falls_to_nothing() -> None:
    step = TrainStep(Trainee(make_network()), RECIPE, WEIGHTS)
    rates = {}
    for i in (0, 4, 8, 20, 39):
        step(*make_batch(i), i)
        (rates[i],) = {group["lr"] for group in step.optimiser.param_groups}
    assert rates == pytest.approx(
        {0: 2e-3 / 3, 4: 2e-3 * 2 / 3 * 0.9**0.9, 8: 2e-3 * 0.8**0.9, 20: 2e-3 * 0.5**0.9, 39: 2e-3 * (1 / 40) ** 0.9}
    )
    at_once = TrainStep(Trainee(make_network()), replace(RECIPE, warmup_steps=0), WEIGHTS)
    at_once(*make_batch(0), 0)
    assert at_once.optimiser.param_groups[0]["lr"] == pytest.approx(2e-3)


def test_a_step_loaded_from_a_checkpoint_goes_on_alike(tmp_path: Path) -> None:
    first = TrainStep(Trainee(make_network(0)), RECIPE, WEIGHTS)
    for i in range(2):
        first(*make_batch(i), i)
    save_checkpoint(tmp_path / "c.safetensors", first.state(), {"step": 2})
    second = TrainStep(Trainee(make_network(1)), RECIPE, WEIGHTS)
    second.load_state(load_checkpoint(tmp_path / "c.safetensors")[0])
    for i in (2, 3):
        assert torch.equal(first(*make_batch(i), i), second(*make_batch(i), i))
    mine, theirs = first.state(), second.state()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    state = TrainStep(Trainee(make_network()), RECIPE, WEIGHTS).state()
    other = TrainStep(Trainee(make_network(config=replace(CONFIG, dilations=((1,), (1,), (4,))))), RECIPE, WEIGHTS)
    before = {name: value.clone() for name, value in other.state().items()}
    with pytest.raises(WeightsError, match=r"of another network .*: start in another folder, without --resume"):
        other.load_state(state)
    assert all(torch.equal(value, before[name]) for name, value in other.state().items())
