"""What is to be done: bags, where their answers go, and how."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecmnet_app.errors import ConfigError
from ecmnet_app.media.files import name_of_answers

__all__ = ["BAG_SUFFIXES", "BagJob", "BagSettings", "find_bags"]

BAG_SUFFIXES = (".mcap", ".db3", ".bag")
"""Of bag files; each may be followed by .zstd."""


@dataclass(frozen=True)
class BagSettings:
    """How bags are segmented.

    Raises:
        ConfigError: threshold is not within 0 to 1.
    """

    topics: tuple[str, ...] = ()
    """Image topics by name; those of cameras by default, see `choose_topics`."""
    resolution: int | None = None
    """See `Segmenter.predict`."""
    threshold: float | None = None
    """See `Segmenter.predict`."""
    confidence: bool = False
    """Write `<topic>/confidence` too."""
    merge: bool = False
    """Write the bag's own messages beside the answers."""
    batch: int = 1
    """Frames that are predicted at once."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold must be 0 to 1, not {self.threshold}")


@dataclass(frozen=True)
class BagJob:
    """One bag and the folder of its answers, which is a bag too."""

    source: Path
    """A .mcap, .db3 or .bag file, or a folder with metadata.yaml."""
    out: Path
    """Folder of the answers, which must not be there: `ros2 bag play` takes it."""

    @property
    def bag(self) -> Path:
        """The messages: `<topic>/mask` and so on, in an MCAP file; metadata.yaml is beside it."""
        return self.out / f"{self.out.name}.mcap"

    @property
    def frames(self) -> Path:
        """CSV, a row for each frame in the order of the bag: topic, log time, stamp (both ns), mean confidence, and
        the share that each class covers, by name, unlabelled last."""
        return self.out / "frames.csv"

    @property
    def record(self) -> Path:
        """The `BagSummary` as JSON."""
        return self.out / "summary.json"

    @property
    def parts(self) -> Path:
        """Folder of the parts, gone when all is done."""
        return self.out.with_name(self.out.name + ".parts")


def find_bags(inputs: Sequence[str], out: Path) -> tuple[list[BagJob], list[str]]:
    """Find the bags that files, folders and patterns name, each once, and a folder below `out` for each.

    A folder with metadata.yaml is one bag; of any other, all the bags in it are taken. What an earlier run has left is
    none, but where it is named itself.

    Args:
        inputs: files, folders and patterns.
        out: folder of all answers.

    Returns:
        The jobs, and a message for each input that names nothing.
    """
    found: dict[Path, Path] = {}
    problems = []
    for text in inputs:
        path = Path(text)
        try:
            if path.exists() or not glob.has_magic(text):
                paths = [path] if _is_bag(path) else _bags_in(path)
            else:
                matches = map(Path, sorted(glob.glob(text, recursive=True)))
                paths = [bag for match in matches for bag in (_new([match]) if _is_bag(match) else _bags_in(match))]
        except OSError as error:  # a name that no file can have
            problems.append(f"cannot read {text}: {error.strerror}")
            continue
        if not paths:
            problems.append(f"{text} holds no bags ({', '.join(BAG_SUFFIXES)}); name a bag, a folder or a pattern")
        for bag in paths:
            found.setdefault(bag.resolve(), bag)
    jobs: list[BagJob] = []
    taken: set[str] = set()
    for bag in found.values():
        name = os.path.basename(os.path.abspath(bag))  # of "." too
        if not bag.is_dir():
            name = name.removesuffix(".zstd").rpartition(".")[0] or name
        name = name_of_answers(name)
        while name in taken or (out / name).resolve() in found:
            name += "_"
        taken.add(name)
        jobs.append(BagJob(bag, out / name))
    return jobs, problems


def _is_bag(path: Path) -> bool:
    """Whether it is meant as one, whatever its name."""
    return not path.is_dir() or (path / "metadata.yaml").exists()


def _bags_in(folder: Path) -> list[Path]:
    return _new(
        bag
        for bag in sorted(folder.rglob("*"))
        if (bag.is_dir() and (bag / "metadata.yaml").exists())
        or (
            bag.name.removesuffix(".zstd").endswith(BAG_SUFFIXES)
            and bag.is_file()
            and not (bag.parent / "metadata.yaml").exists()
        )
    )


def _new(bags: Iterable[Path]) -> list[Path]:
    """Without answers and parts of this program: these have a job.json beside them."""
    return [bag for bag in bags if not ((bag if bag.is_dir() else bag.parent) / "job.json").exists()]
