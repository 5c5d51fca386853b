"""Topic names: which outputs belong to which camera."""

from __future__ import annotations

from collections.abc import Sequence

from ecmnet_app.errors import ConfigError

__all__ = ["camera_info_topic", "compressed_topic", "is_compressed", "output_prefixes"]

_COMPRESSED = "/compressed"


def is_compressed(topic: str) -> bool:
    """Whether the name is one that image_transport gives to compressed pictures."""
    return topic.endswith(_COMPRESSED)


def compressed_topic(topic: str) -> str:
    """Where image_transport puts the compressed pictures of a topic."""
    return topic if is_compressed(topic) else topic + _COMPRESSED


def camera_info_topic(topic: str) -> str:
    """Where image_transport looks for a camera's calibration: beside its pictures."""
    return f"{_camera(topic)}/camera_info"


def output_prefixes(topics: Sequence[str], node: str) -> list[str]:
    """What the names of each camera's outputs start with.

    One camera's outputs are the node's own, `/ns/ecmnet/mask`. Of several, each has its own in the camera's namespace:
    `/front/image_raw` -> `/front/ecmnet/mask`.

    Args:
        topics: full names of the cameras' topics.
        node: full name of the node, such as "/ecmnet".

    Raises:
        ConfigError: there is no topic, one is given twice, or two cameras share a namespace.
    """
    if not topics:
        raise ConfigError("image_topics is empty; name at least one topic with pictures")
    if len(topics) == 1:
        return [node]
    name = node.rpartition("/")[2]
    owner: dict[str, str] = {}
    for topic in topics:
        prefix = f"{_camera(topic)}/{name}"
        if prefix in owner:
            raise ConfigError(
                f"{owner[prefix]} and {topic} would both publish {prefix}/mask; "
                "give each camera a namespace of its own, or run a node for each"
            )
        owner[prefix] = topic
    return list(owner)


def _camera(topic: str) -> str:
    return topic.removesuffix(_COMPRESSED).rpartition("/")[0]
