"""Messages of bags to pictures, and masks to messages, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.convert.converter import is_same_wireformat, migrate_bytes
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


_BUILT_IN = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")  # in no definition of ROS 1


@lru_cache(maxsize=1)
def _store() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("uint16 class_id\nstring class_name\n", "vision_msgs/msg/VisionClass"))
    definition = "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
    store.register(get_types_from_msg(definition, LABEL_INFO))
    return store


@lru_cache(maxsize=256)
def _converter(kind: str, definition: bytes) -> tuple[bytes, Callable[[bytes], memoryview]]:
    """Of messages of a ROS 1 bag: their definition in ROS 2, and what makes the bytes of one those of the other."""
    types = get_types_from_msg(definition.decode(), kind)
    ros1, ros2 = get_typestore(Stores.EMPTY), get_typestore(Stores.ROS2_JAZZY)
    known = get_typestore(Stores.ROS1_NOETIC).fielddefs
    ros1.register({name: known[name] for name in _BUILT_IN} | types)
    ros2.register({name: fields for name, fields in types.items() if name not in ros2.types})
    if is_same_wireformat(ros1, ros2, kind, kind):
        convert = partial(ros2.ros1_to_cdr, typename=kind)
    else:  # ROS 2 has more fields, or fewer
        convert = partial(migrate_bytes, ros1, ros2, kind, kind, {}, src_is2=False, dst_is2=True)
    return ros2.generate_msgdef(kind, ros_version=2)[0].encode(), convert


def channel_of(topic: str, kind: str, qos: str = "") -> Channel:
    """A channel of a type that is written here."""
    return Channel(topic, kind, "cdr", "ros2msg", _store().generate_msgdef(kind, ros_version=2)[0].encode(), qos)


def as_cdr(message: Message) -> Message:
    """As ROS 2 writes it; of ROS 1 it is converted, and fields that are new in ROS 2 are 0 or empty.

    Raises:
        ValueError: it cannot be converted.
    """
    channel = message.channel
    if channel.encoding != "ros1":
        if channel.schema or channel.kind not in _store().types:
            return message
        return message._replace(channel=channel_of(channel.topic, channel.kind, channel.qos))  # early SQLite has none
    try:
        definition, convert = _converter(channel.kind, channel.schema)
        data = bytes(convert(message.data))
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
    """Pixels of an Image that `gray_image` has made. Shape: (H, W).

    Raises:
        ImageError: it is another.
    """
    parsed = _parsed(message)
    if parsed.encoding != "mono8" or len(parsed.data) != parsed.height * parsed.width:
        raise ImageError(f"{message.channel.topic} holds no masks, but pictures in {parsed.encoding}")
    return np.asarray(parsed.data).reshape(parsed.height, parsed.width)


def stamp_of(header: Any) -> int:
    """Nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def gray_image(header: Any, pixels: NDArray[np.uint8]) -> bytes:
    """An Image in mono8 with a header as it is; pixels of shape (H, W)."""
    height, width = pixels.shape
    message = _store().types[IMAGE](
        header=header,
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
    types = _store().types
    kind = types["vision_msgs/msg/VisionClass"]
    ids = [*range(len(names) - 1), UNLABELLED]
    classes = [kind(class_id=id_, class_name=name) for id_, name in zip(ids, names, strict=True)]
    seconds = min(stamp // 10**9, 2**31 - 1)  # what a Time holds, less than a bag's clock may say
    time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=stamp % 10**9)
    header = types["std_msgs/msg/Header"](stamp=time, frame_id="")
    message = types[LABEL_INFO](header=header, class_map=classes, threshold=threshold)
    return bytes(_store().serialize_cdr(message, LABEL_INFO))
