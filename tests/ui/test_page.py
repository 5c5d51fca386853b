"""The page as programs meet it: its end point, its flags, its limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from serving import served_page, wait_until
from starlette.testclient import TestClient

from ecmnet_app import gradio as door
from ecmnet_app import ui
from ecmnet_app.core import Segmenter
from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.errors import ConfigError
from ecmnet_app.media.images import read_image
from ecmnet_app.ui.gate import MAX_BODY_BYTES
from ecmnet_app.ui.server import create_app, listen

# Reports every address that the process looks up or connects to, from the interpreter's own audit events.
WATCH = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(os.environ["WATCH_FILE"], "a") as file:
            print(event, args[1] if event == "socket.connect" else args[0], file=file)
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def watch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watch") / "addresses.txt"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def url(tiny_weights: Path, watch_file: Path, temporary: Path):
    (watch_file.parent / "sitecustomize.py").write_text(WATCH)
    env = {
        **os.environ,
        "PYTHONPATH": str(watch_file.parent),
        "WATCH_FILE": str(watch_file),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    with served_page("--weights", str(tiny_weights), env=env) as url:
        yield url
    assert list(temporary.iterdir()) == []  # after Ctrl-C, as `test_it_stops_at_once_and_leaves_no_file` after a kill


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def segmenter(tiny_weights: Path) -> Segmenter:
    return Segmenter.from_pretrained(tiny_weights)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture larger than the network works at."""
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (10, 14, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((700, 500), Image.Resampling.BICUBIC).save(path)
    return path


def labels_of(mask: str) -> np.ndarray:
    with Image.open(mask) as image:
        assert image.mode == "P"
        return np.asarray(image)


@pytest.mark.parametrize("resolution", [None, 128])
def test_the_end_point_answers_as_the_segmenter(client, segmenter, street, resolution):
    options = {} if resolution is None else {"resolution": resolution}
    mask, areas = client.predict(handle_file(street), api_name="/segment", **options)
    expected = segmenter.predict(read_image(street), **options)
    np.testing.assert_array_equal(labels_of(mask), expected.labels)
    assert areas == pytest.approx(expected.areas())
    assert Path(mask).name == "street-mask.png"


def test_the_end_point_reads_real_pictures(client, segmenter, camvid):
    picture = sorted((camvid / "val").iterdir())[0]
    mask, _ = client.predict(handle_file(picture), api_name="/segment")
    np.testing.assert_array_equal(labels_of(mask), segmenter.predict(read_image(picture)).labels)


def test_there_is_one_end_point(client):
    api = client.view_api(return_format="dict")
    assert list(api["named_endpoints"]) == ["/segment"]
    assert api["unnamed_endpoints"] == {}
    picture, *options = api["named_endpoints"]["/segment"]["parameters"]
    assert picture["example_input"]["path"] == "street.jpg", "its example is no address"
    assert [option["parameter_name"] for option in options] == ["resolution", "weights"]
    assert all(option["parameter_has_default"] for option in options)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("notes.jpg", b"no picture", {}, "of no format that can be read"),
        ("street.png", None, {"resolution": 5}, "resolution must be at least 32"),
        ("street.png", None, {"weights": "nowhere"}, "no weights 'nowhere' here; choose from tiny"),
    ],
)
def test_errors_say_what_is_wrong_and_nothing_of_the_server(client, street, tmp_path, name, content, options, message):
    file = street if content is None else tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AppError, match=message) as caught:
        client.predict(handle_file(file), api_name="/segment", **options)
    assert "/tmp" not in str(caught.value)
    assert client.predict(handle_file(street), 64, api_name="/segment")[1]  # and it lives on


def test_files_of_the_server_and_addresses_of_others_are_refused(url, street):
    for path in (str(street), "https://192.0.2.1/street.png"):
        call = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None]}
        event = httpx.post(f"{url}/gradio_api/call/segment", json=call).json()["event_id"]
        reply = httpx.get(f"{url}/gradio_api/call/segment/{event}", timeout=60).text
        assert "event: error" in reply
        assert "complete" not in reply
        for form in ("file=", "file/"):
            assert httpx.get(f"{url}/gradio_api/{form}{path}").status_code in (403, 404)


def test_nothing_was_looked_up_or_called_outside(url, client, watch_file):
    """After all that the module did so far: only this machine's own addresses."""
    lines = watch_file.read_text().splitlines() if watch_file.exists() else []
    outside = [line for line in lines if not any(host in line for host in ("127.0.0.1", "localhost", "::1"))]
    assert outside == []


def test_the_page_names_no_other_host(url):
    page = httpx.get(url).text
    assert "ECMNet" in page
    config = httpx.get(f"{url}/config").json()
    assert config["analytics_enabled"] is False
    assert "googleapis" not in page + httpx.get(f"{url}/theme.css").text


def test_an_upload_that_breaks_off_is_deleted_in_time(page, tmp_path, monkeypatch):
    """A real server in this process, whose looks come sooner."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("ecmnet_app.ui.server.SWEEP_SECONDS", 1.0)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(*page), log_level="error"))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    running.start()
    try:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Length: 9000000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + bytes(1_000_000)
            )
            wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), 20)
        wait_until(lambda: not any(tmp_path.iterdir()), 20)
    finally:
        server.should_exit = True
        running.join()


def test_health(url):
    reply = httpx.get(f"{url}/healthz")
    assert reply.status_code == 200
    assert reply.json()["status"] == "ok"


def test_it_stops_at_once_and_leaves_no_file(tiny_weights, street, tmp_path):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with served_page("--weights", str(tiny_weights), stop=signal.SIGTERM, env=env) as url:
        Client(url, verbose=False).predict(handle_file(street), 64, api_name="/segment")
        assert list(tmp_path.rglob("street.png")), "uploads go to the process's own folder"
        with httpx.stream("GET", f"{url}/gradio_api/heartbeat/some-tab"):  # an open page does not hold it up
            pass
    assert list(tmp_path.iterdir()) == []


def test_https(tiny_weights, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*request.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    flags = ["--weights", str(tiny_weights), "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    with served_page(*flags) as url:
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{url}/healthz", context=context) as reply:
            assert json.load(reply)["status"] == "ok"


@pytest.fixture
def page(tiny_weights):
    segmenters = SegmenterPool([tiny_weights])
    with StreamWorker(segmenters.predict_batch) as worker:
        yield ui.build(segmenters, worker), worker


def test_a_login_guards_all_but_health(page):
    with TestClient(create_app(*page, auth=[("ada", "secret"), ("bob", "hidden")])) as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/config", "/gradio_api/info"):
            assert client.get(path).status_code == 401
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert client.post("/login", data={"username": "ada", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "ada", "password": "secret"}).status_code == 200
        assert client.get("/config").status_code == 200


def test_an_upload_over_the_limit_is_refused(page):
    with TestClient(create_app(*page, max_upload_mb=1)) as client:
        for size, status in ((2**20 - 1, 200), (2**20 + 1, 413)):
            reply = client.post("/gradio_api/upload", files={"files": ("a.jpg", b"x" * size)})
            assert reply.status_code == status


def test_only_an_upload_may_be_large(page):
    body = b'{"data": ["' + b"x" * MAX_BODY_BYTES + b'"]}'
    with TestClient(create_app(*page)) as client:
        for path in ("/gradio_api/run/upload", "/gradio_api/call/upload", "/gradio_api/run/segment"):
            reply = client.post(path, content=body, headers={"content-type": "application/json"})
            assert reply.status_code == 413, path


def test_a_proxy_can_serve_it_under_a_path(page):
    with TestClient(create_app(*page, root_path="/ecmnet")) as client:
        assert client.get("/config").json()["root"].endswith("/ecmnet")


def test_there_are_no_pages_but_ours(page):
    with TestClient(create_app(*page)) as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/monitoring"):
            assert client.get(path).status_code in (403, 404), path


def test_a_busy_port_is_said_and_the_next_free_one_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert door.main(["--port", str(port)]) == 1
        message = capsys.readouterr().err
        assert f"port {port} is already in use" in message
        named = int(message.split("--port ")[1].split()[0])
        assert named > port or port > 65500
        with listen("127.0.0.1", named) as found:
            assert found.getsockname()[1] == named


def test_an_address_that_is_not_here_is_said():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "nowhere"], "nowhere"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--engine", "steam"], "steam"),
        (["--ssl-keyfile", "key.pem"], "--ssl-certfile"),
        (["--ssl-certfile", "nowhere.pem"], "nowhere.pem"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(tiny_weights, capsys, flags, message):
    assert door.main(["--port", "0", "--weights", str(tiny_weights), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flags", [["--auth-file", "nowhere"], ["--max-upload-mb", "0"], ["--max-upload-mb", "x"]])
def test_flags_that_make_no_sense_are_refused(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        door.main(flags)
    assert caught.value.code == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\n", b"ada", b"ada:", b":secret", b"ada:secret\nbob", b"\xff:secret"])
def test_a_file_of_logins_that_holds_none_is_refused(capsys, tmp_path, content):
    (tmp_path / "logins").write_bytes(content)
    with pytest.raises(SystemExit):
        door.main(["--auth-file", str(tmp_path / "logins")])
    assert "logins" in capsys.readouterr().err


def test_it_is_this_machine_alone_that_can_reach_the_page(url):
    assert url.startswith("http://127.0.0.1:")
    host = socket.gethostbyname(socket.gethostname())
    if host.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url.replace("127.0.0.1", host))
