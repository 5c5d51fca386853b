"""SQLite files of rosbag2, row by row."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.msg import normalize_msgtype

from ecmnet_app.bags.storage import Block, Channel, Contents, Damage, Message, shortfall
from ecmnet_app.errors import BagError

__all__ = ["SqliteFile"]

_BLOCK_BYTES = 4 << 20
_TRIES = 100_000  # rows that may be missing on end before the rest is given up
_ROW = np.dtype([("id", np.int64), ("topic", np.int64), ("time", np.int64), ("bytes", np.int64)])
_COLUMNS = "SELECT id, topic_id, timestamp, length(data) FROM messages"


class SqliteFile:
    """A `Storage`; times and topics of all rows are read at once, the messages by the blocks.

    Raises:
        BagError: it is no bag.
    """

    accounted = False

    def __init__(self, path: Path) -> None:
        self.damage: list[Damage] = []
        self._path = path
        try:
            with closing(_connect(path)) as connection:
                self._topics = _topics(connection)
                rows = np.fromiter(self._rows(connection), _ROW)
        except sqlite3.Error as error:
            raise BagError(f"{path} is not a bag that can be read ({error}); copy it again") from error
        rows = rows[np.isin(rows["topic"], list(self._topics))]
        if early := np.count_nonzero(rows["time"] < 0):
            self.damage.append(Damage(f"has {early} of before 1970 among its messages, left out"))
            rows = rows[rows["time"] >= 0]
        rows = rows[np.lexsort((rows["id"], rows["time"]))]
        self.channels = list(dict.fromkeys(self._topics.values()))
        self.counts: Counter[str] = Counter()
        for topic, count in zip(*np.unique(rows["topic"], return_counts=True), strict=True):
            self.counts[self._topics[int(topic)].topic] += int(count)
        steps = np.flatnonzero(np.diff(np.cumsum(rows["bytes"]) // _BLOCK_BYTES)) + 1
        self.blocks = [
            Block(int(some["time"][0]), int(some["time"][-1]), partial(self._read, some))
            for some in np.split(rows, steps)
            if len(some)
        ]

    def _rows(self, connection: sqlite3.Connection) -> Iterator[tuple[int, ...]]:
        """All rows that can be read, in the order in which they were written."""
        id_ = 0
        try:
            for row in connection.execute(f"{_COLUMNS} ORDER BY id"):
                if all(isinstance(value, int) for value in row):
                    id_ = row[0]
                    yield row
            return
        except sqlite3.DatabaseError as error:
            self.damage.append(Damage(f"is damaged behind message {id_} ({error}); all rows that can be read are"))
        missing = 0
        while missing < _TRIES:  # rows behind the damage, by their numbers
            id_ += 1
            row = _row(connection, f"{_COLUMNS} WHERE id = ?", id_)
            missing = 0 if row else missing + 1
            if row and all(isinstance(value, int) for value in row):
                yield row

    def _read(self, rows: NDArray[np.void]) -> Contents:
        messages = []
        with closing(_connect(self._path)) as connection:
            for id_, topic, time, _ in rows.tolist():
                row = _row(connection, "SELECT data FROM messages WHERE id = ?", id_)
                if row and isinstance(row[0], bytes):
                    messages.append(Message(self._topics[topic], time, time, 0, row[0]))
        times = int(rows["time"][0]), int(rows["time"][-1])
        return Contents(messages, shortfall(times, len(messages), len(rows)))


def _connect(path: Path) -> sqlite3.Connection:
    """Open for reading alone; also what was cut off, and what a killed recorder has left in a log beside it."""
    wal = path.with_name(path.name + "-wal")
    logged = wal.exists() and wal.stat().st_size > 0
    connection = sqlite3.connect(
        f"file:{quote(os.fspath(path.resolve()))}?{'mode=ro' if logged else 'immutable=1'}",
        uri=True,
        check_same_thread=False,
    )
    connection.execute("PRAGMA writable_schema = ON")  # or SQLite refuses a file that is shorter than it should be
    return connection


def _row(connection: sqlite3.Connection, query: str, id_: int) -> tuple[Any, ...] | None:
    try:
        row: tuple[Any, ...] | None = connection.execute(query, (id_,)).fetchone()
        return row
    except sqlite3.DatabaseError:
        return None


def _topics(connection: sqlite3.Connection) -> dict[int, Channel]:
    """Channels by the number of their row, with what each version of the format knows of them."""
    definitions: dict[str, tuple[str, bytes]] = {}
    if _columns(connection, "message_definitions"):
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        definitions = {kind: (encoding, text.encode()) for kind, encoding, text in connection.execute(query)}
    columns = _columns(connection, "topics")
    qos, type_hash = (
        column if column in columns else "''" for column in ("offered_qos_profiles", "type_description_hash")
    )
    query = f"SELECT id, name, type, serialization_format, {qos}, {type_hash} FROM topics ORDER BY id"
    return {
        id_: Channel(name, normalize_msgtype(kind), encoding, *definitions.get(kind, ("", b"")), *rest)
        for id_, name, kind, encoding, *rest in connection.execute(query)
    }


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
