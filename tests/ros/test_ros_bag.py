"""`ros2 launch ecmnet segment.launch.py bag:=...`: bags of both storages, played at several rates, masks recorded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy does not import: no ROS 2 is sourced")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosidl_runtime_py.utilities import get_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

try:
    import rosbag2_py
except ImportError:
    rosbag2_py = None

from ecmnet_app.media.files import EXAMPLES_FOLDER  # noqa: E402
from ecmnet_app.media.images import read_image  # noqa: E402

# Not by skipping the module: launch_testing's plugin would take that for the whole folder.
pytestmark = pytest.mark.skipif(rosbag2_py is None, reason="rosbag2_py does not import: rosbag2 is not installed")
EPOCH = 1_700_000_000  # seconds; long before now
RATE = 10
STREET = Path(__file__).parents[2] / "assets" / "street.mcap"


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    try:
        get_package_prefix("ecmnet")
    except PackageNotFoundError:
        pytest.skip("the package ecmnet is not built and sourced: colcon build in ros2_ws")


def open_bag(path: Path, storage: str, kind: Any) -> Any:
    """A reader or writer."""
    bag = kind()
    bag.open(rosbag2_py.StorageOptions(uri=str(path), storage_id=storage), rosbag2_py.ConverterOptions("cdr", "cdr"))
    return bag


def write_bag(path: Path, storage: str, seconds: float) -> Path:
    """A drive past one still: compressed pictures of /front, raw ones of /rear, and the front camera's calibration.

    With depth, and with the front camera's masks of an earlier run, which are of one pixel.
    """
    writer = open_bag(path, storage, rosbag2_py.SequentialWriter)
    kinds = {
        "/front/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/front/camera_info": "sensor_msgs/msg/CameraInfo",
        "/rear/image_raw": "sensor_msgs/msg/Image",
        "/front/depth/image_rect_raw": "sensor_msgs/msg/Image",
        "/front/ecmnet/mask": "sensor_msgs/msg/Image",
    }
    for number, (name, kind) in enumerate(kinds.items()):
        writer.create_topic(rosbag2_py.TopicMetadata(number, name, kind, "cdr"))
    picture = cv2.resize(read_image(EXAMPLES_FOLDER / "avenue.jpg"), (160, 120), interpolation=cv2.INTER_AREA)
    for index in range(int(seconds * RATE)):
        nanoseconds = index * 10**9 // RATE + 123
        shifted = np.roll(picture, index, axis=1)
        front = CompressedImage(format="rgb8; jpeg compressed bgr8", data=cv2.imencode(".jpg", shifted)[1].tobytes())
        rear = Image(height=120, width=160, encoding="rgb8", step=480, data=shifted.tobytes())
        depth = Image(height=1, width=1, encoding="16UC1", step=2, data=b"\1\0")
        old = Image(height=1, width=1, encoding="mono8", step=1, data=b"\7")
        for name, message in zip(kinds, (front, CameraInfo(height=120, width=160), rear, depth, old), strict=True):
            message.header.frame_id = name.split("/")[1]
            message.header.stamp.sec = EPOCH + nanoseconds // 10**9
            message.header.stamp.nanosec = nanoseconds % 10**9
            writer.write(name, serialize_message(message), EPOCH * 10**9 + nanoseconds)
    del writer
    return path


def read_bag(path: Path, storage: str = "") -> Iterator[tuple[str, Any]]:
    """Topic and message, in order."""
    reader = open_bag(path, storage, rosbag2_py.SequentialReader)
    kinds = {topic.name: get_message(topic.type) for topic in reader.get_all_topics_and_types()}
    while reader.has_next():
        topic, data, _ = reader.read_next()
        yield topic, deserialize_message(data, kinds[topic])


def launch(log: Path, *arguments: str, timeout: float = 240) -> str:
    """`ros2 launch`, which must end by itself; what it said."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.randint(1, 100)), "ROS_LOG_DIR": str(log.parent)}
    command = ["ros2", "launch", "ecmnet", "segment.launch.py", "device:=cpu", *arguments]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(30)
    said = log.read_text()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def headers_of(path: Path, storage: str, topic: str) -> list[Any]:
    return [message.header for name, message in read_bag(path, storage) if name == topic]


@pytest.mark.parametrize(("storage", "rate"), [("mcap", 1), ("sqlite3", 5)])
def test_every_mask_of_a_bag_has_a_header_of_the_bag(tmp_path: Path, storage: str, rate: int) -> None:
    path = write_bag(tmp_path / "drive", storage, seconds=4 * rate)
    recorded = tmp_path / "masks"
    said = launch(tmp_path / "log", f"bag:={path}", f"rate:={rate}", f"record:={recorded}")
    assert "segmenting /front/image_raw/compressed, /rear/image_raw with" in said
    for camera, source in [("front", "/front/image_raw/compressed"), ("rear", "/rear/image_raw")]:
        masks = headers_of(recorded, "", f"/{camera}/ecmnet/mask")
        assert len(masks) >= 3
        there = headers_of(path, storage, source)
        assert all(header in there for header in masks)
        stamps = [(header.stamp.sec, header.stamp.nanosec) for header in masks]
        assert stamps == sorted(set(stamps))
    sizes = {(message.height, message.width) for name, message in read_bag(recorded) if name.endswith("/mask")}
    assert sizes == {(120, 160)}, "the bag's own masks were played onto the topics of the new ones"
    names = [message for name, message in read_bag(recorded) if name == "/front/ecmnet/label_info"]
    assert len(names[0].class_map) == 12
    latencies = [message.data for name, message in read_bag(recorded) if name == "/front/ecmnet/latency"]
    assert min(latencies) >= -15 * rate  # the bag's clock goes by steps of 10 ms
    assert max(latencies) < 60_000 * rate  # by the bag's clock, not by the wall's


def test_a_single_file_is_played_too(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "drive", "mcap", seconds=3)
    (file,) = folder.glob("*.mcap")
    said = launch(tmp_path / "log", f"bag:={file}", "image_topic:=/rear/image_raw", f"record:={tmp_path / 'masks'}")
    assert "segmenting /rear/image_raw with" in said
    assert headers_of(tmp_path / "masks", "", "/ecmnet/mask")


def test_a_node_that_rests_and_goes_on_leaves_the_bag_alone(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", "mcap", seconds=3)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.randint(1, 100)), "ROS_LOG_DIR": str(tmp_path)}
    command = ["ros2", "launch", "ecmnet", "segment.launch.py", "device:=cpu", f"bag:={path}", "loop:=true"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        for _ in range(120):
            time.sleep(0.5)
            if "segmenting" in log.read_text():
                break
        for transition in ("deactivate", "activate", "deactivate"):
            order = ["ros2", "lifecycle", "set", "/ecmnet", transition]
            for _ in range(10):
                told = subprocess.run(order, capture_output=True, text=True, env=environment, timeout=60, check=False)
                if "Node not found" not in told.stderr:  # by the command, which looks for nodes only briefly
                    break
            assert "Transitioning successful" in told.stdout, told.stdout + told.stderr + log.read_text()
        time.sleep(2)
        state = ["ros2", "lifecycle", "get", "/ecmnet"]
        assert "inactive" in subprocess.run(state, capture_output=True, text=True, env=environment, check=False).stdout
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert log.read_text().count("Set rate to") == 1


@pytest.mark.parametrize("more", [[], ["image_topic:=/front/image_raw"]])
def test_a_bag_without_pictures_is_told(tmp_path: Path, more: list[str]) -> None:
    path = tmp_path / "empty"
    writer = open_bag(path, "mcap", rosbag2_py.SequentialWriter)
    del writer
    command = ["ros2", "launch", "ecmnet", "segment.launch.py", f"bag:={path}", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "holds no pictures of a camera" in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("rate", [1, 5])
def test_the_sample_bag_is_replayed(tmp_path: Path, rate: int) -> None:
    if not STREET.is_file():
        pytest.skip(f"{STREET.name} is not there: python assets/make_bag.py makes it")
    recorded = tmp_path / "masks"
    launch(tmp_path / "log", f"bag:={STREET}", f"rate:={rate}", f"record:={recorded}")
    masks = headers_of(recorded, "", "/camera/ecmnet/mask")
    there = headers_of(STREET, "mcap", "/camera/image_raw/compressed")
    assert masks
    assert all(header in there for header in masks)
