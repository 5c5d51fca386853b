"""Answers of teachers, as labels and as probabilities, from ones whose answers are known: by colour, by place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import write_blocks
from torch import Tensor, nn

from ecmnet_app.core.labels import CAMVID, UNLABELLED
from ecmnet_app.core.weights import load_weights
from ecmnet_app.training.answers import _padded, answered
from ecmnet_app.training.augment import normalise
from ecmnet_app.training.datasets import Dataset, load_dataset
from ecmnet_app.training.teacher import Graduate


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


SCALES = (0.75, 1.25)


def test_answers_become_labels_and_padding_stays_ignored(blocks: Dataset) -> None:
    told = answered(blocks, [ByColour()], SCALES, least=0.6)
    assert (told.labels.dtype, told.labels.shape) == (torch.uint8, blocks.labels.shape)
    assert told.answers is None
    for found, true, (height, width) in zip(told.labels, blocks.labels, blocks.sizes.tolist(), strict=True):
        assert (found[height:] == UNLABELLED).all()
        assert (found[:, width:] == UNLABELLED).all()
        inside, known = found[:height, :width], true[:height, :width] != UNLABELLED
        assert ((inside == true[:height, :width]) | (inside == UNLABELLED))[known].float().mean() > 0.95
        assert (inside != UNLABELLED).float().mean() > 0.8


def test_probabilities_are_kept_beside_the_labels(blocks: Dataset) -> None:
    """Two of three teachers name one class, the third another; of the padding nothing is said."""
    told = answered(blocks, [Fixed(2, 2), Fixed(2, 2), Fixed(5, 5)], SCALES, keep=True)
    assert told.labels is blocks.labels
    assert told.answers is not None
    assert (told.answers.dtype, told.answers.shape) == (torch.uint8, (6, 11, 20, 28))
    for answer, (height, width) in zip(told.answers, blocks.sizes.tolist(), strict=True):
        inside = answer[:, : height // 2, : width // 2]
        assert (inside[2] == 170).all()
        assert (inside[5] == 85).all()
        assert not inside[[0, 1, 3, 4, 6, 7, 8, 9, 10]].any()
        assert not answer[:, height // 2 :].any()
        assert not answer[:, :, width // 2 :].any()


def test_pictures_are_padded_and_asked_for_at_every_scale(blocks: Dataset) -> None:
    """Of both sizes, in one batch of the least that there is."""
    teacher = ByColour()
    answered(blocks, [teacher], SCALES, least=0.6)
    assert teacher.sizes == [(288, 288), (480, 480)]


def test_few_sizes_are_asked_for() -> None:
    """Every new one costs a GPU seconds; none is cut."""
    assert [_padded(side) for side in (1, 384, 385, 640, 641, 1024, 1025)] == [384, 384, 640, 640, 1024, 1024, 2048]


def test_an_answer_is_where_it_was_given(blocks: Dataset) -> None:
    """A twelfth of the padded picture is 32 pixels, of which the picture itself has more."""
    told = answered(blocks, [Fixed(3, 4)], SCALES, least=0.6, keep=True)
    assert told.answers is not None
    for found, answer, (height, width) in zip(told.labels, told.answers, blocks.sizes.tolist(), strict=True):
        assert (found[:height, :29] == 3).all()
        assert (found[:height, 35:width] == 4).all()
        assert (answer[3, : height // 2, :14] >= 250).all()
        assert (answer[4, : height // 2, 18 : width // 2] >= 250).all()


@pytest.mark.parametrize(("least", "expected"), [(0.6, 2), (0.7, UNLABELLED)])
def test_teachers_answer_together(blocks: Dataset, least: float, expected: int) -> None:
    """Two of three are two thirds of the probability."""
    told = answered(blocks, [Fixed(2, 2), Fixed(2, 2), Fixed(5, 5)], SCALES, least=least)
    assert all((y[:h, :w] == expected).all() for y, (h, w) in zip(told.labels, blocks.sizes.tolist(), strict=True))


def test_padding_does_not_mislead_a_network(camvid: Path, tmp_path: Path) -> None:
    """More than half of a small one's square is padding: rows and columns repeated would change 2.7 % of the pixels."""
    (tmp_path / "small").mkdir()
    for file in sorted((camvid / "train").iterdir())[::60]:
        with Image.open(file) as picture:
            picture.convert("RGB").resize((300, 225), Image.Resampling.BOX).save(
                tmp_path / "small" / f"{file.stem}.png"
            )
    small = load_dataset(tmp_path, "small", labels=False)
    network = load_weights("camvid").build().eval()
    told = answered(small, [Graduate(network)], (1.0,), least=1e-6, batch_size=2)
    with torch.no_grad():
        plain = torch.cat([network(normalise(image[None].float() / 255)).argmax(1) for image in small.images])
    assert (told.labels == plain).float().mean() > 0.98
