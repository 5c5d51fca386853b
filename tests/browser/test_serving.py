"""The page as others reach it: with TLS and a login, and behind a real nginx under a path, its camera and all."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import pytest
import torch
from serving import CAMERA_FLAG, chromium, free_port, served_page, why_no_chromium, write_camera

from ecmnet_app.media.files import EXAMPLES_FOLDER

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed"
    ),
]

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
README = Path(__file__).parent.parent.parent / "README.md"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of our own, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=street.test"
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory):
    """Opens a page in a browser to which this machine is another one, street.test."""
    camera = write_camera(tmp_path_factory.mktemp("camera") / "street.mjpeg")
    errors, outside = [], []
    with chromium(CAMERA_FLAG + str(camera), "--host-resolver-rules=MAP street.test 127.0.0.1") as browser:

        def open_page(url: str):
            page = browser.new_context(permissions=["camera"], ignore_https_errors=True).new_page()
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: outside.append(request.url) if leaves(request.url) else None)
            page.goto(url)
            return page

        yield open_page
    assert errors == []
    assert outside == []


def leaves(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname != "street.test"


def flags(weights: Path, *more: object) -> list[str]:
    return ["--weights", str(weights), *map(str, more)]


ENV = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def use_both_tabs(page) -> None:
    """A picture is segmented from an upload, and the camera's frames are."""
    page.set_input_files("#picture input[type=file]", sorted(EXAMPLES_FOLDER.glob("*.jpg"))[0])
    page.wait_for_selector('#viewer .viewer[data-state="picture"]')
    page.get_by_role("tab", name="Live").click()
    page.wait_for_selector(".live .start")
    page.evaluate("""() => {
        window.overlays = 0;
        document.querySelector(".live").addEventListener("overlay", () => overlays++);
    }""")
    page.click(".live .start")
    page.wait_for_function("overlays >= 3")


def start_example_video(page) -> None:
    page.get_by_role("tab", name="Video").click()
    page.locator("#video-examples button").first.click()
    page.wait_for_selector("#video :text('street')")
    page.click("#video-start")
    page.wait_for_selector('#player .film[data-state="running"]')


def test_tls_and_a_login_which_a_server_that_is_started_again_wants_anew(
    open_page, certificate, tiny_weights, tmp_path
):
    (tmp_path / "logins").write_text("ada:secret\nbob:hidden:too\n")
    tls = ("--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1], "--port", free_port())
    options = flags(tiny_weights, "--auth-file", tmp_path / "logins", *tls)
    with served_page(*options, env=ENV) as url:
        page = open_page(url.replace("127.0.0.1", "street.test"))
        for password in ("secret", "hidden:too"):  # bob's second one is right
            page.get_by_label("username").fill("bob")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            if password == "secret":
                page.get_by_text("Incorrect").first.wait_for()
                assert page.locator(".announcement").count() == 0
        page.wait_for_selector("#picture input[type=file]", state="attached")
        use_both_tabs(page)
        start_example_video(page)
        assert page.locator(".announcement").count() == 0
    page.get_by_text("The server was lost; reload the page.").wait_for()
    with served_page(*options, env=ENV):
        page.get_by_role("tab", name="Live").click()  # whose camera runs
        for place in (".announcement", ".live .error"):
            page.locator(place).get_by_text("You are logged out; reload the page and log in.").wait_for()
        page.context.close()


@contextlib.contextmanager
def nginx(folder: Path, certificate: tuple[Path, Path], upstream: str):
    """An nginx with the README's location, and its port."""
    port = free_port()
    text = README.read_text("utf-8")
    location = text[(start := text.index("    location /ecmnet/ {")) : text.index("    }\n", start) + 6]
    config = Template(CONFIG).substitute(
        user="user root;" if os.geteuid() == 0 else "",  # or its worker may not write to the folder
        folder=folder, port=port, cert=certificate[0], key=certificate[1],
        location=location.replace("http://127.0.0.1:7860/", f"{upstream}/"),
    )  # fmt: skip
    (folder / "nginx.conf").write_text(config)
    with subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


CONFIG = """
$user daemon off; pid $folder/pid; error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/f;
  uwsgi_temp_path $folder/u; scgi_temp_path $folder/s;
  server {
    listen 127.0.0.1:$port ssl;
    ssl_certificate $cert; ssl_certificate_key $key;
$location
  }
}
"""


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx-light")
def test_behind_a_proxy_under_a_path(open_page, certificate, tiny_weights, tmp_path):
    """The README's own configuration, so that it stays true."""
    (tmp_path / "logins").write_text("ada:secret\n")
    options = ("--root-path", "/ecmnet", "--auth-file", tmp_path / "logins")
    with served_page(*flags(tiny_weights, *options), env=ENV) as url, nginx(tmp_path, certificate, url) as port:
        page = open_page(f"https://street.test:{port}/ecmnet/")
        page.get_by_label("username").fill("ada")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#picture input[type=file]", state="attached")
        use_both_tabs(page)
        page.context.close()
