from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ecmnet_app.media.files import write_atomically


def test_a_file_is_written_with_its_folders_and_the_usual_rights(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", b"new")
    (tmp_path / "usual.txt").write_bytes(b"")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a/b/c.txt").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual.txt").stat().st_mode
    )


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    (tmp_path / "c.txt").write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(interruption):
        write_atomically(tmp_path / "c.txt", b"new")
    assert (tmp_path / "c.txt").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["c.txt"]
