"""What is in a bag, for people who want to look before they segment it."""

from __future__ import annotations

from ecmnet_app.bags.messages import PICTURES
from ecmnet_app.bags.reader import Bag

__all__ = ["list_topics"]


def list_topics(bag: Bag) -> str:
    """A line for each topic, those with pictures first: its messages, its type, and how often a second."""
    kinds = {channel.topic: channel.kind for channel in bag.channels}
    seconds = (bag.end - bag.start) / 1e9
    lines = [f"{seconds:.1f} s, {sum(bag.counts.values()):,} messages"]
    width = max((len(topic) for topic in kinds), default=0)
    for topic, kind in sorted(kinds.items(), key=lambda item: (item[1] not in PICTURES, item[0])):
        rate = f"  {(bag.counts[topic] - 1) / seconds:.1f} a second" if seconds and bag.counts[topic] > 1 else ""
        pictures = "pictures  " if kind in PICTURES else "          "
        lines.append(f"  {pictures}{topic:<{width}}  {bag.counts[topic]:>7,}  {kind}{rate}")
    return "\n".join(lines)
