"""The choice of weights in Debian's Chromium: which are offered, what they know, and that they answer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image
from serving import CAMERA_FLAG, chromium, served_page, why_no_chromium, write_camera
from test_live_tab import Tab

from ecmnet_app.core import Segmenter
from ecmnet_app.media.images import encode_mask, read_image, write_image
from ecmnet_app.ui.component import data_url

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
]


@pytest.fixture(scope="module")
def url(tiny_weights: Path, city_weights: Path):
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with served_page("--weights", str(tiny_weights), str(city_weights), env=env) as url:
        yield url


def test_the_page_offers_the_weights_and_answers_by_the_one_chosen(url, city_weights, make_picture, tmp_path):
    picture = tmp_path / "street.png"
    write_image(picture, make_picture(300, 400))
    expected = Segmenter.from_pretrained(city_weights).predict(read_image(picture))
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(url)
        page.locator("#picture input[type=file]").set_input_files(picture)
        page.wait_for_selector('#viewer .viewer[data-state="picture"]')
        assert "“tiny” knows Sky, Building, Pole" in page.locator("#about").inner_text()
        page.locator("#weights").get_by_text("city", exact=True).click()
        page.locator("#about").get_by_text("“city” knows Road, Sidewalk").wait_for()
        assert page.locator("#resolution input:checked").get_attribute("value") == "256"
        assert page.locator("#resolution").get_by_text("384 px").is_visible()
        mask = data_url("image/png", encode_mask(expected.labels, expected.label_set.palette))
        page.wait_for_function("mask => document.querySelector('.download').href === mask", arg=mask)


def test_the_live_tab_offers_them_too(url, city_weights, tmp_path):
    camera = write_camera(tmp_path / "street.mjpeg")
    segmenter = Segmenter.from_pretrained(city_weights)
    with chromium(CAMERA_FLAG + str(camera)) as browser:
        page = browser.new_context(permissions=["camera"]).new_page()
        page.set_default_timeout(60_000)
        page.goto(url)
        tab = Tab(page)
        tab.start()
        tab.wait_for_overlays(1)
        assert tab.text(".legend").startswith("Sky\n")
        page.select_option(".live .weights", "city")
        assert tab.text(".legend").startswith("Road\n")
        seen = len(tab.overlays)
        tab.wait_for_overlays(seen + 2)
        tab.freeze()
        newest = max(tab.overlays, key=lambda overlay: overlay["seq"])["seq"]
        expected = segmenter.predict(read_image(tab.sent[newest]))
        np.testing.assert_array_equal(tab.pixels()[..., :3], expected.colorize())


def test_programs_may_name_the_weights_too(url, city_weights, make_picture, tmp_path):
    picture = tmp_path / "street.png"
    write_image(picture, make_picture(96, 128))
    client = Client(url, verbose=False)
    mask, areas = client.predict(handle_file(picture), weights="city", api_name="/segment")
    expected = Segmenter.from_pretrained(city_weights).predict(read_image(picture))
    with Image.open(mask) as image:
        np.testing.assert_array_equal(np.asarray(image), expected.labels)
    assert areas == pytest.approx(expected.areas())
