"""Which topics of a bag are segmented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecmnet_app.bags.messages import LABEL_INFO, PICTURES, encoding_of
from ecmnet_app.bags.reader import Bag
from ecmnet_app.bags.storage import Message
from ecmnet_app.errors import BagError, ConfigError, ImageError

__all__ = ["Choice", "choose_topics"]

NO_COLORS = ("16UC1", "32FC1", "mono16")
"""Encodings of depth, and of thermal cameras."""


@dataclass(frozen=True)
class Choice:
    """Image topics of a bag."""

    kinds: Mapping[str, str]
    """Message types of those that are segmented, by topic."""
    left_out: Sequence[str]
    """A sentence on each of the others."""


def choose_topics(source: Path, bag: Bag, asked: Sequence[str] = ()) -> Choice:
    """Choose the topics that are asked for, or else those of cameras: no depth, no masks of an earlier run, and of a
    picture that is there raw and compressed, the raw one.

    Raises:
        BagError: the bag has no topics of cameras.
        ConfigError: a topic that is asked for is not there.
    """
    there = {channel.topic: channel.kind for channel in bag.channels if channel.kind in PICTURES}
    if not there:
        raise BagError(f"{source} has no topics of pictures, only {_listed(channel.topic for channel in bag.channels)}")
    unknown = [topic for topic in asked if topic not in there]
    if unknown:
        raise ConfigError(f"{source} has no pictures in {_listed(unknown)}; it has some in {_listed(there)}")
    if asked:
        return Choice({topic: there[topic] for topic in sorted(asked)}, [])
    encodings = _encodings(bag, there)
    answered = {channel.topic.removesuffix("/label_info") for channel in bag.channels if channel.kind == LABEL_INFO}
    reasons: dict[str, str] = {}
    for topic in sorted(there):  # the raw one of two is before the compressed one
        raw = topic.removesuffix("/compressed")
        base, _, name = topic.rpartition("/")
        if "/ecmnet/" in topic:
            reasons[topic] = "it is what the node ecmnet has answered"
        elif base in answered and name in ("mask", "confidence"):
            reasons[topic] = f"it is an answer to {base}"
        elif encodings.get(topic) in NO_COLORS:
            reasons[topic] = f"{encodings[topic]} holds no colours"
        elif raw != topic and bag.counts[raw] and raw in there and raw not in reasons:
            reasons[topic] = f"{raw} holds the same pictures"
    left_out = [f"{topic} is left out, as {reason}; --topic {topic} takes it" for topic, reason in reasons.items()]
    kinds = {topic: there[topic] for topic in sorted(there) if topic not in reasons}
    if not kinds:
        raise BagError(f"{source} has no topics of cameras: {'. '.join(left_out)}")
    return Choice(kinds, left_out)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _encodings(bag: Bag, topics: Iterable[str]) -> dict[str, str]:
    """Of each topic, what its first message that can be read says."""
    found: dict[str, str] = {}
    waiting = {topic for topic in topics if bag.counts[topic]}
    for _, item in bag.items(bag.start, bag.end + 1):
        if not waiting:
            break
        if isinstance(item, Message) and item.channel.topic in waiting:
            try:
                found[item.channel.topic] = encoding_of(item)
            except ImageError:
                continue
            waiting.remove(item.channel.topic)
    return found
