"""Take the README's pictures of the page: `python tests/screenshots.py OUT [--weights NAME] [--example NAME]`.

Serves the page with the weights named and one of the package's own example pictures, and writes to OUT page.png
(1280x900), page-dark.png, page-class.png (one class alone), page-empty.png and page-phone.png (390 wide at twice the
pixels, the whole page); of the Live tab with that picture before its camera, live.png, live-dark.png, live-frozen.png,
live-error.png and live-phone.png; and live.webp, the Live tab before the film of the package. Each frame of that one is
held before the camera until its classes are shown: the picture moves as it does where the network keeps up with it.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image
from serving import camera_frames, chromium, served_page, why_no_chromium

from ecmnet_app.media.files import EXAMPLES_FOLDER

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--weights", help="all that ship by default, with the choice between them")
    parser.add_argument("--example", help="name of the example picture, without .jpg; the first by default")
    options = parser.parse_args()
    names = [path.stem for path in sorted(EXAMPLES_FOLDER.glob("*.jpg"))]
    example = names.index(options.example) if options.example else 0
    if reason := why_no_chromium():
        parser.error(reason)
    options.out.mkdir(parents=True, exist_ok=True)

    with served_page(*(["--weights", options.weights] if options.weights else [])) as url, chromium() as browser:

        def shoot(name: str, context: dict[str, Any], scheme: str = "light", then: Any = None) -> None:
            page = browser.new_context(**context, color_scheme=scheme).new_page()
            page.goto(url)
            page.locator("#examples button").nth(example).click()
            page.wait_for_selector('#viewer .viewer[data-state="picture"]', timeout=120_000)
            if then:
                then(page)
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(1000)  # fades end
            page.screenshot(path=options.out / f"{name}.png", full_page=context is PHONE)
            page.context.close()

        shoot("page", DESKTOP)
        shoot("page-dark", DESKTOP, "dark")
        shoot("page-class", DESKTOP, then=lambda page: page.locator(".legend button").first.click())
        shoot("page-phone", PHONE)
        shoot("page-empty", DESKTOP, then=lambda page: page.click("#picture button[aria-label^=Remove]"))

        still = EXAMPLES_FOLDER / f"{names[example]}.jpg"

        def live_page(context: dict[str, Any], scheme: str = "light", camera: str = CAMERA) -> Any:
            page = browser.new_context(**context, color_scheme=scheme).new_page()
            page.add_init_script(camera)
            page.goto(url)
            page.get_by_role("tab", name="Live").click()
            page.wait_for_selector(".live .start")
            page.evaluate(LISTEN)
            page.click(".live .start")
            return page

        def shoot_live(name: str, context: dict[str, Any], scheme: str = "light", then: Any = None) -> None:
            page = live_page(context, scheme)
            show(page, still.read_bytes())
            if then:
                then(page)
            page.mouse.move(0, 0)
            page.wait_for_timeout(4000)  # figures settle
            page.screenshot(path=options.out / f"{name}.png", full_page=context is PHONE)
            page.context.close()

        shoot_live("live", DESKTOP)
        shoot_live("live-dark", DESKTOP, "dark")
        shoot_live("live-frozen", DESKTOP, then=lambda page: page.click(".live .freeze"))
        shoot_live("live-phone", PHONE)
        page = live_page(DESKTOP, camera="delete Navigator.prototype.mediaDevices")
        page.wait_for_selector('.live[data-state="error"]')
        page.screenshot(path=options.out / "live-error.png")
        page.context.close()

        page = live_page({"viewport": {"width": 1280, "height": 1000}})
        pictures, (frames, rate) = [], camera_frames()
        step = max(1, round(rate / 5))
        for frame in frames[::step]:
            show(page, frame)
            view, legend = (page.locator(f".live {part}").bounding_box() for part in (".stage", ".legend"))
            shot = page.screenshot(
                clip={
                    **view,
                    "x": legend["x"],
                    "width": legend["width"],
                    "height": legend["y"] + legend["height"] - view["y"],
                }
            )
            pictures.append(Image.open(io.BytesIO(shot)).convert("RGB"))
            pictures[-1].thumbnail((720, 720))
        page.context.close()
        first, *rest = pictures
        first.save(
            options.out / "live.webp", save_all=True, append_images=rest, duration=round(1000 * step / rate), loop=0,
            quality=60, method=6,
        )  # fmt: skip


CAMERA = """
const canvas = document.createElement("canvas"), shown = new Image();
Object.assign(canvas, { width: 640, height: 480 });
window.putBeforeCamera = (url) => { shown.src = url; return shown.decode(); };
setInterval(() => canvas.getContext("2d").drawImage(shown, 0, 0, 640, 480), 30);
navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
"""
"""A camera that sees what it is given."""

LISTEN = """() => {
    window.newest = 0;
    document.querySelector(".live").addEventListener("overlay", ({ detail }) => { newest = detail.time; });
}"""


def show(page: Any, picture: bytes) -> None:
    """Hold a JPEG before the camera until its classes are shown."""
    url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    now = page.evaluate("async (url) => { await putBeforeCamera(url); return performance.now(); }", url)
    page.wait_for_function(f"newest > {now} + 200", timeout=120_000)


if __name__ == "__main__":
    main()
