"""Serving the page: the web app around it, and the port that it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from gradio.utils import get_upload_folder

from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.errors import ConfigError
from ecmnet_app.ui.component import STATIC_FOLDER
from ecmnet_app.ui.gate import Gate
from ecmnet_app.ui.theme import make_theme

__all__ = ["create_app", "listen", "serve"]

SWEEP_SECONDS = 600.0
"""Between two looks for uploads that broke off, and since anything came of those that did."""


def create_app(
    page: gr.Blocks,
    worker: StreamWorker,
    auth: list[tuple[str, str]] | None = None,
    root_path: str | None = None,
    max_upload_mb: int = 500,
) -> FastAPI:
    """The web app: the page at /, and /healthz, which answers without a login.

    Args:
        page: from `ui.build`.
        worker: that the page was built with; /healthz tells how many sources it has.
        auth: users and their passwords; the page asks for one of them.
        root_path: where a proxy serves the page, such as "/ecmnet".
        max_upload_mb: larger files are refused.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_sweeping)
    app.add_middleware(Gate)

    @app.get("/healthz")
    def healthz() -> dict[str, str | int]:
        return {"status": "ok", "version": version("ecmnet-app"), "sources": worker.sources}

    @app.api_route("/gradio_api/file=http{rest:path}", methods=["GET", "HEAD"])
    @app.api_route("/gradio_api/file/http{rest:path}", methods=["GET", "HEAD"])
    def refuse_other_hosts(rest: str) -> Response:
        """Gradio would fetch an address that stands in the place of a file's name: this server calls no other."""
        return Response(status_code=403)

    # Only `launch` sets this, and without it gradio lets a request name any file of this machine as its upload.
    page.has_launched = True
    # A client names its own session, and gradio keeps 33 KB of each: 10,000 by default.
    page.state_session_capacity = 500
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        auth=auth,
        root_path=root_path,
        max_file_size=max_upload_mb * 2**20,
        theme=make_theme(),
        css_paths=STATIC_FOLDER / "page.css",
        js=(STATIC_FOLDER / "page.js").read_text("utf-8"),
        footer_links=["api"],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
    )


def serve(app: FastAPI, listener: socket.socket, certfile: str | None = None, keyfile: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM, which is raised again once open requests have ended.

    Args:
        app: from `create_app`.
        listener: from `listen`.
        certfile: certificate in PEM; https with it, http without.
        keyfile: its key, where `certfile` does not hold that too.

    Raises:
        ConfigError: the certificate or key cannot be used.
    """
    if keyfile and not certfile:
        raise ConfigError("a key without a certificate; give --ssl-certfile as well")
    # A page that is open holds a connection for as long as it lives, so stopping must not wait for all to end.
    config = uvicorn.Config(
        app, ssl_certfile=certfile, ssl_keyfile=keyfile, log_level="warning", timeout_graceful_shutdown=2
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the certificate {certfile} with its key: {error.strerror or error}") from error
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    print(f"ECMNet is at {'https' if certfile else 'http'}://{name}:{port} (Ctrl-C stops it)", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is busy, and the message names the next free one; or there is no such address here.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is already in use; --port {_next_free(host, port)} is free") from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


@contextlib.asynccontextmanager
async def _sweeping(_: FastAPI) -> AsyncIterator[None]:
    """Delete what uploads leave that break off, again and again: gradio's own clean-up knows whole ones alone."""

    async def sweep() -> None:
        while True:
            for upload in Path(get_upload_folder()).glob("tmp*"):
                with contextlib.suppress(OSError):  # it was whole a moment later, and has its own name now
                    if time.time() - upload.stat().st_mtime > SWEEP_SECONDS:
                        upload.unlink()
            await asyncio.sleep(SWEEP_SECONDS)

    sweeper = asyncio.create_task(sweep())
    yield
    sweeper.cancel()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


def _next_free(host: str, port: int) -> int:
    for candidate in [*range(port + 1, min(port + 100, 65536)), 0]:  # 0: any that is free
        try:
            with _listen(host, candidate) as found:
                return found.getsockname()[1]
        except OSError:
            continue
    raise ConfigError(f"port {port} is in use and no other is free")
