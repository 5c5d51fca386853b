"""What a bag holds, asked before it is played."""

from __future__ import annotations

from pathlib import Path

__all__ = ["choose", "image_topics", "storage_of"]

_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


def storage_of(path: str) -> str:
    """The storage of a single file, by its suffix; nothing for a folder, whose metadata names it."""
    return {".mcap": "mcap", ".db3": "sqlite3"}.get(Path(path).suffix, "")


def image_topics(path: str) -> list[str]:
    """Topics of cameras in a bag: no depth, nothing that this package has published, raw before compressed.

    Raises:
        RuntimeError: there is no such bag, or it cannot be read.
    """
    from rosbag2_py import Info

    metadata = Info().read_metadata(path, storage_of(path))
    topics = [entry.topic_metadata for entry in metadata.topics_with_message_count if entry.message_count]
    return choose([topic.name for topic in topics if topic.type in _TYPES])


def choose(topics: list[str]) -> list[str]:
    """Of topics with pictures, those of cameras; of one camera, one."""
    chosen: dict[str, str] = {}
    for topic in sorted(topics, key=len):  # the compressed one of two is longer
        if "depth" not in topic.lower() and "/ecmnet/" not in topic:
            chosen.setdefault(topic.removesuffix("/compressed").rpartition("/")[0], topic)
    return sorted(chosen.values())
