"""The Live tab: a camera's frames go in, the class of every pixel comes back, as fast as the network can.

The page calls one server function with one frame at a time. Such calls pass gradio's queue by and write no file; what
keeps viewers apart stands here, and the worker shares the network among them. The answer is a mask of ids that the page
colours over the video itself, so that opacity and legend ask nothing of the server.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import Answer, FrameDroppedError, Source, StreamWorker
from ecmnet_app.errors import EcmnetError, ImageError, StreamError
from ecmnet_app.media.images import encode_mask, read_image
from ecmnet_app.ui.component import classes_of, data_url, make_component, message_of

__all__ = ["LiveViewers", "build_tab"]

T = TypeVar("T")
R = TypeVar("R")

MAX_FRAME_BYTES = 1_000_000
"""Of one encoded frame. The page's own, 640 pixels long, have about 80,000."""
MAX_FRAME_PIXELS = 1280 * 960
"""Of one frame. Larger ones are refused before they are decoded."""
MAX_FRAME_SIDE = 1280
"""A long strip within those pixels would not be scaled down for the network, and keep it from the others."""
MAX_IN_FLIGHT = 2
"""Frames of one viewer that have no answer yet: one that runs and one that waits."""
MAX_VIEWERS = 64
"""Viewers at once; one more is told to come back later."""
IDLE_SECONDS = 3.0
"""A viewer that sends nothing for so long is forgotten."""
LOOK_SECONDS = 0.5
"""How often a frame that waits looks whether its client is still there."""
PENALTY_SECONDS = 1.0
"""How long the answer to a frame that was refused is held back: who floods waits, and nobody else."""
MAX_PENALTIES = 100
"""Answers held back at once; more are given immediately, so that memory does not grow with a flood."""

IDS_AS_GREY = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
"""Palette by which a browser, which shows a script colours and no ids, decodes each pixel to its id."""


def build_tab(segmenters: SegmenterPool, worker: StreamWorker) -> None:
    """Add the tab's component to the page that is being built."""
    viewers = LiveViewers(worker)

    async def segment_frame(frame: Any, request: gr.Request) -> dict[str, Any]:
        sequence = frame.get("seq") if isinstance(frame, dict) else None
        return {"seq": sequence if isinstance(sequence, int) else None, **await viewers.answer(frame, request)}

    offered = [{"name": name, "classes": classes_of(w.label_set)} for name, w in segmenters.weights.items()]
    make_component("live", {"weights": offered}, [segment_frame], elem_id="live")


@dataclass(eq=False)
class _Viewer:
    name: str
    source: Source
    newest: asyncio.Future[Answer] = field(init=False)
    in_flight: int = 0
    idle: asyncio.TimerHandle | None = None


class LiveViewers:
    """Who is watching, and the source that each has of the worker. One event loop calls it, so it needs no lock.

    A viewer has at most `MAX_IN_FLIGHT` frames here. A frame that is dropped for a newer one keeps its place until that
    one is answered, and so does one that is refused until its penalty is over: however many frames a client sends, no
    more than two are decoded for each that the network runs.
    """

    def __init__(self, worker: StreamWorker) -> None:
        self._worker = worker
        self._codec = ThreadPoolExecutor(2, "ecmnet-codec")  # each thread more is memory more
        self._viewers: dict[str, _Viewer] = {}
        self._penalties = 0

    def __len__(self) -> int:
        return len(self._viewers)

    async def answer(self, frame: Any, request: gr.Request) -> dict[str, Any]:
        """What the page is told of one frame.

        Args:
            frame: of the page: `viewer`, a name that it made up for itself, `image`, a JPEG (or another picture) in
                base64, and, where there is a choice, the name of the `weights`.
            request: that brought it; when its client goes away, the frame is not run and the viewer is forgotten.

        Returns:
            `mask`, a PNG as a data URL whose grey values are class ids, and `areas`, shares by class; or `dropped`,
            where a newer frame of this viewer came before this one was run; or `error`, a sentence.
        """
        try:
            name, data, options = _read_frame(frame)
            viewer = self._viewers.get(name) or self._open(name)
            if viewer.in_flight >= MAX_IN_FLIGHT:
                raise StreamError(f"more than {MAX_IN_FLIGHT} frames at once; send the next when one is answered")
        except StreamError as error:
            return await self._refuse(error)
        self._count(viewer, +1)
        try:
            image = await self._in_thread(_decode, data)
            viewer.newest = running = asyncio.wrap_future(viewer.source.submit(image, **options))
            while not (await asyncio.wait([running], timeout=LOOK_SECONDS))[0]:
                if await request.is_disconnected():
                    running.cancel()
                    self._forget(viewer)
                    return {"error": "The viewer went away."}
            return await self._in_thread(_describe, running.result())
        except FrameDroppedError:
            await asyncio.wait([viewer.newest])
            return {"dropped": True}
        except EcmnetError as error:
            return await self._refuse(error)
        finally:
            self._count(viewer, -1)

    def _in_thread(self, function: Callable[[T], R], value: T) -> asyncio.Future[R]:
        return asyncio.get_running_loop().run_in_executor(self._codec, function, value)

    def _open(self, name: str) -> _Viewer:
        if len(self._viewers) >= MAX_VIEWERS:
            raise StreamError(f"{MAX_VIEWERS} viewers are here already, as many as this server takes; try again later")
        viewer = self._viewers[name] = _Viewer(name, self._worker.open())
        return viewer

    def _count(self, viewer: _Viewer, change: int) -> None:
        viewer.in_flight += change
        if viewer.idle is not None:
            viewer.idle.cancel()
            viewer.idle = None
        if viewer.in_flight == 0:
            viewer.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._forget, viewer)

    def _forget(self, viewer: _Viewer) -> None:
        viewer.source.close()
        if self._viewers.get(viewer.name) is viewer:
            del self._viewers[viewer.name]

    async def _refuse(self, error: EcmnetError) -> dict[str, Any]:
        if self._penalties < MAX_PENALTIES:
            self._penalties += 1
            try:
                await asyncio.sleep(PENALTY_SECONDS)
            finally:
                self._penalties -= 1
        return {"error": message_of(error)}


def _read_frame(frame: Any) -> tuple[str, bytes, dict[str, str]]:
    """Name of the viewer, bytes, settings of `predict_batch`, from what a client sent, which may be anything."""
    name, image = (frame.get("viewer"), frame.get("image")) if isinstance(frame, dict) else (None, None)
    if not (isinstance(name, str) and 0 < len(name) <= 64 and isinstance(image, str)):
        raise StreamError('a frame is an object {"viewer": name, "seq": number, "image": JPEG in base64}')
    try:
        data = base64.b64decode(image, validate=True)
    except ValueError as error:
        raise StreamError("the frame's image is not base64; encode its bytes so") from error
    if len(data) > MAX_FRAME_BYTES:
        raise StreamError(
            f"the frame is larger than {MAX_FRAME_BYTES / 1e6:g} MB; send it smaller, or with less quality"
        )
    weights = frame.get("weights")
    return name, data, {"weights": weights} if isinstance(weights, str) else {}


def _decode(data: bytes) -> NDArray[np.uint8]:
    image = read_image(data, MAX_FRAME_PIXELS)
    height, width = image.shape[:2]
    if max(height, width) > MAX_FRAME_SIDE:
        raise ImageError(f"the frame is {width}x{height}, longer than {MAX_FRAME_SIDE} pixels; send it smaller")
    return image


def _describe(answer: Answer) -> dict[str, Any]:
    segmentation = answer.segmentation
    return {
        "mask": data_url("image/png", encode_mask(segmentation.labels, IDS_AS_GREY)),
        "areas": segmentation.areas(),
    }
