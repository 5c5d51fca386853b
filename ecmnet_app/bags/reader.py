"""One bag, whatever it lies in: its channels, its messages in the order of their log times, and what is wrong with it.

with open_bag(Path("drive")) as bag:
    for due, item in bag.items(bag.start, bag.end + 1):
        ...
"""

from __future__ import annotations

import io
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import zstandard
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ecmnet_app.bags.jobs import BAG_SUFFIXES
from ecmnet_app.bags.mcap_file import McapFile
from ecmnet_app.bags.rosbag1_file import Rosbag1File
from ecmnet_app.bags.sqlite_file import SqliteFile
from ecmnet_app.bags.storage import (
    MAX_CHUNK,
    ZSTD_MAGIC,
    Block,
    Contents,
    Damage,
    Message,
    Storage,
    in_order,
    inflate,
    zstd_stream,
)
from ecmnet_app.errors import BagError

__all__ = ["Bag", "bag_files", "open_bag"]

_PIECE = 1 << 20
_KINDS: tuple[tuple[bytes, str, Callable[[Path], Storage]], ...] = (
    (b"\x89MCAP0\r\n", ".mcap", McapFile),
    (b"#ROSBAG", ".bag", Rosbag1File),
    (b"SQLite format 3\0", ".db3", SqliteFile),
)
"""First bytes and suffix of each kind of file."""


class Bag:
    """A bag that was looked through; see `open_bag`."""

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        try:
            paths, missing = bag_files(path)
            files = [(file, self._open(file)) for file in paths]
        except BaseException:
            self._stack.close()
            raise
        self.channels = list(dict.fromkeys(channel for _, storage in files for channel in storage.channels))
        self.counts = sum((storage.counts for _, storage in files), Counter[str]())
        """Messages of each topic."""
        self.accounted = not missing and all(storage.accounted for _, storage in files)
        """Whether the files themselves say that these are the counts."""
        self.problems = [f"{file} is not there, though metadata.yaml names it" for file in missing]
        """Sentences on what was seen without reading the messages."""
        self.problems += [f"{file} {damage.problem}" for file, storage in files for damage in storage.damage]
        self.blocks = [
            replace(block, read=partial(_read, file, block)) for file, storage in files for block in storage.blocks
        ]
        if not self.blocks:
            raise BagError(f"{path} holds no messages{self._why()}; record or copy it again")
        self.start = min(block.start for block in self.blocks)
        """Log time of the first message, nanoseconds."""
        self.end = max(block.end for block in self.blocks)

    def items(self, start: int, stop: int) -> Iterator[tuple[int, Message | Damage]]:
        """See `in_order`; messages that rosbag2 has compressed one by one are as they were before, and damage names
        its file.

        Raises:
            BagError: a file is not there any more.
        """
        for due, item in in_order(self.blocks, start, stop):
            if isinstance(item, Message) and item.channel.encoding == "cdr" and item.data.startswith(ZSTD_MAGIC):
                item = item._replace(data=inflate(zstd_stream(io.BytesIO(item.data)), MAX_CHUNK))  # no CDR begins so
            yield due, item

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _why(self) -> str:
        return f": {'; '.join(self.problems)}" if self.problems else " that can be read"

    def _open(self, path: Path) -> Storage:
        try:
            with path.open("rb") as file:
                head = file.read(16)
            if head.startswith(ZSTD_MAGIC):
                path, head = self._decompressed(path)
            for magic, suffix, storage in _KINDS:
                if head.startswith(magic) or (head and path.suffix == suffix):
                    return storage(path)
        except OSError as error:
            raise BagError(f"cannot read {path}: {error.strerror or error}") from error
        what = "not a bag (.mcap, .db3 or .bag)" if head else "an empty file"
        raise BagError(f"{path} is {what}; copy it again")

    def _decompressed(self, path: Path) -> tuple[Path, bytes]:
        """A copy of a file that was compressed as a whole, for as long as the bag is open."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ecmnet-bag-")))
        copy = folder / path.with_suffix("").name
        with path.open("rb") as packed, copy.open("wb") as file:
            stream = zstd_stream(packed)
            try:
                while piece := stream.read(_PIECE):
                    file.write(piece)
            except zstandard.ZstdError:
                pass  # of one that was cut off, what there is
        with copy.open("rb") as file:
            return copy, file.read(16)


def open_bag(path: Path) -> Bag:
    """Look through a bag: a file, or a folder with metadata.yaml or with bag files.

    Raises:
        BagError: it cannot be read, is no bag, or holds no messages.
    """
    return Bag(path)


def _read(file: Path, block: Block) -> Contents:
    """What is in a block of a file, which damage names."""
    try:
        messages, damage = block.read()
    except (OSError, sqlite3.Error) as error:
        raise BagError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    return Contents(messages, damage and Damage(f"{file.name} {damage.problem}"))


def bag_files(path: Path) -> tuple[list[Path], list[Path]]:
    """The files of a bag, in order, and those that should be there too.

    Raises:
        BagError: there is none.
    """
    if not path.is_dir():
        return [path], []
    there = [file for file in sorted(path.iterdir()) if file.name.removesuffix(".zstd").endswith(BAG_SUFFIXES)]
    try:
        text = (path / "metadata.yaml").read_text("utf-8")
        named = YAML(typ="safe").load(text)["rosbag2_bagfile_information"]["relative_file_paths"]
        listed = [path / Path(name).name for name in named]
    except (OSError, YAMLError, KeyError, TypeError, ValueError, RecursionError):
        # A recorder that was killed has written none.
        listed = there
    files = [file for file in listed if file.exists()]
    if files:
        return files, [file for file in listed if file not in files]
    if there:  # they were renamed
        return there, []
    raise BagError(f"{path} holds no bag files ({', '.join(BAG_SUFFIXES)}); give the folder or the file of a bag")
