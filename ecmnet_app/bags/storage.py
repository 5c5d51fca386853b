"""What every kind of bag file gives: its channels, and its messages in blocks that are read one at a time.

Nothing here trusts an index: a file is walked by its records, so that one that was cut off, or whose index is wrong,
gives all that is in it.
"""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import BinaryIO, NamedTuple, Protocol

import lz4.frame
import zstandard

__all__ = [
    "MAX_CHUNK",
    "MAX_TIME",
    "ZSTD_MAGIC",
    "Block",
    "Channel",
    "Contents",
    "Damage",
    "Message",
    "Storage",
    "clock",
    "in_order",
    "inflate",
    "lz4_stream",
    "shortfall",
    "zstd_stream",
]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_CHUNK = 2**31
"""Bytes of a chunk's records; what claims more is taken for damage."""
MAX_TIME = 2**63 - 1
"""Nanoseconds, as ROS 2 counts them; a time that is later, or before 0, is taken for damage."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class Channel:
    """A topic with its type, as it is written to MCAP. Two of equal fields are one."""

    topic: str
    kind: str
    """Message type, such as sensor_msgs/msg/Image."""
    encoding: str = "cdr"
    """Of messages: cdr, or ros1 where they have to be converted."""
    schema_encoding: str = ""
    schema: bytes = b""
    qos: str = ""
    """YAML of the offered QoS profiles, as rosbag2 keeps it."""
    type_hash: str = ""
    latching: bool = False
    """Of ROS 1."""


class Message(NamedTuple):
    """One message as it lies in the bag."""

    channel: Channel
    log_time: int
    """Nanoseconds."""
    publish_time: int
    sequence: int
    data: bytes


class Damage(NamedTuple):
    """A place where something could not be read, in words that follow the file's name."""

    problem: str


class Contents(NamedTuple):
    """Of a block."""

    messages: list[Message]
    damage: Damage | None = None


@dataclass(frozen=True)
class Block:
    """Messages that are read at once, some MB."""

    start: int
    """Log time before which no message of it is due."""
    end: int
    read: Callable[[], Contents] = field(repr=False)


class Storage(Protocol):
    """One bag file that was walked."""

    channels: list[Channel]
    blocks: list[Block]
    counts: Counter[str]
    """Messages of each topic."""
    accounted: bool
    """Whether the file itself says that these are the counts; they were counted otherwise."""
    damage: list[Damage]
    """What was seen without reading the blocks."""


def in_order(blocks: Sequence[Block], start: int, stop: int) -> Iterator[tuple[int, Message | Damage]]:
    """Messages that are due in [start, stop), each after the time at which it is due, and damage where it begins.

    A message is due at its log time, but never outside its block's, so that each is due once whatever a block's header
    says. Of equal times, the one that comes first in the file is first.
    """
    waiting: list[tuple[int, int, int, Message | Damage]] = []
    ahead = sorted((block.start, number) for number, block in enumerate(blocks) if block.end >= start)
    ahead.reverse()
    while waiting or ahead:
        if ahead and (not waiting or ahead[-1][0] <= waiting[0][0]):
            begin, number = ahead.pop()
            if begin >= stop:
                ahead.clear()
                continue
            block = blocks[number]
            messages, damage = block.read()
            if damage is not None and block.start >= start:
                heapq.heappush(waiting, (block.start, number, -1, damage))
            for index, message in enumerate(messages):
                due = min(max(message.log_time, block.start), block.end)
                if start <= due < stop:
                    heapq.heappush(waiting, (due, number, index, message))
        else:
            due, _, _, item = heapq.heappop(waiting)
            yield due, item


def clock(nanoseconds: int) -> str:
    """A log time for people, in UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d}"
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return f"{nanoseconds} ns"


def shortfall(times: tuple[int, int], read: int, count: int, strange: int = 0, intact: bool = True) -> Damage | None:
    """What is wrong with a block.

    Args:
        times: first and last log time.
        read: messages that could be read.
        count: messages that should be there.
        strange: those that could be read, and are of no topic that is known.
        intact: whether the checksum is right.
    """
    problems = []
    span = f"from {clock(times[0])} to {clock(times[1])}"
    if read + strange < count:
        problems.append(f"is damaged {span}: {read} of {count} messages could be read there")
    elif not intact:
        problems.append(f"has a wrong checksum {span}: the messages there are taken as they are")
    if strange:
        problems.append(f"has {strange} messages {span} of topics that it does not name")
    return Damage(" and ".join(problems)) if problems else None


def inflate(stream: io.BufferedIOBase | BinaryIO, size: int) -> bytes:
    """At most `size` bytes of a compressed stream; of a damaged one, those before the damage."""
    pieces = []
    try:
        while size > 0 and (piece := stream.read1(min(size, _PIECE))):  # type: ignore[union-attr]
            pieces.append(piece)
            size -= len(piece)
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, ValueError):  # as the libraries say it
        pass
    return b"".join(pieces)


def zstd_stream(data: BinaryIO) -> BinaryIO:
    """Bytes of zstd data; frames that follow each other are one stream."""
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)


def lz4_stream(data: BinaryIO) -> BinaryIO:
    """Bytes of an LZ4 frame."""
    stream: BinaryIO = lz4.frame.open(data)
    return stream
