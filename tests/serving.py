"""The page as people start it: a process of its own, on a port that is free; and Chromium to look at it."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2

from ecmnet_app.media.files import EXAMPLES_FOLDER

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
)

CAMERA_FLAG = "--use-file-for-fake-video-capture="


@contextlib.contextmanager
def served_page(*flags: str, stop: signal.Signals = signal.SIGINT, env: dict[str, str] | None = None) -> Iterator[str]:
    """URL of a page served by `python -m ecmnet_app.gradio`, which must start, and end cleanly when stopped."""
    command = [sys.executable, "-m", "ecmnet_app.gradio", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            line = process.stdout.readline()
            url = re.search(r"https?://\S+", line)
            if url is None:
                raise RuntimeError(f"the page did not start: {line}{process.stderr.read()}")
            yield url[0]
            process.send_signal(stop)
            errors = process.communicate(timeout=30)[1]
            assert process.returncode == 0, errors
        finally:
            process.kill()


def free_port() -> int:
    """A port for a server that is started again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_until(condition: Callable[[], Any], seconds: float) -> None:
    """Fail unless it holds within so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@contextlib.contextmanager
def breakable(url: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Another URL of a page, and a function that breaks every connection through it, as a network does that fails."""
    server, ends = ("127.0.0.1", urlsplit(url).port), []

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    class Line(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(server) as there:
                ends.extend([self.request, there])
                threading.Thread(target=pass_on, args=(self.request, there), daemon=True).start()
                pass_on(there, self.request)

    def cut() -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ends.clear()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Line) as line:
        line.daemon_threads = True
        threading.Thread(target=line.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{line.server_address[1]}", cut
        line.shutdown()


def why_no_chromium() -> str | None:
    """The reason why Chromium cannot be driven here, or None."""
    if not Path(CHROMIUM).exists() and shutil.which("chromium") is None:
        return f"Chromium is not at {CHROMIUM}: apt install chromium"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install -e '.[dev]'"
    return None


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A playwright Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright.chromium, *flags)
        yield browser
        browser.close()


def launch(browser_type: Any, *flags: str) -> Any:
    """One more playwright Browser, from the `browser_type` of another. Of flags that contradict, the last one holds."""
    return browser_type.launch(
        executable_path=shutil.which("chromium") or CHROMIUM, headless=True, args=[*CHROMIUM_FLAGS, *flags]
    )


def camera_frames() -> tuple[list[bytes], float]:
    """A film of our rendered streets, or while there is none our stills: JPEG frames, and how many a second."""
    clip = EXAMPLES_FOLDER / "street.mp4"
    if not clip.exists():
        return [still.read_bytes() for still in sorted(EXAMPLES_FOLDER.glob("*.jpg"))], 1
    film, frames = cv2.VideoCapture(str(clip)), []
    while (read := film.read())[0]:
        frames.append(cv2.imencode(".jpg", read[1])[1].tobytes())
    return frames, film.get(cv2.CAP_PROP_FPS)


def write_camera(path: Path) -> Path:
    """The film as `CAMERA_FLAG` gives it to Chromium, which plays 30 frames a second of it for ever."""
    frames, rate = camera_frames()
    path.write_bytes(b"".join(frame * max(1, round(30 / rate)) for frame in frames))
    return path
