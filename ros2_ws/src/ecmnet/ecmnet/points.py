"""`~/points`: the mask in space, where the camera has depth aligned to its pictures."""

from __future__ import annotations

import array
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from ecmnet import qos
from ecmnet.cloud import POINT, depth_metres, labelled_points
from ecmnet.sizes import scale_camera_info
from ecmnet_app.errors import ImageError

__all__ = ["Nearest", "Points"]

TOLERANCE = 0.05
"""Most seconds between the stamps of a picture and its depth; fusion breaks past twice as many."""
_KEPT = 30
"""Newest depth pictures, kept for pictures that come after their depth."""
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


class Nearest:
    """Of the depth pictures that have come, the one nearest in time to a picture: its own, however long its mask takes.

    Args:
        stamp: of the picture, in nanoseconds.
    """

    def __init__(self, stamp: int) -> None:
        self._stamp = stamp
        self.found: tuple[int, Image] | None = None
        """Nanoseconds between both stamps, and the depth picture; in one, since another thread reads it."""

    def offer(self, depth: Image) -> None:
        """Another depth picture has come."""
        gap = abs(Time.from_msg(depth.header.stamp).nanoseconds - self._stamp)
        if self.found is None or gap < self.found[0]:
            self.found = gap, depth


class Points:
    """Finds each picture's depth and publishes a cloud for its mask while somebody subscribes.

    Args:
        node: `SegmentNode`.
        topic: of the clouds.
        depth_topic: full name of the depth pictures' topic.
        warn: logs a line.
    """

    def __init__(self, node: Any, topic: str, depth_topic: str, warn: Callable[[str], None]) -> None:
        self._node, self._depth_topic, self._warn = node, depth_topic, warn
        self._lock = threading.Lock()
        self._recent: deque[Image] = deque(maxlen=_KEPT)
        self._under_way: set[Nearest] = set()
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
        with self._lock:
            self._recent.append(depth)
            for nearest in self._under_way:
                nearest.offer(depth)

    def expect(self, header: Any) -> Nearest:
        """A picture is under way to its mask: find its depth, among what has come and what comes until `forget`."""
        nearest = Nearest(Time.from_msg(header.stamp).nanoseconds)
        with self._lock:
            for depth in self._recent:
                nearest.offer(depth)
            self._under_way.add(nearest)
        return nearest

    def forget(self, nearest: Nearest) -> None:
        """The picture has its mask, or will have none."""
        with self._lock:
            self._under_way.discard(nearest)

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes."""
        return bool(self._publisher.get_subscription_count())

    def stop(self) -> None:
        """Unsubscribe."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        with self._lock:
            self._recent.clear()

    def destroy(self) -> None:
        """Take the topic from the graph."""
        self._node.destroy_publisher(self._publisher)

    def publish(
        self, header: Any, image: NDArray[np.uint8], labels: NDArray[np.uint8], confidence: NDArray[np.uint8],
        info: CameraInfo, nearest: Nearest,
    ) -> None:  # fmt: skip
        """Publish the cloud of a mask, where a depth picture lies near enough in time."""
        if not self.wanted:
            return
        found = nearest.found
        if found is None or found[0] > TOLERANCE * 1e9:
            said = "none came" if found is None else f"the nearest is {found[0] / 1e6:.0f} ms away"
            self._warn(f"no depth on {self._depth_topic} for this picture: {said}; no points")
            return
        try:
            depth = depth_metres(found[1])
            height, width = depth.shape
            points = labelled_points(depth, image, labels, confidence, scale_camera_info(info, header, (height, width)))
        except ImageError as error:
            self._warn(f"{self._depth_topic}: {error}; no points")
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
