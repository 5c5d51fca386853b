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
    """The calibration of a camera for its pictures at another size.

    Pixel centres lie at whole numbers, so the picture reaches from -0.5 to width - 0.5. Distortion and rotation are in
    units of the lens and stay.

    Args:
        info: sensor_msgs/CameraInfo, left as it is.
        header: of the picture.
        size: (height, width) of the mask.
    """
    scaled: Any = copy.deepcopy(info)
    scaled.header = header
    height, width = size
    if (scaled.height, scaled.width) == size or not (scaled.height and scaled.width):
        return scaled
    y, x = height / scaled.height, width / scaled.width
    scaled.height, scaled.width = height, width
    scaled.k = _scale(scaled.k, x, y, columns=3)
    scaled.p = _scale(scaled.p, x, y, columns=4)
    region = scaled.roi
    region.x_offset, region.width = round(region.x_offset * x), round(region.width * x)
    region.y_offset, region.height = round(region.y_offset * y), round(region.height * y)
    return scaled


def _scale(matrix: Any, x: float, y: float, columns: int) -> list[float]:
    rows = np.array(matrix, float).reshape(3, columns)
    to_size = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return list((to_size @ rows).ravel())
