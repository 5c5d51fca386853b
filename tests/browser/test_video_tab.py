"""The Video tab in Debian's Chromium, against a server in a process of its own whose files can be looked at."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest
import torch
from clips import cut, numbered, write_video
from serving import breakable, chromium, served_page, why_no_chromium

from ecmnet_app.media.images import write_image
from ecmnet_app.ui.video import MAX_VIDEOS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
]

WAITING = "Waiting for its turn: the server runs at most 4 videos at once"
FILM = '#player .film[data-state="{}"]'


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def url(tiny_weights: Path, temporary: Path):
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "TMPDIR": str(temporary)}
    with served_page("--weights", str(tiny_weights), env=env) as url:
        yield url
    assert list(temporary.glob("ecmnet-*")) == []  # a server that is stopped leaves nothing either


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, with sound."""
    return write_video(tmp_path_factory.mktemp("videos") / "drive.mp4", frames=20, size=(96, 128), sound="aac")


@pytest.fixture(scope="module")
def long_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of which nothing waits for the end."""
    return write_video(tmp_path_factory.mktemp("videos") / "long.mp4", frames=250, size=(360, 480), rate=25)


@pytest.fixture
def page(browser, url):
    errors, outside = [], []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: outside.append(request.url) if leaves_this_machine(request.url) else None)
    page.goto(url)
    page.get_by_role("tab", name="Video").click()
    page.wait_for_selector("#video input[type=file]", state="attached")
    yield page
    context.close()
    assert errors == []
    assert outside == []


def leaves_this_machine(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def choose(page, path: Path) -> None:
    page.set_input_files("#video input[type=file]", path)
    page.wait_for_selector(f"#video :text('{path.stem}')")


def start(page, path: Path) -> None:
    choose(page, path)
    page.click("#video-start")


def jobs(temporary: Path) -> list[Path]:
    """Folders of videos that are being segmented or were."""
    return list(temporary.glob("ecmnet-*/video-*"))


def wait_until_gone(folders: list[Path], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while any(folder.exists() for folder in folders):
        assert time.monotonic() < end, folders
        time.sleep(0.1)


def test_a_video_becomes_a_player_a_chart_and_downloads(page, drive: Path) -> None:
    start(page, drive)
    page.wait_for_selector(FILM.format("done"))
    page.wait_for_function("document.querySelector('#player video').readyState >= 2")
    state = page.evaluate("""() => {
        const video = document.querySelector("#player video");
        return [video.videoWidth, video.videoHeight, video.duration, video.error];
    }""")
    assert state[:2] == [128, 96]
    assert state[2] == pytest.approx(2, abs=0.1)
    assert "20 frames in" in page.inner_text("#player .progress .note")
    page.wait_for_selector("#video-stop", state="hidden")

    # The strip is full of the classes' colours, over its whole length.
    colours = page.evaluate("""() => {
        const chart = document.querySelector(".chart"), { width, height } = chart;
        return [0.02, 0.5, 0.98].map((x) => [...chart.getContext("2d").getImageData(x * width, height / 2, 1, 1).data]);
    }""")
    assert all(alpha == 255 for *_, alpha in colours)

    # A click on it moves the player; the cursor and the legend follow.
    box = page.locator(".chart").bounding_box()
    for share in (0.75, 0.25):
        page.locator(".chart").click(position={"x": box["width"] * share, "y": box["height"] / 2})
        page.wait_for_function("!document.querySelector('#player video').seeking")
        assert page.evaluate("document.querySelector('#player video').currentTime") == pytest.approx(
            state[2] * share, abs=0.02
        )
        left = page.evaluate("parseFloat(document.querySelector('.cursor').style.left)")
        assert left == pytest.approx(100 * share, abs=1)
    page.locator(".chart").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('#player video').currentTime") == pytest.approx(1.5, abs=0.05)

    page.evaluate("document.querySelector('#player video').play()")
    page.get_by_role("tab", name="Picture").click()
    page.wait_for_function("document.querySelector('#player video').paused")
    assert page.evaluate("document.querySelector('#player video').currentTime") < state[2], "not at its end alone"
    page.get_by_role("tab", name="Video").click()

    files = {}
    for link in page.locator("#player [data-file]").all():
        with page.expect_download() as download:
            link.click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert sorted(files) == ["drive_areas.csv", "drive_masks.mkv", "drive_overlay.mp4"]
    assert files["drive_areas.csv"].count(b"\n") == 21
    Path(drive.parent / "overlay.mp4").write_bytes(files["drive_overlay.mp4"])
    with av.open(str(drive.parent / "overlay.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]


def test_progress_and_preview_while_it_runs_and_stop_leaves_nothing(page, long_drive: Path, temporary: Path) -> None:
    before = jobs(temporary)
    choose(page, long_drive)
    asked = []
    page.route("**/queue/join*", lambda route: asked.append(route), times=1)
    page.focus("#video-start")
    with page.expect_request("**/queue/join*"):
        page.keyboard.press("Enter")
    page.get_by_text(WAITING).wait_for()  # as long as the server says nothing
    asked[0].continue_()
    page.wait_for_selector(FILM.format("running") + " .preview:not([hidden])")
    page.wait_for_function(
        "/Frame \\d+ of 250, \\d+:\\d\\d left/.test(document.querySelector('#player .note').innerText)"
    )
    first = page.get_attribute("#player .preview", "src")
    page.wait_for_function(f"document.querySelector('#player .preview').src.length != {len(first)}")
    value, most = page.evaluate("(({ value, max }) => [value, max])(document.querySelector('#player progress'))")
    assert 0 < value < most == 250
    running = [folder for folder in jobs(temporary) if folder not in before]
    assert len(running) == 1

    assert page.evaluate("document.activeElement.id") == "video-stop"
    page.keyboard.press("Enter")
    page.wait_for_selector(FILM.format("empty"))
    page.wait_for_selector("#video-start")  # which comes by another message than the film goes
    assert page.evaluate("document.activeElement.id") == "video-start"
    wait_until_gone(running)


@pytest.mark.long
def test_a_fifth_video_says_that_it_waits_and_can_be_stopped(browser, url, page, long_drive: Path) -> None:
    context = browser.new_context()
    others = [context.new_page() for _ in range(MAX_VIDEOS)]
    for other in others:
        other.goto(url)
        other.get_by_role("tab", name="Video").click()
        choose(other, long_drive)
    choose(page, long_drive)
    for other in others:
        other.click("#video-start")
        other.wait_for_selector(FILM.format("running"))
    page.click("#video-start")
    page.get_by_text(WAITING).wait_for()
    page.click("#video-stop")
    page.wait_for_selector(FILM.format("empty"))
    page.click("#video-start")
    page.wait_for_selector(FILM.format("waiting"))
    others[0].click("#video-stop")
    page.wait_for_selector(FILM.format("running"))
    context.close()


def test_a_video_outlives_its_upload(page, long_drive: Path, temporary: Path) -> None:
    """Gradio deletes uploads after an hour; what is being read goes on to its end."""
    short = cut(long_drive, 1.0, "outlived.mp4")
    start(page, short)
    page.wait_for_selector(FILM.format("running") + " .preview:not([hidden])")
    (upload,) = temporary.glob("ecmnet-*/*/outlived.mp4")
    upload.unlink()
    page.wait_for_selector(FILM.format("done"))
    assert "250 frames in" in page.inner_text("#player .progress .note")
    assert list(temporary.glob("ecmnet-*/video-*/upload*")) == []

    page.click("#video-start")  # once more
    page.wait_for_selector(FILM.format("error"))
    assert "The video is not here any more: files are kept for 1 hour; choose it again" in page.inner_text("#player")


def test_a_picture_whose_upload_is_gone_says_so(page, temporary: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "gone.png", numbered(96, 128, 3))
    page.get_by_role("tab", name="Picture").click()
    page.set_input_files("#picture input[type=file]", tmp_path / "gone.png")
    page.wait_for_selector('#viewer .viewer[data-state="picture"]')
    (upload,) = temporary.glob("ecmnet-*/*/gone.png")
    upload.unlink()
    page.locator("#resolution label").nth(1).click()
    page.wait_for_selector('#viewer .viewer[data-state="error"]')
    assert "The picture is not here any more: files are kept for 1 hour" in page.inner_text("#viewer")


def test_a_disk_that_fails_is_told_without_the_folders_of_the_server(page, long_drive: Path, temporary: Path) -> None:
    before = jobs(temporary)
    start(page, long_drive)
    page.wait_for_selector(FILM.format("running") + " .preview:not([hidden])")
    (running,) = [folder for folder in jobs(temporary) if folder not in before]
    shutil.rmtree(running / "long.parts")
    page.wait_for_selector(FILM.format("error"))
    assert page.inner_text("#player .error").startswith("Cannot write long.parts/")
    wait_until_gone([running])


def test_removing_the_file_ends_its_video(page, long_drive: Path, temporary: Path) -> None:
    before = jobs(temporary)
    start(page, long_drive)
    page.wait_for_selector(FILM.format("running") + " .preview:not([hidden])")
    running = [folder for folder in jobs(temporary) if folder not in before]
    page.locator("#video button[aria-label]").first.click()
    page.wait_for_selector(FILM.format("empty"))
    page.wait_for_selector("#video-start")  # which comes by another message than the film goes
    wait_until_gone(running)


def test_a_page_that_is_left_ends_its_video(browser, url, page, long_drive: Path, temporary: Path) -> None:
    before = jobs(temporary)
    start(page, long_drive)
    page.wait_for_selector(FILM.format("running") + " .preview:not([hidden])")
    running = [folder for folder in jobs(temporary) if folder not in before]
    assert len(running) == 1
    page.goto("about:blank")
    wait_until_gone(running, seconds=40)


def test_a_network_that_fails_for_a_moment_is_told_after_the_page_loaded_again(page, url, long_drive: Path) -> None:
    with breakable(url) as (other_url, cut_all):
        page.goto(other_url)
        page.get_by_role("tab", name="Video").click()
        start(page, long_drive)
        page.wait_for_selector(FILM.format("running"))
        page.reload()  # which ends the video too, and is nothing to tell
        page.get_by_role("tab", name="Video").click()
        start(page, long_drive)
        page.wait_for_selector(FILM.format("running"))
        assert page.locator(".announcement").count() == 0
        cut_all()
        page.get_by_text("The connection was lost and the page loaded again; a video that ran was stopped.").wait_for()
        page.get_by_role("button", name="Close", exact=True).click()
        assert page.locator(".announcement").count() == 0


def test_what_is_no_video_or_half_of_one_is_said(page, drive: Path, temporary: Path, tmp_path: Path) -> None:
    page.click("#video-start")
    page.wait_for_selector(FILM.format("error"))
    assert "There is no video yet" in page.inner_text("#player .error")

    choose(page, cut(drive, 0.5, "broken.mp4"))
    (folder,) = temporary.glob("ecmnet-*")
    folder.rename(tmp_path / "elsewhere")
    page.click("#video-start")
    page.get_by_text("The server could not run the video. Try again").wait_for()
    (tmp_path / "elsewhere").rename(folder)
    page.click("#video-start")
    page.wait_for_function("document.querySelector('#player .error').innerText.includes('broken.mp4')")
    message = page.inner_text("#player .error")
    assert message.startswith("“broken.mp4” is not a video that can be read, or was cut off")
    assert "/" not in message  # nothing of the server's folders
    page.locator("#video button[aria-label]").first.click()
    page.wait_for_selector("#video input[type=file]", state="attached")

    whole = write_video(tmp_path / "w.mp4", frames=60, size=(64, 64), container={"movflags": "+faststart"})
    start(page, cut(whole, 0.6, "half.mp4"))
    page.wait_for_selector(FILM.format("done"))
    assert "as a file does that was cut off; all that could be read was done" in page.inner_text("#player .problem")
