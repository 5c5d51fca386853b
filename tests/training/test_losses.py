"""The loss against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecmnet_app.training.losses import BEHIND, class_weights, distillation_loss, segmentation_loss

CLASSES = 3
WEIGHTS = torch.tensor([0.5, 2.0, 3.0])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def plain_cross_entropy(logits: Tensor, target: Tensor, boundary_weight: float = 1.0) -> float:
    """Weighted mean of -log p of the true class over the labelled pixels."""
    total, weight = 0.0, 0.0
    for b, y, x in np.ndindex(*target.shape):
        if (k := int(target[b, y, x])) != 255:
            around = target[b, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            pixel = float(WEIGHTS[k]) * (boundary_weight if (around != k).any() else 1)
            total -= pixel * math.log(softmax(logits[b, :, y, x].numpy())[k])
            weight += pixel
    return total / weight


def plain_jaccard(logits: Tensor, target: Tensor) -> float:
    """1 - the mean over the classes that occur of (1 + sum of p on the class) / (1 + the soft union)."""
    intersection, union, occurs = np.zeros(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES, bool)
    for b, y, x in np.ndindex(*target.shape):
        if (k := int(target[b, y, x])) != 255:
            p = softmax(logits[b, :, y, x].numpy())
            occurs[k] = True
            intersection[k] += p[k]
            union += p
            union[k] += 1 - p[k]
    return 1 - float(((1 + intersection) / (1 + union))[occurs].mean())


@pytest.fixture
def batch() -> tuple[Tensor, list[Tensor], Tensor]:
    """Logits at half resolution, two auxiliary heads' at 1/4 and 1/8, and targets without class 2."""
    torch.manual_seed(0)
    logits, heads = torch.randn(2, CLASSES, 4, 8) * 2, [torch.randn(2, CLASSES, 2, 4), torch.randn(2, CLASSES, 1, 2)]
    target = torch.tensor([0, 1, 255])[torch.randint(3, (2, 8, 16))]
    target[:, ::4, ::4] = 1  # what nearest subsampling sees is not all ignored
    return logits, heads, target


def identity(t: Tensor) -> Tensor:
    return t


def among_the_named(p: np.ndarray, unnamed: tuple[int, ...]) -> np.ndarray:
    """What a label with BEHIND added makes of probabilities: those of the named classes, given that it is one."""
    q = p.copy()
    q[list(unnamed)] = 0
    return q / q.sum()


def loss_of(logits: Tensor, heads: list[Tensor], target: Tensor, jaccard: float, auxiliary: list[float]) -> Tensor:
    return segmentation_loss(logits, heads, target, WEIGHTS, jaccard, auxiliary, (), identity)


def test_cross_entropy(batch: tuple[Tensor, list[Tensor], Tensor]) -> None:
    logits, _, target = batch
    full = F.interpolate(logits, (8, 16), mode="bilinear")
    assert float(loss_of(logits, [], target, 0, [])) == pytest.approx(plain_cross_entropy(full, target), rel=1e-5)


def test_pixels_at_a_boundary_count_more() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, CLASSES, 6, 7)
    target = torch.ones(2, 6, 7, dtype=torch.long)
    target[0, 2:4, 3] = 2
    target[1, :, 5:] = 0
    for weight in (1.0, 3.0):
        loss = segmentation_loss(logits, [], target, WEIGHTS, 0, [], (), identity, weight)
        assert float(loss) == pytest.approx(plain_cross_entropy(logits, target, weight), rel=1e-5)


def test_jaccard(batch: tuple[Tensor, list[Tensor], Tensor]) -> None:
    logits, _, target = batch
    full = F.interpolate(logits, (8, 16), mode="bilinear")
    expected = plain_cross_entropy(full, target) + 0.7 * plain_jaccard(full, target)
    assert float(loss_of(logits, [], target, 0.7, [])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jaccard", [0.0, 0.7])
def test_a_label_may_be_of_what_is_behind(batch: tuple[Tensor, list[Tensor], Tensor], jaccard: float) -> None:
    """Equal to the plain loss of probabilities from which the unnamed classes were taken by hand."""
    logits, _, target = batch
    full = F.interpolate(logits, (8, 16), mode="bilinear")
    hidden = target.clone()
    given = full.clone()
    for b, y, x in np.ndindex(*target.shape):
        if (k := int(target[b, y, x])) != 255 and x >= 6:
            hidden[b, y, x] = k + BEHIND
            q = among_the_named(softmax(full[b, :, y, x].numpy()), (2,))
            given[b, :, y, x] = torch.from_numpy(np.log(q + 1e-30))
    expected = plain_cross_entropy(given, target) + jaccard * plain_jaccard(given, target)
    loss = segmentation_loss(full, [], hidden, WEIGHTS, jaccard, [], (2,), identity)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(loss) < float(segmentation_loss(full, [], target, WEIGHTS, jaccard, [], (), identity))


def test_what_stands_before_a_label_is_neither_pushed_away_nor_wanted() -> None:
    """A person before a building that is labelled building: the gradient gives from the sky to the building alone."""
    logits = torch.tensor([0.5, 0.0, 1.0]).view(1, 3, 1, 1).repeat(1, 1, 2, 2).requires_grad_()
    loss = segmentation_loss(logits, [], torch.full((1, 2, 2), 0 + BEHIND), WEIGHTS, 0.5, [], (2,), identity)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] > 0).all()
    assert (logits.grad[:, 0] < 0).all()
    assert (logits.grad[:, 2] == 0).all()


def test_more_classes_than_behind_counts_from() -> None:
    """Label sets of up to 255 classes are trained on as they are."""
    logits = torch.zeros(1, 100, 1, 2)
    logits[0, [70, 99], 0, [0, 1]] = 50
    target = torch.tensor([[[70, 99]]])
    loss = segmentation_loss(logits, [], target, torch.ones(100), 0.5, [], (), identity)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_auxiliary_heads_see_the_subsampled_target(batch: tuple[Tensor, list[Tensor], Tensor]) -> None:
    logits, heads, target = batch
    full = F.interpolate(logits, (8, 16), mode="bilinear")
    small = [plain_cross_entropy(heads[0], target[:, ::4, ::4]), plain_cross_entropy(heads[1], target[:, ::8, ::8])]
    expected = plain_cross_entropy(full, target) + 0.3 * small[0] + 0.2 * small[1]
    assert float(loss_of(logits, heads, target, 0, [0.3, 0.2])) == pytest.approx(expected, rel=1e-5)


def test_a_sure_and_right_answer_costs_nothing() -> None:
    target = torch.arange(CLASSES).repeat_interleave(4).view(1, 3, 4)
    logits = 100 * F.one_hot(target, CLASSES).permute(0, 3, 1, 2).float()
    assert float(loss_of(logits, [logits], target, 1, [1])) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(logits.roll(1, 1), [], target, 1, [])) > 50


def test_ignored_pixels_have_no_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, CLASSES, 8, 8, requires_grad=True)  # at the target's resolution: nothing is interpolated
    target = torch.randint(CLASSES, (2, 8, 8))
    target[:, 2:5] = 255
    loss_of(logits, [], target, 0.5, []).backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, 2:5] == 0).all()
    assert (logits.grad[:, :, :2].abs().amax(1) > 0).all()


def test_gradients_of_the_loss(batch: tuple[Tensor, list[Tensor], Tensor]) -> None:
    """Against differences; the loss works in float32, so coarsely."""
    logits, _, target = batch
    logits.requires_grad_()
    loss_of(logits, [], target, 0.5, []).backward()
    assert logits.grad is not None
    for position in [(0, 0, 0, 0), (1, 2, 3, 5), (0, 1, 2, 7)]:
        step = torch.zeros_like(logits)
        step[position] = 0.01
        with torch.no_grad():
            up, down = (loss_of(logits + sign * step, [], target, 0.5, []) for sign in (1, -1))
        assert float(logits.grad[position]) == pytest.approx(float(up - down) / 0.02, abs=2e-5)


def test_a_batch_without_labels_is_finite() -> None:
    logits = torch.randn(1, CLASSES, 4, 4, requires_grad=True)
    loss = loss_of(logits, [logits], torch.full((1, 8, 8), 255), 0.5, [0.3])
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_class_weights() -> None:
    e = math.e
    weights = class_weights(torch.tensor([e - 1.2, e**2 - 1.2, 0.0]), 1.2)
    assert weights.tolist() == pytest.approx([1, 0.5, 1 / math.log(1.2)], rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distance_to_a_teacher(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, CLASSES, 3, 4, generator=generator)
    total = 0.0
    for b, y, x in np.ndindex(2, 3, 4):
        p = softmax(teacher[b, :, y, x].numpy() / temperature)
        q = softmax(student[b, :, y, x].numpy() / temperature)
        total += float((p * np.log(p / q)).sum())
    expected = total / 24 * temperature**2
    assert float(distillation_loss(student, teacher, temperature, identity)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(teacher + 5, teacher, temperature, identity)) == pytest.approx(0, abs=1e-6)


def test_distance_to_a_teacher_is_computed_in_single_precision() -> None:
    logits = torch.randn(1, CLASSES, 2, 2, generator=torch.Generator().manual_seed(1)).bfloat16()
    loss = distillation_loss(logits, 2 * logits, 1.0, identity)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(
        float(distillation_loss(logits.float(), 2 * logits.float(), 1.0, identity)), rel=1e-6
    )


def test_pixels_count_for_their_share_of_the_distance() -> None:
    student, teacher = torch.randn(2, 2, CLASSES, 3, 4, generator=torch.Generator().manual_seed(2))
    left = torch.zeros(2, 3, 4)
    left[:, :, :2] = 1
    halves = [float(distillation_loss(student, teacher, 2.0, identity, share)) for share in (left, 1 - left)]
    assert sum(halves) == pytest.approx(float(distillation_loss(student, teacher, 2.0, identity)), rel=1e-5)
    assert halves[0] == pytest.approx(
        float(distillation_loss(student[..., :2], teacher[..., :2], 2.0, identity)) / 2, rel=1e-5
    )
    assert float(distillation_loss(student, teacher, 2.0, identity, left / 2)) == pytest.approx(halves[0] / 2, rel=1e-5)
