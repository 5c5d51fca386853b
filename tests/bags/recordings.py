"""Small recordings to test with: moving blobs before cameras, in MCAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

EPOCH = 1_767_225_600 * 10**9
STORE = get_typestore(Stores.ROS2_JAZZY)
Paint = Callable[[int], NDArray[np.uint8]]


def moving_blobs(height: int, width: int, seed: int) -> Paint:
    """Pictures by number, RGB uint8 of shape (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 16, 3), dtype=np.uint8)
    wide = np.asarray(cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return lambda index: np.ascontiguousarray(np.roll(wide, -7 * index, axis=1)[:, :width])


def write_recording(
    path: Path, cameras: Mapping[str, tuple[Paint, Sequence[float]]], chunk_bytes: int = 200_000
) -> Path:
    """An MCAP file of one image topic for each camera, with its pictures and the seconds of their stamps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, types = "sensor_msgs/msg/Image", STORE.types
    messages = sorted(
        (seconds, topic, index) for topic, (_, times) in cameras.items() for index, seconds in enumerate(times)
    )
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_bytes, compression=CompressionType.ZSTD)
        writer.start("ros2", "tests")
        schema = writer.register_schema(kind, "ros2msg", STORE.generate_msgdef(kind, ros_version=2)[0].encode())
        channels = {topic: writer.register_channel(topic, "cdr", schema) for topic in cameras}
        for seconds, topic, index in messages:
            time = EPOCH + round(seconds * 10**9)
            stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            image = cameras[topic][0](index)
            message = types[kind](
                header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
                height=image.shape[0],
                width=image.shape[1],
                encoding="rgb8",
                is_bigendian=0,
                step=3 * image.shape[1],
                data=image.reshape(-1),
            )
            writer.add_message(channels[topic], time, bytes(STORE.serialize_cdr(message, kind)), time)
        writer.finish()
    return path


def drive(path: Path, seconds: float = 12.0, seed: int = 0) -> Path:
    """Two cameras: /front at five pictures a second with a gap in the middle, /rear at two."""
    front = [t for t in np.arange(0, seconds, 0.2).round(3).tolist() if not seconds / 2 < t < seconds / 2 + 1.5]
    rear = np.arange(0.1, seconds, 0.5).round(3).tolist()
    return write_recording(
        path,
        {
            "/front/image_raw": (moving_blobs(48, 64, seed), front),
            "/rear/image_raw": (moving_blobs(40, 56, seed + 1), rear),
        },
    )


def masks_of(bag: Path) -> Iterator[tuple[str, Any]]:
    """Topic and message of every mask in a bag's MCAP file, by another library than ours."""
    with bag.open("rb") as file:
        for _, channel, _, message in make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            if channel.topic.endswith("/mask"):
                yield channel.topic, message
