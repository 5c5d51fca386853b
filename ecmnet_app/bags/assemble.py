"""Parts of a bag to one bag."""

from __future__ import annotations

import csv
import json
import os
import shutil
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.frames import times_of
from ecmnet_app.bags.jobs import BagJob
from ecmnet_app.bags.messages import LABEL_INFO, LATCHED, channel_of, label_info
from ecmnet_app.bags.parts import (
    MessageWriter,
    about_parts,
    part_path,
    read_messages,
    read_note,
    read_record,
    writing_to,
)
from ecmnet_app.bags.storage import Message
from ecmnet_app.bags.summary import BagSummary, Gap, TopicSummary
from ecmnet_app.errors import BagError
from ecmnet_app.media.files import write_atomically

__all__ = ["assemble_bag", "read_summary"]

GAP = 2.5
"""Median steps that make a gap."""


def assemble_bag(job: BagJob) -> BagSummary:
    """Make one bag of all the parts; a whole folder or none. The parts are gone then.

    Raises:
        BagError: a part is missing, or the bag cannot be written.
    """
    about = about_parts(job)
    passing = job.parts / f".{job.out.name}.{os.getpid()}"  # gone with the parts, if this is killed
    try:
        with writing_to(job.out):
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir(parents=True)
            shutil.copy(job.parts / "job.json", passing)
            summary = _assemble(job, about, passing)
            write_atomically(
                passing / job.record.name, (json.dumps(summary.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()
            )
            os.replace(passing, job.out)
    finally:
        shutil.rmtree(passing, ignore_errors=True)
    shutil.rmtree(job.parts, ignore_errors=True)
    return summary


def _assemble(job: BagJob, about: dict[str, Any], folder: Path) -> BagSummary:
    stats = {topic: _Stats() for topic in about["topics"]}
    problems = list(about["problems"])
    bag = folder / job.bag.name
    with (
        MessageWriter(bag) as writer,
        (folder / job.frames.name).open("w", newline="", encoding="utf-8") as table,
    ):
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["topic", "log_time_ns", "stamp_ns", "confidence", *about["names"]])
        for topic in about["topics"]:
            channel = channel_of(f"{topic}/label_info", LABEL_INFO, LATCHED)
            data = label_info(about["names"], about["identity"]["settings"]["threshold"] or 0.0, about["start"])
            writer.write(Message(channel, about["start"], about["start"], 0, data))
        for number in range(len(about["cuts"]) - 1):
            path = part_path(job.parts, number)
            if not path.exists():
                raise BagError(f"{path} is missing; segment the bag again with --resume")
            note = read_note(path)
            for topic, log_time, stamp, confidence, *shares in note.frames:
                stats[str(topic)].add(int(log_time), int(stamp), float(confidence), [float(share) for share in shares])
                rows.writerow([topic, log_time, stamp, *(f"{value:.6f}" for value in (confidence, *shares))])
            for topic, reasons in note.skipped.items():
                stats[topic].skipped.update(reasons)
            problems = list(dict.fromkeys(problems + note.problems))
            for message in read_messages(path):
                writer.write(message)
        counts = dict(writer.counts)
    _write_metadata(folder / "metadata.yaml", job, about, counts)
    topics = [
        stats[topic].summary(topic, kind, about["counts"].get(topic), about["names"])
        for topic, kind in about["topics"].items()
    ]
    return BagSummary(
        str(job.source),
        str(job.out),
        about["start"],
        about["end"],
        topics,
        problems,
        sum(counts.values()),
        about["left_out"],
    )


class _Stats:
    """Of one topic."""

    def __init__(self) -> None:
        self.stamps, self.log_times = array("q"), array("q")
        self.skipped: Counter[str] = Counter()
        self._confidence = 0.0
        self._areas: NDArray[np.float64] | None = None

    def add(self, log_time: int, stamp: int, confidence: float, shares: list[float]) -> None:
        """A frame."""
        self.log_times.append(log_time)
        self.stamps.append(stamp)
        self._confidence += confidence
        self._areas = np.array(shares) if self._areas is None else self._areas + shares

    def summary(self, topic: str, kind: str, count: int | None, names: list[str]) -> TopicSummary:
        """Of all frames; `count` as the bag tells it."""
        result = TopicSummary(topic, kind, len(self.stamps), skipped=dict(self.skipped))
        if count is not None:
            result.lost = max(0, count - len(self.stamps) - self.skipped.total())
        if self._areas is None:
            return result
        number = len(self.stamps)
        result.first_stamp_ns, result.last_stamp_ns = self.stamps[0], self.stamps[-1]
        result.areas = dict(zip(names, (self._areas / number).tolist(), strict=True))
        result.confidence = self._confidence / number
        times = times_of(np.array(self.stamps), np.array(self.log_times))
        steps = np.diff(times).astype(np.float64)
        median = float(np.median(steps)) if len(steps) else 0.0
        if median > 0:
            result.rate = 1e9 / median
            wide = np.flatnonzero(steps > GAP * median).tolist()
            result.gaps = [Gap(int(times[index]), float(steps[index]) / 1e9) for index in wide]
        return result


def _write_metadata(path: Path, job: BagJob, about: dict[str, Any], counts: dict[Any, int]) -> None:
    """What `ros2 bag` asks for beside the file."""
    duration = {"nanoseconds": about["end"] - about["start"]}
    start = {"nanoseconds_since_epoch": about["start"]}
    total = sum(counts.values())
    topics = [
        {
            "topic_metadata": {
                "name": channel.topic,
                "type": channel.kind,
                "serialization_format": "cdr",
                "offered_qos_profiles": channel.qos,
            },
            "message_count": count,
        }
        for channel, count in counts.items()
    ]
    file = {"path": job.bag.name, "starting_time": start, "duration": duration, "message_count": total}
    information = {
        "version": 5,
        "storage_identifier": "mcap",
        "duration": duration,
        "starting_time": start,
        "message_count": total,
        "topics_with_message_count": topics,
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [job.bag.name],
        "files": [file],
    }
    text = json.dumps({"rosbag2_bagfile_information": information}, indent=2)  # JSON is YAML
    path.write_text(text + "\n", encoding="utf-8")


def read_summary(job: BagJob) -> BagSummary:
    """What `assemble_bag` has returned, of a bag that is there.

    Raises:
        BagError: it cannot be read, or is damaged.
    """
    return BagSummary.from_dict(read_record(job.record))
