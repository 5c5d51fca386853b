"""Pictures and videos in files to answers in files: the work of `ecmnet segment`."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ecmnet_app
from ecmnet_app.core import LabelSet, Segmenter
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.core.video import Progress, VideoAnswers, segment_video
from ecmnet_app.errors import ConfigError, ImageError
from ecmnet_app.media.files import name_of_answers, write_atomically
from ecmnet_app.media.images import read_image, write_image
from ecmnet_app.media.videos import VIDEO_SUFFIXES

__all__ = ["PICTURE_SUFFIXES", "Job", "Settings", "find_jobs", "segment_picture_file", "segment_video_file"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""What is taken from a folder, beside videos. A file named by itself or by a pattern is tried whatever its suffix."""


@dataclass(frozen=True)
class Job:
    """One picture or video and the stem of its answers' paths."""

    source: Path
    stem: Path

    @property
    def is_video(self) -> bool:
        """By its name."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    @property
    def answers(self) -> tuple[Path, ...]:
        """Paths of overlay, mask or masks, a video's areas, and the record, which is last."""
        record = self.stem.with_name(self.stem.name + ".json")
        if self.is_video:
            video = VideoAnswers(self.stem)
            return video.overlay, video.masks, video.areas, record
        overlay, mask = (self.stem.with_name(self.stem.name + end) for end in ("_overlay.jpg", "_mask.png"))
        return overlay, mask, record


@dataclass(frozen=True)
class Settings:
    """Of `Segmenter.predict`."""

    resolution: int | None = None
    tile: bool = False
    threshold: float | None = None


def find_jobs(inputs: Sequence[str], out: Path) -> tuple[list[Job], list[str]]:
    """Find the pictures and videos that files, folders (with theirs) and patterns name, each once, and a stem for each.

    Stems mirror, below `out`, the folders below the deepest one that holds all of them, so files of one name from two
    folders stay apart; two of one folder that differ in suffix keep it.

    Args:
        inputs: paths and glob patterns, `**` for any depth.
        out: folder of the answers; what lies in it is not taken for an input of a folder around it.

    Returns:
        The jobs, and a message for each input that names nothing.

    Raises:
        ConfigError: a folder of inputs is the folder of the answers too, or an answer would overwrite an input.
    """
    found: dict[str, Path] = {}  # by real path, so that each picture is taken once
    problems = []
    for text in inputs:
        path = Path(text)
        if os.path.isdir(path):
            if path.resolve() == out.resolve():
                raise ConfigError(f"--out {out} is the folder of the pictures itself; choose another, or one inside it")
            paths = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
                and p.is_file()
                and out.resolve() not in Path(os.path.realpath(p)).parents
            ]
            problem = f"{text} holds no pictures ({', '.join(PICTURE_SUFFIXES)}) and no videos"
        elif os.path.exists(path) or not glob.has_magic(text):
            paths, problem = [path], ""  # where it does not exist, reading it says so
        else:
            paths = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if os.path.isfile(p)]
            problem = f"no file matches {text}"
        if not paths:
            problems.append(problem)
        for p in paths:
            found.setdefault(os.path.realpath(p), p)

    if not found:
        return [], problems
    named = {path: Path(os.path.abspath(path)) for path in found.values()}  # of a link its own name, not its target's
    root = os.path.commonpath([path.parent for path in named.values()])
    stems = {picture: path.relative_to(root).with_suffix("") for picture, path in named.items()}
    shared = Counter(stems.values())
    jobs: list[Job] = []
    taken: set[Path] = set()
    for picture, path in named.items():
        stem = stems[picture] if shared[stems[picture]] == 1 else path.relative_to(root)
        stem = stem.with_name(name_of_answers(stem.name))
        while stem in taken:
            stem = stem.with_name(stem.name + "_")
        taken.add(stem)
        jobs.append(Job(picture, out / stem))
    for job in jobs:
        for path in job.answers:
            if os.path.realpath(path) in found:
                raise ConfigError(
                    f"the answer to {job.source} would overwrite {path}, which is to be read; choose another --out"
                )
    return jobs, problems


def segment_picture_file(segmenter: Segmenter, job: Job, settings: Settings, opacity: float) -> None:
    """Write STEM_overlay.jpg, STEM_mask.png and, last, STEM.json, each a whole file.

    Raises:
        ImageError: the picture cannot be read or segmented, or an answer cannot be written.
        ConfigError, DeviceError: see `Segmenter.predict`.
    """
    image = read_image(job.source)
    answer = segmenter.predict(image, **asdict(settings))
    overlay_path, mask_path, record_path = job.answers
    write_image(overlay_path, answer.overlay(image, opacity))
    answer.save(mask_path)
    height, width = answer.labels.shape
    _write_record(
        record_path,
        {
            "picture": os.fspath(job.source),
            **_run_of(segmenter, asdict(settings)),
            "width": width,
            "height": height,
            "classes": _classes(answer.label_set, list(answer.areas().values())),
            "mean_confidence": float(answer.confidence.mean(dtype=np.float64)),
        },
    )


def segment_video_file(
    segmenter: Segmenter, job: Job, settings: Settings, opacity: float, smooth: bool
) -> Iterator[Progress]:
    """Write the `VideoAnswers` and, last, STEM.json, and tell how far it is.

    What an interrupted run of the same job has done is gone on with; where all is done already, that is told at once.

    Args:
        smooth: average scores along motion, so that labels are calm (`Smoother`).

    Raises:
        VideoError: the video cannot be read, or an answer cannot be written.
        ImageError, ConfigError, DeviceError: see `Segmenter.predict`.
    """
    identity = {
        **_run_of(segmenter, {**asdict(settings), "opacity": opacity, "smooth": smooth}),
        **_state_of(job.source),
    }
    *_, record_path = job.answers
    done = _read_record(record_path)
    same = "bytes" in identity and {key: done.get(key) for key in identity} == identity
    if same and all(path.exists() for path in job.answers):
        nothing = np.empty(0)
        yield Progress(done["frames"], done["frames"], nothing, nothing, None, finished=True, problem=done["problem"])
        return
    videos = VideoAnswers(job.stem)
    smoother = Smoother(segmenter.weights.temperature) if smooth else None
    options = asdict(settings)
    areas = np.zeros(len(segmenter.label_set) + 1)
    for progress in segment_video(
        job.source,
        videos,
        segmenter.predict_batch,
        options,
        smoother,
        opacity,
        segmenter.engine.best_batch,
        identity,
    ):
        for row in progress.areas:
            areas += row
        if not progress.finished:
            record_path.unlink(missing_ok=True)  # it tells of answers that will be replaced, one after the other
        else:
            record = {
                "video": os.fspath(job.source),
                **identity,
                "frames": progress.done,
                "classes": _classes(segmenter.label_set, (areas / progress.done).tolist()),
                "problem": progress.problem,
            }
            _write_record(record_path, record)
        yield progress


def _run_of(segmenter: Segmenter, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer depends on beside its source."""
    return {
        "version": ecmnet_app.__version__,
        "weights": {"name": segmenter.weights.name, "sha256": segmenter.weights.sha256},
        "device": str(segmenter.engine.device),
        "engine": segmenter.engine.name,
        "settings": dict(settings),
    }


def _state_of(path: Path) -> dict[str, int]:
    """By which a file is known to be the one of an earlier run; nothing where it cannot be read, which reading says."""
    try:
        state = path.stat()
    except OSError:
        return {}
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def _classes(label_set: LabelSet, areas: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of the record; areas in order of id, unlabelled last."""
    return [
        {"id": label.id, "name": label.name, "color": list(label.color), "area": area}
        for label, area in zip(label_set.with_unlabelled, areas, strict=True)
    ]


def _read_record(path: Path) -> dict[str, Any]:
    """An earlier run's record; nothing where there is none that can be read."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, text.encode("utf-8", "backslashreplace"))  # a name may be of bytes that are no UTF-8
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error
