"""What the node adds to the network: from the message of a 640x480 picture to the message of its mask, less predict.

    source /opt/ros/$ROS_DISTRO/setup.bash && source ros2_ws/install/setup.bash
    python benchmarks/ros_overhead.py [--pictures 40]

Picture and mask go through the middleware; the node, the camera and the listener share this process, as they share the
machine on a robot.
"""

from __future__ import annotations

import argparse
import threading
import time
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from ecmnet.segment_node import SegmentNode
from ecmnet_app.core import Segmenter
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import read_image
from ecmnet_app.ros_messages import fill_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    count = parser.parse_args().pictures
    predicts: list[float] = []
    predict_batch = Segmenter.predict_batch

    def timed(self: Segmenter, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        answers = predict_batch(self, *args, **options)
        predicts.append(time.perf_counter() - began)
        return answers

    Segmenter.predict_batch = timed  # type: ignore[method-assign]
    rclpy.init(args=["--ros-args", "-p", "device:=cpu"])
    node, listener = SegmentNode(), rclpy.create_node("listener")
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(listener)
    threading.Thread(target=executor.spin, daemon=True).start()
    came = threading.Event()
    listener.create_subscription(Image, "/ecmnet/mask", lambda mask: came.set(), 1)
    publisher = listener.create_publisher(Image, "/image_raw", 1)
    picture = cv2.resize(read_image(EXAMPLES_FOLDER / "avenue.jpg"), (640, 480), interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(picture[..., ::-1])
    time.sleep(2)  # until all know each other

    whole = []
    for _ in range(count + 3):
        message = Image()
        message.header.stamp = listener.get_clock().now().to_msg()
        came.clear()
        began = time.perf_counter()
        publisher.publish(fill_image(message, message.header, bgr, "bgr8"))
        if not came.wait(30):
            raise SystemExit("no mask came within 30 s")
        whole.append(time.perf_counter() - began)
    overhead = np.subtract(whole, predicts)[3:] * 1000
    predict = np.median(predicts[3:]) * 1000
    print("| predict | overhead, median | overhead, 95 % | share of predict |")
    print("|---|---|---|---|")
    middle, most = np.percentile(overhead, [50, 95])
    print(f"| {predict:.0f} ms | {middle:.1f} ms | {most:.1f} ms | {100 * middle / predict:.1f} % |")
    executor.shutdown()
    node.end()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
