"""Large messages over Fast DDS, with the shared memory that our profile gives it; skipped under any other RMW."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy does not import: no ROS 2 is sourced")

PROFILE = Path(__file__).parents[2] / "ros2_ws" / "src" / "ecmnet" / "config" / "fastdds.xml"
CLOUDS = 20
CODE = f"""
import array, sys, time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2

rclpy.init()
node = rclpy.create_node(sys.argv[1])
if sys.argv[1] == "camera":
    publisher = node.create_publisher(PointCloud2, "points", 1)
    cloud = PointCloud2(height=480, width=640, point_step=20, row_step=12800)
    cloud.data = array.array("B", bytes(640 * 480 * 20))
    while not publisher.get_subscription_count():
        time.sleep(0.1)
    time.sleep(2)  # until the other has found this one, too
    for number in range({CLOUDS}):
        cloud.header.stamp.sec = number
        publisher.publish(cloud)
        time.sleep(0.3)
    time.sleep(2)  # until the last one is taken
else:
    seen = set()
    take = lambda cloud: seen.add(cloud.header.stamp.sec)
    node.create_subscription(PointCloud2, "points", take, qos_profile_sensor_data)
    end = time.monotonic() + 30
    while time.monotonic() < end and {CLOUDS} - 1 not in seen:
        rclpy.spin_once(node, timeout_sec=0.5)
    print(len(seen))
"""


def test_every_large_cloud_arrives_with_our_profile() -> None:
    if not rclpy.get_rmw_implementation_identifier().startswith("rmw_fastrtps"):
        pytest.skip("the RMW is not Fast DDS")
    if shutil.disk_usage("/dev/shm").free < 100 * 2**20:
        pytest.skip("/dev/shm has less than 100 MB free: Docker's --shm-size gives it more")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.randint(1, 100))}
    environment |= dict.fromkeys(("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"), str(PROFILE))
    command = [sys.executable, "-c", CODE]
    with subprocess.Popen([*command, "camera"], env=environment) as camera:
        told = subprocess.run([*command, "robot"], env=environment, capture_output=True, text=True, check=False)
        camera.kill()
    assert "XMLPARSER" not in told.stdout + told.stderr
    assert int(told.stdout) == CLOUDS
