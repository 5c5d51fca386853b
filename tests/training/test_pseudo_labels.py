"""Labels by teachers, from ones whose answers are known: by colour, by place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import write_blocks
from torch import Tensor, nn

from ecmnet_app.core.labels import CAMVID, UNLABELLED
from ecmnet_app.training.augment import normalise
from ecmnet_app.training.datasets import Dataset, load_dataset
from ecmnet_app.training.pseudo_labels import SCALES, _padded, pseudo_labels


class ByColour(nn.Module):
    """Logits at half resolution: the nearer a class's colour, the likelier it is."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append((x.shape[-2], x.shape[-1]))
        colours = normalise(torch.from_numpy(CAMVID.colors).float().view(-1, 3, 1, 1) / 255)
        half = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
        return -10 * (half[:, None] - colours[None]).square().sum(2)


class Fixed(nn.Module):
    """One class in the left twelfth and another right of it, whatever the picture shows."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        logits = torch.zeros(len(x), len(CAMVID), height, width)
        logits[:, self.left, :, : width // 12] = 20
        logits[:, self.right, :, width // 12 :] = 20
        return logits


@pytest.fixture
def blocks(tmp_path: Path) -> Dataset:
    """Pictures of two sizes, whose own labels are known."""
    return load_dataset(write_blocks(tmp_path / "blocks"), "train+val")


def test_answers_become_labels_and_padding_stays_ignored(blocks: Dataset) -> None:
    labels = pseudo_labels(blocks, [ByColour()], 0.6)
    assert (labels.dtype, labels.shape) == (torch.uint8, blocks.labels.shape)
    for found, true, (height, width) in zip(labels, blocks.labels, blocks.sizes.tolist(), strict=True):
        assert (found[height:] == UNLABELLED).all()
        assert (found[:, width:] == UNLABELLED).all()
        inside, known = found[:height, :width], true[:height, :width] != UNLABELLED
        assert ((inside == true[:height, :width]) | (inside == UNLABELLED))[known].float().mean() > 0.95
        assert (inside != UNLABELLED).float().mean() > 0.8


def test_pictures_are_padded_and_asked_for_at_every_scale(blocks: Dataset) -> None:
    """Of both sizes, in one batch of the least that there is."""
    teacher = ByColour()
    pseudo_labels(blocks, [teacher], 0.6)
    assert teacher.sizes == [(round(scale * 384),) * 2 for scale in SCALES]


def test_few_sizes_are_asked_for() -> None:
    """Every new one costs a GPU seconds; none is cut."""
    assert [_padded(side) for side in (1, 384, 385, 640, 641, 1024, 1025)] == [384, 384, 640, 640, 1024, 1024, 2048]


def test_an_answer_is_where_it_was_given(blocks: Dataset) -> None:
    """A twelfth of the padded picture is 32 pixels, of which the picture itself has more."""
    for found, (height, width) in zip(pseudo_labels(blocks, [Fixed(3, 4)], 0.6), blocks.sizes.tolist(), strict=True):
        assert (found[:height, :29] == 3).all()
        assert (found[:height, 35:width] == 4).all()


@pytest.mark.parametrize(("least", "expected"), [(0.6, 2), (0.7, UNLABELLED)])
def test_teachers_answer_together(blocks: Dataset, least: float, expected: int) -> None:
    """Two of three are two thirds of the probability."""
    labels = pseudo_labels(blocks, [Fixed(2, 2), Fixed(2, 2), Fixed(5, 5)], least)
    assert all((y[:h, :w] == expected).all() for y, (h, w) in zip(labels, blocks.sizes.tolist(), strict=True))
