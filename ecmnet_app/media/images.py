"""The one decoder and the two encoders of pictures, used by every door."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ecmnet_app.errors import ImageError
from ecmnet_app.media.files import write_atomically

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "check_image",
    "encode_image",
    "encode_mask",
    "read_image",
    "write_image",
    "write_mask",
]

MAX_PIXELS = 50_000_000
"""Largest picture that is read or segmented, in pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is decoded. Pillow knows more, some of it through other programs; street pictures need no others."""

_KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF or PPM"


def read_image(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a picture, turned as its EXIF orientation says.

    Grey, palette and CMYK become RGB; alpha is dropped; of 16 bits the upper 8 are kept; of an animation, the
    first frame.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        RGB, uint8. Shape: (H, W, 3).

    Raises:
        ImageError: the file is missing, empty, truncated, of another kind, or larger than `max_pixels`.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture", max_pixels)
    name = os.fspath(source)
    try:
        with open(source, "rb") as file:
            return _decode(file, name, max_pixels)
    except OSError as error:
        raise ImageError(f"cannot read {name}: {error.strerror or error}") from error


def check_image(image: NDArray[np.uint8], name: str = "the picture") -> None:
    """Raise ImageError, saying what is wrong, unless `image` is RGB uint8 of shape (H, W, 3) and not too large."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name} must be a numpy array, not {type(image).__name__}; read files with read_image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"{name} must be RGB of shape (height, width, 3), not {image.shape}")
    if image.size == 0:
        raise ImageError(f"{name} is empty: its shape is {image.shape}")
    if image.dtype != np.uint8:
        raise ImageError(f"{name} must be uint8, 0 to 255, not {image.dtype}")
    _check_size(image.shape[1], image.shape[0], name)


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write RGB uint8 of shape (H, W, 3) as a whole file, in the format that the suffix names.

    Raises:
        ImageError: the array is not such a picture, the suffix names no format, or the file cannot be written.
    """
    _write(path, encode_image(image, path))


def write_mask(path: str | os.PathLike[str], labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
    """Write a mask as a whole PNG file whose pixel values are the ids and whose palette gives their colours.

    Args:
        path: ends in .png.
        labels: uint8. Shape: (H, W).
        palette: RGB of each id, uint8. Shape: (N, 3), N up to 256.

    Raises:
        ImageError: the array is not such a mask, the suffix is not .png, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"a mask is written as .png, which keeps its ids exactly; {os.fspath(path)} is not")
    _write(path, encode_mask(labels, palette))


def encode_image(image: NDArray[np.uint8], name: str | os.PathLike[str]) -> bytes:
    """The bytes of the file that `write_image` would write under this name or path.

    Raises:
        ImageError: the array is not such a picture, the suffix names no format, or the format cannot hold it.
    """
    check_image(image)
    return _encode(Image.fromarray(image), name)


def encode_mask(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """The bytes of the file that `write_mask` writes.

    Raises:
        ImageError: the array is not a mask.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise ImageError(f"a mask must be uint8 of shape (height, width), not {labels.dtype} of {labels.shape}")
    image = Image.fromarray(labels, "L")
    image.putpalette(palette.tobytes())
    return _encode(image, "mask.png")


def _encode(image: Image.Image, name: str | os.PathLike[str]) -> bytes:
    suffix = Path(name).suffix.lower()
    format_name = Image.registered_extensions().get(suffix)
    if format_name not in FORMATS:
        raise ImageError(f"cannot write {os.fspath(name)}: {suffix or 'no suffix'} names none of {_KINDS}")
    buffer = io.BytesIO()
    try:
        image.save(buffer, format_name, **({"quality": 92} if format_name in ("JPEG", "WEBP") else {}))
    except (OSError, ValueError, struct.error) as error:  # of an encoder, for a picture with too long a side
        width, height = image.size
        raise ImageError(
            f"cannot write {os.fspath(name)}: {format_name} cannot hold {width}x{height} pixels"
        ) from error
    return buffer.getvalue()


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ImageError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


def _check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{name} is {width}x{height}, larger than the {max_pixels / 1e6:g} megapixels allowed; make it smaller"
        )


def _decode(file: BinaryIO, name: str, max_pixels: int) -> NDArray[np.uint8]:
    if not file.read(1):
        raise ImageError(f"{name} is an empty file; send a {_KINDS} picture")
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image.width, image.height, name, max_pixels)
            if image.mode == "F" or (image.mode.startswith("I") and image.format == "TIFF"):
                _check_grey(image, name)
            return _to_rgb(_upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is of no format that can be read; send a {_KINDS} picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} is larger than the {max_pixels / 1e6:g} megapixels allowed; make it smaller"
        ) from error
    except Exception as error:  # whatever the parsing in Pillow meets: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name} is damaged and cannot be decoded ({error}); save or copy it again") from error


def _check_grey(image: Image.Image, name: str) -> None:
    """Refuse what Pillow hands over as it is written: values of other than 16 bits, or whose white is 0."""
    tags = image.getexif()
    bits = np.ravel(tags[ExifTags.Base.BitsPerSample])[0] if image.mode.startswith("I;16") else 32
    if bits != 16:
        raise ImageError(f"{name} holds {bits}-bit values, whose range is not known; save it with 8 or 16 bits")
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        raise ImageError(f"{name} holds 16-bit values with white at 0; save it with black at 0")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. Pillow's own `exif_transpose` writes all of EXIF anew, and refuses pictures whose is odd."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255 instead of scaling it. The upper byte is what it keeps of 16-bit RGB.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P":  # through RGBA, as Pillow asks where a palette holds transparency
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
