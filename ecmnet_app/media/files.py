"""Whole files only: a reader never sees half of one, whatever interrupts its writer."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside `path` under a passing name, then rename. Makes missing folders.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, passing = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(passing, 0o666 & ~_umask())
        os.replace(passing, path)
    except BaseException:  # Ctrl-C as well
        with contextlib.suppress(OSError):
            os.unlink(passing)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
