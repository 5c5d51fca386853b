"""What the robot sees, live in a browser: a page of the node's own process. Only this module imports gradio."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence

import gradio as gr
import uvicorn

from ecmnet.camera import Camera
from ecmnet.health import SILENCE
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.media.images import encode_image
from ecmnet_app.ui.component import data_url
from ecmnet_app.ui.server import create_app, listen

__all__ = ["Page"]

INTERVAL = 0.2
"""Seconds between looks at the newest masks."""


class Page:
    """Serves until it is closed. Overlays are made only when a browser asks.

    Args:
        cameras: to show, each with its newest mask.
        worker: that they share.
        port: on 127.0.0.1.

    Raises:
        ConfigError: the port is busy.
    """

    def __init__(self, cameras: Sequence[Camera], worker: StreamWorker, port: int) -> None:
        for camera in cameras:
            camera.keep_newest = True
        self._listener = listen("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        app = create_app(_build(cameras), worker)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(2.0)
        self._listener.close()


def _build(cameras: Sequence[Camera]) -> gr.Blocks:
    with gr.Blocks(title="ECMNet: what the robot sees", analytics_enabled=False) as page:
        views = [gr.HTML() for _ in cameras]

        def see() -> dict[gr.HTML, str]:
            return {view: _view(camera) for view, camera in zip(views, cameras, strict=True)}

        gr.Timer(INTERVAL).tick(see, outputs=views, show_progress="hidden", concurrency_limit=1, api_name="see")
    return page.queue(max_size=64)


def _view(camera: Camera) -> str:
    topic = html.escape(camera.topic)
    if camera.newest is None:
        return f"<p>{topic}: no mask yet</p>"
    image, answer, opacity, at = camera.newest
    age = time.monotonic() - at
    old = f", <strong>{age:.0f} s old</strong>" if age >= SILENCE else ""
    picture = data_url("image/jpeg", encode_image(answer.overlay(image, opacity), "overlay.jpg"))
    return f'<figure><img src="{picture}" alt="{topic}"><figcaption>{topic}{old}</figcaption></figure>'
