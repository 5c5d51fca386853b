"""ROS 1 bags, version 2.0, by the records in them: http://wiki.ros.org/Bags/Format/2.0"""

from __future__ import annotations

import bz2
import io
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rosbags.typesys.msg import normalize_msgtype

from ecmnet_app.bags.storage import (
    MAX_CHUNK,
    Block,
    Channel,
    Contents,
    Damage,
    Message,
    inflate,
    lz4_stream,
    shortfall,
)
from ecmnet_app.errors import BagError

__all__ = ["Rosbag1File"]

_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = range(2, 8)  # operations
_MAX_HEADER = 1 << 20
_DAMAGED = (struct.error, KeyError, IndexError, ValueError)  # what reading a record that is none raises
_Fields = dict[bytes, bytes]


class _Record(NamedTuple):
    fields: _Fields
    begin: int
    """Where it begins in the file."""
    start: int
    """Where its data begin."""
    length: int
    """Of its data, as far as the file has them."""
    whole: bool

    @property
    def operation(self) -> int:
        return self.fields[b"op"][0]


@dataclass
class _Chunk:
    record: _Record
    times: tuple[int, int] = (0, 0)
    """First and last log time."""
    counts: Counter[int] = field(default_factory=Counter)
    """Messages of each connection."""

    def add(self, connection: int, time: int) -> None:
        """Count a message."""
        first, last = self.times if self.counts else (time, time)
        self.times = min(first, time), max(last, time)
        self.counts[connection] += 1


class Rosbag1File:
    """A `Storage`; the file is walked at once, and read anew by the blocks.

    Raises:
        BagError: it is no ROS 1 bag, or one that is encrypted.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.damage: list[Damage] = []
        self.counts: Counter[str] = Counter()
        self._path = path
        self._channels: dict[int, Channel] = {}
        self._chunks: list[_Chunk] = []
        self._starts: list[int] = []  # of chunks, by the index at the end
        with path.open("rb") as file:
            self._size = file.seek(0, io.SEEK_END)
            file.seek(0)
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                what = "not a ROS 1 bag of version 2.0" if magic else "an empty file"
                raise BagError(f"{path} is {what}; copy it again, or migrate it with `rosbag fix`")
            counts = self._read_index(file)
            self._walk(file)
        self.accounted = counts is not None
        for chunk in self._chunks:
            if not (self.accounted and chunk.record.whole and chunk.counts):
                self._inspect(chunk)
        self._chunks = [chunk for chunk in self._chunks if chunk.counts]
        for id_, count in (
            sum((chunk.counts for chunk in self._chunks), Counter()) if counts is None else counts
        ).items():
            if id_ in self._channels:
                self.counts[self._channels[id_].topic] += count
        self.channels = list(dict.fromkeys(self._channels.values()))
        self.blocks = [Block(*chunk.times, partial(self._read, chunk)) for chunk in self._chunks]

    def _read_index(self, file: BinaryIO) -> Counter[int] | None:
        """Learn of connections, chunks and counts from the file's end; None where there is no such end."""
        counts: Counter[int] = Counter()
        try:
            head = next(_records(file, len(_MAGIC), self._size))
            if head.fields.get(b"encryptor"):
                raise BagError(f"{self._path} is encrypted; decrypt it with `rosbag decrypt`")
            index, chunks = struct.unpack("<Q", head.fields[b"index_pos"])[0], _number(head.fields[b"chunk_count"])
            for record in _records(file, index or self._size, self._size):
                if record.operation == _CONNECTION:
                    self._learn(record.fields, _data(file, record))
                elif record.operation == _CHUNK_INFO:
                    self._starts.append(*struct.unpack("<Q", record.fields[b"chunk_pos"]))
                    counts.update(dict(struct.iter_unpack("<II", _data(file, record))))
        except (StopIteration, *_DAMAGED):
            return None
        return counts if index and len(self._starts) == chunks else None

    def _learn(self, fields: _Fields, data: bytes) -> None:
        """Take up a connection; the first of an id counts."""
        more = _fields(data)
        channel = Channel(
            fields[b"topic"].decode(),
            normalize_msgtype(more[b"type"].decode()),
            "ros1",
            "ros1msg",
            more[b"message_definition"],
            latching=more.get(b"latching") == b"1",
        )
        self._channels.setdefault(_number(fields[b"conn"]), channel)

    def _walk(self, file: BinaryIO) -> None:
        """Find the chunks."""
        position: int | None = len(_MAGIC)
        while position is not None:
            damaged = self._walk_from(file, position)
            if damaged is None:
                break
            position = min((start for start in self._starts if start > damaged), default=None)
            more = f", up to byte {position:,}" if position is not None else ""
            self.damage.append(Damage(f"is damaged or cut off at byte {damaged:,} of {self._size:,}{more}"))

    def _walk_from(self, file: BinaryIO, position: int) -> int | None:
        """Walk to the end of the file, or else tell where it is damaged."""
        try:
            for record in _records(file, position, self._size):
                position = record.begin
                if record.operation == _CHUNK:
                    if _number(record.fields[b"size"]) > MAX_CHUNK:
                        return position
                    self._chunks.append(_Chunk(record))
                elif record.operation == _CONNECTION:
                    self._learn(record.fields, _data(file, record))
                elif record.operation == _INDEX and record.whole and self._chunks:
                    connection = _number(record.fields[b"conn"])
                    for seconds, nanoseconds, _ in struct.iter_unpack("<III", _data(file, record)):
                        self._chunks[-1].add(connection, seconds * 10**9 + nanoseconds)
                if not record.whole:
                    return self._size
                position = record.start + record.length
        except _DAMAGED:
            return position
        return None if position == self._size else position

    def _inspect(self, chunk: _Chunk) -> None:
        """Read a chunk for what no index tells of it: connections, counts and times."""
        found = _Chunk(chunk.record)
        for fields, data in _inside(self._load(chunk)):
            with suppress(*_DAMAGED):
                if fields[b"op"][0] == _CONNECTION:
                    self._learn(fields, bytes(data))
                elif fields[b"op"][0] == _MESSAGE:
                    found.add(_number(fields[b"conn"]), _time(fields[b"time"]))
        chunk.counts, chunk.times = chunk.counts or found.counts, found.times if found.counts else chunk.times

    def _read(self, chunk: _Chunk) -> Contents:
        messages, strange = [], 0
        for fields, data in _inside(self._load(chunk)):
            try:
                if fields[b"op"][0] != _MESSAGE:
                    continue
                channel, time = self._channels.get(_number(fields[b"conn"])), _time(fields[b"time"])
            except _DAMAGED:
                break
            if channel is None:
                strange += 1
            else:
                messages.append(Message(channel, time, time, 0, bytes(data)))
        count = chunk.counts.total() if chunk.record.whole else 0  # that one was cut off is known already
        return Contents(messages, shortfall(chunk.times, len(messages), count, strange))

    def _load(self, chunk: _Chunk) -> bytes:
        """The records of a chunk, as far as they can be had."""
        with self._path.open("rb") as file:
            packed = _data(file, chunk.record)
        compression, size = chunk.record.fields.get(b"compression", b"none"), _number(chunk.record.fields[b"size"])
        if compression == b"none":
            return packed
        streams: dict[bytes, Callable[[BinaryIO], Any]] = {b"bz2": bz2.open, b"lz4": lz4_stream}
        return inflate(streams[compression](io.BytesIO(packed)), size) if compression in streams else b""


def _number(value: bytes) -> int:
    return int(struct.unpack("<I", value)[0])


def _time(value: bytes) -> int:
    seconds, nanoseconds = struct.unpack("<II", value)
    return int(seconds * 10**9 + nanoseconds)


def _fields(data: bytes | memoryview) -> _Fields:
    """name=value pairs, each after its length."""
    fields: _Fields = {}
    position = 0
    while position < len(data):
        length = _number(bytes(data[position : position + 4]))
        name, equals, value = bytes(data[position + 4 : position + 4 + length]).partition(b"=")
        if not equals or position + 4 + length > len(data):
            raise ValueError("no field")
        fields[name] = value
        position += 4 + length
    return fields


def _records(file: BinaryIO, position: int, end: int) -> Iterator[_Record]:
    """Headers of records, and where their data lie; those of the last one may be cut off."""
    while position < end:
        file.seek(position)
        length = _number(file.read(4))
        if length > _MAX_HEADER:
            raise ValueError(length)
        fields = _fields(file.read(length))
        size, start = _number(file.read(4)), file.tell()
        fields[b"op"][0]
        yield _Record(fields, position, start, min(size, end - start), start + size <= end)
        position = start + size


def _inside(data: bytes) -> Iterator[tuple[_Fields, memoryview]]:
    """Records of a chunk, to the last whole one."""
    view, position = memoryview(data), 0
    try:
        while position < len(data):
            length = _number(data[position : position + 4])
            start = position + 8 + length
            fields = _fields(data[position + 4 : position + 4 + length])
            size = _number(data[start - 4 : start])
            if start + size > len(data):
                return
            yield fields, view[start : start + size]
            position = start + size
    except _DAMAGED:
        return


def _data(file: BinaryIO, record: _Record) -> bytes:
    file.seek(record.start)
    return file.read(record.length)
