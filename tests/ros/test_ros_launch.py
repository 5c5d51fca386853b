"""`ros2 launch ecmnet segment.launch.py` with a camera of this machine, by launch_testing."""

from __future__ import annotations

import os
import random
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import cv2
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy does not import: no ROS 2 is sourced")

import launch_testing  # noqa: E402
import launch_testing.actions  # noqa: E402
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory  # noqa: E402
from launch import LaunchDescription  # noqa: E402
from launch.actions import IncludeLaunchDescription  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from ecmnet_app.media.files import EXAMPLES_FOLDER  # noqa: E402
from ecmnet_app.media.images import read_image  # noqa: E402

try:
    SHARE = Path(get_package_share_directory("ecmnet"))
except PackageNotFoundError:
    pytest.skip("the package ecmnet is not built and sourced: colcon build in ros2_ws", allow_module_level=True)


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """The launch file as a person starts it; the camera is a video file."""
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    clip = Path(tempfile.mkdtemp()) / "clip.avi"
    picture = cv2.resize(read_image(EXAMPLES_FOLDER / "avenue.jpg"), (320, 240), interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for _ in range(30):
        writer.write(picture[..., ::-1])
    writer.release()
    arguments = {"camera": str(clip), "namespace": "robot", "device": "cpu"}.items()
    launched = IncludeLaunchDescription(str(SHARE / "launch" / "segment.launch.py"), launch_arguments=arguments)
    return LaunchDescription([launched, launch_testing.actions.ReadyToTest()])


class TestRunning(unittest.TestCase):
    def test_masks_come_and_the_node_says_what_it_does(self, proc_output: Any) -> None:
        rclpy.init()
        node = rclpy.create_node("observer")
        masks: list[Image] = []
        node.create_subscription(Image, "/robot/ecmnet/mask", lambda mask: masks.append(mask), 10)
        end = time.monotonic() + 60
        while len(masks) < 3 and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
        rclpy.shutdown()
        assert len(masks) >= 3
        assert masks[0].header.frame_id == "camera_optical_frame"
        assert (masks[0].height, masks[0].width, masks[0].encoding) == (240, 320, "mono8")
        assert len(set(masks[-1].data)) > 3
        proc_output.assertWaitFor("segmenting /robot/image_raw with the weights", timeout=10)


@launch_testing.post_shutdown_test()
class TestEnded(unittest.TestCase):
    def test_all_ended_without_a_word(self, proc_info: Any, proc_output: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
        for output in proc_output:
            assert b"Traceback" not in output.text

    def test_camera_and_node_had_room_for_large_messages_over_fast_dds(self, proc_info: Any) -> None:
        assert len(list(proc_info)) == 2
        for process in proc_info:
            for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
                assert Path(process.env[name]).samefile(SHARE / "config" / "fastdds.xml")
