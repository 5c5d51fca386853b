"""A labelled point cloud from a mask and the depth picture aligned to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet.sizes import resize_labels
from ecmnet_app.errors import ImageError
from ecmnet_app.ros_messages import ImageMessage

__all__ = ["POINT", "depth_metres", "labelled_points"]

POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "u1"), ("confidence", "u1"), ("", "V2")]
)
"""One point: metres in the optical frame, colour as PCL packs it (0x00RRGGBB), class id, confidence of 0 to 255."""
_DEPTHS = {"16UC1": ("u2", 0.001), "mono16": ("u2", 0.001), "32FC1": ("f4", 1.0)}


def depth_metres(message: ImageMessage) -> NDArray[np.float32]:
    """Metres of a depth picture (REP 118): 16UC1 in millimetres or 32FC1 in metres; NaN where there is none.

    Returns:
        float32. Shape: (H, W).

    Raises:
        ImageError: the encoding is not one of depth, or size, step and data do not fit each other.
    """
    if message.encoding not in _DEPTHS:
        raise ImageError(f"depth must be 16UC1 or 32FC1, not {message.encoding!r}; is depth_topic:= the right one?")
    kind, scale = _DEPTHS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * dtype.itemsize
    if message.step < row or len(message.data) < message.height * message.step:
        raise ImageError(f"depth of {message.width}x{message.height} needs more than its step and data hold")
    rows = np.frombuffer(message.data, np.uint8)[: message.height * message.step].reshape(message.height, message.step)
    depth = np.ascontiguousarray(rows[:, :row]).view(dtype).astype(np.float32) * np.float32(scale)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def labelled_points(
    depth: NDArray[np.float32],
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    info: Any,
) -> NDArray[Any]:
    """Every pixel of a depth picture as a point, in the picture's order; x, y and z are NaN where there is no depth.

    Args:
        depth: metres. Shape: (H, W).
        image: RGB of the camera that depth is aligned to. Shape: (h, w, 3); another size is sampled to depth's.
        labels, confidence: of the picture. Shape: (h, w).
        info: sensor_msgs/CameraInfo of the depth picture's size. Depth is aligned to rectified pictures, to which
            its P belongs, as depth_image_proc takes it.

    Returns:
        `POINT`. Shape: (H, W).

    Raises:
        ImageError: the camera is not calibrated.
    """
    size = depth.shape
    fx, _, cx, _, _, fy, cy = list(info.p)[:7]
    if not (fx and fy):
        raise ImageError("camera_info has no focal length in P; calibrate the camera, or let its driver load the file")
    points = np.zeros(size, POINT)
    points["x"] = (np.arange(size[1], dtype=np.float32) - cx) / fx * depth
    points["y"] = ((np.arange(size[0], dtype=np.float32) - cy) / fy)[:, None] * depth
    points["z"] = depth
    red, green, blue = (resize_labels(np.ascontiguousarray(image[..., c]), size).astype(np.uint32) for c in range(3))
    points["rgb"] = red << 16 | green << 8 | blue
    points["label"] = resize_labels(labels, size)
    points["confidence"] = resize_labels(confidence, size)
    return points
