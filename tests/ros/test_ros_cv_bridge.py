"""Our pixels beside cv_bridge's, for every encoding that it knows; skipped where it does not import."""

from __future__ import annotations

import numpy as np
import pytest

from ecmnet.decoder import CV_BRIDGE_ENCODINGS, cv_bridge_works, make_decoder
from ecmnet_app.ros_messages import ENCODINGS, image_to_rgb, pixel_bytes

pytest.importorskip("rclpy", reason="rclpy does not import: no ROS 2 is sourced")

from sensor_msgs.msg import Image

WORKS = cv_bridge_works()
if WORKS:
    from cv_bridge import CvBridge, CvBridgeError
# Not by skipping the module: launch_testing's plugin would take that for the whole folder.
pytestmark = pytest.mark.skipif(not WORKS, reason="cv_bridge does not work with this interpreter and NumPy")
HEIGHT, WIDTH = 34, 46
DECODE = make_decoder()


def random_message(encoding: str, padding: int = 0) -> Image:
    step = WIDTH * pixel_bytes(encoding) + padding
    rows = HEIGHT * 3 // 2 if encoding.startswith("nv") else HEIGHT
    data = np.random.default_rng(len(encoding)).integers(0, 256, rows * step, dtype=np.uint8)
    return Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step, data=data.tobytes())


@pytest.mark.parametrize("encoding", sorted(CV_BRIDGE_ENCODINGS))
@pytest.mark.parametrize("pixels_of_padding", [0, 3])
def test_pixels_are_those_of_cv_bridge(encoding: str, pixels_of_padding: int) -> None:
    message = random_message(encoding, pixels_of_padding * pixel_bytes(encoding))
    theirs = CvBridge().imgmsg_to_cv2(message, "rgb8")
    assert (image_to_rgb(message) == theirs).all()
    assert (DECODE(message) == theirs).all()


def test_the_rest_is_what_cv_bridge_cannot_make_rgb_of() -> None:
    for encoding in set(ENCODINGS) - CV_BRIDGE_ENCODINGS - {"uyvy", "yuyv", "nv21"}:  # these in newer ones alone
        with pytest.raises((CvBridgeError, KeyError)):
            CvBridge().imgmsg_to_cv2(random_message(encoding), "rgb8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_nodes_decoder_takes_what_cv_bridge_would_get_wrong(encoding: str) -> None:
    skewed = random_message(encoding, padding=1)  # rows that are no whole number of pixels
    assert (DECODE(skewed) == image_to_rgb(skewed)).all()
    big = random_message(encoding)
    big.is_bigendian = 1
    assert (DECODE(big) == image_to_rgb(big)).all()
