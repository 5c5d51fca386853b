"""The Video tab: a file of any length in, the same street with every pixel named out, to watch and to take along.

The frames of a video go through the worker that serves the live viewers, one at a time: a video is one source among
the others and has its turn like them, however long it is.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core import Segmentation
from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.core.video import Progress, VideoAnswers, segment_video
from ecmnet_app.errors import EcmnetError, VideoError
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import encode_image
from ecmnet_app.media.videos import VIDEO_SUFFIXES
from ecmnet_app.ui.component import (
    classes_of,
    data_url,
    gone,
    make_component,
    message_of,
    take_uploads_only,
    weights_choice,
)

__all__ = ["AreaChart", "build_tab"]

LONGEST_SIDE = 960
"""Of the preview, in pixels."""
PREVIEW_SECONDS = 0.5
"""From one preview to the next."""
MAX_VIDEOS = 4
"""Run at once; more wait in line. Each has a decoder and an encoder."""
CHART_COLUMNS = 400
"""Moments that the strip chart shows, at most."""


def build_tab(segmenters: SegmenterPool, worker: StreamWorker) -> None:
    """Add the tab's components to the page that is being built."""

    def run(
        upload: dict[str, Any] | None, smooth: bool, opacity: int, weights: str
    ) -> Iterator[tuple[dict[str, Any] | None, gr.Button, gr.Button]]:
        """Views of the video as it is segmented. Gradio closes this when Stop is pressed or the page is left."""
        start, stop = gr.Button(visible=True), gr.Button(visible=False)
        if upload is None:
            yield _error_view("There is no video yet; choose one."), start, stop
            return
        chosen = segmenters.get(weights).weights
        smoother = Smoother(chosen.temperature) if smooth else None
        name = f"“{Path(upload['path']).name}”"  # no path, as in `except`: no message tells of the server's folders
        folder = Path(tempfile.mkdtemp(prefix="video-", dir=player.GRADIO_CACHE))
        done = False
        try:
            with worker.open() as source:

                def predict(images: Sequence[NDArray[np.uint8]], **options: Any) -> list[Segmentation]:
                    return [source.submit(image, **options).result().segmentation for image in images]

                kept = _keep(Path(upload["path"]), folder)
                answers = VideoAnswers(folder / Path(upload["path"]).stem)
                options = {"weights": weights}
                classes = classes_of(chosen.label_set)
                views = _Views(answers, name, classes)
                for progress in segment_video(kept, answers, predict, options, smoother, opacity / 100, name=name):
                    if view := views.of(progress):
                        done = progress.finished
                        yield view, gr.Button(visible=done), gr.Button(visible=not done)
        except EcmnetError as error:
            yield _error_view(message_of(error).replace(f"{folder}{os.sep}", "")), start, stop
        finally:
            if done:
                kept.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)

    with gr.Row(elem_classes="picture-tab"):
        with gr.Column():
            video = gr.File(
                label="Video",
                file_types=list(VIDEO_SUFFIXES),
                height=150,
                buttons=[],
                elem_id="video",
            )
            take_uploads_only(video, "drive.mp4")
            if examples := sorted(EXAMPLES_FOLDER.glob("*.mp4")):
                gr.Examples([str(path) for path in examples], video, label="Or try this one", elem_id="video-examples")
            start = gr.Button("Name every pixel", variant="primary", elem_id="video-start")
            stop = gr.Button("Stop", visible=False, elem_id="video-stop")
        with gr.Column():
            player = make_component("video", elem_id="player")
        with gr.Column():
            smooth = gr.Checkbox(
                False,
                label="Calm labels",
                info="Averages each frame with those before it, along the motion. Less flicker.",
                elem_id="video-smooth",
            )
            opacity = gr.Slider(0, 100, 60, step=5, label="Opacity", info="Of the colours, in percent.")
            weights = weights_choice(segmenters)
    # In the page alone: of a video that waits in line nothing comes from the server, nor where it fails.
    waiting = {
        "state": "waiting",
        "note": f"Waiting for its turn: the server runs at most {MAX_VIDEOS} videos at once …",
    }
    start.click(None, None, [player, start, stop], js=_show(waiting, True), api_visibility="private")
    running = start.click(
        run,
        [video, smooth, opacity, weights],
        [player, start, stop],
        preprocess=False,
        show_progress="hidden",
        concurrency_limit=MAX_VIDEOS,
        api_visibility="private",
    )
    failed = _error_view("The server could not run the video. Try again, or reload the page.")
    running.failure(None, None, [player, start, stop], js=_show(failed, False), api_visibility="private")
    cancelled = gr.on(
        [stop.click, video.clear], lambda: None, None, None, cancels=running, queue=False, api_visibility="private"
    )
    # Through the queue, behind what the run has sent: a view that came after this would stay.
    cancelled.then(
        lambda: (None, gr.Button(visible=True), gr.Button(visible=False)),
        None,
        [player, start, stop],
        show_progress="hidden",
        api_visibility="private",
    )


class AreaChart:
    """Areas of the classes over the length of a video, in a bounded number of columns whatever that length is.

    Neighbouring columns are merged two by two when there would be too many. Each is the mean of its frames.

    Args:
        columns: most that are kept; even.
    """

    def __init__(self, columns: int = CHART_COLUMNS) -> None:
        self._columns = columns
        self._frames_each = 1
        self._rows: list[list[float]] = []
        self._times: list[float] = []
        self._open: list[NDArray[np.float64]] = []
        self._opened = 0.0

    def add(self, seconds: float, areas: NDArray[np.float64]) -> None:
        """Add a frame: when it is shown, and the share of each class. Shape: (K,)."""
        if not self._open:
            self._opened = seconds
        self._open.append(areas)
        if len(self._open) < self._frames_each:
            return
        self._times.append(self._opened)
        self._rows.append(np.mean(self._open, axis=0).tolist())
        self._open.clear()
        if len(self._rows) == self._columns:
            self._times = self._times[::2]
            self._rows = np.mean(np.array(self._rows).reshape(self._columns // 2, 2, -1), axis=1).tolist()
            self._frames_each *= 2

    def view(self) -> dict[str, Any]:
        """Plain JSON: `times`, when each column begins, and `areas`, its shares by class in permille."""
        rows, times = self._rows, self._times
        if self._open:
            rows, times = [*rows, np.mean(self._open, axis=0).tolist()], [*times, self._opened]
        return {
            "times": [round(seconds, 3) for seconds in times],
            "areas": [[round(1000 * area) for area in row] for row in rows],
        }


class _Views:
    """What the player is told, each time that there is something to tell."""

    def __init__(self, answers: VideoAnswers, name: str, classes: list[dict[str, Any]]) -> None:
        self._answers, self._name, self._classes = answers, name, classes
        self._chart = AreaChart()
        self._started = time.monotonic()
        self._shown = 0.0

    def of(self, progress: Progress) -> dict[str, Any] | None:
        """The view after a progress, or None where the last one is too young to be replaced."""
        for seconds, areas in zip(progress.times.tolist(), progress.areas, strict=True):
            self._chart.add(seconds, areas)
        now = time.monotonic()
        view = {"classes": self._classes, "chart": self._chart.view(), "done": progress.done}
        if progress.finished:
            files = {key: _file(getattr(self._answers, key)) for key in ("overlay", "masks", "areas")}
            note = f"{progress.done} frames in {_clock(now - self._started)}"
            problem = f"{self._name} {progress.problem}." if progress.problem else ""
            return {**view, "state": "done", "files": files, "note": note, "problem": problem}
        if progress.overlay is None:
            return {**view, "state": "running", "expected": progress.expected, "preview": None, "note": "Starting …"}
        if now - self._shown < PREVIEW_SECONDS:
            return None
        self._shown = now
        rate = progress.done / (now - self._started)
        note = f"Frame {progress.done}"
        if progress.expected:
            left = max(0, progress.expected - progress.done) / rate
            note += f" of {max(progress.done, progress.expected)}, {_clock(left)} left"
        return {
            **view,
            "state": "running",
            "expected": progress.expected,
            "preview": _preview(progress.overlay),
            "note": f"{note}, {rate:.1f} a second",
        }


def _preview(overlay: NDArray[np.uint8]) -> str:
    height, width = overlay.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(overlay, size, interpolation=cv2.INTER_AREA), np.uint8)
    return data_url("image/jpeg", encode_image(small, "preview.jpg"))


def _file(path: Path) -> dict[str, Any]:
    """By which gradio serves a file and forgets it in time."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def _keep(upload: Path, folder: Path) -> Path:
    """An upload under a name of our own: Gradio deletes its own after an hour, even of a video that is being read.

    Raises:
        VideoError: it has done so already.
    """
    kept = folder / f"upload{upload.suffix}"
    try:
        os.link(upload, kept)
    except FileNotFoundError as error:
        raise VideoError(gone("video")) from error
    except OSError:  # an example, on another disk
        shutil.copyfile(upload, kept)
    return kept


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


def _show(view: dict[str, Any], running: bool) -> str:
    """Script that gives a view to the player, and leaves one of Start and Stop, without asking the server."""
    buttons = [{"__type__": "update", "visible": visible} for visible in (not running, running)]
    return f"() => {json.dumps([view, *buttons])}"


def _error_view(message: str) -> dict[str, Any]:
    return {"state": "error", "error": message}
