"""The live tab's server function over real connections: answers, bad frames, floods, viewers that vanish."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import glob
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from live_client import LiveClient
from PIL import Image
from serving import served_page, wait_until

from ecmnet_app import ui
from ecmnet_app.core import Segmentation
from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.media.images import encode_image, read_image
from ecmnet_app.ui import live
from ecmnet_app.ui.gate import MAX_BODY_BYTES
from ecmnet_app.ui.server import create_app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server has for its temporary files."""
    return tmp_path_factory.mktemp("server")


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def url(tiny_weights: Path, folder: Path):
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "TMPDIR": str(folder)}
    with served_page("--weights", str(tiny_weights), env=env) as url:
        yield url


@pytest.fixture(scope="module", autouse=True)
def files_at_start(url: str, folder: Path) -> list[Path]:
    """The page's examples, which gradio copies."""
    return files_of(folder)


@pytest.fixture
def client(url: str, request: pytest.FixtureRequest) -> LiveClient:
    return LiveClient(url, request.node.name[:64])


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A JPEG in which the untrained network sees several classes."""
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return encode_image(np.asarray(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)), "a.jpg")


def sources(url: str) -> int:
    return httpx.get(f"{url}/healthz").json()["sources"]


def test_an_answer_is_what_the_segmenter_says(client, segmenter, frame):
    answer = client.send(frame, seq=41)
    expected = segmenter.predict(read_image(frame))
    kind, data = answer["mask"].split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected.labels)
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB"))[..., 0], expected.labels, "grey is the id")
    assert answer["areas"] == pytest.approx(expected.areas())
    assert answer["seq"] == 41
    assert set(answer) == {"seq", "mask", "areas"}


def large(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG", quality=1)
    return buffer.getvalue()


def test_a_bad_frame_is_told_to_its_viewer_and_costs_the_other_none(url, frame):
    """One viewer sends every kind of bad frame while another one watches."""
    other, answers, stop = LiveClient(url, "other"), [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            answers.append(other.send(frame))

    watcher = threading.Thread(target=watch)
    watcher.start()
    bad = LiveClient(url, "bad")

    def tell(case: tuple[Any, str]) -> None:
        data, message = case
        if isinstance(data, dict):
            data = {**bad.frame(frame, 7), "viewer": f"bad {message}"[:64], **data}
        reply = bad.post(data).raise_for_status().json()
        assert message.lower() in reply["error"].lower()
        assert reply["seq"] == (7 if isinstance(data, dict) else None)
        assert "/" not in reply["error"].replace("JPEG, PNG", "")

    def image(data: bytes) -> dict[str, str]:
        return {"image": base64.b64encode(data).decode()}

    cases = [
        (image(frame[: len(frame) // 2]), "damaged and cannot be decoded"),
        (image(b"no picture"), "of no format that can be read"),
        (image(b""), "empty file"),
        (image(large(20_000, 64)), "20000x64, larger than the 1.2288 megapixels"),
        (image(large(20_000, 60)), "20000x60, longer than 1280 pixels"),
        (image(large(16, 16)), "least size is 32x32"),
        (image(os.urandom(live.MAX_FRAME_BYTES + 1)), "larger than 1 MB"),
        ({"image": "§§§"}, "not base64"),
        ({"image": 5}, "a frame is an object"),
        *(({"viewer": viewer}, "a frame is an object") for viewer in ("", "x" * 65, None, 5)),
        *((data, "a frame is an object") for data in ([], None, "frame", 5)),
    ]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(tell, cases))
        assert "mask" in bad.send(frame), "and it may go on"
    finally:
        stop.set()
        watcher.join(60)
    assert len(answers) > 10
    assert all("mask" in answer for answer in answers)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff", b'{"data": 1, "component_id": "x", "fn_name": 1}'])
def test_a_body_that_is_no_call_is_refused(client, frame, content):
    reply = client.http.post(
        "/gradio_api/component_server/", content=content, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400
    assert "mask" in client.send(frame)


def process_of(url: str) -> Path:
    """The folder in /proc of the process that listens there."""
    port = int(url.rsplit(":", 1)[1])
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = (row[9] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port)  # 0A: it listens
    for file in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
            if os.readlink(file) == f"socket:[{inode}]":
                return Path(file).parent.parent
    raise AssertionError(f"nothing listens at {url}")


def resident(process: Path) -> int:
    """Its bytes of memory."""
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_hundred_megabytes_are_refused_and_not_kept(client, frame, url):
    assert "mask" in client.send(frame)
    process = process_of(url)
    before = resident(process)
    peak, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak.append(resident(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        reply = client.post({**client.frame(b""), "image": "A" * 100_000_000})
        assert reply.status_code == 413
        assert "larger than 2 MB" in reply.json()["error"]

        def chunks():  # the length is not known at the start
            for _ in range(200):
                yield b" " * 100_000

        assert client.http.post("/gradio_api/queue/join", content=chunks()).status_code == 413
    finally:
        stop.set()
        watcher.join()
    assert max(peak) - before < 20_000_000
    assert "mask" in client.send(frame)


def test_a_body_up_to_the_limit_passes_whole(client):
    data = {**client.frame(b""), "padding": ""}
    length = len(httpx.Request("POST", client.http.base_url, json=client.body(data)).content)
    data["padding"] = "x" * (MAX_BODY_BYTES - length)
    assert "empty file" in client.post(data).json()["error"]
    data["padding"] += "x"
    assert client.post(data).status_code == 413


def test_a_flood_waits_for_itself(url, frame):
    """Forty connections of one viewer send as fast as they are answered; another viewer keeps what it had."""
    other = LiveClient(url, "other")

    def rate(seconds: float) -> float:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            assert "mask" in other.send(frame)
            count += 1
        return count / seconds

    rate(0.5)
    alone = rate(2)
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD, url, base64.b64encode(frame).decode()], stdout=subprocess.PIPE
    )
    try:
        flood.stdout.readline()
        beside = rate(3)
    finally:
        flood.kill()
        flood.communicate()
    # Two viewers share the network, so each has half; the flood may take no more than a viewer's part.
    assert beside > 0.5 * 0.6 * alone


FLOOD = """
import asyncio, sys
sys.path.insert(0, "tests")
import httpx
url, image = sys.argv[1:]
async def main():
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=40)) as http:
        components = (await http.get("/config")).json()["components"]
        component = next(one["id"] for one in components if one["props"].get("elem_id") == "live")
        body = {"data": {"viewer": "flood", "seq": 1, "image": image}, "component_id": component,
                "fn_name": "segment_frame", "session_hash": "flood"}
        print("floods", flush=True)
        async def send():
            while True:
                await http.post("/gradio_api/component_server/", json=body)
        await asyncio.gather(*(send() for _ in range(40)))
asyncio.run(main())
"""


def test_frames_too_many_are_told_so(client, frame):
    async def send_ten() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.http.base_url, timeout=60) as http:
            calls = (
                http.post("/gradio_api/component_server/", json=client.body(client.frame(frame, seq)))
                for seq in range(10)
            )
            return await asyncio.gather(*calls)

    replies = asyncio.run(send_ten())
    told = [reply for reply in replies if reply.status_code == 429]
    assert len(told) == 10 - live.MAX_IN_FLIGHT
    assert all("2 frames at once" in reply.json()["error"] for reply in told)
    assert all(reply.elapsed.total_seconds() >= live.PENALTY_SECONDS for reply in told)
    assert any("mask" in reply.json() for reply in replies)


def test_a_viewer_that_stops_sending_is_forgotten(url, frame):
    wait_until(lambda: sources(url) == 0, 10)
    first, second = LiveClient(url, "first"), LiveClient(url, "second")
    first.send(frame)
    assert sources(url) == 1
    second.send(frame)
    first.send(frame)
    assert sources(url) == 2
    wait_until(lambda: sources(url) == 0, 5)
    assert "mask" in first.send(frame), "it may come back"


def test_a_viewer_whose_process_is_killed_is_forgotten(url, frame, tmp_path):
    wait_until(lambda: sources(url) == 0, 10)
    (tmp_path / "frame.jpg").write_bytes(frame)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom live_client import LiveClient\n"
        "client, image = LiveClient(sys.argv[2], 'killed'), open(sys.argv[3], 'rb').read()\n"
        "while True: client.send(image); print('answered', flush=True)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent.parent), url, str(tmp_path / "frame.jpg")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for _ in range(3):
            assert process.stdout.readline()
        assert sources(url) == 1
        process.kill()
    wait_until(lambda: sources(url) == 0, 5)


def test_a_frame_whose_viewer_went_away_is_not_run(segmenter, tiny_weights, frame):
    """One frame is held in the network, the next one waits; their viewer closes its connections."""
    entered, may_go, batches = threading.Event(), threading.Event(), []

    def held(images: list[np.ndarray], **options: object) -> list[Segmentation]:
        batches.append(len(images))
        entered.set()
        assert may_go.wait(60)
        return segmenter.predict_batch(images)

    with StreamWorker(held) as worker, socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(ui.build(SegmenterPool([tiny_weights]), worker), worker)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            client = LiveClient(f"http://127.0.0.1:{port}", "gone")
            connections = []
            for seq in range(2):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                body = json.dumps(client.body(client.frame(frame, seq)))
                connection.request("POST", "/gradio_api/component_server/", body, {"Content-Type": "application/json"})
                connections.append(connection)
                assert entered.wait(60)
            wait_until(lambda: worker._waiting, 20)
            assert worker.sources == 1
            for connection in connections:
                connection.close()
            wait_until(lambda: worker.sources == 0, 5)
            assert not worker._waiting
        finally:
            may_go.set()
            server.should_exit = True
            thread.join(60)
    assert batches == [1]


def test_there_is_an_end_to_viewers(url, frame):
    wait_until(lambda: sources(url) == 0, 10)
    client = LiveClient(url, "x")
    bad = base64.b64encode(b"no picture").decode()  # takes a place and no time of the network

    async def come(count: int) -> list[dict]:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=100)) as http:
            calls = (
                http.post(
                    "/gradio_api/component_server/",
                    json=client.body({"viewer": f"viewer {number}", "seq": number, "image": bad}),
                )
                for number in range(count)
            )
            return [reply.json() for reply in await asyncio.gather(*calls)]

    replies = asyncio.run(come(live.MAX_VIEWERS + 3))
    assert sum("of no format" in reply["error"] for reply in replies) == live.MAX_VIEWERS
    assert sum("try again later" in reply["error"] for reply in replies) == 3
    wait_until(lambda: sources(url) == 0, 5)
    assert "mask" in client.send(frame)


def test_no_frame_left_a_file(client, frame, folder, files_at_start):
    """After all that this module sent."""
    client.send(frame)
    assert files_of(folder) == files_at_start
