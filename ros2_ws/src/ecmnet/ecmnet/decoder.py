"""From a message to RGB: by cv_bridge where it works and knows the encoding, else by ecmnet_app.ros_messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.errors import ImageError
from ecmnet_app.ros_messages import check_image_message, compressed_to_rgb, image_to_rgb, pixel_bytes

__all__ = ["CV_BRIDGE_ENCODINGS", "Decoder", "cv_bridge_works", "make_decoder"]

Decoder = Callable[[Any], NDArray[np.uint8]]
"""Takes an Image or CompressedImage, returns RGB of shape (H, W, 3), raises ImageError."""

CV_BRIDGE_ENCODINGS = frozenset(
    [f"{order}{bits}" for order in ("rgb", "bgr", "rgba", "bgra", "mono") for bits in (8, 16)]
    + [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]
    + ["yuv422", "yuv422_yuy2"]
)
"""What cv_bridge makes RGB of in every distribution that is supported."""

_PROBE = """
import numpy, cv_bridge
from sensor_msgs.msg import Image
message = Image(height=1, width=1, step=3, encoding="bgr8", data=b"\\1\\2\\3")
assert cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8").tolist() == [[[3, 2, 1]]]
"""


def cv_bridge_works() -> bool:
    """Whether cv_bridge converts a pixel. Tried in another process: built for NumPy 1, it crashes under 2."""
    return subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False).returncode == 0


def make_decoder() -> Decoder:
    """The decoder to use here, for messages of both types."""
    if not cv_bridge_works():
        return _decode
    from cv_bridge import CvBridge, CvBridgeError

    bridge = CvBridge()

    def decode(message: Any) -> NDArray[np.uint8]:
        if not _suits_cv_bridge(message):
            return _decode(message)
        check_image_message(message)
        try:
            return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"), np.uint8)
        except CvBridgeError as error:
            raise ImageError(f"cv_bridge cannot convert {message.encoding}: {error}") from error

    return decode


def _decode(message: Any) -> NDArray[np.uint8]:
    return image_to_rgb(message) if hasattr(message, "encoding") else compressed_to_rgb(message)


def _suits_cv_bridge(message: Any) -> bool:
    """Not where the bytes of a row are not whole pixels, which it would skew; nor another byte order, where it breaks
    under NumPy 2; nor compressed pictures, which the page and the shell decode as `media.read_image` does."""
    encoding = getattr(message, "encoding", None)
    if encoding not in CV_BRIDGE_ENCODINGS or message.is_bigendian:
        return False
    return message.step % pixel_bytes(encoding) == 0
