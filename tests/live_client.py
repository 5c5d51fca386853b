"""A viewer of the live tab without a browser. Imports little: tests start processes with it."""

from __future__ import annotations

import base64
from typing import Any

import httpx


class LiveClient:
    """Calls the live tab's server function as its page does."""

    def __init__(self, url: str, viewer: str, **options: Any) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, **options)
        self.viewer = viewer
        (self.component,) = (
            one["id"]
            for one in self.http.get("/config").raise_for_status().json()["components"]
            if one["props"].get("elem_id") == "live"
        )

    def post(self, data: Any) -> httpx.Response:
        """Call the function with any JSON."""
        return self.http.post("/gradio_api/component_server/", json=self.body(data))

    def body(self, data: Any) -> dict[str, Any]:
        """The request's JSON."""
        name = {"component_id": self.component, "fn_name": "segment_frame", "session_hash": self.viewer}
        return {"data": data, **name}

    def frame(self, image: bytes, seq: int = 0) -> dict[str, Any]:
        """What the page sends of a picture's bytes."""
        return {"viewer": self.viewer, "seq": seq, "image": base64.b64encode(image).decode()}

    def send(self, image: bytes, seq: int = 0) -> dict[str, Any]:
        """The answer to a frame."""
        return self.post(self.frame(image, seq)).raise_for_status().json()
