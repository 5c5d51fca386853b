"""The live tab under load: a real server, real Chromium with a film of our streets as its camera, protocol clients.

    python benchmarks/live.py rate                  # one viewer: overlays a second, their age, drift over 5 minutes
    python benchmarks/live.py viewers               # 1, 4 and 8 viewers for a minute each: fairness, memory, files
    python benchmarks/live.py vanish                # a closed tab, a killed browser, a killed client
    python benchmarks/live.py bad                   # bad frames of every kind, and a flood, beside two viewers
    python benchmarks/live.py all --seconds 20      # all of them, in less time

Each prints one table. The server and the predict that it is compared with run on one core, browsers and clients on
another. Figures of one run stand beside each other; those of two runs on a busy machine do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from live_client import LiveClient
from serving import CAMERA_FLAG, camera_frames, chromium, launch, served_page, write_camera

from ecmnet_app.core import Segmenter
from ecmnet_app.media.images import encode_image, read_image
from ecmnet_app.ui.live import MAX_FRAME_BYTES, MAX_IN_FLIGHT

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]


# ---- the server, and predict alone on its core


class Server:
    """A served page on its own core."""

    def __init__(self, url: str, pid: int, folder: Path) -> None:
        self.url = url
        self.pid = pid
        self.folder = folder

    def memory(self) -> float:
        """The most that was resident so far, in MB: what is resident goes up and down with every frame."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def cpu(self) -> float:
        """Processor seconds that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """In its folder of temporary files."""
        return sum(path.is_file() for path in self.folder.rglob("*"))

    def sources(self) -> int:
        """Viewers that have a slot."""
        return LiveClient(self.url, "asks").http.get("/healthz").json()["sources"]


@contextlib.contextmanager
def served(weights: str) -> Iterator[Server]:
    """The page, pinned; this process and its later children move to the other core."""
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {SERVER_CORE})
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder}
        before = descendants()
        with served_page("--weights", weights, env=env) as url:
            os.sched_setaffinity(0, {CLIENT_CORE})
            (pid,) = descendants() - before
            yield Server(url, pid, Path(folder))


def descendants() -> set[int]:
    """Processes that this one has started, and those that they have."""
    parents = {}
    for line in subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True).stdout.splitlines():
        pid, parent, command = line.split(maxsplit=2)
        if command != "ps":
            parents[int(pid)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


class Baseline:
    """`Segmenter.predict` alone on the server's core, in a process of its own."""

    def __init__(self, weights: str) -> None:
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _load, (weights,))

    def __call__(self, frames: list[bytes], seconds: float) -> list[tuple[float, float]]:
        """Seconds of each call in a while: by the clock, and of the processor."""
        return self.pool.submit(_predict_for, frames, seconds).result()


def _load(weights: str) -> None:
    global segmenter
    os.sched_setaffinity(0, {SERVER_CORE})
    torch.set_num_threads(1)
    segmenter = Segmenter.from_pretrained(weights)


def _predict_for(frames: list[bytes], seconds: float) -> list[tuple[float, float]]:
    images = [read_image(frame) for frame in frames]
    segmenter.predict(images[0])
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter(), time.process_time()
        segmenter.predict(images[len(times) % len(images)])
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times


def page_frames() -> list[bytes]:
    """What a page sends of the film: JPEG at 0.8, 640 pixels long."""
    return [encode(frame) for frame in camera_frames()[0][::5]]


def encode(frame: bytes) -> bytes:
    """A frame as the page encodes it."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(frame)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


# ---- viewers


class Tab:
    """The live tab in a browser, with its camera running."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(permissions=["camera"], viewport={"width": 1000, "height": 800})
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.page.goto(url)
        self.page.get_by_role("tab", name="Live").click()
        self.page.wait_for_selector(".live .start")
        self.page.evaluate("""() => {
            window.overlays = [];
            document.querySelector(".live").addEventListener("overlay", ({ detail }) => overlays.push(detail));
        }""")
        self.toggle()
        self.page.wait_for_function("overlays.length >= 3")

    def toggle(self) -> None:
        """Start the camera, or stop it."""
        self.page.click(".live .start")

    def wait(self, seconds: float) -> list[dict[str, float]]:
        """The overlays that are shown in this time: when their frame was taken and their age, in milliseconds."""
        self.page.evaluate("overlays.length = 0")
        self.page.wait_for_timeout(1000 * seconds)
        return self.page.evaluate("overlays")

    def count(self) -> int:
        return self.page.evaluate("overlays.length")


class ProtocolViewer:
    """A viewer that sends frames as the page does, two at a time, from threads instead of a browser."""

    def __init__(self, url: str, name: str, frames: list[bytes]) -> None:
        self.replies: Counter[str] = Counter()
        self._stop = threading.Event()
        self._clients = [LiveClient(url, name) for _ in range(MAX_IN_FLIGHT)]
        self._threads = [threading.Thread(target=self._send, args=(one, frames)) for one in self._clients]
        for thread in self._threads:
            thread.start()

    def _send(self, client: LiveClient, frames: list[bytes]) -> None:
        sent = 0
        while not self._stop.is_set():
            reply = client.send(frames[sent % len(frames)], sent)
            self.replies[next(key for key in ("mask", "dropped", "error") if key in reply)] += 1
            sent += 1

    @property
    def shown(self) -> int:
        """Frames that came back segmented."""
        return self.replies["mask"]

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


# ---- the rows


def rate(options: argparse.Namespace) -> None:
    """One viewer: rate and age beside predict's, in turns; then one long stretch for drift."""
    frames, baseline = page_frames(), Baseline(options.weights)
    predict: list[tuple[float, float]] = []
    live: list[dict[str, float]] = []
    core_seconds, turns = 0.0, 6
    with served(options.weights) as server, browser_with_camera() as browser:
        tab = Tab(browser, server.url)
        for _ in range(turns):
            tab.toggle()
            predict += baseline(frames, options.seconds / turns)
            tab.toggle()
            tab.page.wait_for_timeout(3000)
            before = server.cpu()
            live += tab.wait(options.seconds / turns)
            core_seconds += server.cpu() - before
        drift = tab.wait(options.drift)
        tab.context.close()
    wall, core = (np.array(column) for column in zip(*predict, strict=True))
    ages = np.array([one["age"] for one in live]) / 1000
    taken, old = (np.array([one[key] for one in drift]) / 1000 for key in ("time", "age"))
    shown, alone = len(live) / options.seconds, 1 / wall.mean()
    print_table(
        "one viewer",
        [
            ("predict alone, a second", f"{alone:.2f}"),
            ("overlays shown, a second", f"{shown:.2f}"),
            ("share (>= 0.9, or the camera's own 30)", f"{shown / min(alone, 30):.2f}"),
            (
                "processor time of predict / of the server for each overlay",
                f"{core.mean() / (core_seconds / len(live)):.2f}",
            ),
            ("age: median, p95", f"{np.median(ages):.3f} s, {np.quantile(ages, 0.95):.3f} s"),
            ("2.5 x predict + 33 ms", f"{2.5 * wall.mean() + 0.033:.3f} s"),
            (f"age in the first and the last fifth of {options.drift:.0f} s", first_and_last(old)),
            ("slope of the age", f"{1000 * np.polyfit(taken - taken[0], old, 1)[0]:+.2f} ms a second"),
        ],
    )


def first_and_last(ages: np.ndarray) -> str:
    """Medians of the two ends of a series of ages in seconds."""
    fifth = max(1, len(ages) // 5)
    return f"{np.median(ages[:fifth]):.3f} s, {np.median(ages[-fifth:]):.3f} s"


def viewers(options: argparse.Namespace) -> None:
    """1, 4 and 8 viewers, up to two of them real browsers."""
    frames, rows = page_frames(), []
    with served(options.weights) as server, browser_with_camera() as browser, browser_with_camera(browser) as second:
        files = server.files()
        for number in (1, 4, 8):
            tabs = [Tab(one, server.url) for one in (browser, second)[:number]]
            clients = [ProtocolViewer(server.url, f"viewer {i}", frames) for i in range(number - len(tabs))]
            tabs[0].page.wait_for_timeout(10_000)
            start, memory = [one.count() for one in tabs] + [one.shown for one in clients], [server.memory()]
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                tabs[0].page.wait_for_timeout(1000)
                memory.append(server.memory())
            shown = [one.count() for one in tabs] + [one.shown for one in clients]
            counts = [after - before for after, before in zip(shown, start, strict=True)]
            for client in clients:
                client.close()
            for tab in tabs:
                tab.context.close()
            errors = sum(one.replies["error"] for one in clients)
            rows += [
                (
                    f"{number} viewers, overlays a second",
                    ", ".join(f"{count / options.seconds:.2f}" for count in counts),
                ),
                ("fastest / slowest; errors", f"{max(counts) / max(1, min(counts)):.2f}; {errors}"),
                ("memory after 10 s; most after that", f"{memory[0]:.0f} MB; {max(memory) - memory[0]:+.0f} MB"),
            ]
        rows.append(("files left on disk", str(server.files() - files)))
    print_table("many viewers (fastest / slowest <= 1.5, memory <= +50 MB, no files)", rows)


def vanish(options: argparse.Namespace) -> None:
    """How long a viewer's slot outlives it."""
    frames, rows = page_frames(), []
    with served(options.weights) as server, browser_with_camera() as browser:
        tab = Tab(browser, server.url)
        rows.append(("a tab is closed", seconds_until_gone(server, tab.context.close)))

        before = descendants()
        with contextlib.suppress(Exception):  # of playwright, which misses what is killed
            victim = launch(browser.browser_type, CAMERA_FLAG + str(write_camera(server.folder / "street.mjpeg")))
            Tab(victim, server.url)
            rows.append(
                ("a browser's processes are killed", seconds_until_gone(server, lambda: kill(descendants() - before)))
            )
            victim.close()

        client = multiprocessing.get_context("spawn").Process(target=_send_for_ever, args=(server.url, frames[0]))
        client.start()
        while not server.sources():
            time.sleep(0.1)
        rows.append(("a client's process is killed", seconds_until_gone(server, client.kill)))
    print_table("a viewer vanishes: its slot is freed after (<= 5 s)", rows)


def _send_for_ever(url: str, frame: bytes) -> None:
    client = LiveClient(url, "killed")
    while True:
        client.send(frame)


def seconds_until_gone(server: Server, action: Any) -> str:
    """From an action until no viewer is left."""
    if server.sources() != 1:
        raise RuntimeError(f"{server.sources()} viewers instead of one")
    start = time.monotonic()
    action()
    while server.sources():
        time.sleep(0.05)
    return f"{time.monotonic() - start:.1f} s"


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def bad(options: argparse.Namespace) -> None:
    """What two viewers have beside a third one: a good one first, and then every kind of bad one."""
    frames = page_frames()
    with served(options.weights) as server:
        good = [ProtocolViewer(server.url, f"good {i}", frames) for i in range(2)]
        seconds = options.seconds / 3

        def rate_of_good() -> float:
            before = sum(one.shown for one in good)
            time.sleep(seconds)
            return (sum(one.shown for one in good) - before) / seconds

        time.sleep(5)
        rows = [("nobody else", f"{rate_of_good():.2f} a second", "")]
        third = ProtocolViewer(server.url, "third", frames)
        time.sleep(2)
        rows.append(("a third viewer", f"{rate_of_good():.2f} a second", ""))
        third.close()
        client = LiveClient(server.url, "bad")

        def image(data: bytes) -> dict[str, Any]:
            return client.frame(data)

        kinds: list[tuple[str, bytes]] = [
            ("a truncated JPEG", dump(client, image(frames[0][:20_000]))),
            ("20,000 pixels", dump(client, image(encode_image(np.zeros((60, 20_000, 3), np.uint8), "a.jpg")))),
            ("over the limit of a frame", dump(client, image(os.urandom(MAX_FRAME_BYTES + 1)))),
            ("an object that is no frame", dump(client, {"viewer": 5})),
            ("no JSON", b'{"data": '),
            ("100 MB", dump(client, {**image(b""), "image": "A" * 100_000_000})),
        ]
        for name, body in kinds:
            with Sender(client, body) as sender:
                rows.append((name, f"{rate_of_good():.2f} a second", sender.told()))
        with Flood(server.url, dump(client, image(frames[0])), 1000) as flood:
            time.sleep(2)
            rows.append(("1,000 frames a second", f"{rate_of_good():.2f} a second", flood.told()))
        for one in good:
            one.close()
        errors = sum(one.replies["error"] for one in good)
    print_table(f"two viewers beside a bad client ({errors} errors met them)", rows)


def dump(client: LiveClient, data: Any) -> bytes:
    return json.dumps(client.body(data)).encode()


class Sender:
    """Sends one body again and again, from one thread."""

    def __init__(self, client: LiveClient, body: bytes) -> None:
        self._client, self._body = client, body
        self._replies: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._stop.is_set():
            reply = self._client.http.post(
                "/gradio_api/component_server/", content=self._body, headers={"Content-Type": "application/json"}
            )
            known = reply.json()
            self._replies[f"{reply.status_code}: {known.get('error') or known.get('detail')}"] += 1

    def told(self) -> str:
        return "; ".join(f"{count} x {reply}" for reply, count in self._replies.most_common(3))

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


class Flood:
    """One client that sends so many requests a second, whether or not they are answered; a process of its own."""

    def __init__(self, url: str, body: bytes, per_second: int) -> None:
        self._arguments = (url, body, per_second)

    def __enter__(self) -> Flood:
        context = multiprocessing.get_context("spawn")
        self._counts = context.Array("i", 3)
        self._process = context.Process(target=_flood, args=(*self._arguments, self._counts), daemon=True)
        self._process.start()
        while not self._counts[0]:
            time.sleep(0.1)
        self._start = time.monotonic()
        return self

    def told(self) -> str:
        seconds = time.monotonic() - self._start
        sent, refused, answered = (count / seconds for count in self._counts)
        return f"{sent:.0f} sent a second, {refused:.0f} refused with 429, {answered:.1f} answered"

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()


def _flood(url: str, body: bytes, per_second: int, counts: Any) -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /gradio_api/component_server/ HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    )
    request = head.encode() + body
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send() -> None:
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection(host, int(port))
            writer.write(request)
            counts[0] += 1
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer.lower())[1]))
            counts[1 if b" 429 " in answer[:20] else 2] += 1
            idle.append((reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass

    async def send_all() -> None:
        start, sent, tasks = time.monotonic(), 0, set()
        while True:
            due = int((time.monotonic() - start) * per_second)
            for _ in range(min(due - sent, 50)):
                if len(tasks) < 2 * per_second:
                    tasks.add(task := asyncio.ensure_future(send()))
                    task.add_done_callback(tasks.discard)
            sent = due
            await asyncio.sleep(0.01)

    asyncio.run(send_all())


@contextlib.contextmanager
def browser_with_camera(other: Any = None) -> Iterator[Any]:
    """Chromium with a film of our streets as its camera; a second one from the playwright of the first."""
    with tempfile.TemporaryDirectory() as folder:
        flag = CAMERA_FLAG + str(write_camera(Path(folder) / "street.mjpeg"))
        if other is None:
            with chromium(flag) as browser:
                yield browser
        else:
            browser = launch(other.browser_type, flag)
            yield browser
            browser.close()


def print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """As Markdown."""
    print(f"\n{title}\n")
    width = max(len(row) for row in rows)
    print("| " + " | ".join(["what", "figure", "what it is told"][:width]) + " |")
    print("|" + "---|" * width)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Parse arguments and run the rows that were asked for."""
    rows = {"rate": rate, "viewers": viewers, "vanish": vanish, "bad": bad}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[*rows, "all"])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument("--drift", type=float, default=300, help="seconds over which the drift of ages is taken")
    options = parser.parse_args()
    print(f"server on core {SERVER_CORE}, browsers on core {CLIENT_CORE}, torch {torch.__version__}", flush=True)
    for name, row in rows.items():
        if options.row in (name, "all"):
            row(options)


if __name__ == "__main__":
    main()
