"""Masks of another size than the camera's, and the calibration that goes with them."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["confidence_bytes", "resize_labels", "scale_camera_info"]


def resize_labels(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Take for each pixel the nearest one's value: ids are names, between which nothing lies.

    Args:
        values: ids, or confidence that is to stay beside its id. Shape: (H, W).
        size: (height, width) of the result.
    """
    if values.shape == size:
        return values
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def confidence_bytes(confidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Confidence of 0 to 1 as bytes of 0 to 255, to the nearest."""
    return np.asarray(cv2.convertScaleAbs(confidence, alpha=255), np.uint8)


_Info = TypeVar("_Info")


def scale_camera_info(info: _Info, header: Any, size: tuple[int, int]) -> _Info:
    """The calibration of a camera, which is the whole sensor's, for its pictures at another size.

    The picture is the sensor's region of interest, binned, and its K and P are those that image_geometry takes for it.
    At another size than that, pixel centres lie at whole numbers, so that the picture reaches from -0.5 to width - 0.5.
    Distortion and rotation are in units of the lens and stay.

    Args:
        info: sensor_msgs/CameraInfo, left as it is.
        header: of the picture.
        size: (height, width) of the mask.

    Returns:
        Of pictures that are all there is: no region, no binning.
    """
    scaled: Any = copy.deepcopy(info)
    scaled.header = header
    region = scaled.roi
    across = _from_sensor(size[1], scaled.width, region.x_offset, region.width, scaled.binning_x)
    down = _from_sensor(size[0], scaled.height, region.y_offset, region.height, scaled.binning_y)
    if across is None or down is None:
        return scaled
    scaled.height, scaled.width = size
    region.x_offset = region.y_offset = region.height = region.width = 0
    region.do_rectify = False
    scaled.binning_x = scaled.binning_y = 0
    to_size = np.array([[across[0], 0, across[1]], [0, down[0], down[1]], [0, 0, 1]])
    scaled.k = list((to_size @ np.array(scaled.k, float).reshape(3, 3)).ravel())
    scaled.p = list((to_size @ np.array(scaled.p, float).reshape(3, 4)).ravel())
    return scaled


def _from_sensor(size: int, full: int, offset: int, region: int, binning: int) -> tuple[float, float] | None:
    """Factor and shift from pixels of the sensor to those of a picture `size` long; nothing where no size is known."""
    binning = binning or 1
    picture = (region or full) // binning
    if not picture:
        return None
    scale = size / picture
    return scale / binning, (scale - 1) / 2 - offset * scale / binning
