"""The QoS of every topic, and what the graph says of others' QoS."""

from __future__ import annotations

from typing import Any

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from ecmnet.silence import Endpoint, conflict

__all__ = ["describe", "incoming", "latched", "outgoing", "overridable", "publishers_of", "subscribers_of"]


def incoming() -> QoSProfile:
    """Matches reliable and best-effort publishers; the newest picture only."""
    return QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)


def outgoing() -> QoSProfile:
    """Matches every subscriber that takes what comes."""
    return QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """A late subscriber is served too."""
    profile = outgoing()
    profile.durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
    return profile


def overridable() -> QoSOverridingOptions:
    """Lets `qos_overrides.TOPIC.*` parameters change history, depth and reliability."""
    return QoSOverridingOptions.with_default_policies()


def describe(profile: QoSProfile) -> str:
    """Reliability and durability in words."""
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def publishers_of(node: Any, topic: str, ours: str = "") -> list[Endpoint]:
    """Who publishes a topic; `ours` is the `Endpoint.qos` of our subscription, where there is one."""
    return [
        _endpoint(info, conflict(offered=describe(info.qos_profile), asked=ours))
        for info in node.get_publishers_info_by_topic(topic)
    ]


def subscribers_of(node: Any, publisher: Any) -> list[Endpoint]:
    """Who subscribes to what a publisher of ours sends."""
    ours = describe(publisher.qos_profile)
    return [
        _endpoint(info, conflict(offered=ours, asked=describe(info.qos_profile)))
        for info in node.get_subscriptions_info_by_topic(publisher.topic_name)
    ]


def _endpoint(info: Any, clash: str) -> Endpoint:
    name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    return Endpoint(name, info.topic_type, describe(info.qos_profile), clash)
