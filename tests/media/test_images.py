from __future__ import annotations

import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ecmnet_app.errors import ImageError
from ecmnet_app.media import read_image, write_image, write_mask

RGB = np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)
SMOOTH = np.asarray(cv2.resize(RGB[:3, :4], (64, 48), interpolation=cv2.INTER_LINEAR), np.uint8)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_name", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_give_back_every_value(format_name: str, options: dict[str, object], tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RGB), format_name, **options)
    image = read_image(data)
    assert image.dtype == np.uint8
    assert np.array_equal(image, RGB)
    (tmp_path / "picture").write_bytes(data)  # the suffix does not matter
    assert np.array_equal(read_image(tmp_path / "picture"), RGB)
    assert np.array_equal(read_image(str(tmp_path / "picture")), RGB)


def test_a_jpeg_is_what_another_decoder_sees() -> None:
    data = encoded(Image.fromarray(SMOOTH), "JPEG", quality=90)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(read_image(data).astype(int) - other).max() <= 2


ORIENTATIONS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), "PNG", exif=exif)
    image = read_image(data)
    assert np.array_equal(image, ORIENTATIONS[orientation](RGB))
    assert image.flags.c_contiguous


def test_a_picture_is_turned_whatever_else_its_exif_says() -> None:
    orientation, unit = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHI4s", 0x0128, 2, 3, b"in")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + unit + bytes(4)  # a unit in letters
    assert np.array_equal(read_image(encoded(Image.fromarray(RGB), "PNG", exif=exif)), np.rot90(RGB, -1))


def test_grey_becomes_three_equal_channels() -> None:
    assert np.array_equal(read_image(encoded(Image.fromarray(RGB[..., 0]), "PNG")), RGB[..., :1].repeat(3, axis=2))


def test_black_and_white_becomes_0_and_255() -> None:
    bits = RGB[..., 0] > 127
    image = read_image(encoded(Image.fromarray(bits), "PNG"))
    assert np.array_equal(image[..., 1], bits * 255)


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([RGB, RGB[..., 0]])
    assert np.array_equal(read_image(encoded(Image.fromarray(rgba), "PNG")), RGB)
    grey_alpha = Image.fromarray(RGB[..., :2].copy(), "LA")
    assert np.array_equal(read_image(encoded(grey_alpha, "PNG"))[..., 2], RGB[..., 0])


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"transparency": bytes(range(256))}])
def test_a_palette_is_looked_up(options: dict[str, object]) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(RGB[..., 0])
    image.putpalette(palette.tobytes())
    assert np.array_equal(read_image(encoded(image, "PNG", **options)), palette[RGB[..., 0]])


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.fromarray(np.full((40, 40), value, np.uint8)) for value in (10, 200)]
    assert (read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == 10).all()


def test_the_first_picture_of_a_phones_jpeg_of_several_is_read() -> None:
    pictures = [Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)]
    data = encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:], quality=95)
    assert np.abs(read_image(data).astype(int) - SMOOTH).mean() < 3


WIDE = np.arange(0, 65536, 257, dtype=np.uint16)[:187].reshape(11, 17) + np.uint16(200)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(suffix: str) -> None:
    data = cv2.imencode(suffix, WIDE)[1].tobytes()
    assert np.array_equal(read_image(data), (WIDE >> 8).astype(np.uint8)[..., None].repeat(3, axis=2))


def test_16_bit_colour_is_scaled_the_same_way() -> None:
    wide = np.dstack([WIDE, WIDE[::-1], WIDE[:, ::-1]])
    data = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    assert np.array_equal(read_image(data), (wide >> 8).astype(np.uint8))


def test_16_bit_grey_is_turned_as_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(WIDE), "PNG", exif=exif)
    assert np.array_equal(read_image(data)[..., 0], np.rot90(WIDE >> 8, -1))


@pytest.mark.parametrize("values", [RGB[..., 0].astype(np.float32), RGB[..., 0].astype(np.int32)])
def test_32_bit_values_have_no_known_range(values: NDArray[np.generic]) -> None:
    with pytest.raises(ImageError, match=r"32-bit values, .* save it with 8 or 16 bits"):
        read_image(encoded(Image.fromarray(values), "TIFF"))


def test_floats_in_a_pfm_have_none_either() -> None:
    with pytest.raises(ImageError, match="32-bit values"):
        read_image(b"Pf\n2 1\n-1.0\n" + np.array([0.5, 200], "<f4").tobytes())


def tiff_of(bits: int, photometric: int, data: bytes) -> bytes:
    """Grey of 4x2 pixels with the tags of TIFF 6.0: sizes, bits, no compression, photometric, one strip."""
    tags = [(256, 4), (257, 2), (258, bits), (259, 1), (262, photometric), (273, 8), (278, 2), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_grey_of_which_pillow_keeps_other_values_is_refused() -> None:
    rising = np.arange(8, dtype="<u2") * 8000
    assert (read_image(tiff_of(16, 1, rising.tobytes()))[..., 0] == (rising >> 8).reshape(2, 4)).all()
    assert (read_image(tiff_of(8, 0, bytes(range(8))))[..., 0].ravel() == 255 - np.arange(8)).all()  # which it turns
    with pytest.raises(ImageError, match=r"12-bit values, .* save it with 8 or 16 bits"):
        read_image(tiff_of(12, 1, bytes(12)))
    with pytest.raises(ImageError, match="with white at 0; save it with black at 0"):
        read_image(tiff_of(16, 0, rising.tobytes()))


def test_cmyk_becomes_rgb() -> None:
    data = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(read_image(data).astype(int) - SMOOTH).mean() < 3


def test_one_pixel_is_a_picture() -> None:
    assert read_image(encoded(Image.fromarray(RGB[:1, :1]), "PNG")).shape == (1, 1, 3)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_picture_is_refused(format_name: str, share: float) -> None:
    data = encoded(Image.fromarray(RGB.repeat(9, axis=0).repeat(9, axis=1)), format_name)
    with pytest.raises(ImageError, match=r"the picture is (damaged|of no format)"):
        read_image(data[: int(len(data) * share)])


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.jpg is of no format that .* send a JPEG"):
        read_image(text)
    text.write_bytes(b"")
    with pytest.raises(ImageError, match=r"text\.jpg is an empty file"):
        read_image(text)
    with pytest.raises(ImageError, match="the picture is an empty file"):
        read_image(b"")
    with pytest.raises(ImageError, match=r"cannot read .*none\.jpg: No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"cannot read .*: Is a directory"):
        read_image(tmp_path)


def test_formats_that_run_other_programs_are_not_tried() -> None:
    with pytest.raises(ImageError, match="of no format"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 9_000), (7_100, 7_100)])
def test_a_picture_too_large_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    bomb = png(*size, png_chunk(b"IDAT", zlib.compress(bytes(50_000_000))))
    start = time.process_time()
    with pytest.raises(ImageError, match="larger than the 50 megapixels allowed"):
        read_image(bomb)
    with pytest.raises(ImageError, match=r"larger than the 1\.5 megapixels allowed"):
        read_image(bomb, max_pixels=1_500_000)
    assert time.process_time() - start < 0.1


def test_a_limit_of_the_caller_is_kept_to_the_pixel() -> None:
    data = png(20, 30, png_chunk(b"IDAT", zlib.compress(bytes(30 * 61))))
    assert read_image(data, max_pixels=600).shape == (30, 20, 3)
    with pytest.raises(ImageError, match=r"is 20x30, larger than the 0\.000599 megapixels"):
        read_image(data, max_pixels=599)


def test_a_bomb_in_a_text_chunk_is_not_unpacked() -> None:
    bomb = png(40, 40, png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))))
    start = time.process_time()
    with pytest.raises(ImageError):
        read_image(bomb)
    assert time.process_time() - start < 0.5


SEEDS = [encoded(Image.fromarray(SMOOTH), name) for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8))
def test_damage_gives_a_picture_or_an_image_error(data: bytes, damage: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for place, value in damage:
        damaged[int(place * place * len(data))] = value  # headers more than pixels
    try:
        image = read_image(bytes(damaged))
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)


@pytest.mark.parametrize("name", ["a.png", "b.bmp", "c.TIFF", "folder/deeper/d.ppm"])
def test_what_is_written_is_what_is_read(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, RGB)
    assert np.array_equal(read_image(tmp_path / name), RGB)


def test_a_jpeg_is_close(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", SMOOTH)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - SMOOTH).mean() < 3


def test_a_mask_keeps_ids_and_shows_colours_in_any_viewer(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    write_mask(tmp_path / "mask.png", labels, palette)
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.array_equal(np.asarray(mask), labels)
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.png"))[..., ::-1], palette[labels])


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    palette = np.zeros((256, 3), np.uint8)
    with pytest.raises(ImageError, match=r"no suffix names none of JPEG"):
        write_image(tmp_path / "picture", RGB)
    with pytest.raises(ImageError, match=r"\.eps names none of JPEG"):
        write_image(tmp_path / "picture.eps", RGB)
    with pytest.raises(ImageError, match=r"must be RGB of shape"):
        write_image(tmp_path / "picture.png", RGB[..., 0])
    with pytest.raises(ImageError, match=r"written as \.png"):
        write_mask(tmp_path / "mask.jpg", RGB[..., 0], palette)
    with pytest.raises(ImageError, match=r"must be uint8 of shape \(height, width\), not int64"):
        write_mask(tmp_path / "mask.png", RGB[..., 0].astype(np.int64), palette)
    with pytest.raises(ImageError, match=r"cannot write .*long\.jpg"):
        write_image(tmp_path / "long.jpg", np.zeros((1, 70_000, 3), np.uint8))  # more than a JPEG can be
    for name, width in (("long.webp", 17_000), ("long.gif", 70_000)):
        kind = name[5:].upper()
        with pytest.raises(ImageError, match=rf"cannot write .*{name}: {kind} cannot hold {width}x1 pixels"):
            write_image(tmp_path / name, np.zeros((1, width, 3), np.uint8))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match=r"cannot write .*a\.png: Is a directory"):
        write_image(tmp_path / "a.png", RGB)
    assert os.listdir(tmp_path) == ["a.png"]


def test_real_pictures_are_what_another_decoder_sees(camvid: Path) -> None:
    for split in ("test", "train"):  # lossless, lossy
        path = min((camvid / split).iterdir())
        assert np.abs(read_image(path).astype(int) - cv2.imread(str(path))[..., ::-1]).max() <= 2
