"""The sample bag, read by another library than the one that wrote it."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ecmnet_app.media.videos import VideoReader

mcap_reader = pytest.importorskip("mcap.reader")
mcap_ros2 = pytest.importorskip("mcap_ros2.decoder")

ROOT = Path(__file__).resolve().parents[2]
BAG = ROOT / "assets" / "street.mcap"
CLIP = ROOT / "ecmnet_app" / "examples" / "street.mp4"
PICTURES, INFO = "/camera/image_raw/compressed", "/camera/camera_info"
COUNT, RATE = 100, 10


def nanoseconds(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture(scope="module")
def messages() -> dict[str, list[tuple[int, Any]]]:
    """Of each topic: when a message was logged, in nanoseconds, and what it says."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with BAG.open("rb") as stream:
        reader = mcap_reader.make_reader(stream, decoder_factories=[mcap_ros2.DecoderFactory()], validate_crcs=True)
        for _, channel, logged, message in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((logged.log_time, message))
    return found


def test_as_rosbag2_writes_it() -> None:
    assert BAG.stat().st_size <= 6_000_000
    with BAG.open("rb") as stream:
        reader = mcap_reader.make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2"
    kinds = {
        channel.topic: (
            channel.message_encoding,
            summary.schemas[channel.schema_id].encoding,
            summary.schemas[channel.schema_id].name,
        )
        for channel in summary.channels.values()
    }
    assert kinds == {
        PICTURES: ("cdr", "ros2msg", "sensor_msgs/msg/CompressedImage"),
        INFO: ("cdr", "ros2msg", "sensor_msgs/msg/CameraInfo"),
    }


def test_a_picture_and_its_camera_at_every_tenth_of_a_second(messages: dict[str, list[tuple[int, Any]]]) -> None:
    assert {topic: len(said) for topic, said in messages.items()} == {PICTURES: COUNT, INFO: COUNT}
    for said in messages.values():
        stamps = [nanoseconds(message) for _, message in said]
        assert [time for time, _ in said] == stamps
        assert set(np.diff(stamps).tolist()) == {10**9 // RATE}
        assert {message.header.frame_id for _, message in said} == {"camera_optical_frame"}
    assert nanoseconds(messages[PICTURES][0][1]) == nanoseconds(messages[INFO][0][1])


def test_pictures_are_the_frames_of_the_clip(messages: dict[str, list[tuple[int, Any]]]) -> None:
    with VideoReader(CLIP) as clip:
        for index, frame in enumerate(clip.frames()):
            if index % 9 == 0:
                message = messages[PICTURES][index][1]
                assert message.format == "jpeg"
                with Image.open(io.BytesIO(bytes(message.data))) as picture:
                    assert picture.format == "JPEG"
                    pixels = np.asarray(picture.convert("RGB"), float)
                assert pixels.shape == (480, 640, 3)
                assert abs(pixels - frame.image).mean() < 4


def test_a_pinhole_that_sees_58_degrees_across(messages: dict[str, list[tuple[int, Any]]]) -> None:
    for _, info in messages[INFO]:
        assert (info.width, info.height, info.distortion_model) == (640, 480, "plumb_bob")
        assert list(info.d) == [0.0] * 5
        k = np.array(info.k).reshape(3, 3)
        rays = np.linalg.inv(k) @ np.array([[-0.5, 239.5, 1], [639.5, 239.5, 1]]).T  # through the outer edges
        left, right = np.degrees(np.arctan2(rays[0], rays[2]))
        assert (left, right) == pytest.approx((-29, 29))
        assert rays[1] == pytest.approx([0, 0])
        assert k[0, 0] == k[1, 1], "pixels are square"
        assert k[0, 0] == pytest.approx(320 / math.tan(math.radians(29)))
        assert np.array(info.p).reshape(3, 4) == pytest.approx(np.c_[k, np.zeros(3)])
        assert np.array(info.r).reshape(3, 3) == pytest.approx(np.eye(3))
