"""What took long to make and can be made again, kept between runs: whole files in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path

import platformdirs

from ecmnet_app.media.files import write_atomically

__all__ = ["cache_folder", "keep", "kept"]

MAX_FILES = 12
"""Kept at a time; those that have not been asked for the longest go first."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where files are kept: `ecmnet` in the user's cache folder, such as ~/.cache, or in XDG_CACHE_HOME."""
    return Path(platformdirs.user_cache_dir("ecmnet", appauthor=False))


def kept(key: str) -> bytes | None:
    """What was kept under this key; nothing where there is none, or where the file is not as it was written."""
    path = _path(key)
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest != _digest(data):
        _log.warning("%s is damaged and is made again", path)
        return None
    with contextlib.suppress(OSError):
        path.touch()
    return data


def keep(key: str, data: bytes) -> None:
    """Keep data under this key. Where it cannot be written, a warning says so, and nothing else happens."""
    path = _path(key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, _digest(data) + b"\n" + data)
        files = sorted(path.parent.glob("*.bin"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in files[MAX_FILES:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning(
            "cannot keep the compiled network in %s (%s), so each start compiles it anew; "
            "make the folder writable, or set XDG_CACHE_HOME to another one",
            path.parent,
            error.strerror or error,
        )


def _path(key: str) -> Path:
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
