"""The Picture tab in Debian's Chromium, against a server in a process of its own."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from serving import chromium, served_page, why_no_chromium

from ecmnet_app.core import Segmenter
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import read_image
from ecmnet_app.ui.viewer import LONGEST_SIDE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
]


@pytest.fixture(scope="module")
def url(tiny_weights: Path):
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with served_page("--weights", str(tiny_weights), "--max-upload-mb", "1", env=env) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def segmenter(tiny_weights: Path) -> Segmenter:
    return Segmenter.from_pretrained(tiny_weights)


@pytest.fixture
def open_page(browser, url):
    """Opens the page; at the end no page may have met an error or asked for anything outside this machine."""
    errors, outside, contexts = [], [], []

    def open_page(width: int = 1280, height: int = 900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: outside.append(request.url) if leaves_this_machine(request.url) else None)
        page.goto(url)
        page.wait_for_selector("#picture input[type=file]", state="attached")
        page.wait_for_function("!!window.explainCamera")  # the page's own script runs a moment later
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert outside == []


def leaves_this_machine(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def draw_street(path: Path, width: int, height: int) -> Path:
    """Sky, houses, a road and a car, with the grain of a camera."""
    image = Image.new("RGB", (width, height), "#b8c8e0")
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, height * 0.15, width * 0.3, height * 0.7], fill="#8a5a48")
    draw.rectangle([width * 0.75, height * 0.25, width, height * 0.7], fill="#70706c")
    draw.polygon(
        [(0, height), (width * 0.45, height * 0.55), (width * 0.55, height * 0.55), (width, height)], "#4a4a50"
    )
    draw.rectangle([width * 0.42, height * 0.55, width * 0.58, height * 0.75], fill="#a01818")
    grain = np.random.default_rng(0).integers(-8, 9, (height, width, 1))
    Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_street(tmp_path_factory.mktemp("pictures") / "street.jpg", 400, 300)


def upload(page, path: Path) -> None:
    page.set_input_files("#picture input[type=file]", path)


def wait_for(page, state: str) -> None:
    page.wait_for_selector(f'#viewer .viewer[data-state="{state}"]')


def remove(page) -> None:
    page.click("#picture button[aria-label^=Remove]")
    wait_for(page, "empty")


def overlay_pixels(page) -> np.ndarray:
    """RGBA of the overlay's canvas."""
    width, height, data = page.evaluate("""() => {
        const canvas = document.querySelector(".overlay");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let text = "";
        for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
        return [canvas.width, canvas.height, btoa(text)];
    }""")
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


def download_mask(page) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(".download")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def saved_mask(segmenter: Segmenter, picture: Path, folder: Path) -> bytes:
    segmenter.predict(read_image(picture)).save(folder / "expected.png")
    return (folder / "expected.png").read_bytes()


def test_a_picture_becomes_an_overlay_a_legend_and_a_mask(open_page, segmenter, street, tmp_path):
    page = open_page()
    upload(page, street)
    wait_for(page, "picture")
    expected = segmenter.predict(read_image(street))

    pixels = overlay_pixels(page)
    np.testing.assert_array_equal(pixels[..., :3], expected.colorize())
    assert (pixels[..., 3] == 255).all()
    assert download_mask(page) == ("street-mask.png", saved_mask(segmenter, street, tmp_path))

    entries = [entry.inner_text().split("\n") for entry in page.locator(".legend button").all()]
    areas = sorted(((area, name) for name, area in expected.areas().items() if name != "Unlabelled"), reverse=True)
    assert len(entries) == len(areas)
    for (name, text), (area, _) in zip(entries, areas, strict=True):
        assert expected.areas()[name] == pytest.approx(area)
        assert text == ("0 %" if area == 0 else "< 0.1 %" if area < 0.001 else f"{100 * area:.1f} %")


def test_slider_and_opacity_answer_in_the_page_alone(open_page, street):
    page = open_page()
    upload(page, street)
    wait_for(page, "picture")
    page.wait_for_timeout(500)
    calls = []
    page.on("request", lambda request: calls.append(request.url) if "queue/join" in request.url else None)
    box = page.locator(".stage").bounding_box()

    def look(share: float) -> np.ndarray:
        """What is seen at a share of the stage's width, high up, where neither label nor handle is."""
        x, y = box["x"] + share * box["width"], box["y"] + 0.3 * box["height"]
        shot = page.screenshot(clip={"x": x, "y": y, "width": 40, "height": 40})
        (path := street.with_name("look.png")).write_bytes(shot)
        return read_image(path).astype(int)

    def drag(start: float, end: float) -> None:
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + start * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], y, steps=5)
        page.mouse.up()
        page.mouse.move(0, 0)

    half = look(0.25)
    drag(0.5, 0.1)
    assert float(page.locator(".split").input_value()) == pytest.approx(10, abs=1)
    coloured = look(0.25)
    assert np.abs(coloured - half).mean() > 10, "what was the picture is under colours now"
    drag(0.1, 0.9)
    assert np.abs(look(0.25) - half).max() == 0, "and the picture again"

    page.fill(".opacity", "0")
    drag(0.9, 0.1)
    assert page.locator(".opacity-value").inner_text() == "0 %"
    assert np.abs(look(0.25) - half).max() <= 1, "no colour is left"
    page.fill(".opacity", "100")
    assert np.abs(look(0.25) - half).mean() > np.abs(coloured - half).mean()
    page.focus(".split")
    page.keyboard.press("End")
    assert page.locator(".split").input_value() == "100"
    assert calls == []


def test_the_pointer_names_classes_and_the_legend_shows_one(open_page, segmenter, street):
    page = open_page()
    upload(page, street)
    wait_for(page, "picture")
    expected = segmenter.predict(read_image(street))
    box = page.locator(".stage").bounding_box()
    for x, y in ((80, 30), (360, 150), (240, 270)):
        page.mouse.move(box["x"] + (x + 0.5) / 400 * box["width"], box["y"] + (y + 0.5) / 300 * box["height"])
        label = expected.label_set.labels[expected.labels[y, x]]
        assert page.locator(".under-pointer").inner_text() == label.name
        assert page.locator(".legend .pointed .name").inner_text() == label.name
    page.mouse.move(0, 0)
    assert page.locator(".under-pointer").is_hidden()

    entry = page.locator(".legend button").first
    entry.click()
    page.mouse.move(0, 0)  # it stays without the pointer
    assert entry.get_attribute("aria-pressed") == "true"
    (label,) = [one for one in expected.label_set.labels if one.name == entry.locator(".name").inner_text()]
    alpha = overlay_pixels(page)[..., 3]
    assert len(np.unique(alpha[expected.labels == label.id])) == 1
    assert (alpha[expected.labels != label.id] > alpha[expected.labels == label.id].max()).all(), "all else is darker"
    entry.click()
    page.mouse.move(0, 0)
    np.testing.assert_array_equal(overlay_pixels(page)[..., :3], expected.colorize())


def test_bad_files_are_told_and_the_page_lives_on(open_page, segmenter, street, tmp_path):
    page = open_page()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(street.read_bytes()[:2000])
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    small = draw_street(tmp_path / "small.png", 16, 16)
    Image.new("RGB", (12000, 540)).save(wide := tmp_path / "wide.png")
    messages = "damaged", "of no format that can be read", "least size is 32x32", "crop it, .*`ecmnet segment --tile`"
    for file, message in zip((cut, text, small, wide), messages, strict=True):
        upload(page, file)
        wait_for(page, "error")
        told = page.locator(".error").inner_text()
        assert re.search(message, told), told
        assert "/" not in told.replace("JPEG, PNG", ""), "no path of the server is shown"
        remove(page)
    big = tmp_path / "big.jpg"
    big.write_bytes(os.urandom(1_200_000))
    upload(page, big)
    page.get_by_text(re.compile("maximum allowed size")).wait_for()
    upload(page, street)
    wait_for(page, "picture")
    assert download_mask(page)[1] == saved_mask(segmenter, street, tmp_path)


def test_a_file_that_is_no_picture_is_told_until_there_is_one(open_page, street, tmp_path):
    page = open_page()
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    upload(page, notes)
    page.get_by_text("“notes.txt” is no picture. Choose a JPEG").wait_for()
    upload(page, street)
    wait_for(page, "picture")
    assert not page.locator(".complaint").is_visible()


def test_a_camera_that_is_blocked_is_told(open_page):
    page = open_page(permissions=[])
    page.click("#picture button[aria-label='Capture from camera']")
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("The camera is blocked for this page. Allow it").wait_for()
    page.click("#picture button[aria-label='Upload file']")
    assert not page.locator(".complaint").is_visible()


def test_a_large_picture_is_shown_smaller_and_its_mask_is_whole(open_page, segmenter, tmp_path):
    page = open_page()
    picture = draw_street(tmp_path / "large.jpg", 2400, 400)
    upload(page, picture)
    wait_for(page, "picture")
    assert overlay_pixels(page).shape == (320, LONGEST_SIDE, 4)
    assert "2400×400, seen at 2160×360, in" in page.locator(".note").inner_text()  # noqa: RUF001
    assert download_mask(page)[1] == saved_mask(segmenter, picture, tmp_path)


def test_resolution_runs_the_network_again(open_page, segmenter, tmp_path):
    page = open_page()
    picture = draw_street(tmp_path / "fine.png", 560, 420)
    upload(page, picture)
    wait_for(page, "picture")
    first = download_mask(page)[1]
    page.locator("#resolution").get_by_text("540 px").click()
    page.wait_for_function(
        "old => document.querySelector('.download').href !== old", arg=page.get_attribute(".download", "href")
    )
    segmenter.predict(read_image(picture), resolution=540).save(tmp_path / "expected.png")
    assert download_mask(page)[1] == (tmp_path / "expected.png").read_bytes() != first
    assert "560×420, seen at 720×540, in" in page.locator(".note").inner_text()  # noqa: RUF001


def test_a_snapshot_and_pasted_pictures(open_page):
    page = open_page(permissions=["camera", "clipboard-read", "clipboard-write"])
    page.click("#picture button[aria-label='Capture from camera']")
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#picture video')?.readyState >= 2")
    page.click("#picture button[aria-label='capture photo']")
    wait_for(page, "picture")
    remove(page)
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(123, 77);
        canvas.getContext("2d").fillRect(0, 0, 60, 60);
        const blob = await canvas.convertToBlob();
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }""")
    page.click("#picture button[aria-label='Paste from clipboard']")
    wait_for(page, "picture")
    assert "123×77" in page.locator(".note").inner_text()  # noqa: RUF001
    remove(page)
    page.context.clear_permissions()
    page.click("#picture button[aria-label='Paste from clipboard']")
    page.locator(".complaint").get_by_text("does not let this page read the clipboard. Press Ctrl+V").wait_for()
    page.keyboard.press("Control+V")
    wait_for(page, "picture")
    assert not page.locator(".complaint").is_visible()


def test_an_example_is_segmented(open_page, segmenter, tmp_path):
    examples = sorted(EXAMPLES_FOLDER.glob("*.jpg"))
    if not examples:
        pytest.skip("no example pictures are in the package")
    page = open_page()
    page.get_by_role("button", name=examples[-1].stem.replace("_", " ")).click()
    wait_for(page, "picture")
    name, mask = download_mask(page)
    assert name == f"{examples[-1].stem}-mask.png"
    assert mask == saved_mask(segmenter, examples[-1], tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_its_scheme(open_page, street, scheme):
    page = open_page(390, 844, color_scheme=scheme, is_mobile=True, has_touch=True)
    upload(page, street)
    wait_for(page, "picture")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".stage").bounding_box()["width"] > 340
    page.locator(".legend button").first.tap()
    assert page.locator(".legend button").first.get_attribute("aria-pressed") == "true"
    ground = colour(page, "document.body", "backgroundColor")
    assert (sum(ground) < 120) == (scheme == "dark")

    page.keyboard.press("Tab")  # whose place is shown to those who use it
    for selector in (".download", ".legend button", "#examples button", "#resolution input:checked"):
        page.focus(selector)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", selector
        assert contrast(colour(page, "document.activeElement", "outlineColor"), ground) >= 3, selector
    page.locator(".legend li").last.evaluate("entry => entry.classList.add('absent')")
    assert page.evaluate("getComputedStyle(document.querySelector('.legend .absent')).opacity") == "1", "it can be read"


def colour(page, element: str, kind: str) -> list[int]:
    """RGB of an element's style."""
    return [int(value) for value in re.findall(r"\d+", page.evaluate(f"getComputedStyle({element}).{kind}"))[:3]]


def contrast(one: list[int], other: list[int]) -> float:
    """As WCAG 2 defines it."""
    linear = np.array([one, other]) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


def test_the_end_point_is_described_in_the_page(open_page):
    page = open_page()
    page.get_by_role("button", name="Use via API").click()
    page.get_by_text("/segment").first.wait_for()
    assert "street.jpg" in page.content()


def test_one_weight_is_no_choice(open_page):
    page = open_page()
    page.locator("#about").get_by_text("“tiny” knows Sky, Building").wait_for()
    assert page.locator("#weights").count() == 0 or not page.locator("#weights").is_visible()
    page.get_by_role("tab", name="Live").click()
    page.wait_for_selector(".live .start")
    assert not page.locator(".live .weights").is_visible()


def test_two_visitors_at_once_each_get_their_own(open_page, segmenter, street, tmp_path):
    other = draw_street(tmp_path / "other.png", 352, 288)
    pages = [(open_page(), street), (open_page(), other)]
    for page, picture in pages:
        upload(page, picture)
    for page, picture in pages:
        wait_for(page, "picture")
        assert download_mask(page)[1] == saved_mask(segmenter, picture, tmp_path)
