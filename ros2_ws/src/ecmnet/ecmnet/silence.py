"""Why no picture comes, in words: nobody publishes the topic, it has another type, or QoS does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Endpoint", "conflict", "explain_silence", "explain_unheard"]


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscriber of a topic, as the graph knows it."""

    node: str
    type: str
    qos: str
    """Reliability and durability, such as "best_effort, volatile"."""
    conflict: str = ""
    """Why its QoS does not fit ours, or nothing."""


def conflict(offered: str, asked: str) -> str:
    """Why a subscriber gets nothing from a publisher, both with their `Endpoint.qos`; or nothing.

    Reliability and durability only. The graph shows deadlines and leases too, but each middleware writes "none" in a
    way of its own, so that comparing them would find conflicts where there are none.
    """
    if "reliable" in asked and "best_effort" in offered:
        return "the subscriber asks for reliable, the publisher offers best_effort"
    if "transient_local" in asked and "volatile" in offered:
        return "the subscriber asks for transient_local, the publisher offers volatile"
    return ""


def explain_silence(
    topic: str, wanted: str, our_qos: str, publishers: Sequence[Endpoint], others: Sequence[str]
) -> str:
    """Why a topic is silent.

    Args:
        topic: its full name.
        wanted: the message type that is subscribed to.
        our_qos: of the subscription.
        publishers: of the topic.
        others: topics that carry pictures.
    """
    if not publishers:
        elsewhere = f"pictures are on {', '.join(others)}" if others else "no topic here carries pictures"
        return f"no picture on {topic}: nobody publishes it; {elsewhere}; set image_topic:= or start the camera"
    seen = "; ".join(f"{p.node} ({p.type}, {p.qos})" for p in publishers)
    for publisher in publishers:
        if publisher.type != wanted:
            return (
                f"no picture on {topic}: it is subscribed to as {wanted}, but published by {seen}; "
                "set transport, or image_topic:= to a topic with pictures"
            )
        if publisher.conflict:
            return (
                f"no picture on {topic}: QoS does not fit ({publisher.conflict}); published by {seen}; subscribed to "
                f"with {our_qos}; set qos_overrides.{topic}.subscription.* as the publisher has it"
            )
    return (
        f"no picture on {topic}, though it is published by {seen}; is the camera running? Large raw pictures can get "
        "lost in the system's receive buffer: see docs/robot.md, or set transport to compressed"
    )


def explain_unheard(topic: str, our_qos: str, subscribers: Sequence[Endpoint]) -> str:
    """Who listens to a topic of ours in vain, or nothing."""
    for subscriber in subscribers:
        if subscriber.conflict:
            return (
                f"{subscriber.node} gets nothing from {topic}: it asks for {subscriber.qos}, we publish with {our_qos} "
                f"({subscriber.conflict}); set qos_overrides.{topic}.publisher.* or change the subscriber"
            )
    return ""
