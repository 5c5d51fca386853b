"""What `ecmnet export` writes, run by onnxruntime-web in Debian's Chromium.

Needs that package beside the repository's files: npm install --no-save onnxruntime-web
"""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path

import numpy as np
import pytest
from serving import chromium, why_no_chromium

from ecmnet_app.core import Segmenter, load_weights
from ecmnet_app.core.export import export_onnx
from ecmnet_app.media import read_image
from ecmnet_app.media.files import EXAMPLES_FOLDER

RUNTIME = Path(__file__).parents[2] / "node_modules" / "onnxruntime-web" / "dist"

pytestmark = [
    pytest.mark.long,
    pytest.mark.browser,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason=f"onnxruntime-web is not in {RUNTIME}"),
]

SITE = "http://site.test/"

RUN = """async ([model, picture, height, width]) => {
    ort.env.wasm.wasmPaths = "/";
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(model, {executionProviders: ["wasm"]});
    const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
    const answer = await session.run({pictures: new ort.Tensor("uint8", bytes, [1, height, width, 3])});
    return [answer.labels.dims, Array.from(answer.labels.data), Array.from(answer.confidence.data)];
}"""


@pytest.mark.parametrize("size", [None, (360, 480)])
def test_the_browser_gives_the_same_labels(size: tuple[int, int] | None, tmp_path: Path) -> None:
    export_onnx(load_weights(), tmp_path / "ecmnet.onnx", size)
    picture = np.ascontiguousarray(read_image(EXAMPLES_FOLDER / "crossing.jpg")[:360, :480])
    assert picture.shape == (360, 480, 3)
    (tmp_path / "index.html").write_text('<!doctype html><script src="ort.wasm.min.js"></script>')

    def answer(route) -> None:
        name = route.request.url.removeprefix(SITE) or "index.html"
        path = next(path for path in (tmp_path / name, RUNTIME / name) if path.is_file())
        kind = "text/javascript" if path.suffix == ".mjs" else mimetypes.guess_type(name)[0]
        route.fulfill(body=path.read_bytes(), content_type=kind or "application/octet-stream")

    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.route(f"{SITE}**", answer)
        page.goto(SITE)
        data = base64.b64encode(picture.tobytes()).decode()
        dims, labels, confidence = page.evaluate(RUN, ["/ecmnet.onnx", data, 360, 480])
    expected = Segmenter.from_pretrained(device="cpu", engine="eager").predict(picture)
    assert dims == [1, 360, 480]
    assert (np.array(labels, np.uint8) == expected.labels.flatten()).mean() > 0.9999
    np.testing.assert_allclose(confidence, expected.confidence.flatten(), atol=1e-3)
