"""What a bag holds, asked before it is played."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["choose", "storage_of", "topics_to_play"]

_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


def storage_of(path: str) -> str:
    """The storage of a single file, by its suffix; nothing for a folder, whose metadata names it."""
    return {".mcap": "mcap", ".db3": "sqlite3"}.get(Path(path).suffix, "")


def topics_to_play(path: str) -> dict[str, str]:
    """Types of a bag's topics by name, of all but what this package has published, which it is about to publish anew.

    Raises:
        RuntimeError: there is no such bag, or it cannot be read.
    """
    from rosbag2_py import Info

    metadata = Info().read_metadata(path, storage_of(path))
    topics = [entry.topic_metadata for entry in metadata.topics_with_message_count if entry.message_count]
    return {topic.name: topic.type for topic in topics if "/ecmnet/" not in topic.name}


def choose(topics: Mapping[str, str]) -> list[str]:
    """Of topics, with their types, those of cameras: no depth; of one camera, one, raw before compressed."""
    chosen: dict[str, str] = {}
    for topic in sorted(topics, key=len):  # the compressed one of two is longer
        if topics[topic] in _TYPES and "depth" not in topic.lower():
            chosen.setdefault(topic.removesuffix("/compressed").rpartition("/")[0], topic)
    return sorted(chosen.values())
