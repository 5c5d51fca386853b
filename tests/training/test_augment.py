"""Random views: labels move with their pixels, nothing is made up, and chance comes from the generator alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from ecmnet_app.errors import ConfigError
from ecmnet_app.training.augment import Augmentation, Group, Views, augment, paste

STILL = Augmentation(
    scale=(1.0, 1.0),
    aspect=0,
    rotation_share=0,
    flip=False,
    brightness=0,
    contrast=0,
    saturation=0,
    channel_gain=0,
    gamma=0,
    grey_share=0,
    blur_share=0,
    noise_share=0,
)
"""Changes nothing."""
MOVING = replace(STILL, scale=(0.4, 2.5), aspect=0.3, rotation_degrees=30, rotation_share=0.7, flip=True)
"""Every change of geometry, none of colour."""
SEEDS = st.integers(0, 2**32)


def noisy_batch(seed: int = 0, count: int = 4, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures and labels (11 classes and ignored pixels) of noise that fill their frame."""
    rng = Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 12, (count, height, width), dtype=torch.uint8, generator=rng)
    labels[labels == 11] = 255
    return images, labels, torch.tensor([[height, width]] * count, dtype=torch.int32)


def striped_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Stripes of pure red, green and blue labelled 0, 1 and 2, along either axis, in padding of two sizes.

    Between two stripes the stronger colour is the nearer one's, so a view's class can be read from its pixels.
    """
    sizes = [(30, 40), (24, 36), (24, 36), (30, 40)]
    images = torch.zeros(4, 3, 30, 40, dtype=torch.uint8)
    labels = torch.full((4, 30, 40), 255, dtype=torch.uint8)
    for i, (height, width) in enumerate(sizes):
        along = torch.arange(width if i % 2 else height)
        stripes = (along // (2 + i)) % 3
        ids = stripes.expand(height, width) if i % 2 else stripes[:, None].expand(height, width)
        labels[i, :height, :width] = ids
        images[i, :, :height, :width] = 255 * torch.nn.functional.one_hot(ids, 3).permute(2, 0, 1)
    return images, labels, torch.tensor(sizes, dtype=torch.int32)


def test_settings_that_change_nothing_return_the_picture() -> None:
    images, labels, sizes = noisy_batch()
    views, targets, _ = augment([Group(images, labels, sizes)], (32, 48), STILL, Generator().manual_seed(1))
    assert (views - images.float() / 255).abs().max() <= 1 / 255
    assert torch.equal(targets, labels.long())
    assert (views.dtype, targets.dtype) == (torch.float32, torch.int64)


def test_a_flip_is_a_flip() -> None:
    images, labels, sizes = noisy_batch(count=16)
    views, targets, _ = augment(
        [Group(images, labels, sizes)], (32, 48), replace(STILL, flip=True), Generator().manual_seed(1)
    )
    flipped = [not torch.equal(target, label.long()) for target, label in zip(targets, labels, strict=True)]
    assert 0 < sum(flipped) < 16
    for i, mirrored in enumerate(flipped):
        image, label = (t.flip(-1) if mirrored else t for t in (images[i], labels[i]))
        assert (views[i] - image.float() / 255).abs().max() <= 1 / 255
        assert torch.equal(targets[i], label.long())


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_labels_move_with_their_pixels(seed: int) -> None:
    views, targets, _ = augment([Group(*striped_batch())], (36, 44), MOVING, Generator().manual_seed(seed))
    first, second = views.topk(2, dim=1).values.unbind(1)
    clear = (targets != 255) & (first - second > 0.02)  # half-way between two stripes either is right
    assert clear.float().mean() > 0.1
    assert torch.equal(views.argmax(1)[clear], targets[clear])


@pytest.mark.parametrize("seed", range(4))
def test_padding_changes_no_view(seed: int) -> None:
    """Pictures of two paddings are seen as in one, in their order."""
    images, labels, sizes = striped_batch()
    wide, known = torch.full((2, 3, 50, 90), 77, dtype=torch.uint8), torch.full((2, 50, 90), 5, dtype=torch.uint8)
    wide[:, :, :30, :40], known[:, :30, :40] = images[2:], labels[2:]
    groups = [Group(images[:2], labels[:2], sizes[:2]), Group(wide, known, sizes[2:])]
    views, targets, _ = augment(groups, (36, 44), Augmentation(), Generator().manual_seed(seed))
    alike = augment([Group(images, labels, sizes)], (36, 44), Augmentation(), Generator().manual_seed(seed))
    inner = torch.nn.functional.max_pool2d((targets == 255).float()[:, None], 9, 1, 4)[:, 0] == 0
    assert inner.any(2).any(1).all()
    assert torch.equal(targets[inner], alike[1][inner])
    assert torch.allclose(views.movedim(1, 3)[inner], alike[0].movedim(1, 3)[inner], atol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_answers_move_with_their_pixels(seed: int) -> None:
    """Pictures whose three colours are the probabilities of three classes, in a padding of odd sides."""
    sizes = torch.tensor([(60, 80), (47, 73), (48, 72), (61, 81)])
    images = torch.zeros(4, 3, 61, 81, dtype=torch.uint8)
    answers = torch.zeros(4, 3, 31, 41, dtype=torch.uint8)
    for i, (height, width) in enumerate(sizes.tolist()):
        along = torch.linspace(0, 1, height)[:, None] * torch.linspace(0.2, 1, width)
        shades = torch.stack([along, 0.5 * (1 - along), 0.5 * (1 - along)])
        images[i, :, :height, :width] = (255 * shades).round()
        halved = torch.nn.functional.avg_pool2d(255 * shades, 2, ceil_mode=True)
        answers[i, :, : halved.shape[1], : halved.shape[2]] = halved.round()
    labels = torch.zeros(4, 61, 81, dtype=torch.uint8)
    views = augment([Group(images, labels, sizes, answers)], (36, 44), MOVING, Generator().manual_seed(seed))
    assert views.answers is not None
    assert views.answers.shape == (4, 3, 18, 22)
    pool, mean = torch.nn.functional.max_pool2d, torch.nn.functional.avg_pool2d
    outside = (views.targets == 255).float()[:, None]
    beyond = torch.nn.functional.pad(outside, (8, 8, 8, 8), value=1)
    inner = pool(pool(beyond, 17, 1), 2)[:, 0] == 0  # away from the edge, where a pixel mixes both sides
    outer = pool(pool(1 - outside, 17, 1, 8), 2)[:, 0] == 0
    assert inner.any()
    assert torch.allclose(views.answers.movedim(1, 3)[inner], mean(views.images, 2).movedim(1, 3)[inner], atol=0.02)
    assert not views.answers.movedim(1, 3)[outer].any()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_what_lies_outside_the_picture_is_grey_and_never_labelled(seed: int) -> None:
    images = torch.full((4, 3, 40, 60), 255, dtype=torch.uint8)
    labels = torch.full((4, 40, 60), 255, dtype=torch.uint8)
    sizes = torch.tensor([[20, 30]] * 4, dtype=torch.int32)
    labels[:, :20, :30] = 7  # the padding is white, which no picture holds, and labelled by mistake
    images[:, :, :20, :30] = 0
    labels[:, 24:, 34:] = 3
    views, targets, _ = augment([Group(images, labels, sizes)], (40, 60), MOVING, Generator().manual_seed(seed))
    assert set(targets.unique().tolist()) <= {7, 255}
    assert (targets == 7).any()
    grey = torch.isclose(views, torch.tensor(0.45)).all(1)
    inner = torch.nn.functional.max_pool2d((targets == 7).float()[:, None], 9, 1, 4)[:, 0] == 0
    assert grey[inner].all()  # away from the edge, where a pixel mixes both sides


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_views_are_in_range_and_chance_is_the_generators(seed: int) -> None:
    everything = Augmentation(brightness=0.9, contrast=0.9, gamma=1, noise=0.5, noise_share=1, blur_share=0.5)
    views, targets, _ = augment([Group(*noisy_batch())], (40, 33), everything, Generator().manual_seed(seed))
    assert views.shape == (4, 3, 40, 33)
    assert targets.shape == (4, 40, 33)
    assert 0 <= views.min() < views.max() <= 1
    again = augment([Group(*noisy_batch())], (40, 33), everything, Generator().manual_seed(seed))
    assert torch.equal(again[0], views)
    assert torch.equal(again[1], targets)
    other = augment([Group(*noisy_batch())], (40, 33), everything, Generator().manual_seed(seed + 1))
    assert not torch.equal(other[0], views)


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "channel_gain", "gamma"])
def test_each_change_of_colour_does_something_and_leaves_the_labels(change: str) -> None:
    images, labels, sizes = noisy_batch()
    views, targets, _ = augment([Group(images, labels, sizes)], (32, 48), replace(STILL, **{change: 0.3}), Generator())
    assert (views - images.float() / 255).abs().max() > 0.02
    assert torch.equal(targets, labels.long())


def test_shares_of_grey_and_blur() -> None:
    batch = noisy_batch()
    grey, _, _ = augment([Group(*batch)], (32, 48), replace(STILL, grey_share=1), Generator())
    plain = batch[0].float() / 255
    assert torch.allclose(grey, plain.mean(1, keepdim=True).expand_as(grey), atol=1e-3)
    blurred, _, _ = augment([Group(*batch)], (32, 48), replace(STILL, blur_share=1), Generator())
    taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    window = plain[:, :, 10:15, 20:25]
    assert torch.allclose(blurred[:, :, 12, 22], (window * torch.outer(taps, taps)).sum((2, 3)), atol=1e-3)


def test_scale_is_the_magnification() -> None:
    images, labels, sizes = noisy_batch(count=1)
    views, targets, _ = augment([Group(images, labels, sizes)], (64, 96), replace(STILL, scale=(2.0, 2.0)), Generator())
    doubled = labels.long().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(targets, doubled)
    assert torch.allclose(views.mean((2, 3)), (images.float() / 255).mean((2, 3)), atol=0.02)
    small, _, _ = augment([Group(images, labels, sizes)], (16, 24), replace(STILL, scale=(0.5, 0.5)), Generator())
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(images.float() / 255, 2), atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_paste_copies_pixels_and_labels_of_the_named_classes_from_the_neighbour(seed: int) -> None:
    images, labels, _ = noisy_batch(seed, count=5)
    views, targets = images.float() / 255, labels.long()
    chosen = replace(STILL, paste_share=0.7, paste_classes=(2, 7, 9))
    pasted_views, pasted, _ = paste(Views(views, targets, None), chosen, Generator().manual_seed(seed))
    for i in range(5):
        donor_views, donor = views[i - 1], targets[i - 1]
        for k in range(11):
            of_class = donor == k
            copied = torch.equal(pasted_views[i][:, of_class], donor_views[:, of_class])
            kept = torch.equal(pasted_views[i][:, of_class], views[i][:, of_class])
            assert kept or (copied and k in (2, 7, 9)), "a class is taken whole or not at all"
            source = donor if copied else targets[i]
            assert torch.equal(pasted[i][of_class], source[of_class])
        ignored = donor == 255
        assert torch.equal(pasted_views[i][:, ignored], views[i][:, ignored])
        assert torch.equal(pasted[i][ignored], targets[i][ignored])


def test_answers_are_pasted_with_their_pixels() -> None:
    """The left half of the donor is of a class that is taken, the right half is not."""
    views, targets = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    targets[0, :, :4] = 7
    answers = torch.stack([torch.full((11, 4, 4), 0.25), torch.full((11, 4, 4), 0.75)])
    chosen = replace(STILL, paste_share=1.0, paste_classes=(7,))
    taken = 0
    for seed in range(8):
        pasted = paste(Views(views, targets, answers), chosen, Generator().manual_seed(seed))
        assert pasted.answers is not None
        assert torch.equal(pasted.answers[0], answers[0]), "the second picture has nothing to give"
        assert torch.equal(pasted.answers[1, :, :, 2:], answers[1, :, :, 2:])
        copied = bool((pasted.targets[1, :, :4] == 7).all())
        assert torch.equal(pasted.answers[1, :, :, :2], answers[0 if copied else 1, :, :, :2])
        taken += copied
    assert 0 < taken < 8


def test_paste_shares() -> None:
    images, labels, _ = noisy_batch(count=200, height=8, width=8)
    views, targets = images.float() / 255, labels.long()
    none = paste(Views(views, targets, None), STILL, Generator())
    assert torch.equal(none[0], views)
    assert torch.equal(none[1], targets)
    for share in (1.0, 0.4):
        chosen = replace(STILL, paste_share=share, paste_classes=tuple(range(11)))
        pasted = paste(Views(views, targets, None), chosen, Generator().manual_seed(0))
        changed = (pasted.images != views).flatten(1).float().mean(1)
        assert abs(float((changed > 0).float().mean()) - share) < 0.1
        assert abs(float(changed.mean()) - share * 0.5 * 11 / 12) < 0.05


def test_settings_that_cannot_work() -> None:
    for values, message in [
        ({"scale": (0.0, 1.0)}, "scale must be a least and a largest"),
        ({"scale": (2.0, 1.0)}, "scale must be a least and a largest"),
        ({"paste_share": 0.5}, "paste_share needs paste_classes"),
        ({"paste_share": 0.5, "paste_classes": (255,)}, "paste_classes must be class ids"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Augmentation(**values)
