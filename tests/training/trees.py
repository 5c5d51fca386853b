"""Small data sets of random pixels, written in the layouts that the data sets have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def random_pair(seed: int, height: int, width: int, values: list[int], block: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) and labels (H, W) drawn from `values`, uint8; labels are constant in blocks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    coarse = rng.choice(np.array(values, dtype=np.uint8), (-(-height // block), -(-width // block)))
    return image, np.kron(coarse, np.ones((block, block), dtype=np.uint8))[:height, :width]


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_camvid(root: Path, split: str, stem: str, image: np.ndarray, labels: np.ndarray) -> None:
    write_png(root / split / f"{stem}.png", image)
    write_png(root / f"{split}annot" / f"{stem}.png", labels)


def write_cityscapes(root: Path, split: str, city: str, stem: str, image: np.ndarray, label_ids: np.ndarray) -> None:
    write_png(root / "leftImg8bit" / split / city / f"{city}_{stem}_leftImg8bit.png", image)
    # The real tree has three more files for each picture; the reader must not take them for labels.
    for kind in ("labelIds", "instanceIds", "color"):
        write_png(root / "gtFine" / split / city / f"{city}_{stem}_gtFine_{kind}.png", label_ids)
    (root / "gtFine" / split / city / f"{city}_{stem}_gtFine_polygons.json").write_text("{}")
