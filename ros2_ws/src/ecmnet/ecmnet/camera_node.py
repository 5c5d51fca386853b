"""A camera of this machine as `image_raw`, by OpenCV: for a first mask where no camera driver is installed."""

from __future__ import annotations

import threading
from typing import Any, NoReturn

import cv2
from rcl_interfaces.msg import ParameterDescriptor
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node
from sensor_msgs.msg import Image

from ecmnet import qos
from ecmnet.spinning import spin
from ecmnet_app.ros_messages import fill_image

__all__ = ["CameraNode", "main"]

RETRY = 2.0
"""Seconds between attempts to open a camera that does not answer."""
PARAMETERS = {
    "device": ("/dev/video0", "A camera such as /dev/video0, or a video file, which is played again and again."),
    "frame_id": ("camera_optical_frame", "frame_id of the pictures."),
    "width": (0, "Pixels; 0: the camera's own."),
    "height": (0, "Pixels; 0: the camera's own."),
    "rate": (0.0, "Pictures a second; 0: the camera's own."),
}


class CameraNode(Node):
    """Reads in a thread of its own, as a read waits for the camera."""

    def __init__(self) -> None:
        super().__init__("camera")
        for name, (default, description) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True))
        self._publisher = self.create_publisher(
            Image, "image_raw", qos.outgoing(), qos_overriding_options=qos.overridable()
        )
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop reading."""
        self._ending.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        device = self.get_parameter("device").value
        while not self._ending.is_set():
            capture = self._open(device)
            if not capture.isOpened():
                self.get_logger().error(
                    f"cannot open {device}; is it there (ls /dev/video*), free, and open to this user (group video)? "
                    f"trying again every {RETRY:g} s",
                    throttle_duration_sec=30.0,
                )
                self._ending.wait(RETRY)
                continue
            if not self._read(capture):
                self.get_logger().error(
                    f"{device} opens but gives no picture; does another program use it? trying again every {RETRY:g} s",
                    throttle_duration_sec=30.0,
                )
                self._ending.wait(RETRY)
            capture.release()

    def _open(self, device: str) -> Any:
        capture = cv2.VideoCapture(device)
        for name, setting in [
            ("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT), ("rate", cv2.CAP_PROP_FPS)
        ]:  # fmt: skip
            value = self.get_parameter(name).value
            if value:
                capture.set(setting, value)
        return capture

    def _read(self, capture: Any) -> int:
        """Publish until the camera gives no more; how many pictures there were."""
        count = 0
        frame_id = self.get_parameter("frame_id").value
        is_file = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        pause = 1 / (self.get_parameter("rate").value or capture.get(cv2.CAP_PROP_FPS) or 30) if is_file else 0
        while not self._ending.wait(pause):
            there, picture = capture.read()
            if not there:
                break
            count += 1
            message = Image()
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = frame_id
            try:
                self._publisher.publish(fill_image(message, message.header, picture, "bgr8"))
            except RCLError:  # told to end meanwhile
                break
        return count


def main() -> NoReturn:
    """Run the node until SIGINT or SIGTERM."""
    spin(CameraNode)
