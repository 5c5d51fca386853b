"""Whole files only: a reader never sees half of one, whatever interrupts its writer. And the pictures that ship."""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["EXAMPLES_FOLDER", "name_of_answers", "write_atomically"]

EXAMPLES_FOLDER = Path(__file__).parent.parent / "examples"
"""Rendered streets, .jpg, and a clip of one, .mp4."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside `path` under a passing name, then rename. Makes missing folders.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{os.getpid()}-{threading.get_ident()}.passing")  # no longer than a name may be
    try:
        passing.write_bytes(data)
        os.replace(passing, path)
    except BaseException:  # Ctrl-C as well
        passing.unlink(missing_ok=True)
        raise


def name_of_answers(name: str) -> str:
    """`name`, no longer than that a file system takes what answers append to it: 200 of its 255 bytes."""
    while len(os.fsencode(name)) > 200:
        name = name[:-1]
    return name
