"""One camera: its subscription, its outputs, and what the messages of both hold."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rclpy._rclpy_pybind11 import RCLError
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32
from vision_msgs.msg import LabelInfo, VisionClass

from ecmnet import names, qos
from ecmnet.decoder import Decoder
from ecmnet.health import SILENCE, Health, Report
from ecmnet.points import Nearest, Points
from ecmnet.settings import Settings
from ecmnet.silence import explain_silence, explain_unheard
from ecmnet.sizes import confidence_bytes, resize_labels, scale_camera_info
from ecmnet.throttle import Throttle
from ecmnet_app.core import LabelSet, Segmentation
from ecmnet_app.core.stream import Answer, FrameDroppedError, Source, StreamWorker
from ecmnet_app.errors import EcmnetError, ImageError
from ecmnet_app.ros_messages import check_compressed, check_image_message, fill_image, fill_mask_png

__all__ = ["Camera", "Frame"]

_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
_NAMES = {kind: name for name, kind in _TYPES.items()}
QUIET = 5.0
"""Seconds for which a line like the last one is not logged again."""


@dataclass(eq=False)
class Frame:
    """A message on its way through the worker, decoded only when its turn comes."""

    message: Any
    settings: Settings
    decoder: Decoder
    nearest: Nearest | None
    """Its depth, where the camera has any."""
    image: NDArray[np.uint8] | None = None

    def decode(self) -> NDArray[np.uint8]:
        """RGB, uint8. Shape: (H, W, 3). Raises ImageError."""
        if self.image is None:
            self.image = self.decoder(self.message)
        return self.image


class Camera:
    """From configuring to cleaning up the node: publishers; while it is active: subscriptions and a source.

    Args:
        node: `SegmentNode`.
        topic: full name of the pictures' topic.
        prefix: what the names of the outputs start with.
        depth_topic: full name of the depth picture's topic, or nothing.
    """

    def __init__(self, node: Any, topic: str, prefix: str, depth_topic: str) -> None:
        self.topic = topic
        self.health = Health(time.monotonic())
        self.keep_newest = False
        """Whether `newest` is kept, for a page to show."""
        self.newest: tuple[NDArray[np.uint8], Segmentation, float, float] | None = None
        """Picture, answer, opacity of the overlay, and when it was answered on the monotonic clock in seconds."""
        self._node, self._prefix = node, prefix
        self._info: CameraInfo | None = None
        self._started = 0.0
        self._source: Source | None = None
        self._subscription: Any = None
        self._info_subscription: Any = None
        self._mask = self._publisher(Image, "mask")
        self._mask_png = self._publisher(CompressedImage, "mask/compressed")
        self._confidence = self._publisher(Image, "confidence")
        self._overlay = self._publisher(Image, "overlay")
        self._camera_info = self._publisher(CameraInfo, "camera_info")
        self._latency = self._publisher(Float32, "latency")
        self._labels = self._publisher(LabelInfo, "label_info", qos.latched())
        self._publishers = [
            self._mask, self._mask_png, self._confidence, self._overlay, self._camera_info, self._latency, self._labels
        ]  # fmt: skip
        self._throttle = Throttle()
        self._points = Points(node, f"{prefix}/points", depth_topic, self._warn) if depth_topic else None

    def _publisher(self, kind: Any, name: str, profile: Any = None) -> Any:
        return self._node.create_publisher(
            kind, f"{self._prefix}/{name}", profile or qos.outgoing(), qos_overriding_options=qos.overridable()
        )

    def publish_labels(self, label_set: LabelSet, threshold: float | None) -> None:
        """Tell what the ids of the mask mean, now and to whoever asks later."""
        classes = [VisionClass(class_id=label.id, class_name=label.name) for label in label_set.with_unlabelled]
        message = LabelInfo(class_map=classes, threshold=threshold or 0.0)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._labels.publish(message)

    def start(self, worker: StreamWorker) -> None:
        """Subscribe, and send each picture to the worker."""
        self._started = time.monotonic()
        self.health = Health(self._started)
        self._source = worker.open()
        self._subscribe(*self._find())
        self._info_subscription = self._node.create_subscription(
            CameraInfo, names.camera_info_topic(self.topic), self._keep_info, qos.incoming(),
            qos_overriding_options=qos.overridable(),
        )  # fmt: skip
        if self._points:
            self._points.start()

    def stop(self) -> None:
        """Unsubscribe; what is in the worker is answered, but not published."""
        source, self._source = self._source, None  # in this order, or the waiting picture would count as a bad one
        if source:
            source.close()
        for subscription in (self._subscription, self._info_subscription):
            if subscription:
                self._node.destroy_subscription(subscription)
        self._subscription = self._info_subscription = self._info = self.newest = None
        if self._points:
            self._points.stop()

    def destroy(self) -> None:
        """Take the outputs from the graph. The worker must not publish any more."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        if self._points:
            self._points.destroy()

    def report(self) -> Report:
        """This camera's line in /diagnostics; subscribes anew where its topic has turned out to be of another type."""
        now = time.monotonic()
        problem = ""
        if self._subscription and self.health.silent(now):
            found = self._find()
            if found != (self._subscription.topic_name, self._subscription.msg_type):
                self._node.destroy_subscription(self._subscription)
                self._subscribe(*found)
            problem = self._why_silent()
        problem = problem or explain_unheard(
            self._mask.topic_name, qos.describe(self._mask.qos_profile), qos.subscribers_of(self._node, self._mask)
        )
        problem = problem or self._why_no_points(now)
        if problem:
            self._warn(problem, quiet=30.0)
        return self.health.report(now, problem)

    def _why_silent(self) -> str:
        topic, kind = self._subscription.topic_name, _NAMES[self._subscription.msg_type]
        there = [name for name, kinds in self._node.get_topic_names_and_types() if _TYPES.keys() & set(kinds)]
        others = sorted(name for name in there if name != topic and self._kinds_on(name))
        ours = qos.describe(self._subscription.qos_profile)
        return explain_silence(topic, kind, ours, qos.publishers_of(self._node, topic, ours), others)

    def _why_no_points(self, now: float) -> str:
        if self._info or not (self._points and self._points.wanted) or now - self._started < SILENCE:
            return ""
        return (
            f"no points: no calibration has come on {names.camera_info_topic(self.topic)}; "
            "let the camera's driver publish it there, beside its pictures"
        )

    def _find(self) -> tuple[str, Any]:
        """Name and type to subscribe to: as `transport` says, or as what is published."""
        transport = self._node.get_parameter("transport").value
        compressed = names.compressed_topic(self.topic)
        if transport == "raw":
            return self.topic, Image
        if transport == "compressed":
            return compressed, CompressedImage
        for topic in (self.topic, compressed):
            for kind in self._kinds_on(topic):
                return topic, kind
        return self.topic, CompressedImage if names.is_compressed(self.topic) else Image

    def _kinds_on(self, topic: str) -> list[Any]:
        """Types in which others publish pictures on a topic: a topic's own types are also those of its subscribers."""
        us = self._node.get_fully_qualified_name()
        return [_TYPES[p.type] for p in qos.publishers_of(self._node, topic) if p.type in _TYPES and p.node != us]

    def _subscribe(self, topic: str, kind: Any) -> None:
        self._subscription = self._node.create_subscription(
            kind, topic, self._receive, qos.incoming(), qos_overriding_options=qos.overridable()
        )

    def _keep_info(self, info: CameraInfo) -> None:
        self._info = info

    def _receive(self, message: Any) -> None:
        if not self._node.enabled or self._source is None:
            return
        self.health.picture(time.monotonic())
        if not (message.header.stamp.sec or message.header.stamp.nanosec):
            self.health.unstamped()
            self._warn(
                f"{self.topic}: the stamp is zero, so the mask cannot be placed in time; "
                "let the camera's driver fill in header.stamp"
            )
        try:
            (check_image_message if isinstance(message, Image) else check_compressed)(message)
        except ImageError as error:
            self._refuse(error)
            return
        nearest = self._points.expect(message.header) if self._points else None
        frame = Frame(message, self._node.settings, self._node.decoder, nearest)
        options = {"resolution": frame.settings.resolution, "threshold": frame.settings.threshold}
        future = self._source.submit(cast(Any, frame), **options)
        future.add_done_callback(lambda done: self._answered(frame, done))

    def _refuse(self, error: EcmnetError) -> None:
        self.health.bad(str(error))
        self._warn(f"{self.topic}: {error}")

    def _warn(self, text: str, quiet: float = QUIET) -> None:
        if self._throttle.passes(text, time.monotonic(), quiet):
            self._node.get_logger().warning(text)

    def _answered(self, frame: Frame, done: Future[Answer]) -> None:
        """On the worker's thread, or on that of a newer frame."""
        answer = done.result()
        if self._points and frame.nearest:
            self._points.forget(frame.nearest)
        if isinstance(answer.result, FrameDroppedError):
            self.health.dropped()
        elif self._source is None:
            pass  # deactivated meanwhile
        elif isinstance(answer.result, EcmnetError):
            self._refuse(answer.result)
        else:
            try:
                self._answer(frame, answer.age, answer.result)
            except RCLError:  # told to end meanwhile
                if self._node.context.ok():
                    raise

    def _answer(self, frame: Frame, age: float, result: Segmentation) -> None:
        self._publish(frame, result)
        stamp = Time.from_msg(frame.message.header.stamp)
        latency = None
        if stamp.nanoseconds:
            latency = (self._node.get_clock().now().nanoseconds - stamp.nanoseconds) / 1e9
            self._latency.publish(Float32(data=latency * 1000))
        self.health.mask(age, latency)

    def _publish(self, frame: Frame, answer: Segmentation) -> None:
        header, image, settings = frame.message.header, frame.decode(), frame.settings
        size = self._node.output_size(image.shape[:2], settings)
        if self.keep_newest:
            self.newest = image, answer, settings.opacity, time.monotonic()
        labels = resize_labels(answer.labels, size)
        confidence = confidence_bytes(answer.confidence)
        self._mask.publish(fill_image(Image(), header, labels, "mono8"))
        if self._confidence.get_subscription_count():
            self._confidence.publish(fill_image(Image(), header, resize_labels(confidence, size), "mono8"))
        if self._mask_png.get_subscription_count():
            self._mask_png.publish(fill_mask_png(CompressedImage(), header, labels))
        if self._overlay.get_subscription_count():
            self._overlay.publish(fill_image(Image(), header, answer.overlay(image, settings.opacity), "rgb8"))
        if info := self._info:  # which another thread may take away meanwhile
            self._camera_info.publish(scale_camera_info(info, header, size))
            if self._points and frame.nearest:
                self._points.publish(header, image, answer.labels, confidence, info, frame.nearest)
