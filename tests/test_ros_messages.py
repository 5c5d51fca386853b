"""Message conversions against known answers, OpenCV's and Pillow's own encoders, and properties."""

from __future__ import annotations

import array
import contextlib
import io
import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ecmnet_app.errors import ImageError
from ecmnet_app.ros_messages import (
    ENCODINGS,
    check_compressed,
    check_image_message,
    compressed_to_rgb,
    fill_image,
    fill_mask_png,
    image_to_rgb,
    pixel_bytes,
)

CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
PLANAR = ("nv12", "nv21")
PAIRED = {"uyvy", "yuv422", "yuyv", "yuv422_yuy2"}


def message(encoding: str, rows: np.ndarray, height: int, width: int, padding: int = 0, /, **fields: Any) -> Any:
    """A message of rows of bytes, each followed by `padding` bytes that are no pixels."""
    padded = np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding)), constant_values=0xA5)
    values = {
        "header": SimpleNamespace(stamp=(1, 2), frame_id="camera"),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": padded.shape[1],
        "data": array.array("B", padded.tobytes()),
    }
    return SimpleNamespace(**{**values, **fields})


def random_rows(encoding: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    rows = height * 3 // 2 if encoding in PLANAR else height
    return np.random.default_rng(seed).integers(0, 256, (rows, width * pixel_bytes(encoding)), dtype=np.uint8)


def bytes_of(values: np.ndarray, big: bool = False) -> np.ndarray:
    """Rows of 16-bit values as bytes."""
    rows = values.reshape(len(values), -1).astype(">u2" if big else "<u2")
    return np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4"])
def test_colours_come_out_in_order(encoding: str) -> None:
    name = {"8UC3": "bgr8", "8UC4": "bgra8"}.get(encoding, encoding)[:-1]
    pixel = [{"r": 10, "g": 20, "b": 30, "a": 40}[letter] for letter in name]
    rows = np.tile(np.array(pixel, np.uint8), (2, 5))
    rgb = image_to_rgb(message(encoding, rows, 2, 5))
    assert rgb.shape == (2, 5, 3)
    assert (rgb == [10, 20, 30]).all()


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16"])
@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bit_colours_come_out_in_order_in_either_byte_order(encoding: str, big: bool) -> None:
    pixel = [{"r": 257 * 10, "g": 257 * 20, "b": 257 * 30, "a": 7}[letter] for letter in encoding[:-2]]
    rows = bytes_of(np.tile(np.array(pixel, np.uint16), (2, 5)), big)
    assert (image_to_rgb(message(encoding, rows, 2, 5, is_bigendian=int(big))) == [10, 20, 30]).all()


def test_every_16_bit_value_is_scaled_to_the_nearest_8_bit_one() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = ((values.astype(np.int64) + 128) // 257).astype(np.uint8)  # 65535 is 255 * 257
    grey = image_to_rgb(message("mono16", bytes_of(values), 256, 256))
    assert (grey == expected[..., None]).all()


def test_grey_is_the_same_in_all_three_colours() -> None:
    rows = random_rows("mono8", 6, 7)
    for encoding in ("mono8", "8UC1"):
        assert (image_to_rgb(message(encoding, rows, 6, 7)) == rows[..., None]).all()


@pytest.mark.parametrize(
    ("encoding", "order"), [("uyvy", "UYVY"), ("yuv422", "UYVY"), ("yuyv", "YUYV"), ("yuv422_yuy2", "YUYV")]
)
def test_yuv422_is_that_of_bt_601(encoding: str, order: str) -> None:
    luma = np.random.default_rng(1).integers(16, 236, (4, 8), dtype=np.uint8)
    u, v = np.random.default_rng(2).integers(16, 241, (2, 4, 4), dtype=np.uint8)
    planes = {"Y": iter((luma[:, ::2], luma[:, 1::2])), "U": iter((u,)), "V": iter((v,))}
    rows = np.stack([next(planes[letter]) for letter in order], axis=-1)
    wide_u, wide_v = (np.repeat(c, 2, axis=1).astype(float) - 128 for c in (u, v))
    y = 1.164 * (luma.astype(float) - 16)
    expected = np.stack([y + 1.596 * wide_v, y - 0.813 * wide_v - 0.391 * wide_u, y + 2.018 * wide_u], axis=-1)
    rgb = image_to_rgb(message(encoding, rows, 4, 8)).astype(float)
    assert np.abs(rgb - expected.clip(0, 255)).max() <= 2  # OpenCV's arithmetic has 20 bits


@pytest.mark.parametrize("encoding", PLANAR)
def test_planar_yuv_is_what_an_encoder_made_of_the_picture(encoding: str) -> None:
    smooth = cv2.resize(np.random.default_rng(3).integers(40, 216, (4, 4, 3), dtype=np.uint8), (64, 48))
    planar = cv2.cvtColor(smooth, cv2.COLOR_RGB2YUV_I420)
    luma, chroma = planar[:48], planar[48:].reshape(2, -1)  # all of U, then all of V
    pairs = chroma if encoding == "nv12" else chroma[::-1]
    rows = np.vstack([luma, pairs.T.reshape(24, 64)])
    rgb = image_to_rgb(message(encoding, rows, 48, 64)).astype(int)
    assert np.abs(rgb - smooth).mean() < 4
    swapped = image_to_rgb(message("nv21" if encoding == "nv12" else "nv12", rows, 48, 64)).astype(int)
    assert np.abs(swapped - smooth).mean() > 10  # so the test can tell them apart


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_gives_back_flat_colours(pattern: str, bits: int) -> None:
    color = {"r": 200, "g": 120, "b": 40}
    tile = np.array([color[letter] for letter in pattern], np.uint16).reshape(2, 2)
    mosaic = np.tile(tile, (6, 8)) * (257 if bits == 16 else 1)
    rows = bytes_of(mosaic) if bits == 16 else mosaic.astype(np.uint8)
    assert (image_to_rgb(message(f"bayer_{pattern}{bits}", rows, 12, 16)) == [200, 120, 40]).all()


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_follows_the_picture_it_was_sampled_from(pattern: str) -> None:
    picture = cv2.resize(np.random.default_rng(4).integers(0, 256, (4, 5, 3), dtype=np.uint8), (60, 48))
    mosaic = np.empty((48, 60), np.uint8)
    for place, letter in enumerate(pattern):
        y, x = divmod(place, 2)
        mosaic[y::2, x::2] = picture[y::2, x::2, "rgb".index(letter)]
    rgb = image_to_rgb(message(f"bayer_{pattern}8", mosaic, 48, 60)).astype(int)
    assert np.abs(rgb - picture)[2:-2, 2:-2].mean() < 3


@settings(deadline=None, max_examples=150)
@given(
    encoding=st.sampled_from(ENCODINGS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_padding_after_each_row_changes_nothing(
    encoding: str, height: int, width: int, padding: int, seed: int
) -> None:
    rows = random_rows(encoding, 2 * height, 2 * width, seed)
    tight = image_to_rgb(message(encoding, rows, 2 * height, 2 * width))
    padded = image_to_rgb(message(encoding, rows, 2 * height, 2 * width, padding))
    assert tight.shape == (2 * height, 2 * width, 3)
    assert tight.dtype == np.uint8
    assert tight.flags.c_contiguous
    assert (tight == padded).all()


@settings(deadline=None, max_examples=60)
@given(encoding=st.sampled_from([name for name in ENCODINGS if name.endswith("16")]), seed=st.integers(0, 99))
def test_byte_order_changes_nothing_but_the_bytes(encoding: str, seed: int) -> None:
    values = random_rows(encoding, 4, 6, seed).view("<u2")
    little = image_to_rgb(message(encoding, bytes_of(values), 4, 6))
    big = image_to_rgb(message(encoding, bytes_of(values, big=True), 4, 6, is_bigendian=1))
    assert (little == big).all()


@settings(deadline=None, max_examples=300)
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "32FC1", "h264"]),
    height=st.integers(0, 12),
    width=st.integers(0, 12),
    step=st.integers(0, 60),
    length=st.integers(0, 400),
    big=st.booleans(),
)
def test_any_message_is_decoded_or_refused_in_words(
    encoding: str, height: int, width: int, step: int, length: int, big: bool
) -> None:
    fields = {"encoding": encoding, "height": height, "width": width, "step": step, "is_bigendian": big}
    candidate: Any = SimpleNamespace(**fields, data=array.array("B", bytes(length)), header=None)
    try:
        check_image_message(candidate)
    except ImageError:
        with pytest.raises(ImageError):
            image_to_rgb(candidate)
    else:  # OpenCV may still refuse what is too small to interpolate, but only in our words
        with contextlib.suppress(ImageError):
            assert image_to_rgb(candidate).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "h264"}, "'h264' is not one of rgb8, bgr8"),
        ({"encoding": "16UC1"}, "'16UC1' is not one of"),
        ({"height": 0}, "8x0, empty"),
        ({"width": 0}, "0x4, empty"),
        ({"step": 23}, "step is 23, but a row of 8 pixels in bgr8 takes 24 bytes"),
        ({"data": array.array("B", bytes(95))}, "data has 95 bytes, but 4 rows of 24 bytes take 96"),
        ({"data": array.array("B")}, "data has 0 bytes"),
        ({"height": 40_000, "width": 40_000, "step": 120_000}, "larger than the 50 megapixels"),
        ({"encoding": "uyvy", "width": 7, "step": 14}, "use even sizes"),
        ({"encoding": "nv12", "height": 3, "step": 8}, "use even sizes"),
        ({"encoding": "nv12", "step": 24}, "6 rows of 24 bytes take 144"),
    ],
)
def test_a_bad_message_is_told_what_is_wrong_with_it(change: dict[str, Any], words: str) -> None:
    bad = message("bgr8", random_rows("bgr8", 4, 8), 4, 8, **change)
    for check in (check_image_message, image_to_rgb):
        with pytest.raises(ImageError, match=words):
            check(bad)


def compressed(data: bytes, kind: str = "jpeg") -> Any:
    return SimpleNamespace(header=None, format=kind, data=array.array("B", data))


def test_compressed_pictures_are_decoded_by_their_bytes(make_picture: Any) -> None:
    picture = make_picture(48, 64)
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    assert (compressed_to_rgb(compressed(png, "bgr8; jpeg compressed bgr8")) == picture).all()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    rgb = compressed_to_rgb(compressed(buffer.getvalue(), "rgb8; jpeg compressed bgr8"))
    reference = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(rgb.astype(int) - reference).max() <= 2


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -200])
def test_a_cut_off_compressed_picture_is_refused(make_picture: Any, keep: int) -> None:
    jpeg = cv2.imencode(".jpg", make_picture(48, 64))[1].tobytes()
    with pytest.raises(ImageError, match=r"empty|of no format|damaged"):
        compressed_to_rgb(compressed(jpeg[: keep or None] if keep > 0 else jpeg[: len(jpeg) + keep] if keep else b""))


def test_depth_is_not_taken_for_a_picture() -> None:
    for kind in ("16UC1; compressedDepth png", "16UC1; compressedDepth"):
        with pytest.raises(ImageError, match="holds depth"):
            check_compressed(compressed(b"\0" * 12 + b"\x89PNG", kind))


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_what_is_filled_in_reads_back(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    header = object()
    labels = random.integers(0, 256, (height, width), dtype=np.uint8)
    mask = fill_image(SimpleNamespace(), header, labels, "mono8")
    assert mask.header is header
    assert (mask.height, mask.width, mask.step, mask.encoding, mask.is_bigendian) == (height, width, width, "mono8", 0)
    assert type(mask.data) is array.array
    assert all(mask.data[v * width + u] == labels[v, u] for v in range(height) for u in range(width))
    picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)[:, ::-1]  # rows that do not lie in order
    assert (image_to_rgb(fill_image(SimpleNamespace(), header, picture, "rgb8")) == picture).all()
    assert (image_to_rgb(fill_image(SimpleNamespace(), header, picture, "bgr8")) == picture[..., ::-1]).all()


def test_only_pixels_that_fit_are_filled_in() -> None:
    for pixels, encoding in [
        (np.zeros((2, 2), np.uint8), "rgb8"),
        (np.zeros((2, 2, 3), np.uint8), "mono8"),
        (np.zeros((2, 2), np.float32), "mono8"),
        (np.zeros((2, 2, 4), np.uint8), "rgba8"),
    ]:
        with pytest.raises(ImageError):
            fill_image(SimpleNamespace(), None, pixels, encoding)


def test_a_png_mask_is_grey_and_keeps_every_id() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = fill_mask_png(SimpleNamespace(), "header", labels)
    assert mask.header == "header"
    assert mask.format == "mono8; png compressed"
    data = bytes(mask.data)
    assert struct.unpack(">IIBB", data[16:26]) == (16, 16, 8, 0)  # IHDR: size, 8 bits, grey
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == labels).all()
    assert (compressed_to_rgb(compressed(data, mask.format)) == labels[..., None]).all()
