from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ecmnet_app.core import Segmentation, Segmenter
from ecmnet_app.core.engines import answer_from_logits, make_engine
from ecmnet_app.core.segmenter import MAX_RUN_PIXELS
from ecmnet_app.errors import ConfigError, DeviceError, ImageError, WeightsError
from ecmnet_app.media import read_image

MakePicture = Callable[..., NDArray[np.uint8]]


def same(a: Segmentation, b: Segmentation) -> bool:
    """Byte for byte."""
    return a.labels.tobytes() == b.labels.tobytes() and a.confidence.tobytes() == b.confidence.tobytes()


def reference(segmenter: Segmenter, picture: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """Softmax of every class at `size`, shape (K, *size), the plain way: all logits at once, in float64 at the end."""
    weights = segmenter.weights
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    x = (x - torch.tensor(weights.mean).view(3, 1, 1)) / torch.tensor(weights.std).view(3, 1, 1)
    with torch.inference_mode():
        logits = weights.build()(x, size=size)[0].double()
    return F.softmax(logits / weights.temperature, dim=0)


def check_against(answer: Segmentation, probabilities: torch.Tensor) -> None:
    top, labels = probabilities.max(dim=0)
    assert len(labels.unique()) >= 3, "a picture of one class would prove little"
    assert answer.labels.dtype == np.uint8
    assert answer.confidence.dtype == np.float32
    assert (answer.labels == labels.numpy()).mean() > 0.9999
    np.testing.assert_allclose(answer.confidence, top.numpy(), atol=2e-3)


@pytest.fixture(scope="module")
def exact(tiny_weights: Path) -> Segmenter:
    """The untrained network in float32: its classes are close to level, so that less precision turns some."""
    return Segmenter.from_pretrained(tiny_weights, device="cpu", engine="eager")


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (32, 32), (33, 200)])
def test_a_small_picture_runs_as_it_is(exact: Segmenter, make_picture: MakePicture, size: tuple[int, int]) -> None:
    picture = make_picture(*size)
    answer = exact.predict(picture)
    assert answer.labels.shape == answer.confidence.shape == size
    check_against(answer, reference(exact, picture, size))


def test_a_large_picture_runs_at_the_working_size_and_is_answered_at_its_own(
    exact: Segmenter, make_picture: MakePicture
) -> None:
    picture = make_picture(301, 453)
    small = cv2.resize(picture, (181, 120), interpolation=cv2.INTER_AREA)
    answer = exact.predict(picture, resolution=120)
    check_against(answer, reference(exact, small, (301, 453)))


def test_a_small_picture_is_enlarged_where_that_is_asked_for(exact: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(96, 131)
    large = cv2.resize(picture, (196, 144), interpolation=cv2.INTER_LINEAR)
    answer = exact.predict(picture, resolution=144)
    assert answer.labels.shape == (96, 131)
    check_against(answer, reference(exact, large, (96, 131)))


def test_temperature_and_normalisation_are_those_of_the_weights(
    segmenter: Segmenter, make_picture: MakePicture
) -> None:
    weights = replace(segmenter.weights, temperature=3.0, mean=(0.2, 0.4, 0.6), std=(0.3, 0.2, 0.1))
    other = Segmenter(weights, make_engine("eager", weights, torch.device("cpu")))
    picture = make_picture(64, 96)
    check_against(other.predict(picture), reference(other, picture, (64, 96)))


@pytest.mark.parametrize(
    ("size", "resolution", "working"),
    [
        ((360, 480), None, (360, 480)),
        ((1080, 1920), None, (360, 640)),
        ((1920, 1080), None, (640, 360)),
        ((359, 5000), None, (359, 5000)),
        ((721, 1281), None, (360, 640)),
        ((1080, 1920), 720, (720, 1280)),
        ((360, 480), 540, (540, 720)),
        ((480, 361), 720, (957, 720)),
        ((360, 480), 32, (32, 43)),
    ],
)
def test_the_size_rule(
    segmenter: Segmenter, size: tuple[int, int], resolution: int | None, working: tuple[int, int]
) -> None:
    assert segmenter.working_size(*size, resolution) == working


def test_a_batch_of_one_is_predict_byte_for_byte(segmenter: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(90, 120)
    assert same(segmenter.predict(picture), segmenter.predict_batch([picture])[0])
    assert same(segmenter.predict(picture), segmenter.predict(picture))


def test_a_batch_of_mixed_sizes_answers_each_in_its_place(segmenter: Segmenter, make_picture: MakePicture) -> None:
    sizes = [(64, 96), (96, 64), (64, 96), (50, 70), (64, 96)]
    pictures = [make_picture(*size, seed) for seed, size in enumerate(sizes)]
    answers = segmenter.predict_batch(iter(pictures))
    assert [answer.labels.shape for answer in answers] == sizes
    for answer, picture in zip(answers, pictures, strict=True):
        alone = segmenter.predict(picture)
        assert (answer.labels == alone.labels).mean() >= 0.998
        np.testing.assert_allclose(answer.confidence, alone.confidence, atol=1e-2)


def test_a_batch_too_large_for_the_memory_runs_in_parts(
    segmenter: Segmenter, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [make_picture(64, 96, seed) for seed in range(5)]
    alone = [segmenter.predict(picture) for picture in pictures]
    monkeypatch.setattr("ecmnet_app.core.segmenter.MAX_RUN_PIXELS", 2 * 64 * 96 - 1)
    assert all(map(same, segmenter.predict_batch(pictures), alone))  # one at a time, so no byte differs


def test_no_pictures_no_answers(segmenter: Segmenter) -> None:
    assert segmenter.predict_batch([]) == []


def test_8_threads_on_one_segmenter_get_the_answers_of_one(segmenter: Segmenter, make_picture: MakePicture) -> None:
    pictures = [make_picture(60 + 2 * seed, 100, seed) for seed in range(8)]
    alone = [segmenter.predict(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(segmenter.predict, pictures * 2))
    assert all(map(same, together, alone * 2))


def test_threshold_unlabels_the_pixels_of_less_confidence_and_no_others(
    segmenter: Segmenter, make_picture: MakePicture
) -> None:
    picture = make_picture(80, 100)
    plain = segmenter.predict(picture)
    threshold = float(np.median(plain.confidence))
    answer = segmenter.predict(picture, threshold=threshold)
    doubtful = plain.confidence < threshold
    assert 0 < doubtful.mean() < 1
    assert (answer.labels[doubtful] == 255).all()
    assert np.array_equal(answer.labels[~doubtful], plain.labels[~doubtful])
    assert answer.areas()["Unlabelled"] == pytest.approx(doubtful.mean())
    assert same(segmenter.predict(picture, threshold=0), plain)


@pytest.mark.parametrize("resolution", [None, 120])
def test_logits_are_what_predict_answers_from(
    segmenter: Segmenter, make_picture: MakePicture, resolution: int | None
) -> None:
    picture = make_picture(400, 500)[:, ::-1]
    logits = segmenter.logits(picture, resolution)
    height, width = segmenter.working_size(400, 500, resolution)
    assert logits.shape == (1, len(segmenter.label_set), (height + 1) // 2, (width + 1) // 2)
    labels, confidence = answer_from_logits(logits, (400, 500), segmenter.weights.temperature)
    answer = segmenter.predict(picture, resolution)
    np.testing.assert_array_equal(labels[0], answer.labels)
    np.testing.assert_array_equal(confidence[0], answer.confidence)
    with pytest.raises(ConfigError, match="resolution must be at least 32"):
        segmenter.logits(picture, resolution=31)
    with pytest.raises(ImageError, match="too small"):
        segmenter.logits(picture[:16])


def test_a_temperature_changes_confidence_and_no_label(segmenter: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(120, 160)
    before = segmenter.predict(picture)
    logits = F.interpolate(segmenter.logits(picture).double(), (120, 160), mode="bilinear")[0]
    for temperature in (0.5, 1.7, 20.0):
        warmer = Segmenter(replace(segmenter.weights, temperature=temperature), segmenter.engine).predict(picture)
        np.testing.assert_array_equal(warmer.labels, before.labels)
        expected = (logits / temperature).softmax(0).amax(0).numpy()
        np.testing.assert_allclose(warmer.confidence, expected, atol=1e-5)


def test_one_tile_is_the_whole_picture_at_full_resolution(segmenter: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(401, 500)  # above the working size, within one tile
    tiled = segmenter.predict(picture, tile=True)
    whole = segmenter.predict(picture, resolution=401)
    assert (tiled.labels == whole.labels).mean() > 0.9999
    np.testing.assert_allclose(tiled.confidence, whole.confidence, atol=1e-3)


def test_several_tiles_answer_every_pixel_at_full_resolution(segmenter: Segmenter, make_picture: MakePicture) -> None:
    weights = replace(segmenter.weights, working_short_side=48)  # tiles of 96
    small = Segmenter(weights, make_engine("eager", weights, torch.device("cpu")))
    picture = make_picture(130, 200)
    answer = small.predict(picture, tile=True)
    assert answer.labels.shape == (130, 200)
    assert np.isfinite(answer.confidence).all()
    # Where one tile alone answers, the answer is that to the tile.
    for rows, columns, alone in [
        (slice(0, 96), slice(0, 96), np.s_[:30, :48]),
        (slice(34, 130), slice(104, 200), np.s_[66:, 48:]),
    ]:
        tile = small.predict(picture[rows, columns], resolution=96)
        assert len(np.unique(tile.labels[alone])) >= 3
        assert (answer.labels[rows, columns][alone] == tile.labels[alone]).mean() > 0.999


def test_views_and_read_only_pictures_are_taken(segmenter: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(70, 90)
    bgr = picture[..., ::-1].copy()
    assert same(segmenter.predict(bgr[..., ::-1]), segmenter.predict(picture))
    large = make_picture(140, 180)
    assert same(
        segmenter.predict(large[::-1, ::-1], resolution=70), segmenter.predict(large[::-1, ::-1].copy(), resolution=70)
    )
    kept = picture.copy()
    picture.flags.writeable = False
    segmenter.predict(picture)
    assert np.array_equal(picture, kept)


NAN = np.full((64, 64, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((64, 64, 3), np.float32), "must be uint8, 0 to 255, not float32"),
        (NAN, "must be uint8, 0 to 255, not float32"),
        (np.zeros((64, 64, 3), np.uint16), "not uint16"),
        (np.zeros((64, 64, 3), bool), "not bool"),
        (np.zeros((64, 64), np.uint8), r"shape \(height, width, 3\), not \(64, 64\)"),
        (np.zeros((64, 64, 1), np.uint8), r"not \(64, 64, 1\)"),
        (np.zeros((64, 64, 4), np.uint8), r"not \(64, 64, 4\)"),
        (np.zeros((3, 64, 64), np.uint8), r"not \(3, 64, 64\)"),
        (np.zeros((1, 64, 64, 3), np.uint8), r"not \(1, 64, 64, 3\)"),
        (np.zeros((0, 64, 3), np.uint8), "is empty"),
        (np.zeros((1, 1, 3), np.uint8), "is 1x1, too small to segment; the least size is 32x32"),
        (np.zeros((31, 400, 3), np.uint8), "is 400x31, too small to segment; the least size is 32x32"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), "is 20000x20000, larger than the 50 megapixels"),
        ([[[0, 0, 0]]], "must be a numpy array, not list"),
        (None, "must be a numpy array, not NoneType"),
        ("street.jpg", "must be a numpy array, not str; read files with read_image"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(segmenter: Segmenter, image: object, reason: str) -> None:
    with pytest.raises(ImageError, match=f"^the picture .*{reason}"):
        segmenter.predict(image)  # type: ignore[arg-type]


def test_a_bad_picture_of_a_batch_is_numbered(segmenter: Segmenter, make_picture: MakePicture) -> None:
    with pytest.raises(ImageError, match=r"^picture 2 of 3 is 1x1"):
        segmenter.predict_batch([make_picture(64, 64), np.zeros((1, 1, 3), np.uint8), make_picture(64, 64)])


def test_a_picture_that_would_need_too_much_memory_is_refused_before_it_runs(segmenter: Segmenter) -> None:
    ribbon = np.broadcast_to(np.uint8(0), (100, MAX_RUN_PIXELS // 100 + 1, 3))
    with pytest.raises(ImageError, match=r"would run at 25001x100, .* crop it, lower the resolution, or use tiles"):
        segmenter.predict(ribbon)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"resolution": 31}, "resolution must be at least 32 pixels, not 31"),
        ({"resolution": -1}, "resolution must be at least 32"),
        ({"resolution": 0}, "resolution must be at least 32"),
        ({"resolution": 100, "tile": True}, "resolution and tile exclude each other"),
        ({"threshold": -0.1}, "threshold must be 0 to 1"),
        ({"threshold": 1.5}, "threshold must be 0 to 1"),
        ({"threshold": float("nan")}, "threshold must be 0 to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    segmenter: Segmenter, make_picture: MakePicture, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        segmenter.predict(make_picture(64, 64), **settings)  # type: ignore[arg-type]


def test_from_pretrained_says_what_is_not_there(tiny_weights: Path) -> None:
    with pytest.raises(DeviceError, match=r"no device 'cuda:99' here; choose one of auto, .*cpu"):
        Segmenter.from_pretrained(tiny_weights, device="cuda:99")
    with pytest.raises(DeviceError, match="no device 'toaster'"):
        Segmenter.from_pretrained(tiny_weights, device="toaster")
    with pytest.raises(DeviceError, match=r"no engine 'steam' for cpu; choose one of auto, .*eager"):
        Segmenter.from_pretrained(tiny_weights, device="cpu", engine="steam")
    with pytest.raises(WeightsError, match="no weights 'none'"):
        Segmenter.from_pretrained("none")
    with pytest.raises(ConfigError, match="threads must be at least 1, not 0"):
        Segmenter.from_pretrained(tiny_weights, threads=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_cpu(tiny_weights: Path) -> None:
    with pytest.raises(DeviceError, match="no device 'cuda' here; choose one of auto, cpu"):
        Segmenter.from_pretrained(tiny_weights, device="cuda")
    assert Segmenter.from_pretrained(tiny_weights).engine.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu(tiny_weights: Path, segmenter: Segmenter, make_picture: MakePicture) -> None:
    picture = make_picture(240, 320)
    gpu = Segmenter.from_pretrained(tiny_weights, device="cuda").predict(picture)
    cpu = segmenter.predict(picture)
    assert (gpu.labels == cpu.labels).mean() >= 0.998
    np.testing.assert_allclose(gpu.confidence, cpu.confidence, atol=2e-2)


def test_threads_are_set_for_the_process(tiny_weights: Path) -> None:
    before = torch.get_num_threads()
    try:
        Segmenter.from_pretrained(tiny_weights, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_real_pictures(exact: Segmenter, camvid: Path) -> None:
    paths = sorted((camvid / "test").iterdir())[::200]
    pictures = [read_image(path) for path in paths]
    for picture, answer in zip(pictures, exact.predict_batch(pictures), strict=True):
        check_against(answer, reference(exact, picture, (360, 480)))
