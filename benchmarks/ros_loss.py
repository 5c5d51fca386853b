"""How many raw pictures of 960x720 at 30 Hz reach the node from another process, by its /diagnostics.

    source /opt/ros/$ROS_DISTRO/setup.bash && source ros2_ws/install/setup.bash
    ros2 launch ecmnet segment.launch.py image_topic:=/camera/image_raw        # in another terminal, set alike
    python benchmarks/ros_loss.py [--seconds 6]

Run it with and without what docs/robot.md says of large messages, with each RMW (RMW_IMPLEMENTATION). The launch file
provides for Fast DDS by itself; FASTDDS_BUILTIN_TRANSPORTS=DEFAULT in both terminals leaves Fast DDS as it is.
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from ecmnet_app.ros_messages import fill_image

RATE = 30
PATIENCE = 30.0
"""Seconds for the node to be found."""
SETTLED = 2.5
"""Seconds: diagnostics come once a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6)
    count = RATE * parser.parse_args().seconds
    rclpy.init()
    camera = rclpy.create_node("camera")
    got: list[int] = []

    def keep(array: DiagnosticArray) -> None:
        got.extend(int(entry.value) for status in array.status for entry in status.values if entry.key == "pictures")

    camera.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
    publisher = camera.create_publisher(Image, "/camera/image_raw", 1)
    executor = SingleThreadedExecutor()
    executor.add_node(camera)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    end = time.monotonic() + PATIENCE
    while not (publisher.get_subscription_count() and got):
        if time.monotonic() > end:
            raise SystemExit("no node takes /camera/image_raw; start it as the first lines of this file say")
        time.sleep(0.1)
    time.sleep(SETTLED)

    before, began = got[-1], time.monotonic()
    message = Image()
    fill_image(message, message.header, np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8), "rgb8")
    for number in range(count):
        message.header.stamp = camera.get_clock().now().to_msg()
        publisher.publish(message)
        time.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))
    time.sleep(SETTLED)
    print("| RMW | sent | arrived |")
    print("|---|---|---|")
    print(f"| {rclpy.get_rmw_implementation_identifier()} | {count} | {got[-1] - before} |")
    executor.shutdown()
    spinning.join()
    camera.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
