"""What was in a bag and what became of it, as people and reports want to know it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["BagSummary", "Gap", "TopicSummary"]


@dataclass(frozen=True)
class Gap:
    """A stretch of a topic without pictures."""

    after_ns: int
    """When the last picture before it is, see `times_of`."""
    seconds: float


@dataclass
class TopicSummary:
    """One image topic."""

    topic: str
    kind: str
    """Message type, such as sensor_msgs/msg/Image."""
    frames: int = 0
    """Pictures that were segmented."""
    first_stamp_ns: int | None = None
    last_stamp_ns: int | None = None
    rate: float | None = None
    """Pictures a second, by the median step from one to the next, see `times_of`."""
    gaps: list[Gap] = field(default_factory=list)
    """Steps of more than 2.5 medians."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Messages that are no picture that can be segmented, by what was wrong with them."""
    lost: int | None = None
    """Messages that the bag should hold and that could not be read; None where the bag does not tell."""
    areas: dict[str, float] = field(default_factory=dict)
    """Mean share of each class by name, unlabelled last."""
    confidence: float | None = None
    """Mean over all pixels of all frames."""


@dataclass
class BagSummary:
    """One bag; plain JSON by `to_dict`, and back by `from_dict`."""

    source: str
    out: str
    start_ns: int
    """Log time of the first message."""
    end_ns: int
    topics: list[TopicSummary] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Sentences on what could not be read; the exit code is 1 where there is one."""
    messages: int = 0
    """Messages written, originals too."""
    left_out: list[str] = field(default_factory=list)
    """Sentences on the image topics that were not segmented, as they are no camera's."""

    @property
    def frames(self) -> int:
        """Of all topics."""
        return sum(topic.frames for topic in self.topics)

    @property
    def skipped(self) -> int:
        """Of all topics."""
        return sum(sum(topic.skipped.values()) for topic in self.topics)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BagSummary:
        """The inverse of `to_dict`."""
        topics = [
            TopicSummary(**{**topic, "gaps": [Gap(**gap) for gap in topic["gaps"]]}) for topic in values["topics"]
        ]
        return cls(**{**values, "topics": topics})
