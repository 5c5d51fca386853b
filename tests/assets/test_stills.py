"""The rendered stills: pictures and labels fit each other, show a street, and may be shipped."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecmnet_app.core import CAMVID
from ecmnet_app.media.images import read_image

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "ecmnet_app" / "examples"
LABELS = ROOT / "assets" / "labels"
STILLS = sorted(path.stem for path in PICTURES.glob("*.jpg"))

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)


def mask_of(name: str) -> np.ndarray:
    with Image.open(LABELS / f"{name}.png") as mask:
        return np.array(mask)


def test_every_picture_has_labels_and_every_mask_a_picture() -> None:
    assert 4 <= len(STILLS) <= 6
    assert sorted(path.stem for path in LABELS.glob("*.png")) == STILLS


def test_sizes_that_are_shipped() -> None:
    assets = [path for path in (ROOT / "assets").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in PICTURES.glob("*.jpg")) < 1_500_000
    assert sum(path.stat().st_size for path in assets) < 20_000_000


@pytest.mark.parametrize("name", STILLS)
def test_labels_are_ids_of_the_pictures_own_size(name: str) -> None:
    picture, mask = read_image(PICTURES / f"{name}.jpg"), mask_of(name)
    assert picture.shape == (480, 640, 3)
    assert mask.shape == (480, 640)
    assert mask.dtype == np.uint8
    assert mask.max() < len(CAMVID)


@pytest.mark.parametrize("name", STILLS)
def test_a_street_as_a_driver_sees_it(name: str) -> None:
    mask = mask_of(name)
    share = np.bincount(mask.ravel(), minlength=11) / mask.size
    assert share[ROAD] > 0.2
    assert share[SKY] > 0.05
    assert share[BUILDING] > 0.05
    assert share[CAR] > 0.01
    assert share[PAVEMENT] > 0.01
    assert share[TREE] > 0.003
    rows = np.arange(480)[:, None] * np.ones(640)
    assert rows[mask == SKY].mean() < rows[mask == BUILDING].mean() < rows[mask == ROAD].mean()
    assert (mask[-1] == SKY).sum() == 0
    assert (mask[-1] == ROAD).mean() > 0.4


@pytest.mark.parametrize("name", STILLS)
def test_labels_lie_on_the_picture(name: str) -> None:
    """Brightness steps where the mask's sky ends: more than two pixels off that outline."""
    grey = read_image(PICTURES / f"{name}.jpg").astype(float).mean(-1)
    sky = mask_of(name) == SKY
    assert grey[sky].mean() > grey[~sky].mean() + 60

    def step(dx: int, dy: int) -> float:
        """Mean difference of brightness across the outline of the sky, moved by (dx, dy)."""
        moved = np.roll(sky, (dy, dx), (0, 1))
        inner = np.s_[8:-8, 8:-8]
        across = [abs(np.diff(grey, axis=k))[inner][np.diff(moved, axis=k)[inner]] for k in (0, 1)]
        return float(np.concatenate(across).mean())

    here = step(0, 0)
    assert all(step(dx, dy) < 0.8 * here for dx, dy in ((2, 0), (-2, 0), (0, 2), (0, -2)))


def test_the_stills_together_show_every_class() -> None:
    seen = set().union(*(np.unique(mask_of(name)).tolist() for name in STILLS))
    assert seen == set(range(len(CAMVID)))


def test_the_renderer_and_the_project_number_classes_alike() -> None:
    """The renderer runs without the project and keeps its own list of ids."""
    spec = importlib.util.spec_from_file_location("street_classes", ROOT / "assets" / "streets" / "classes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [c.name for c in module.Class] == [name.upper() for name in CAMVID.names]
    assert [int(c) for c in module.Class] == [label.id for label in CAMVID.labels]
