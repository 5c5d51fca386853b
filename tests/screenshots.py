"""Take the README's pictures of the page: `python tests/screenshots.py OUT [--weights NAME] [--example NAME]`.

Serves the page with the weights named and one of the package's own example pictures, and writes to OUT page.png
(1280x900), page-dark.png, page-class.png (one class alone), page-empty.png and page-phone.png (390 wide at twice the
pixels, the whole page).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from serving import chromium, served_page, why_no_chromium

from ecmnet_app.ui.picture import EXAMPLES_FOLDER

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--example", help="name of the example picture, without .jpg; the first by default")
    options = parser.parse_args()
    names = [path.stem for path in sorted(EXAMPLES_FOLDER.glob("*.jpg"))]
    example = names.index(options.example) if options.example else 0
    if reason := why_no_chromium():
        parser.error(reason)
    options.out.mkdir(parents=True, exist_ok=True)

    with served_page("--weights", options.weights) as url, chromium() as browser:

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


if __name__ == "__main__":
    main()
