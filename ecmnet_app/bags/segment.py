"""Segments bags, in parts that survive a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecmnet_app.bags.jobs import BagJob, BagSettings
from ecmnet_app.bags.summary import BagSummary
from ecmnet_app.core import Segmenter

__all__ = ["PART_SECONDS", "BagPlan", "assemble_bag", "prepare_bag", "segment_bag", "segment_parts"]

PART_SECONDS = 5
"""Of log time; the most that a run loses when it is killed."""


@dataclass(frozen=True)
class BagPlan:
    """What there is to do, for those who divide it."""

    parts: int
    """Stretches of `PART_SECONDS` from the first message of the bag to the last; any range of them is a chunk."""
    frames: int | None
    """Messages of the chosen topics, where the bag tells."""
    done: int
    """Frames of those that an earlier run has done."""
    complete: bool = False
    """All is done and assembled already: `BagJob.record` holds the summary."""


def prepare_bag(job: BagJob, settings: BagSettings, segmenter: Segmenter, resume: bool = False) -> BagPlan:
    """Look at a bag, and make `job.parts` ready for `segment_parts`.

    Args:
        job, settings, segmenter: as for the other functions; the parts are of no use to other settings or weights.
        resume: go on with what an earlier run left; without, it is an error that there is something.

    Raises:
        BagError: the bag cannot be read at all, holds no pictures, or the answers cannot be written.
        ConfigError: a chosen topic is not in the bag, or there are answers or parts already.
    """
    raise NotImplementedError


def segment_parts(
    job: BagJob,
    settings: BagSettings,
    segmenter: Segmenter,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Do those of the parts [start, stop) that are not done yet. Processes may do different ranges at once.

    Args:
        progress: called, on this thread, with the number of messages of the chosen topics done since the last call.

    Raises:
        BagError: `prepare_bag` has not been there, or a part cannot be written.
        DeviceError: see `Segmenter.predict`. Parts that are whole stay for the next run.
    """
    raise NotImplementedError


def assemble_bag(job: BagJob) -> BagSummary:
    """Make one bag of all the parts; a whole folder or none. The parts are gone then."""
    raise NotImplementedError


def segment_bag(
    job: BagJob,
    settings: BagSettings,
    segmenter: Segmenter,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> BagSummary:
    """All of it in this process."""
    plan = prepare_bag(job, settings, segmenter, resume)
    if not plan.complete:
        segment_parts(job, settings, segmenter, progress=progress)
    return assemble_bag(job)
