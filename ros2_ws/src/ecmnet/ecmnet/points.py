"""`~/points`: the mask in space, where the camera has depth aligned to its pictures."""

from __future__ import annotations

import array
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from ecmnet import qos
from ecmnet.cloud import POINT, depth_metres, labelled_points
from ecmnet.sizes import scale_camera_info
from ecmnet_app.errors import ImageError

__all__ = ["Points"]

TOLERANCE = 0.05
"""Most seconds between the stamps of a picture and its depth; fusion breaks past twice as many."""
_KEPT = 30
"""Depth pictures kept until the mask of their picture is there."""
_PLACES: Any = POINT.fields
_FIELDS = [
    PointField(name=name, offset=_PLACES[name][1], datatype=kind, count=1)
    for name, kind in [
        ("x", PointField.FLOAT32),
        ("y", PointField.FLOAT32),
        ("z", PointField.FLOAT32),
        ("rgb", PointField.FLOAT32),  # PCL's custom: the bytes of a colour, named a float
        ("label", PointField.UINT8),
        ("confidence", PointField.UINT8),
    ]
]


class Points:
    """Keeps the newest depth pictures and publishes a cloud for a mask while somebody subscribes."""

    def __init__(self, node: Any, topic: str, depth_topic: str) -> None:
        self._node, self._depth_topic = node, depth_topic
        self._depths: deque[Image] = deque(maxlen=_KEPT)
        self._subscription: Any = None
        self._publisher = node.create_publisher(
            PointCloud2, topic, qos.outgoing(), qos_overriding_options=qos.overridable()
        )

    def start(self) -> None:
        """Subscribe to depth."""
        self._subscription = self._node.create_subscription(
            Image, self._depth_topic, self._keep, qos.incoming(), qos_overriding_options=qos.overridable()
        )

    def _keep(self, depth: Image) -> None:
        self._depths.append(depth)

    def stop(self) -> None:
        """Unsubscribe."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self._depths.clear()

    def destroy(self) -> None:
        """Take the topic from the graph."""
        self._node.destroy_publisher(self._publisher)

    def publish(
        self, header: Any, image: NDArray[np.uint8], labels: NDArray[np.uint8], confidence: NDArray[np.uint8],
        info: CameraInfo,
    ) -> None:  # fmt: skip
        """Publish the cloud of a mask, where a depth picture lies near enough in time."""
        if not self._publisher.get_subscription_count():
            return
        stamp = Time.from_msg(header.stamp).nanoseconds
        gaps = [(abs(Time.from_msg(depth.header.stamp).nanoseconds - stamp), depth) for depth in list(self._depths)]
        gap, nearest = min(gaps, key=lambda pair: pair[0], default=(None, None))
        if nearest is None or gap is None or gap > TOLERANCE * 1e9:
            said = "none came" if gap is None else f"the nearest is {gap / 1e6:.0f} ms away"
            self._node.get_logger().warning(
                f"no depth on {self._depth_topic} for this picture: {said}; no points", throttle_duration_sec=10.0
            )
            return
        try:
            depth = depth_metres(nearest)
            height, width = depth.shape
            points = labelled_points(depth, image, labels, confidence, scale_camera_info(info, header, (height, width)))
        except ImageError as error:
            self._node.get_logger().warning(f"{self._depth_topic}: {error}; no points", throttle_duration_sec=10.0)
            return
        data = array.array("B")
        data.frombytes(points.tobytes())
        self._publisher.publish(
            PointCloud2(
                header=header,
                height=height,
                width=width,
                fields=_FIELDS,
                is_bigendian=False,
                is_dense=False,
                point_step=POINT.itemsize,
                row_step=width * POINT.itemsize,
                data=data,
            )
        )
