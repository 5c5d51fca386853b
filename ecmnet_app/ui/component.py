"""HTML components of our own: a template, its style and its script from static/, and what they all share."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ecmnet_app.core import LabelSet
from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.errors import EcmnetError

__all__ = [
    "KEPT_HOURS",
    "STATIC_FOLDER",
    "classes_of",
    "data_url",
    "gone",
    "make_component",
    "message_of",
    "take_uploads_only",
    "weights_choice",
]

KEPT_HOURS = 1
"""How long the server keeps an upload, and what it made of it."""
STATIC_FOLDER = Path(__file__).parent / "static"


def make_component(
    name: str, value: Any = None, server_functions: list[Callable[..., Any]] | None = None, **kwargs: Any
) -> gr.HTML:
    """The component of static/`name`.html, .css and .js, over the style of stage.css and the functions of classes.js.

    Args:
        name: of the three files.
        value: the script's `props.value`; any JSON.
        server_functions: what the script can call, each with one JSON object.
        kwargs: of gr.HTML, such as `elem_id`.
    """
    return gr.HTML(
        value=value,
        html_template=_read(f"{name}.html"),
        css_template=_read("stage.css") + _read(f"{name}.css"),
        js_on_load=_read("classes.js") + _read(f"{name}.js"),
        apply_default_css=False,
        server_functions=server_functions,
        **kwargs,
    )


def classes_of(label_set: LabelSet) -> list[dict[str, Any]]:
    """What the scripts know of each class, in order of id, unlabelled last: id, name and colour as RGB, 0 to 255."""
    return [{"id": label.id, "name": label.name, "color": list(label.color)} for label in label_set.with_unlabelled]


def gone(what: str) -> str:
    """What to say of an upload, a picture or a video, that Gradio has deleted."""
    return f"the {what} is not here any more: files are kept for {KEPT_HOURS} hour; choose it again"


def data_url(kind: str, data: bytes) -> str:
    """An address that holds the bytes of a file of this MIME type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def message_of(error: EcmnetError) -> str:
    """An error as a sentence to show."""
    message = str(error)
    return message[:1].upper() + message[1:] + "."


def weights_choice(segmenters: SegmenterPool, elem_id: str | None = None) -> gr.Radio:
    """The names of the weights that the page serves, the first of them chosen; not shown where there is one alone."""
    return gr.Radio(
        choices=list(segmenters.weights),
        value=segmenters.get().weights.name,
        label="Weights",
        info="What the network was taught, by which pictures.",
        visible=len(segmenters.weights) > 1,
        elem_id=elem_id,
    )


def take_uploads_only(component: gr.Image | gr.File, example: str) -> None:
    """Refuse addresses of files, which gradio would fetch: this server calls no other.

    Args:
        component: that takes files.
        example: name of a file, which the documentation of the API shows in place of an address.
    """
    move = component.async_move_resource_to_block_cache

    async def move_upload(path: str | Path | None) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise gr.Error("send the file itself, not its address", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_upload  # type: ignore[method-assign, assignment]
    component.example_value = lambda: example  # type: ignore[method-assign]
    payload = {"path": example, "meta": {"_type": "gradio.FileData"}}
    component.example_payload = lambda: payload  # type: ignore[method-assign]


def _read(name: str) -> str:
    return (STATIC_FOLDER / name).read_text("utf-8")
