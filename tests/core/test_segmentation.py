from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ecmnet_app.core import CAMVID, Segmentation
from ecmnet_app.errors import ConfigError, ImageError

IDS = st.sampled_from([*range(len(CAMVID)), 255])
MASKS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=IDS)


def answer(labels: np.ndarray) -> Segmentation:
    return Segmentation(labels, np.ones(labels.shape, np.float32), CAMVID)


def test_areas_are_shares_of_all_pixels_with_unlabelled_apart() -> None:
    areas = answer(np.array([[0, 3, 3, 255], [3, 3, 8, 255]], np.uint8)).areas()
    assert list(areas) == [*CAMVID.names, "Unlabelled"]
    assert {name: share for name, share in areas.items() if share} == {
        "Sky": 1 / 8,
        "Road": 4 / 8,
        "Car": 1 / 8,
        "Unlabelled": 2 / 8,
    }


@given(MASKS)
def test_areas_sum_to_one_and_do_not_depend_on_order(labels: np.ndarray) -> None:
    areas = answer(labels).areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert areas == answer(labels[::-1, ::-1]).areas()


@given(MASKS)
def test_colorize_gives_each_pixel_the_colour_of_its_class(labels: np.ndarray) -> None:
    colors = answer(labels).colorize()
    assert colors.dtype == np.uint8
    assert np.array_equal(colors, CAMVID.palette[labels])


@given(MASKS, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_overlay_mixes_by_opacity_and_leaves_unlabelled_pixels_alone(
    labels: np.ndarray, opacity: float, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    overlay = answer(labels).overlay(image, opacity)
    known = labels != 255
    mixed = CAMVID.palette[labels] * opacity + image * (1 - opacity)
    assert overlay.dtype == np.uint8
    assert np.array_equal(overlay[~known], image[~known])
    assert np.abs(overlay - mixed)[known].max(initial=0) <= 0.51


def test_overlay_of_opacity_0_is_the_picture_and_of_1_the_colours() -> None:
    labels = np.array([[0, 5, 10]], np.uint8)
    image = np.array([[[1, 2, 3], [250, 251, 252], [7, 8, 9]]], np.uint8)
    assert np.array_equal(answer(labels).overlay(image, 0), image)
    assert np.array_equal(answer(labels).overlay(image, 1), CAMVID.colors[labels])


def test_overlay_refuses_another_picture_and_an_impossible_opacity() -> None:
    with pytest.raises(ImageError, match="picture is 4x2, this answer is to one of 3x2"):
        answer(np.zeros((2, 3), np.uint8)).overlay(np.zeros((2, 4, 3), np.uint8))
    for opacity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="opacity must be 0 to 1"):
            answer(np.zeros((2, 3), np.uint8)).overlay(np.zeros((2, 3, 3), np.uint8), opacity)


def test_save_writes_ids_as_pixels_and_colours_as_palette(tmp_path: Path) -> None:
    labels = np.array([[0, 3, 255], [10, 8, 1]], np.uint8)
    answer(labels).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), labels)
        assert np.array_equal(np.asarray(mask.convert("RGB")), CAMVID.palette[labels])
