"""The viewer: a picture under its classes, with a before/after slider, opacity, a legend and the mask to take along.

It is one HTML component whose script draws everything from one value: the slider, the opacity and the names under the
pointer answer at once, ask nothing of the server, and leave no file on it.
"""

from __future__ import annotations

from typing import Any

import cv2
import gradio as gr
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.core import UNLABELLED
from ecmnet_app.core.stream import Answer
from ecmnet_app.errors import EcmnetError
from ecmnet_app.media.images import encode_image, encode_mask
from ecmnet_app.ui.component import classes_of, data_url, make_component, message_of

__all__ = ["LONGEST_SIDE", "error_view", "make_viewer", "picture_view"]

LONGEST_SIDE = 1920
"""Of the picture as shown, in pixels; the mask keeps the size of the picture that was sent."""


def make_viewer(**kwargs: Any) -> gr.HTML:
    """The component. Its value is a `picture_view`, an `error_view`, or None for nothing yet."""
    return make_component("viewer", **kwargs)


def picture_view(image: NDArray[np.uint8], answer: Answer, name: str, seen: tuple[int, int]) -> dict[str, Any]:
    """What the viewer shows of an answered picture.

    Args:
        image: the picture, RGB uint8. Shape: (H, W, 3).
        answer: to that picture.
        name: of the picture, for the mask's file name.
        seen: height and width at which the network saw it.

    Raises:
        EcmnetError: the answer holds one.
    """
    segmentation = answer.segmentation
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    shown = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    areas = segmentation.areas()
    note = f"{width}\u00d7{height}" + ("" if seen == (height, width) else f", seen at {seen[1]}\u00d7{seen[0]}")
    classes = [{**one, "area": areas[one["name"]]} for one in classes_of(segmentation.label_set)]
    return {
        "picture": data_url("image/jpeg", encode_image(np.asarray(shown, np.uint8), "picture.jpg")),
        "mask": data_url("image/png", encode_mask(segmentation.labels, segmentation.label_set.palette)),
        "mask_name": f"{name}-mask.png",
        "width": shown.shape[1],
        "height": shown.shape[0],
        "note": f"{note}, in {answer.age:.1f} s",
        "classes": sorted(
            (one for one in classes if one["id"] != UNLABELLED or one["area"] > 0), key=lambda one: -one["area"]
        ),
    }


def error_view(error: EcmnetError) -> dict[str, Any]:
    """What the viewer shows in place of a picture that could not be segmented."""
    return {"error": message_of(error)}
