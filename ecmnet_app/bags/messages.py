"""Messages of bags to pictures, and masks to messages, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ecmnet_app.bags.storage import Channel, Message
from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.errors import ImageError
from ecmnet_app.ros_messages import compressed_to_rgb, image_to_rgb

__all__ = [
    "CAMERA_INFO",
    "IMAGE",
    "LABEL_INFO",
    "LATCHED",
    "PICTURES",
    "as_cdr",
    "channel_of",
    "encoding_of",
    "gray_image",
    "label_info",
    "labels_of",
    "picture_of",
    "stamp_of",
]

IMAGE, CAMERA_INFO, LABEL_INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "vision_msgs/msg/LabelInfo"
PICTURES: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    IMAGE: image_to_rgb,
    "sensor_msgs/msg/CompressedImage": compressed_to_rgb,
}
"""Types of messages with a picture, and what decodes them."""
LATCHED = (
    "- history: 1\n  depth: 1\n  reliability: 1\n  durability: 1\n  deadline:\n    sec: 9223372036\n"
    "    nsec: 854775807\n  lifespan:\n    sec: 9223372036\n    nsec: 854775807\n  liveliness: 1\n"
    "  liveliness_lease_duration:\n    sec: 9223372036\n    nsec: 854775807\n"
    "  avoid_ros_namespace_conventions: false\n"
)
"""QoS as rosbag2 keeps it: reliable, and the last message for whoever comes later."""


@lru_cache(maxsize=1)
def _store() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("uint16 class_id\nstring class_name\n", "vision_msgs/msg/VisionClass"))
    definition = "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
    store.register(get_types_from_msg(definition, LABEL_INFO))
    return store


@lru_cache(maxsize=256)
def _store_with(kind: str, definition: bytes) -> Typestore:
    """With what a ROS 1 bag defines and ROS 2 does not know."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = get_types_from_msg(definition.decode(), kind)
    store.register({name: fields for name, fields in types.items() if name not in store.types})
    return store


def channel_of(topic: str, kind: str, qos: str = "") -> Channel:
    """A channel of a type that is written here."""
    return Channel(topic, kind, "cdr", "ros2msg", _store().generate_msgdef(kind, ros_version=2)[0].encode(), qos)


def as_cdr(message: Message) -> Message:
    """As ROS 2 writes it; of ROS 1 it is converted.

    Raises:
        ValueError: it cannot be converted.
    """
    channel = message.channel
    if channel.encoding != "ros1":
        if channel.schema or channel.kind not in _store().types:
            return message
        return message._replace(channel=channel_of(channel.topic, channel.kind, channel.qos))  # early SQLite has none
    try:
        store = _store_with(channel.kind, channel.schema)
        data = bytes(store.ros1_to_cdr(message.data, channel.kind))
        definition = store.generate_msgdef(channel.kind, ros_version=2)[0].encode()
    except Exception as error:  # whatever the library meets in bytes that are not of the type
        raise ValueError(f"cannot be converted from ROS 1 ({error})") from error
    qos = LATCHED if channel.latching else ""
    return message._replace(channel=Channel(channel.topic, channel.kind, "cdr", "ros2msg", definition, qos), data=data)


def _parsed(message: Message) -> Any:
    try:
        return _store().deserialize_cdr(as_cdr(message).data, message.channel.kind)
    except Exception as error:  # whatever the library meets in bytes that are not of the type
        raise ImageError("the message is damaged: its bytes are not those of its type") from error


def encoding_of(message: Message) -> str:
    """How a message of `PICTURES` says that its pixels are, or were before they were compressed: rgb8, 16UC1 or so.

    Raises:
        ImageError: the message is damaged.
    """
    parsed = _parsed(message)
    encoding: str = parsed.encoding if message.channel.kind == IMAGE else parsed.format.partition(";")[0].strip()
    return encoding


def picture_of(message: Message) -> tuple[Any, NDArray[np.uint8]]:
    """Header and RGB picture of a message of `PICTURES`; shape (H, W, 3).

    Raises:
        ImageError: it holds no picture that can be decoded.
    """
    parsed = _parsed(message)
    return parsed.header, PICTURES[message.channel.kind](parsed)


def labels_of(message: Message) -> NDArray[np.uint8]:
    """Pixels of a mono8 picture. Shape: (H, W)."""
    parsed = _parsed(message)
    return np.asarray(parsed.data).reshape(parsed.height, parsed.width)


def stamp_of(header: Any) -> int:
    """Nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def _header(stamp: int, frame_id: str) -> Any:
    types = _store().types
    time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def gray_image(header: Any, pixels: NDArray[np.uint8]) -> bytes:
    """An Image in mono8 with the stamp and the frame of the header; pixels of shape (H, W)."""
    height, width = pixels.shape
    message = _store().types[IMAGE](
        header=_header(stamp_of(header), header.frame_id),
        height=height,
        width=width,
        encoding="mono8",
        is_bigendian=0,
        step=width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )
    return bytes(_store().serialize_cdr(message, IMAGE))


def label_info(names: Sequence[str], threshold: float, stamp: int) -> bytes:
    """A LabelInfo: the names of the ids from 0 on, and last that of 255."""
    kind = _store().types["vision_msgs/msg/VisionClass"]
    ids = [*range(len(names) - 1), UNLABELLED]
    classes = [kind(class_id=id_, class_name=name) for id_, name in zip(ids, names, strict=True)]
    message = _store().types[LABEL_INFO](header=_header(stamp, ""), class_map=classes, threshold=threshold)
    return bytes(_store().serialize_cdr(message, LABEL_INFO))
