"""The Live tab in Debian's Chromium with a film of our streets as its camera, against a server in its own process."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from serving import CAMERA_FLAG, chromium, free_port, launch, served_page, why_no_chromium, write_camera

from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.media.images import read_image

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
]


@pytest.fixture(scope="module")
def url(tiny_weights: Path):
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with served_page("--weights", str(tiny_weights), env=env) as url:
        yield url


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camera(tmp_path_factory.mktemp("camera") / "street.mjpeg")


@pytest.fixture(scope="module")
def browser(camera: Path):
    with chromium(CAMERA_FLAG + str(camera)) as browser:
        yield browser


@pytest.fixture(scope="module")
def segmenter(tiny_weights: Path) -> Segmenter:
    return Segmenter.from_pretrained(tiny_weights)


class Tab:
    """The Live tab of one page."""

    def __init__(self, page) -> None:
        self.page = page
        self.sent: dict[int, bytes] = {}
        page.on("request", self._keep)
        page.get_by_role("tab", name="Live").click()
        page.wait_for_selector(".live .start")

    def _keep(self, request) -> None:
        if "component_server" in request.url:
            data = json.loads(request.post_data)["data"]
            self.sent[data["seq"]] = base64.b64decode(data["image"])

    def start(self) -> None:
        self.page.evaluate("""() => {
            window.overlays = [];
            document.querySelector(".live").addEventListener("overlay", ({ detail }) => overlays.push(detail));
        }""")
        self.page.click(".live .start")
        self.wait_for("live")

    def wait_for(self, state: str) -> None:
        self.page.wait_for_selector(f'.live[data-state="{state}"]')

    def wait_for_overlays(self, count: int) -> None:
        self.page.wait_for_function(f"overlays.length >= {count}")

    @property
    def overlays(self) -> list[dict]:
        return self.page.evaluate("overlays")

    def freeze(self) -> None:
        self.page.click(".live .freeze")
        self.wait_for("frozen")

    def pixels(self, selector: str = ".live .overlay") -> np.ndarray:
        """RGBA of a canvas."""
        width, height, data = self.page.evaluate(
            """(selector) => {
                const canvas = document.querySelector(selector);
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let text = "";
                for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
                return [canvas.width, canvas.height, btoa(text)];
            }""",
            selector,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def camera_runs(self) -> bool:
        return self.page.evaluate("!!document.querySelector('.live video').srcObject?.active")

    def text(self, selector: str) -> str:
        return self.page.locator(f".live {selector}").inner_text()


@pytest.fixture
def open_tab(browser, url):
    """Opens the tab; at the end no page may have met an error or asked for anything outside this machine."""
    errors, outside, contexts = [], [], []

    def open_tab(browser=browser, permissions=("camera",), url=url, prepare=None, **options) -> Tab:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(permissions=list(permissions), accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: outside.append(request.url) if leaves_this_machine(request.url) else None)
        if prepare:
            page.add_init_script(prepare)
        page.goto(url)
        return Tab(page)

    yield open_tab
    for context in contexts:
        context.close()
    assert errors == []
    assert outside == []


def leaves_this_machine(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def sources(url: str) -> int:
    return httpx.get(f"{url}/healthz").json()["sources"]


def test_the_overlay_is_what_predict_says_of_that_frame(open_tab, segmenter):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(5)
    tab.freeze()
    newest = tab.overlays[-1]["seq"]
    frame = read_image(tab.sent[newest])
    assert frame.shape == (480, 640, 3), "the camera's own shape"
    expected = segmenter.predict(frame)
    assert len(np.unique(expected.labels)) > 1

    pixels = tab.pixels()
    np.testing.assert_array_equal(pixels[..., :3], expected.colorize())
    np.testing.assert_array_equal(pixels[..., 3] == 0, expected.labels == UNLABELLED)
    still = tab.pixels(".live .still")[..., :3].astype(int)
    assert np.abs(still - frame).mean() < 6, "the frozen picture is the frame that was sent, but for its JPEG"

    areas = {name: area for name, area in expected.areas().items() if name != "Unlabelled"}
    entries = dict(entry.inner_text().split("\n") for entry in tab.page.locator(".live .legend button").all())
    assert list(entries) == list(areas)
    for name, area in areas.items():
        assert entries[name] == ("0 %" if area == 0 else "< 0.1 %" if area < 0.001 else f"{100 * area:.1f} %")
    shape = tab.page.locator(".live .stage").bounding_box()
    assert shape["width"] / shape["height"] == pytest.approx(640 / 480, rel=0.01)


def test_overlays_follow_in_order_and_figures_are_shown(open_tab):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(20)
    tab.page.wait_for_timeout(600)
    overlays = tab.overlays
    assert [one["seq"] for one in overlays] == sorted({one["seq"] for one in overlays}), "none older than the newest"
    assert float(tab.text(".fps")) > 0
    behind = tab.text(".behind")
    assert behind.endswith((" ms", " s"))
    ages = sorted(one["age"] for one in overlays)
    assert ages[0] / 2 < float(behind.split()[0]) * (1 if behind.endswith(" ms") else 1000) < ages[-1] * 2
    tab.freeze()
    tab.page.wait_for_timeout(2000)  # nothing more is sent, and what was on its way has come
    assert len(tab.sent) == len(tab.overlays) + int(tab.text(".dropped")), "what is not shown is counted"


def test_stop_stops_the_camera_and_the_frames(open_tab, url):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(3)
    tab.page.evaluate("window.track = document.querySelector('.live video').srcObject.getVideoTracks()[0]")
    assert tab.page.evaluate("track.readyState") == "live"
    tab.page.click(".live .start")
    tab.wait_for("idle")
    assert tab.page.evaluate("track.readyState") == "ended"
    tab.page.wait_for_timeout(300)
    sent, shown = len(tab.sent), len(tab.overlays)
    tab.page.wait_for_timeout(1500)
    assert (len(tab.sent), len(tab.overlays)) == (sent, shown)
    assert not tab.pixels()[..., 3].any()
    deadline = time.monotonic() + 5
    while sources(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sources(url) == 0

    tab.page.click(".live .start")
    tab.wait_for("live")
    tab.wait_for_overlays(shown + 2)


def test_another_tab_pauses_and_coming_back_resumes(open_tab):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(3)
    tab.page.get_by_role("tab", name="Picture").click()
    tab.page.wait_for_timeout(1500)  # what was on its way arrives
    sent = len(tab.sent)
    tab.page.wait_for_timeout(1500)
    assert len(tab.sent) == sent
    assert not tab.pixels()[..., 3].any(), "an old answer does not wait over a new picture"
    tab.page.get_by_role("tab", name="Live").click()
    tab.wait_for_overlays(len(tab.overlays) + 3)


def test_a_hidden_page_pauses_and_resumes(open_tab):
    """Headless pages are never hidden, so the page is told that it is."""
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(3)
    tab.page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    tab.page.wait_for_timeout(1500)
    sent = len(tab.sent)
    tab.page.wait_for_timeout(1000)
    assert len(tab.sent) == sent
    tab.page.evaluate("delete document.hidden")
    tab.wait_for_overlays(len(tab.overlays) + 3)


def test_opacity_mirror_and_one_class_alone_ask_nothing_of_the_server(open_tab, segmenter):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(3)
    tab.freeze()
    tab.page.wait_for_timeout(1500)
    calls = len(tab.sent)
    expected = segmenter.predict(read_image(tab.sent[tab.overlays[-1]["seq"]]))
    box = tab.page.locator(".live .stage").bounding_box()

    def look(x: float = 0) -> np.ndarray:
        """The upper half of the stage, right of a share of its width, as it is seen."""
        half = {
            "x": box["x"] + x * box["width"],
            "y": box["y"],
            "width": box["width"] * (1 - x),
            "height": 0.5 * box["height"],
        }
        return read_image(tab.page.screenshot(clip=half)).astype(int)

    coloured = look()
    tab.page.fill(".live .opacity", "0")
    assert tab.text(".opacity-value") == "0 %"
    bare = look()
    tab.page.fill(".live .opacity", "100")
    full = look()
    assert np.abs(full - bare).mean() > np.abs(coloured - bare).mean() > 5
    tab.page.check(".live .mirror")
    mirrored = look()
    assert np.abs(mirrored[:, ::-1] - full).mean() < 3 < np.abs(mirrored - full).mean()

    largest = max(expected.label_set.labels, key=lambda label: expected.areas()[label.name])
    entry = tab.page.locator(f'.live .legend [data-name="{largest.name}"] button')
    entry.click()
    tab.page.mouse.move(0, 0)
    assert entry.get_attribute("aria-pressed") == "true"
    alpha = tab.pixels()[..., 3]
    assert len(np.unique(alpha[expected.labels == largest.id])) == 1
    assert (alpha[expected.labels != largest.id] > alpha[expected.labels == largest.id].max()).all()
    entry.click()
    tab.page.mouse.move(0, 0)
    np.testing.assert_array_equal(tab.pixels()[..., :3], expected.colorize())
    assert len(tab.sent) == calls


def test_a_still_is_saved_as_it_is_seen(open_tab, segmenter):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(3)
    tab.freeze()
    tab.page.fill(".live .opacity", "40")
    with tab.page.expect_download() as download:
        tab.page.click(".live .save")
    assert download.value.suggested_filename.startswith("ecmnet-20")
    assert download.value.suggested_filename.endswith(".png")
    saved = read_image(Path(download.value.path()))
    frame = read_image(tab.sent[tab.overlays[-1]["seq"]])
    expected = segmenter.predict(frame).overlay(frame, opacity=0.4)
    assert np.abs(saved.astype(int) - expected).mean() < 5
    tab.page.check(".live .mirror")
    with tab.page.expect_download() as download:
        tab.page.click(".live .save")
    mirrored = read_image(Path(download.value.path()))
    assert np.abs(mirrored[:, ::-1].astype(int) - saved).max() <= 1

    tab.page.click(".live .freeze")
    tab.wait_for("live")
    tab.wait_for_overlays(len(tab.overlays) + 2)


def test_two_browsers_at_once_each_get_their_own(browser, open_tab, segmenter, camera, tmp_path):
    with Image.open(camera) as first:
        first.convert("L").convert("RGB").resize((352, 288)).save(tmp_path / "grey.jpg")
    (tmp_path / "grey.mjpeg").write_bytes((tmp_path / "grey.jpg").read_bytes() * 20)
    other = launch(browser.browser_type, CAMERA_FLAG + str(tmp_path / "grey.mjpeg"))
    try:
        tabs = [open_tab(), open_tab(other)]
        for tab in tabs:
            tab.start()
        for tab in tabs:
            tab.wait_for_overlays(8)
        for tab in tabs:
            tab.freeze()
            frame = read_image(tab.sent[tab.overlays[-1]["seq"]])
            np.testing.assert_array_equal(tab.pixels()[..., :3], segmenter.predict(frame).colorize())
        assert tabs[1].pixels().shape == (288, 352, 4)
        counts = [len(tab.overlays) for tab in tabs]
        assert min(counts) >= 5
    finally:
        other.close()


def test_cameras_can_be_chosen(browser, open_tab):
    other = launch(browser.browser_type, "--use-fake-device-for-media-stream=device-count=2")
    try:
        tab = open_tab(other)
        asked = "navigator.mediaDevices.getUserMedia"
        tab.page.evaluate(
            f"""() => {{
                window.asked = [];
                const original = {asked}.bind(navigator.mediaDevices);
                {asked} = (wish) => (asked.push(wish), original(wish));
            }}"""
        )
        tab.start()
        options = tab.page.locator(".live .camera option")
        assert options.count() == 2
        first = tab.page.input_value(".live .camera")
        second = next(value for o in options.all() if (value := o.get_attribute("value")) != first)
        tab.page.select_option(".live .camera", second)
        track = "document.querySelector('.live video').srcObject?.getVideoTracks()[0]"
        tab.page.wait_for_function(f"{track}?.getSettings().deviceId === '{second}'")
        tab.wait_for("live")
        tab.wait_for_overlays(len(tab.overlays) + 2)
        assert tab.page.input_value(".live .camera") == second
        rear, chosen = (wish["video"] for wish in tab.page.evaluate("asked"))
        assert rear["facingMode"] == {"ideal": "environment"}, "a phone's rear camera first"
        assert chosen["deviceId"] == {"exact": second}
        assert rear["width"] == {"ideal": 640}, "not the largest that the camera has"
    finally:
        other.close()


def told(tab: Tab) -> str:
    tab.page.click(".live .start")
    tab.wait_for("error")
    assert tab.text(".start") == "Start camera", "it can be tried again"
    return tab.text(".error")


def test_a_denied_camera_is_told(open_tab):
    tab = open_tab(permissions=())
    assert "blocked for this page. Allow it" in told(tab)
    tab.page.context.grant_permissions(["camera"])
    tab.start()
    tab.wait_for_overlays(2)


def test_a_missing_camera_is_told(browser, open_tab):
    other = launch(browser.browser_type, "--use-fake-device-for-media-stream=device-count=0")
    try:
        assert "no camera here. Plug one in" in told(open_tab(other))
    finally:
        other.close()


def test_a_camera_that_goes_away_is_told(open_tab):
    tab = open_tab()
    tab.start()
    tab.wait_for_overlays(2)
    tab.page.evaluate(
        "document.querySelector('.live video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
    )
    tab.wait_for("error")
    assert "Plug it in again" in tab.text(".error")
    assert not tab.camera_runs()
    tab.start()
    tab.wait_for_overlays(2)


def test_a_camera_that_falls_silent_is_told_until_it_goes_on(open_tab):
    tab = open_tab(
        prepare="""navigator.mediaDevices.getUserMedia = async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
        const context = canvas.getContext("2d");
        setInterval(() => window.silent || context.fillRect(Math.random() * 64, Math.random() * 48, 9, 9), 50);
        return canvas.captureStream();
    }"""
    )
    tab.start()
    tab.wait_for_overlays(2)
    tab.page.evaluate("window.silent = true")
    tab.page.get_by_text("The camera sends no picture.").wait_for()
    tab.page.evaluate("window.silent = false")
    tab.wait_for_overlays(len(tab.overlays) + 2)
    assert tab.page.locator(".live .notice").is_hidden()


def test_plain_http_from_another_host_is_told_what_to_do(browser, url):
    other = launch(browser.browser_type, "--host-resolver-rules=MAP street.test 127.0.0.1")
    try:
        page = other.new_page()
        page.goto(url.replace("127.0.0.1", "street.test"))
        ways = "https.*--ssl-certfile.*ssh -L 7860:localhost:7860"
        page.wait_for_function("!!window.explainCamera")  # the page's own script runs a moment later
        page.click("#picture button[aria-label='Capture from camera']")
        page.get_by_text("Click to Access Webcam").click()
        page.locator(".complaint").get_by_text(re.compile(ways)).wait_for()
        assert page.get_by_text("no_webcam_support").count() == 0
        page.click("#picture button[aria-label='Paste from clipboard']")
        page.locator(".complaint").get_by_text("Press Ctrl+V").wait_for()
        assert re.search(ways, told(Tab(page)))
    finally:
        other.close()


def test_a_server_that_goes_away_is_told_and_found_again(open_tab, tiny_weights):
    flags = ("--weights", str(tiny_weights), "--port", str(free_port()))
    with served_page(*flags) as url:
        tab = open_tab(url=url)
        tab.start()
        tab.wait_for_overlays(3)
    tab.page.get_by_text("The server does not answer").wait_for()
    with served_page(*flags):
        tab.wait_for_overlays(len(tab.overlays) + 3)
        assert tab.page.locator(".live .notice").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(open_tab, scheme):
    tab = open_tab(viewport={"width": 390, "height": 844}, color_scheme=scheme, is_mobile=True, has_touch=True)
    assert tab.page.locator(".live .start").is_visible()
    tab.page.evaluate("window.overlays = []")
    tab.page.evaluate("document.querySelector('.live').addEventListener('overlay', (one) => overlays.push(one.detail))")
    tab.page.locator(".live .start").tap()
    tab.wait_for("live")
    tab.wait_for_overlays(2)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    stage = tab.page.locator(".live .stage").bounding_box()
    assert stage["width"] > 340
    assert tab.page.locator(".live .start").bounding_box()["y"] > stage["y"], "the picture comes first"
    tab.page.locator(".live .legend button").first.tap()
    assert tab.page.locator(".live .legend button").first.get_attribute("aria-pressed") == "true"
