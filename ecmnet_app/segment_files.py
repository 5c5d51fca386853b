"""Pictures in files to answers in files: the work of `ecmnet segment`."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ecmnet_app
from ecmnet_app.core import UNLABELLED, Segmentation, Segmenter
from ecmnet_app.core.labels import UNLABELLED_COLOR, UNLABELLED_NAME
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.media.images import read_image, write_image

__all__ = ["PICTURE_SUFFIXES", "Job", "Settings", "find_pictures", "segment_file"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""What is taken from a folder. A file named by itself or by a pattern is tried whatever its suffix."""


@dataclass(frozen=True)
class Job:
    """One picture and the stem of its answers' paths."""

    picture: Path
    stem: Path

    @property
    def answers(self) -> tuple[Path, Path, Path]:
        """Paths of overlay, mask and record."""
        overlay, mask, record = (
            self.stem.with_name(self.stem.name + end) for end in ("_overlay.jpg", "_mask.png", ".json")
        )
        return overlay, mask, record


@dataclass(frozen=True)
class Settings:
    """Of `Segmenter.predict`."""

    resolution: int | None = None
    tile: bool = False
    threshold: float | None = None


def find_pictures(inputs: Sequence[str], out: Path) -> tuple[list[Job], list[str]]:
    """Find the pictures that files, folders (with theirs) and patterns name, each once, and a stem for each.

    Stems mirror, below `out`, the folders below the deepest one that holds all pictures, so pictures of one name
    from two folders stay apart; two of one folder that differ in suffix keep it.

    Args:
        inputs: paths and glob patterns, `**` for any depth.
        out: folder of the answers; what lies in it is not taken for a picture of a folder around it.

    Returns:
        The jobs, and a message for each input that names no picture.

    Raises:
        ConfigError: a folder of pictures is the folder of the answers too, or an answer would overwrite a picture.
    """
    found: dict[Path, Path] = {}  # by real path, so that each picture is taken once
    problems = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise ConfigError(f"--out {out} is the folder of the pictures itself; choose another, or one inside it")
            paths = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file() and out.resolve() not in p.resolve().parents
            ]
            problem = f"{text} holds no pictures ({', '.join(PICTURE_SUFFIXES)})"
        elif path.exists() or not glob.has_magic(text):
            paths, problem = [path], ""  # where it does not exist, reading it says so
        else:
            paths = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if os.path.isfile(p)]
            problem = f"no file matches {text}"
        if not paths:
            problems.append(problem)
        for p in paths:
            found.setdefault(p.resolve(), p)

    if not found:
        return [], problems
    root = os.path.commonpath([real.parent for real in found])
    stems = {real: real.relative_to(root).with_suffix("") for real in found}
    shared = Counter(stems.values())
    jobs: list[Job] = []
    taken: set[Path] = set()
    for real, picture in found.items():
        stem = stems[real] if shared[stems[real]] == 1 else real.relative_to(root)
        while stem in taken:
            stem = stem.with_name(stem.name + "_")
        taken.add(stem)
        jobs.append(Job(picture, out / stem))
    for job in jobs:
        for path in job.answers:
            if path.resolve() in found:
                raise ConfigError(
                    f"the answer to {job.picture} would overwrite the picture {path}; choose another --out"
                )
    return jobs, problems


def segment_file(segmenter: Segmenter, job: Job, settings: Settings, opacity: float) -> None:
    """Write STEM_overlay.jpg, STEM_mask.png and, last, STEM.json, each a whole file.

    Raises:
        ImageError: the picture cannot be read or segmented, or an answer cannot be written.
        ConfigError, DeviceError: see `Segmenter.predict`.
    """
    image = read_image(job.picture)
    answer = segmenter.predict(image, **asdict(settings))
    record = {"picture": os.fspath(job.picture), **_record(segmenter, answer, settings)}
    overlay_path, mask_path, record_path = job.answers
    write_image(overlay_path, answer.overlay(image, opacity))
    answer.save(mask_path)
    try:
        write_atomically(record_path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ImageError(f"cannot write {record_path}: {error.strerror or error}") from error


def _record(segmenter: Segmenter, answer: Segmentation, settings: Settings) -> dict[str, Any]:
    areas = answer.areas()
    rows = [(label.id, label.name, label.color) for label in answer.label_set.labels]
    rows.append((UNLABELLED, UNLABELLED_NAME, UNLABELLED_COLOR))
    height, width = answer.labels.shape
    return {
        "version": ecmnet_app.__version__,
        "weights": {"name": segmenter.weights.name, "sha256": segmenter.weights.sha256},
        "device": str(segmenter.engine.device),
        "engine": segmenter.engine.name,
        "settings": asdict(settings),
        "width": width,
        "height": height,
        "classes": [{"id": i, "name": name, "color": list(color), "area": areas[name]} for i, name, color in rows],
        "mean_confidence": float(answer.confidence.mean(dtype=np.float64)),
    }
