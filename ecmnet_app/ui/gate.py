"""The gate before the page: what is too large or too much is refused before gradio spends time and memory on it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecmnet_app.ui.live import MAX_FRAME_BYTES, MAX_IN_FLIGHT, PENALTY_SECONDS

__all__ = ["MAX_BODY_BYTES", "Gate"]

MAX_BODY_BYTES = 2 * MAX_FRAME_BYTES
"""Of a request that is no upload, for which gradio has its own limit: a frame in base64, and room."""

_UPLOAD = "/gradio_api/upload"  # and no other path that ends so, such as a call of an event of that name
_VIEWER = re.compile(rb'"viewer": ?"([^"]{1,64})"')


class Gate:
    """An ASGI middleware with two rules, each of which tells the client what it broke.

    A body over `MAX_BODY_BYTES` is read to its end without being kept, and answered with 413. A frame beyond the
    `MAX_IN_FLIGHT` of its viewer is answered with 429 after `PENALTY_SECONDS`: a client that floods waits for its own
    answers, and costs a tenth of what gradio would spend on each.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inside: Counter[bytes] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].endswith(_UPLOAD):
            return await self._app(scope, receive, send)
        body = await _read(receive)
        if body is None:
            text = f"The request is larger than {MAX_BODY_BYTES / 1e6:g} MB; send a smaller picture, or upload it."
            return await JSONResponse({"seq": None, "error": text}, 413)(scope, receive, send)
        frame = _VIEWER.search(body, 0, 200) if "/component_server" in scope["path"] else None
        if frame is None:
            return await self._app(scope, _again(body, receive), send)
        viewer = frame[1]
        if self._inside[viewer] >= MAX_IN_FLIGHT:
            del body, frame  # nothing large is held while it waits
            await asyncio.sleep(PENALTY_SECONDS)
            text = f"More than {MAX_IN_FLIGHT} frames at once; send the next when one is answered."
            return await JSONResponse({"seq": None, "error": text}, 429)(scope, receive, send)
        self._inside[viewer] += 1
        try:
            await self._app(scope, _again(body, receive), send)
        finally:
            self._inside[viewer] -= 1
            if not self._inside[viewer]:
                del self._inside[viewer]


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where it is too large."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)  # a client that goes away ends its body
    return b"".join(parts) if size <= MAX_BODY_BYTES else None


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and then what really comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
