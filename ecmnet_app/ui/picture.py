"""The Picture tab: one picture in, every pixel named, and the same as an end point for programs."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from numpy.typing import NDArray

from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import Answer, StreamWorker
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import EcmnetError, ImageError
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import encode_mask, read_image
from ecmnet_app.ui.component import gone, take_uploads_only, weights_choice
from ecmnet_app.ui.viewer import error_view, make_viewer, picture_view

__all__ = ["build_tab"]

MAX_BYTES = 160_000_000
"""Of a picture's file, which is held in memory: a little more than the largest picture has that is not compressed."""


def build_tab(segmenters: SegmenterPool, worker: StreamWorker) -> None:
    """Add the tab's components and end point to the page that is being built."""
    first = segmenters.get().weights

    # Both functions take the upload as it came (`preprocess=False`), for our one decoder to read.

    def run(upload: dict[str, Any], resolution: int | None, weights: str | None) -> tuple[NDArray[np.uint8], Answer]:
        path = Path(upload["path"])
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ImageError(f"the picture is larger than {MAX_BYTES / 1e6:g} MB; save it as a JPEG")
            data = path.read_bytes()  # bytes: no message tells of the server's folders
        except OSError as error:
            raise ImageError(gone("picture")) from error
        image = read_image(data)
        with worker.open() as source:
            return image, source.submit(image, resolution=resolution, weights=weights).result()

    def show(upload: dict[str, Any] | None, resolution: int, weights: str) -> dict[str, Any] | None:
        if upload is None:
            return None
        try:
            segmenter = segmenters.get(weights)
            # The first choice is the rule of the weights, which leaves smaller pictures as they are.
            asked = None if resolution == segmenter.weights.working_short_side else resolution
            image, answer = run(upload, asked, weights)
            height, width = image.shape[:2]
            seen = segmenter.working_size(height, width, asked)
            return picture_view(image, answer, Path(upload["path"]).stem, seen)
        except EcmnetError as error:
            return error_view(error)

    def describe(weights: str, resolution: int) -> tuple[gr.Radio, str]:
        chosen = segmenters.weights[weights]
        choices = _resolutions(chosen)
        kept = resolution if resolution in dict(choices).values() else chosen.working_short_side
        return gr.Radio(choices=choices, value=kept), _about(chosen)

    def segment(
        picture: dict[str, Any] | None, resolution: int | None = None, weights: str | None = None
    ) -> tuple[str, dict[str, float]]:
        """Name every pixel of a picture.

        Args:
            picture: the file.
            resolution: short side, in pixels, that the network sees; that of the weights if left out.
            weights: name of those to take, where the server has several; the first of them if left out.

        Returns:
            An index PNG of class ids with their palette, and the share of the picture that each class covers.
        """
        try:
            if picture is None:
                raise ImageError("there is no picture; send one as a file")
            segmentation = run(picture, resolution, weights)[1].segmentation
        except EcmnetError as error:
            raise gr.Error(str(error), print_exception=False) from error
        data = encode_mask(segmentation.labels, segmentation.label_set.palette)
        name = f"{Path(picture['path']).stem}-mask.png"
        return save_bytes_to_cache(data, name, mask.GRADIO_CACHE), segmentation.areas()

    with gr.Row(elem_classes="picture-tab"):
        with gr.Column():
            picture = gr.Image(
                label="Picture",
                show_label=False,
                sources=["upload", "clipboard", "webcam"],
                webcam_options=gr.WebcamOptions(mirror=False),
                placeholder="Drop a picture\nor click to choose one",
                buttons=[],
                height=300,
                elem_id="picture",
            )
            take_uploads_only(picture, "street.jpg")
            if examples := sorted(EXAMPLES_FOLDER.glob("*.jpg")):
                gr.Examples([str(path) for path in examples], picture, label="Or try one of these", elem_id="examples")
        with gr.Column():
            viewer = make_viewer(elem_id="viewer")
        with gr.Column():
            resolution = gr.Radio(
                choices=_resolutions(first),
                value=first.working_short_side,
                label="Resolution",
                info="Short side that the network sees. More finds small things, and is slower.",
                elem_id="resolution",
            )
            weights = weights_choice(segmenters, "weights")
            about = gr.HTML(_about(first), elem_id="about", apply_default_css=False)
    weights.change(
        describe, [weights, resolution], [resolution, about], show_progress="hidden", api_visibility="private"
    )
    gr.on(
        [picture.change, resolution.change, weights.change],
        show,
        [picture, resolution, weights],
        viewer,
        trigger_mode="always_last",
        show_progress_on=viewer,
        preprocess=False,
        api_visibility="private",
    )

    side = gr.Number(None, label="resolution", precision=0, visible=False)
    chosen = gr.Textbox(None, label="weights", visible=False)
    mask = gr.File(label="mask", visible=False)
    areas = gr.JSON(label="areas", visible=False)
    gr.Button(visible=False).click(
        segment, [picture, side, chosen], [mask, areas], api_name="segment", preprocess=False
    )


def _resolutions(weights: Weights) -> list[tuple[str, int]]:
    """Short sides to choose from."""
    side = weights.working_short_side
    return [(f"{pixels} px", pixels) for pixels in (side, side * 5 // 4, side * 3 // 2)]


def _about(weights: Weights) -> str:
    """What helps to choose them: the classes, the scores on pictures that they never saw, the terms."""
    sentences = [f"“{weights.name}” knows {', '.join(weights.label_set.names)}."]
    scores = [
        f"{100 * metric['miou']:.1f} % on {metric['dataset']} ({len(metric['per_class'])} classes)"
        for metric in weights.metrics
        if metric["split"] == "test" and metric["miou"] is not None
    ]
    if scores:
        sentences.append(f"Mean IoU on test pictures: {', '.join(scores)}.")
    sentences.append(f"Licence: {weights.licence}")
    return "".join(f'<p class="page-footer">{html.escape(sentence)}</p>' for sentence in sentences)
