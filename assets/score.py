"""How well weights name what the renderer drew: IoU of road, sky, building, tree and car against its exact labels.

    python assets/score.py                     # the shipped weights on the page's example pictures
    python assets/score.py --clip              # on the page's example clip, every frame (--every N: fewer)
    python assets/score.py --weights NAME      # other weights, by name or path

Runs through the Segmenter, on the compressed pictures that the page shows, all eleven classes competing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ecmnet_app.core import CAMVID, DEFAULT_WEIGHTS, Segmenter
from ecmnet_app.errors import EcmnetError
from ecmnet_app.media.images import read_image
from ecmnet_app.media.videos import VideoReader
from ecmnet_app.training.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parent
PICTURES = ROOT.parent / "ecmnet_app" / "examples"
LABELS = ROOT / "labels"
CLIP = PICTURES / "street.mp4"
RATE = 10  # frames a second of the clip
SCORED = ("Road", "Sky", "Building", "Tree", "Car")


def pairs() -> list[tuple[Path, Path]]:
    """Each example picture with its labels, in order of name."""
    return [(picture, LABELS / f"{picture.stem}.png") for picture in sorted(PICTURES.glob("*.jpg"))]


def frames(every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Every n-th frame of the clip: its number, its pixels (H, W, 3) and its labels (H, W)."""
    with VideoReader(CLIP) as clip:
        for index, frame in enumerate(clip.frames()):
            if index % every == 0:
                yield index, frame.image, read_labels(LABELS / "street" / f"{index:03d}.png")


def read_labels(path: Path) -> NDArray[np.uint8]:
    """The class ids that the renderer wrote. Shape: (H, W)."""
    with Image.open(path) as mask:
        return np.array(mask, dtype=np.uint8)


def count(answer: NDArray[np.uint8], truth: NDArray[np.uint8]) -> ConfusionMatrix:
    """The confusion of one picture. Both (H, W) uint8 CamVid ids, 255 for no class."""
    matrix = ConfusionMatrix(len(CAMVID))
    matrix.update(torch.from_numpy(answer), torch.from_numpy(truth))
    return matrix


def scored_ious(matrix: ConfusionMatrix) -> list[float]:
    """IoU in percent of each of `SCORED`, then their mean; a class neither there nor answered is NaN and left out."""
    iou = matrix.iou()
    values = [100 * float(iou[CAMVID.names.index(name)]) for name in SCORED]
    present = [v for v in values if not math.isnan(v)]
    return [*values, sum(present) / len(present) if present else math.nan]


def table(rows: Iterable[tuple[str, list[float]]]) -> str:
    """The lines that are printed: a head, then a name and its figures a line."""
    lines = [f"{'':16}" + "".join(f"{name:>10}" for name in (*SCORED, "mean"))]
    lines += [
        f"{name:16}" + "".join("         -" if math.isnan(v) else f"{v:10.1f}" for v in values) for name, values in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", default=DEFAULT_WEIGHTS, help="name of shipped weights, or a path (default: %(default)s)"
    )
    parser.add_argument("--clip", action="store_true", help="the clip, a line for each of its seconds")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the clip, every n-th frame only")
    args = parser.parse_args()
    try:
        segmenter = Segmenter.from_pretrained(args.weights)
    except EcmnetError as error:
        parser.error(str(error))
    if segmenter.label_set.names != CAMVID.names:
        parser.error(
            f"{args.weights} answers {segmenter.label_set.name}'s classes; the stills are labelled with CamVid's"
        )
    if args.clip:
        pictures = ((f"{index // RATE} s", picture, truth) for index, picture, truth in frames(args.every))
    else:
        pictures = ((picture.stem, read_image(picture), read_labels(mask)) for picture, mask in pairs())
    total, rows = ConfusionMatrix(len(CAMVID)), {}
    for name, picture, truth in pictures:
        matrix = count(segmenter.predict(picture).labels, truth)
        rows.setdefault(name, ConfusionMatrix(len(CAMVID))).merge(matrix)
        total.merge(matrix)
    print(table((name, scored_ious(matrix)) for name, matrix in {**rows, "all": total}.items()))


if __name__ == "__main__":
    main()
