"""Bags as they come home from a bad day: nothing readable is lost, and what is lost is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer
from recordings import STORE, drive, moving_blobs, write_recording
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagWriter

from ecmnet_app.bags import BagJob, BagSettings, prepare_bag
from ecmnet_app.bags.reader import open_bag
from ecmnet_app.bags.storage import Message
from ecmnet_app.core import Segmenter
from ecmnet_app.errors import BagError

CUTS = 20
Row = tuple[str, int, bytes]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive(tmp_path_factory.mktemp("hostile") / "whole.mcap")


@pytest.fixture(scope="module")
def rows(recording: Path) -> list[Row]:
    """Every message, by the reader of another library."""
    with recording.open("rb") as file:
        return [
            (channel.topic, message.log_time, message.data) for _, channel, message in make_reader(file).iter_messages()
        ]


def read(path: Path) -> tuple[list[Row], list[str]]:
    """What can be read, and what is said of the rest."""
    found, problems = [], []
    with open_bag(path) as bag:
        problems += bag.problems
        for _, item in bag.items(bag.start, bag.end + 1):
            if isinstance(item, Message):
                found.append((item.channel.topic, item.log_time, item.data))
            else:
                problems.append(item.problem)
    return found, problems


def test_whole(recording: Path, rows: list[Row]) -> None:
    assert read(recording) == (rows, [])


def test_cut_off_anywhere(recording: Path, rows: list[Row], tmp_path: Path) -> None:
    """What is read is the beginning of what was there, more of it the later the cut, and the loss is said."""
    data = recording.read_bytes()
    counts = []
    for number in range(CUTS):
        path = tmp_path / f"{number}.mcap"
        path.write_bytes(data[: round(len(data) * (number + 0.5) / CUTS)])
        try:
            found, problems = read(path)
        except BagError as error:  # the cut is before the end of the first message
            found, problems = [], [str(error)]
        assert found == rows[: len(found)]
        assert problems
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] > 0.8 * len(rows)


def test_damaged_anywhere(recording: Path, rows: list[Row], tmp_path: Path) -> None:
    """A stretch of 64 foreign bytes: no message is invented, most are there, and where one was changed it is said."""
    data = recording.read_bytes()
    noise = np.random.default_rng(0).bytes(64)
    sent = {(topic, time) for topic, time, _ in rows}
    kept = []
    for number in range(CUTS):
        at = round((len(data) - 64) * number / (CUTS - 1))
        path = tmp_path / f"{number}.mcap"
        path.write_bytes(data[:at] + noise + data[at + 64 :])
        try:
            found, problems = read(path)
        except BagError:  # the first bytes say what a file is
            found, problems = [], ["unreadable"]
        assert {(topic, time) for topic, time, _ in found} <= sent
        assert problems or found == rows
        kept.append(len(set(found) & set(rows)) / len(rows))
    assert np.median(kept) > 0.5


def test_a_hundred_topics(tmp_path: Path) -> None:
    cameras = {f"/camera{i:02}/image_raw": (moving_blobs(32, 32, i), [0.0, 0.1]) for i in range(100)}
    found, problems = read(write_recording(tmp_path / "many.mcap", cameras))
    assert not problems
    assert {topic for topic, _, _ in found} == set(cameras)
    assert len(found) == 200


def test_a_foreign_schema_is_no_picture(tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("", "tests")
        schema = writer.register_schema("foxglove.CompressedImage", "protobuf", b"\x0a\x00")
        channel = writer.register_channel("/image", "protobuf", schema)
        writer.add_message(channel, 1, b"\x08\x01", 1)
        writer.finish()
    segmenter = Segmenter.from_pretrained(tiny_weights, "cpu", "eager")
    with pytest.raises(BagError, match="no topics of pictures, only /image"):
        prepare_bag(BagJob(path, tmp_path / "out"), BagSettings(), segmenter)


def test_a_file_that_is_missing_of_a_split_recording_is_told(recording: Path, rows: list[Row], tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    shutil.copy(recording, folder / "split_0.mcap")
    names = ["split_0.mcap", "split_1.mcap"]
    metadata = {"rosbag2_bagfile_information": {"relative_file_paths": names}}
    (folder / "metadata.yaml").write_text(json.dumps(metadata))
    found, problems = read(folder)
    assert found == rows
    assert problems == [f"{folder}/split_1.mcap is not there, though metadata.yaml names it"]
    with open_bag(folder) as bag:
        assert not bag.accounted  # for who knows what was in it
    (folder / "split_0.mcap").rename(folder / "renamed.mcap")
    assert read(folder) == (rows, [])


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_what_rosbag2_has_compressed(
    storage: StoragePlugin, mode: CompressionMode, rows: list[Row], tmp_path: Path
) -> None:
    """By the writer of another library, and read with metadata.yaml and without."""
    folder = tmp_path / "packed"
    writer = RosbagWriter(folder, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = dict.fromkeys(topic for topic, _, _ in rows)
        connections = {
            topic: writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=STORE) for topic in topics
        }
        for topic, time, data in rows:
            writer.write(connections[topic], time, data)
    assert read(folder) == (rows, [])
    (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    assert read(file) == (rows, [])


def test_no_messages(tmp_path: Path) -> None:
    path = tmp_path / "none.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2", "tests")
        writer.finish()
    with pytest.raises(BagError, match="holds no messages"):
        open_bag(path)
