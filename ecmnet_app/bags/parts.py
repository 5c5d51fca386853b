"""What becomes of one stretch of a bag: a file of messages and a note, whole or not there."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mcap.writer import CompressionType, Writer

from ecmnet_app.bags.jobs import BagJob
from ecmnet_app.bags.mcap_file import McapFile
from ecmnet_app.bags.storage import Channel, Message
from ecmnet_app.errors import BagError
from ecmnet_app.media.files import write_atomically

__all__ = [
    "MessageWriter",
    "PartNote",
    "about_parts",
    "part_path",
    "read_messages",
    "read_note",
    "read_record",
    "write_note",
    "writing_to",
]

CHUNK_BYTES = 1 << 20


@dataclass
class PartNote:
    """What a part holds beside its messages."""

    frames: list[list[str | int | float]] = field(default_factory=list)
    """Rows of `BagJob.frames`: topic, log time, stamp, mean confidence, shares."""
    skipped: dict[str, Counter[str]] = field(default_factory=dict)
    """By topic, messages without a picture by what was wrong with them."""
    problems: list[str] = field(default_factory=list)
    """What could not be read."""


def part_path(folder: Path, number: int) -> Path:
    """Of the messages; the note is beside it, and written first."""
    return folder / f"{number:06d}.mcap"


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """As a context: what goes wrong is that `path` cannot be written.

    Raises:
        BagError: it cannot.
    """
    try:
        yield
    except OSError as error:
        raise BagError(f"cannot write {path}: {error.strerror or error}; make room, and --resume") from error


def write_note(path: Path, note: PartNote) -> None:
    """Of the part at `path`.

    Raises:
        OSError: it cannot be written.
    """
    values = {"frames": note.frames, "skipped": note.skipped, "problems": note.problems}
    write_atomically(path.with_suffix(".json"), json.dumps(values).encode())


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that a run has left.

    Raises:
        BagError: it cannot be read, or is damaged.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BagError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # empty most likely, after a loss of power
        raise BagError(f"{path} is damaged; remove {path.parent}, and segment the bag again") from error
    return values


def about_parts(job: BagJob) -> dict[str, Any]:
    """What `prepare_bag` has written: what the parts are of, and where they begin.

    Raises:
        BagError: it was not there, or what it wrote is damaged.
    """
    if not job.parts.exists():
        raise BagError(f"{job.parts} is not there; every machine must see it under this path")
    return read_record(job.parts / "job.json")


def read_note(path: Path) -> PartNote:
    """Of the part at `path`.

    Raises:
        BagError: see `read_record`.
    """
    values = read_record(path.with_suffix(".json"))
    skipped = {topic: Counter(reasons) for topic, reasons in values["skipped"].items()}
    return PartNote(values["frames"], skipped, values["problems"])


def read_messages(path: Path) -> Iterator[Message]:
    """Those of the part at `path`, in the order in which they were written.

    Raises:
        BagError: it is damaged.
    """
    file = McapFile(path)
    damaged = BagError(f"{path} is damaged; remove it, and segment the bag again with --resume")
    if file.damage:
        raise damaged
    for block in file.blocks:
        messages, damage = block.read()
        if damage is not None:
            raise damaged
        yield from messages


class MessageWriter:
    """An MCAP file, as a context: a whole file, or none on an error. Equal messages give equal bytes.

    Raises:
        BagError: on every call: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passing = path.with_name(f".{path.name}.{os.getpid()}")  # several processes may do one part
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[Channel, int] = {}
        self.counts: Counter[Channel] = Counter()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = io.BufferedWriter(io.FileIO(self._passing, "w"), CHUNK_BYTES)
            self._writer = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
            self._writer.start("ros2", "ecmnet")
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> BagError:
        return BagError(f"cannot write {self._path}: {error.strerror or error}; make room, and --resume")

    def write(self, message: Message) -> None:
        """Add a message of CDR."""
        channel = message.channel
        try:
            if channel not in self._channels:
                self._channels[channel] = self._register(channel)
            self._writer.add_message(
                self._channels[channel], message.log_time, message.data, message.publish_time, message.sequence
            )
        except OSError as error:
            raise self._error(error) from error
        self.counts[channel] += 1

    def _register(self, channel: Channel) -> int:
        schema = channel.kind, channel.schema_encoding, channel.schema
        if schema not in self._schemas:
            self._schemas[schema] = self._writer.register_schema(*schema)
        more = {"offered_qos_profiles": channel.qos, "topic_type_hash": channel.type_hash}
        kept = {key: value for key, value in more.items() if value}
        return self._writer.register_channel(channel.topic, channel.encoding, self._schemas[schema], kept)

    def __enter__(self) -> MessageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._writer.finish()
                self._file.close()
                os.replace(self._passing, self._path)
        except OSError as problem:
            raise self._error(problem) from problem
        finally:
            with suppress(OSError):  # what the file did not take is still in its buffer, and is tried again
                self._file.close()
            self._passing.unlink(missing_ok=True)
