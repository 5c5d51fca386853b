"""Pixels of sensor_msgs/Image and CompressedImage, in and out, without ROS.

Every function takes any object with the message's fields, so that a robot's node, a bag reader and a test share it:

    image = image_to_rgb(message)                            # RGB, uint8, (H, W, 3), whatever the camera's encoding
    fill_image(Image(), message.header, labels, "mono8")     # the header is copied as it is: stamp and frame_id

Pixels equal those of cv_bridge for every encoding that it knows.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ecmnet_app.errors import ImageError
from ecmnet_app.media.images import MAX_PIXELS, check_image, read_image

__all__ = [
    "ENCODINGS",
    "CompressedMessage",
    "ImageMessage",
    "check_compressed",
    "check_image_message",
    "compressed_to_rgb",
    "fill_image",
    "fill_mask_png",
    "image_to_rgb",
    "pixel_bytes",
]


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int | bool
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    header: Any
    format: str
    data: Any


@dataclass(frozen=True)
class _Layout:
    """How the bytes of an encoding lie in a row, and what makes RGB of them."""

    channels: int
    convert: Callable[[NDArray[Any]], NDArray[Any]]
    bits: int = 8
    planes: float = 1
    """Rows of data for each row of the picture: 1.5 where a plane of colour at half the size follows."""
    pair: tuple[int, int] = (1, 1)
    """Height and width must be multiples of these, as pixels share their colour."""


def _by(code: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _as_it_is(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels


_GREY, _BGR = _by(cv2.COLOR_GRAY2RGB), _by(cv2.COLOR_BGR2RGB)
_BGRA, _RGBA = _by(cv2.COLOR_BGRA2RGB), _by(cv2.COLOR_RGBA2RGB)
_UYVY = _Layout(2, _by(cv2.COLOR_YUV2RGB_UYVY), pair=(1, 2))
_YUYV = _Layout(2, _by(cv2.COLOR_YUV2RGB_YUY2), pair=(1, 2))
_BAYER = {  # OpenCV names a pattern by its second row, ROS by its first
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_LAYOUTS = {
    "rgb8": _Layout(3, _as_it_is),
    "bgr8": _Layout(3, _BGR),
    "rgba8": _Layout(4, _RGBA),
    "bgra8": _Layout(4, _BGRA),
    "mono8": _Layout(1, _GREY),
    "rgb16": _Layout(3, _as_it_is, 16),
    "bgr16": _Layout(3, _BGR, 16),
    "rgba16": _Layout(4, _RGBA, 16),
    "bgra16": _Layout(4, _BGRA, 16),
    "mono16": _Layout(1, _GREY, 16),
    "8UC1": _Layout(1, _GREY),
    "8UC3": _Layout(3, _BGR),  # OpenCV's own order: what a program that names no colours has most likely sent
    "8UC4": _Layout(4, _BGRA),
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv12": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV12), planes=1.5, pair=(2, 2)),
    "nv21": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV21), planes=1.5, pair=(2, 2)),
    **{f"bayer_{name}8": _Layout(1, _by(code), pair=(2, 2)) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(1, _by(code), 16, pair=(2, 2)) for name, code in _BAYER.items()},
}
ENCODINGS = tuple(_LAYOUTS)
"""Values of `encoding` that are understood."""


def pixel_bytes(encoding: str) -> int:
    """Bytes of one pixel in a row.

    Raises:
        ImageError: the encoding is not one of `ENCODINGS`.
    """
    layout = _layout(encoding)
    return layout.channels * layout.bits // 8


def check_image_message(message: ImageMessage) -> None:
    """Raise ImageError, saying what is wrong, unless `image_to_rgb` can decode the message. Touches no pixel."""
    layout = _layout(message.encoding)
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise ImageError(f"the picture is {width}x{height}, empty; the camera's driver sends no pixels")
    if height * width > MAX_PIXELS:
        raise ImageError(f"the picture is {width}x{height}, larger than the {MAX_PIXELS / 1e6:.0f} megapixels allowed")
    if height % layout.pair[0] or width % layout.pair[1]:
        raise ImageError(
            f"the picture is {width}x{height}; pixels of {message.encoding} come in pairs, so use even sizes"
        )
    least = width * pixel_bytes(message.encoding)
    if step < least:
        raise ImageError(
            f"step is {step}, but a row of {width} pixels in {message.encoding} takes {least} bytes; "
            "correct the step or the encoding in the camera's driver"
        )
    rows = int(height * layout.planes)
    if len(message.data) < rows * step:
        raise ImageError(
            f"data has {len(message.data)} bytes, but {rows} rows of {step} bytes take {rows * step}; "
            "the message was cut short, or its height or step is wrong"
        )


def image_to_rgb(message: ImageMessage) -> NDArray[np.uint8]:
    """Decode a raw picture: any of `ENCODINGS`, padded rows, 16 bits of either byte order.

    16 bits become 8 by scaling 65535 to 255, as in cv_bridge; alpha is dropped.

    Args:
        message: sensor_msgs/Image, or an object with its fields.

    Returns:
        RGB, uint8; of an rgb8 message without padding, a view of its data. Shape: (H, W, 3).

    Raises:
        ImageError: the encoding is not known, or size, step and data do not fit each other.
    """
    check_image_message(message)
    layout = _layout(message.encoding)
    rows = int(message.height * layout.planes)
    data = _bytes(message.data)[: rows * message.step].reshape(rows, message.step)
    row = np.ascontiguousarray(data[:, : message.width * pixel_bytes(message.encoding)])
    if layout.bits == 16:
        row = row.view(np.dtype(np.uint16).newbyteorder(">" if message.is_bigendian else "<")).astype(np.uint16)
    pixels = row.reshape((rows, message.width, layout.channels) if layout.channels > 1 else (rows, message.width))
    try:
        rgb = layout.convert(pixels)
    except cv2.error as error:
        size = f"{message.width}x{message.height}"
        raise ImageError(f"a picture of {size} in {message.encoding} cannot be decoded ({error.err})") from error
    if layout.bits == 16:
        rgb = cv2.convertScaleAbs(rgb, alpha=255 / 65535)
    return np.asarray(rgb, np.uint8)


def check_compressed(message: CompressedMessage) -> None:
    """Raise ImageError, saying what is wrong, where it shows without decoding."""
    if len(message.data) == 0:
        raise ImageError("the compressed picture is empty; the camera's driver sends no bytes")
    if "compresseddepth" in message.format.lower().replace("_", ""):
        raise ImageError(f"{message.format!r} holds depth, not a picture; choose the camera's colour topic")


def compressed_to_rgb(message: CompressedMessage) -> NDArray[np.uint8]:
    """Decode a compressed picture, by what its bytes say rather than by `format`; see `media.read_image`.

    Args:
        message: sensor_msgs/CompressedImage, or an object with its fields.

    Returns:
        RGB, uint8. Shape: (H, W, 3).

    Raises:
        ImageError: the bytes are not a whole picture of a kind that is read.
    """
    check_compressed(message)
    return read_image(_bytes(message.data).tobytes())


_Message = TypeVar("_Message", bound=ImageMessage)
_Compressed = TypeVar("_Compressed", bound=CompressedMessage)


def fill_image(message: _Message, header: Any, pixels: NDArray[np.uint8], encoding: str) -> _Message:
    """Fill a raw picture and return it.

    Args:
        message: an empty sensor_msgs/Image.
        header: of the picture that this one answers, taken as it is.
        pixels: uint8. Shape: (H, W) for mono8, (H, W, 3) for rgb8 and bgr8.
        encoding: "mono8", "rgb8" or "bgr8".

    Raises:
        ImageError: pixels and encoding do not fit.
    """
    if encoding in ("rgb8", "bgr8"):
        check_image(pixels)
    elif encoding != "mono8" or pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ImageError(f"mono8 takes uint8 of shape (height, width), not {pixels.dtype} of {pixels.shape}")
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = message.width * pixel_bytes(encoding)
    message.data = _array(pixels)
    return message


def fill_mask_png(message: _Compressed, header: Any, labels: NDArray[np.uint8]) -> _Compressed:
    """Fill a compressed mask as grey PNG, which keeps every id, and return it.

    Args:
        message: an empty sensor_msgs/CompressedImage.
        header: of the picture that this mask answers, taken as it is.
        labels: uint8. Shape: (H, W).
    """
    _, png = cv2.imencode(".png", labels)
    message.header = header
    message.format = "mono8; png compressed"
    message.data = _array(np.asarray(png))
    return message


def _layout(encoding: str) -> _Layout:
    try:
        return _LAYOUTS[encoding]
    except KeyError:
        raise ImageError(f"the encoding {encoding!r} is not one of {', '.join(ENCODINGS)}") from None


def _bytes(data: Any) -> NDArray[np.uint8]:
    return data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)


def _array(pixels: NDArray[np.uint8]) -> array.array[int]:
    """The one type that rclpy takes over without looking at each byte in turn."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data
