"""The page: one module a tab, put together here."""

from __future__ import annotations

import html

import gradio as gr

from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.ui import live, picture, video
from ecmnet_app.ui.component import KEPT_HOURS

__all__ = ["build"]


def build(segmenters: SegmenterPool, worker: StreamWorker) -> gr.Blocks:
    """The page, for `ui.server.create_app` to serve.

    Args:
        segmenters: whose weights the page offers, the first where it offers no choice.
        worker: runs `segmenters.predict_batch` for every viewer.
    """
    kept = 600, KEPT_HOURS * 3600  # seconds between two looks, and of the files that stay
    with gr.Blocks(title="ECMNet: every pixel named", analytics_enabled=False, delete_cache=kept) as page:
        gr.HTML(_HEADER, apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Picture"):
                picture.build_tab(segmenters, worker)
            with gr.Tab("Video"):
                video.build_tab(segmenters, worker)
            with gr.Tab("Live"):
                live.build_tab(segmenters, worker)
        gr.HTML(_footer(segmenters), apply_default_css=False)
    return page.queue(max_size=64, default_concurrency_limit=4)


_HEADER = """
<header class="page-header">
  <svg viewBox="0 0 32 32" aria-hidden="true">
    <path fill="#a9b4c6" d="M0 0h32v32H0z"/><path fill="#a2423d" d="M0 4l10 6v8L0 22z"/>
    <path fill="#7f8f3a" d="M32 2l-9 8v8l9 4z"/><path fill="#4b3fd0" d="M0 20l11-4-4 16H0zM32 20l-11-4 4 16h7z"/>
    <path fill="#80408a" d="M11 16h10l6 16H5z"/>
  </svg>
  <div>
    <h1>ECMNet</h1>
    <p>A picture, a video or a camera of a street, and every pixel of it named. No picture leaves this server.</p>
  </div>
</header>
"""


def _footer(segmenters: SegmenterPool) -> str:
    engine = segmenters.get().engine
    facts = f"Weights {', '.join(segmenters.weights)} · runs on {engine.device}, by {engine.name}"
    return f'<footer class="page-footer">{html.escape(facts)}</footer>'
