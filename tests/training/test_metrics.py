"""The confusion matrix and boundary IoU against known answers and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecmnet_app.training import metrics
from ecmnet_app.training.metrics import BoundaryIoU, ConfusionMatrix

CLASSES = 4


def counted(labels: object, target: object, classes: int = CLASSES) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.as_tensor(labels), torch.as_tensor(target))
    return matrix


def reference(labels: np.ndarray, target: np.ndarray) -> tuple[list[float], float, float]:
    """IoU, mIoU and pixel accuracy as their definitions read, over sets of pixel positions."""
    pixels = list(zip(labels.ravel().tolist(), target.ravel().tolist(), strict=True))
    pixels = [(answer, truth) for answer, truth in pixels if truth != 255]
    ious = []
    for k in range(CLASSES):
        answered = {i for i, (answer, _) in enumerate(pixels) if answer == k}
        true = {i for i, (_, truth) in enumerate(pixels) if truth == k}
        ious.append(len(answered & true) / len(answered | true) if answered | true else math.nan)
    known = [iou for iou in ious if not math.isnan(iou)]
    miou = sum(known) / len(known) if known else math.nan
    right = sum(answer == truth for answer, truth in pixels)
    return ious, miou, right / len(pixels) if pixels else math.nan


def test_known_answer() -> None:
    # Class 0: 2 hits, 1 missed, 1 false alarm -> 2/4. Class 1: 1 hit, 1 missed, 1 false -> 1/3. Class 2: 1 -> 1.
    matrix = counted([0, 0, 1, 0, 1, 2, 3], [0, 0, 0, 1, 1, 2, 255], 3)
    assert matrix.iou().tolist() == pytest.approx([2 / 4, 1 / 3, 1])
    assert matrix.miou() == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)
    assert matrix.pixel_accuracy() == pytest.approx(4 / 6)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]


def test_class_absent_from_both_has_no_iou_and_leaves_the_mean() -> None:
    matrix = counted([0, 0, 1], [0, 0, 1])
    assert matrix.iou()[:2].tolist() == [1, 1]
    assert matrix.iou()[2:].isnan().all()
    assert matrix.miou() == 1


def test_class_answered_but_never_true_counts_as_zero() -> None:
    matrix = counted([0, 2], [0, 0])
    assert matrix.iou()[2] == 0
    assert matrix.miou() == pytest.approx((1 / 2 + 0) / 2)


def test_no_class_as_an_answer_is_a_miss_and_no_false_alarm() -> None:
    matrix = counted([0, 255, 1], [0, 0, 1])
    assert matrix.iou()[:2].tolist() == [1 / 2, 1]
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)


def test_nothing_counted_is_nan() -> None:
    matrix = counted([0, 1], [255, 255])
    assert math.isnan(matrix.miou())
    assert math.isnan(matrix.pixel_accuracy())


ids = st.sampled_from([*range(CLASSES), 255])


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=7))
    return (
        draw(hnp.arrays(np.uint8, shape, elements=ids)),
        draw(hnp.arrays(np.uint8, shape, elements=ids)),
    )


@given(maps())
def test_agrees_with_plain_loops(pair: tuple[np.ndarray, np.ndarray]) -> None:
    matrix = counted(*pair)
    ious, miou, accuracy = reference(*pair)
    np.testing.assert_allclose(matrix.iou().numpy(), ious)
    np.testing.assert_allclose(matrix.miou(), miou)
    np.testing.assert_allclose(matrix.pixel_accuracy(), accuracy)


@given(maps(), maps())
def test_merging_equals_counting_in_one(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> None:
    together = counted(*a)
    together.update(*map(torch.as_tensor, b))
    merged = counted(*a)
    merged.merge(counted(*b))
    assert torch.equal(together.counts, merged.counts)


@given(maps(), st.permutations(range(CLASSES)))
def test_renaming_the_classes_renames_the_scores(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    table = np.full(256, 255, dtype=np.uint8)
    table[:CLASSES] = order
    renamed = counted(table[pair[0]], table[pair[1]])
    np.testing.assert_allclose(renamed.iou()[order].numpy(), counted(*pair).iou().numpy())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integer_types_agree(dtype: torch.dtype) -> None:
    labels, target = torch.tensor([0, 1, 2, 3, 255]), torch.tensor([0, 2, 2, 255, 3])
    assert torch.equal(counted(labels.to(dtype), target.to(dtype)).counts, counted(labels, target).counts)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_counts_on_a_gpu_equal_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, target = torch.randint(0, CLASSES + 1, (2, 64, 64), generator=generator)
    on_gpu = ConfusionMatrix(CLASSES, "cuda")
    on_gpu.update(labels.cuda(), target.cuda())
    assert torch.equal(on_gpu.counts.cpu(), counted(labels, target).counts)


def test_shapes_and_class_counts_must_match() -> None:
    with pytest.raises(ValueError, match="one shape"):
        counted(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="cannot merge 3 classes into 4"):
        ConfusionMatrix(4).merge(ConfusionMatrix(3))


def test_shares_and_precision_known_answer() -> None:
    matrix = counted([0, 1, 1, 255, 1, 1, 0], [0, 0, 0, 0, 1, 1, 255], 3)
    np.testing.assert_allclose(matrix.shares().numpy(), [[1 / 4, 2 / 4, 0, 1 / 4], [0, 1, 0, 0], [math.nan] * 4])
    np.testing.assert_allclose(matrix.precision().numpy(), [1, 2 / 4, math.nan])


def boundary_reference(labels: np.ndarray, target: np.ndarray, distance: int) -> list[float]:
    """Boundary IoU as its definition reads: sets of pixels, each asked for a pixel of another mask in reach."""
    height, width = target.shape

    def boundary(ids: np.ndarray, k: int) -> set[tuple[int, int]]:
        mask = {(y, x) for y in range(height) for x in range(width) if ids[y, x] == k and target[y, x] != 255}
        reach = range(-distance, distance + 1)
        return {(y, x) for y, x in mask if any((y + dy, x + dx) not in mask for dy in reach for dx in reach)}

    ious = []
    for k in range(CLASSES):
        answered, true = boundary(labels, k), boundary(target, k)
        ious.append(len(answered & true) / len(answered | true) if answered | true else math.nan)
    return ious


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Maps of blocks, some of which are wide enough to have an inside."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    size = draw(st.integers(1, 4))
    coarse = [draw(hnp.arrays(np.uint8, shape, elements=ids)) for _ in range(2)]
    answered, true = (np.kron(c, np.ones((size, size), np.uint8)) for c in coarse)
    return np.roll(answered, draw(st.integers(0, 2)), axis=1), true


@given(pictures(), st.integers(1, 3))
def test_boundary_iou_agrees_with_its_definition(pair: tuple[np.ndarray, np.ndarray], distance: int) -> None:
    boundaries = BoundaryIoU(CLASSES)
    ratio = distance / math.hypot(*pair[1].shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "DILATION_RATIO", ratio)
        boundaries.update(*pair)
    np.testing.assert_allclose(boundaries.iou().numpy(), boundary_reference(*pair, distance))


def test_boundary_iou_known_answer_at_three_pixels() -> None:
    target = np.zeros((360, 480), np.uint8)  # diagonal 600
    target[100:200, 100:200] = 1
    shifted = np.zeros_like(target)
    shifted[100:200, 101:201] = 1
    boundaries = BoundaryIoU(2)
    boundaries.update(shifted, target)
    ring = 100 * 100 - 94 * 94
    # Of each 3-pixel ring: 94 rows keep 2 of 3 columns on either side, the top and bottom 3 rows keep 99 of 100.
    both = 94 * (2 + 2) + 6 * 99
    assert boundaries.iou()[1] == pytest.approx(both / (2 * ring - both))


def test_boundary_iou_sums_counts_over_pictures() -> None:
    rng = np.random.default_rng(0)
    maps = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (2, 2, 30, 40))
    one, other, total = (BoundaryIoU(CLASSES) for _ in range(3))
    one.update(*maps[0])
    other.update(*maps[1])
    for pair in maps:
        total.update(*pair)
    np.testing.assert_array_equal(total.both, one.both + other.both)
    np.testing.assert_array_equal(total.either, one.either + other.either)
