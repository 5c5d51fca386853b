"""MCAP files, by the records in them: https://mcap.dev/spec"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from rosbags.typesys.msg import normalize_msgtype

from ecmnet_app.bags.storage import (
    MAX_CHUNK,
    MAX_TIME,
    Block,
    Channel,
    Contents,
    Damage,
    Message,
    clock,
    inflate,
    lz4_stream,
    shortfall,
    zstd_stream,
)
from ecmnet_app.errors import BagError

__all__ = ["McapFile"]

_MAGIC = b"\x89MCAP0\r\n"
_OPCODES = frozenset(Opcode)
_LOOSE_BYTES = 4 << 20  # messages outside of chunks are read in stretches of about this
_HEADER, _CHUNK, _MESSAGE = struct.Struct("<BQ"), struct.Struct("<QQQI"), struct.Struct("<HIQQ")
_DAMAGED = (McapError, struct.error, ValueError)  # what reading a record that is none raises


class _Record(NamedTuple):
    opcode: int
    start: int
    """Where its content begins."""
    length: int
    """Of its content, as far as the file has it."""
    whole: bool

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass
class _Stretch:
    """A chunk, or records that lie outside of chunks."""

    start: int
    end: int
    """Where it lies in the file: the content of the chunk's record, or the records."""
    chunk: bool
    whole: bool
    times: tuple[int, int]
    """First and last log time."""
    counts: Counter[int] = field(default_factory=Counter)
    """Messages of each channel."""


class McapFile:
    """A `Storage`; the file is walked at once, and read anew by the blocks.

    Raises:
        BagError: it is no MCAP file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.damage: list[Damage] = []
        self.counts: Counter[str] = Counter()
        self._path = path
        self._schemas: dict[int, records.Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._statistics: records.Statistics | None = None
        self._chunks: list[int] = []  # where they lie, by the summary
        self._stretches: list[_Stretch] = []
        with path.open("rb") as file:
            self._size = file.seek(0, io.SEEK_END)
            file.seek(0)
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                what = "not an MCAP file, whatever its name says" if magic else "an empty file"
                raise BagError(f"{path} is {what}; copy it again")
            self.accounted = self._read_summary(file)
            self._walk(file)
        for stretch in self._stretches:
            first, last = stretch.times
            if not (self.accounted and stretch.whole and stretch.counts and 0 < first <= last <= MAX_TIME):
                self._inspect(stretch)
        self._stretches = [stretch for stretch in self._stretches if stretch.counts]
        self.channels = list(dict.fromkeys(self._channels.values()))
        counts: Counter[int] = Counter()
        if self.accounted and self._statistics is not None:
            counts.update(self._statistics.channel_message_counts)
        else:
            for stretch in self._stretches:
                counts.update(stretch.counts)
        for id_, count in counts.items():
            if id_ in self._channels:
                self.counts[self._channels[id_].topic] += count
        self.blocks = [Block(*stretch.times, partial(self._read, stretch)) for stretch in self._stretches]

    def _read_summary(self, file: BinaryIO) -> bool:
        """Learn of channels, counts and chunks from the file's end; whether there is one that knows them."""
        at = max(0, self._size - len(_MAGIC) - _HEADER.size - 20)
        footer = _content(file, _Record(0, at, self._size - at, True))
        if len(footer) < 37 or not footer.endswith(_MAGIC):
            return False
        opcode, length, start, _, _ = struct.unpack("<BQQQI", footer[: -len(_MAGIC)])
        if opcode != Opcode.FOOTER or length != 20 or not start:
            return False
        try:
            for record in _records(file, start, at):
                content = _content(file, record)
                self._learn(record.opcode, content)
                if record.opcode == Opcode.STATISTICS:
                    self._statistics = records.Statistics.read(_stream(content))
                elif record.opcode == Opcode.CHUNK_INDEX:
                    self._chunks.append(records.ChunkIndex.read(_stream(content)).chunk_start_offset)
        except _DAMAGED:
            return False
        statistics = self._statistics
        if statistics is None or (statistics.message_count and not statistics.channel_message_counts):
            return False  # an empty map says that the counts are not known
        return bool(self._channels)

    def _learn(self, opcode: int, content: bytes) -> None:
        """Take up a schema or a channel; the first of an id counts."""
        if opcode == Opcode.SCHEMA:
            schema = records.Schema.read(_stream(content))
            self._schemas.setdefault(schema.id, schema)
        elif opcode == Opcode.CHANNEL:
            channel = records.Channel.read(_stream(content))
            self._channels.setdefault(channel.id, _channel(channel, self._schemas.get(channel.schema_id)))

    def _walk(self, file: BinaryIO) -> None:
        """Find the stretches, from the front of the data to its end."""
        position: int | None = len(_MAGIC)
        while position is not None:
            damaged = self._walk_from(file, position)
            if damaged is None:
                return
            position = min((chunk for chunk in self._chunks if chunk > damaged), default=None)
            where = f"at byte {damaged:,} of {self._size:,}"
            if position is not None:  # the summary knows of a chunk behind the damage
                self.damage.append(Damage(f"is damaged {where}, up to byte {position:,}"))
            elif self.accounted:
                self.damage.append(Damage(f"is damaged {where}"))
            else:
                last = max((stretch.times[1] for stretch in self._stretches), default=0)
                until = f"; what can be read ends at {clock(last)}" if last else ""
                self.damage.append(Damage(f"has no end, as a file that was cut off: it breaks off {where}{until}"))

    def _walk_from(self, file: BinaryIO, position: int) -> int | None:
        """Walk until the data ends, or else tell where it is damaged."""
        for record in _records(file, position, self._size):
            position = record.start - _HEADER.size
            if record.opcode in (Opcode.DATA_END, Opcode.FOOTER) and record.whole and record.length <= 20:
                return None
            if not (record.opcode in _OPCODES or record.opcode >= 0x80):
                return position
            if not record.whole and record.opcode != Opcode.CHUNK:
                return position
            try:
                self._take(file, record)
            except _DAMAGED:
                return position
            if not record.whole:
                return record.end
            position = record.end
        return position

    def _take(self, file: BinaryIO, record: _Record) -> None:
        """Take up what one record tells."""
        last = self._stretches[-1] if self._stretches else None
        if record.opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            self._learn(record.opcode, _content(file, record))
        elif record.opcode == Opcode.CHUNK:
            begin, end, size, _ = _CHUNK.unpack(_content(file, record, _CHUNK.size))
            if size > MAX_CHUNK:
                raise ValueError(size)
            self._stretches.append(_Stretch(record.start, record.end, True, record.whole, (begin, end)))
        elif record.opcode == Opcode.MESSAGE_INDEX and last is not None and last.chunk:
            id_, length = struct.unpack("<HI", _content(file, record, 6))
            last.counts[id_] += length // 16
        elif record.opcode == Opcode.MESSAGE:
            id_, _, time, _ = _MESSAGE.unpack(_content(file, record, _MESSAGE.size))
            begin = record.start - _HEADER.size
            if last is None or last.chunk or begin - last.start > _LOOSE_BYTES:
                last = _Stretch(begin, begin, False, True, (time, time))
                self._stretches.append(last)
            last.end = record.end
            last.times = min(last.times[0], time), max(last.times[1], time)
            last.counts[id_] += 1

    def _inspect(self, stretch: _Stretch) -> None:
        """Read a stretch for what no index tells of it: channels, counts and times."""
        found: Counter[int] = Counter()
        times = []
        for opcode, content in _inside(self._load(stretch)[0]):
            if opcode == Opcode.MESSAGE:
                id_, _, time, _ = _MESSAGE.unpack_from(content)
                found[id_] += 1
                if time <= MAX_TIME:
                    times.append(time)
            else:
                with suppress(*_DAMAGED):
                    self._learn(opcode, bytes(content))
        stretch.counts = stretch.counts or found
        stretch.times = (min(times), max(times)) if times else (0, 0)

    def _read(self, stretch: _Stretch) -> Contents:
        data, intact = self._load(stretch)
        messages, strange = [], 0
        for opcode, content in _inside(data):
            if opcode != Opcode.MESSAGE:
                continue
            id_, sequence, log_time, publish_time = _MESSAGE.unpack_from(content)
            if max(log_time, publish_time) > MAX_TIME:
                continue  # damaged, and counted so
            if id_ in self._channels:
                payload = bytes(content[_MESSAGE.size :])
                messages.append(Message(self._channels[id_], log_time, publish_time, sequence, payload))
            else:
                strange += 1
        # That one was cut off is known already.
        count, intact = (stretch.counts.total(), intact) if stretch.whole else (0, True)
        return Contents(messages, shortfall(stretch.times, len(messages), count, strange, intact))

    def _load(self, stretch: _Stretch) -> tuple[bytes, bool]:
        """The records of a stretch, as far as they can be had, and whether that is all of them."""
        with self._path.open("rb") as file:
            data = _content(file, _Record(0, stretch.start, stretch.end - stretch.start, True))
        if not stretch.chunk:
            return data, True
        stream = io.BytesIO(data)
        try:
            _, _, size, crc = _CHUNK.unpack(stream.read(_CHUNK.size))
            compression = stream.read(*struct.unpack("<I", stream.read(4))).decode()
            packed = stream.read(*struct.unpack("<Q", stream.read(8)))
        except _DAMAGED:
            return b"", False
        if compression:
            streams = {"zstd": zstd_stream, "lz4": lz4_stream}
            if compression not in streams:
                return b"", False
            packed = inflate(streams[compression](io.BytesIO(packed)), size)
        return packed, len(packed) == size and crc in (0, zlib.crc32(packed))


def _inside(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Records of a stretch, the last whole one included."""
    view, position = memoryview(data), 0
    while position + _HEADER.size <= len(data):
        opcode, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        if position + length > len(data) or (opcode == Opcode.MESSAGE and length < _MESSAGE.size):
            return
        yield opcode, view[position : position + length]
        position += length


def _channel(channel: records.Channel, schema: records.Schema | None) -> Channel:
    return Channel(
        channel.topic,
        normalize_msgtype(schema.name) if schema else "",
        channel.message_encoding,
        schema.encoding if schema else "",
        schema.data if schema else b"",
        channel.metadata.get("offered_qos_profiles", ""),
        channel.metadata.get("topic_type_hash", ""),
    )


def _records(file: BinaryIO, position: int, end: int) -> Iterator[_Record]:
    """Where the records lie; the last one may be cut off."""
    while position + _HEADER.size <= end:
        opcode, length = _HEADER.unpack(_content(file, _Record(0, position, _HEADER.size, True)))
        start = position + _HEADER.size
        yield _Record(opcode, start, min(length, end - start), start + length <= end)
        position = start + length


def _content(file: BinaryIO, record: _Record, most: int | None = None) -> bytes:
    file.seek(record.start)
    return file.read(record.length if most is None else min(most, record.length))


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))
