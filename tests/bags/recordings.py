"""Small recordings to test with: moving blobs before cameras, in MCAP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def header_of(time: int) -> Any:
    """With the stamp in nanoseconds."""
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def image_of(pixels: NDArray[Any], time: int, encoding: str = "rgb8") -> Any:
    """sensor_msgs/Image of pixels with shape (height, width, ...)."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return STORE.types["sensor_msgs/msg/Image"](
        header=header_of(time),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def write_messages(path: Path, messages: Iterable[tuple[str, int, Any]], chunk_bytes: int = 200_000) -> Path:
    """An MCAP file of messages with their topics and log times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_bytes, compression=CompressionType.ZSTD)
        writer.start("ros2", "tests")
        channels: dict[str, int] = {}
        for topic, time, message in messages:
            kind = message.__msgtype__
            if topic not in channels:
                definition = STORE.generate_msgdef(kind, ros_version=2)[0].encode()
                channels[topic] = writer.register_channel(
                    topic, "cdr", writer.register_schema(kind, "ros2msg", definition)
                )
            writer.add_message(channels[topic], time, bytes(STORE.serialize_cdr(message, kind)), time)
        writer.finish()
    return path


def write_recording(
    path: Path, cameras: Mapping[str, tuple[Paint, Sequence[float]]], chunk_bytes: int = 200_000
) -> Path:
    """An MCAP file of one image topic for each camera, with its pictures and the seconds of their stamps."""
    times = sorted(
        (EPOCH + round(second * 10**9), topic, index)
        for topic, (_, seconds) in cameras.items()
        for index, second in enumerate(seconds)
    )
    rows = ((topic, time, image_of(cameras[topic][0](index), time)) for time, topic, index in times)
    return write_messages(path, rows, chunk_bytes)


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
