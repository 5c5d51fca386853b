"""The page as people start it: a process of its own, on a port that is free; and Chromium to look at it."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
