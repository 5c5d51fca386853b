"""`segment_bag` beside `Segmenter.predict`, by another library's reading of what it writes."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from recordings import EPOCH, STORE, drive, header_of, image_of, masks_of, moving_blobs, write_messages, write_recording
from rosbags.rosbag1 import Reader as Rosbag1Reader
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from ecmnet_app.bags import (
    BagJob,
    BagSettings,
    assemble_bag,
    find_bags,
    parts,
    prepare_bag,
    segment,
    segment_bag,
    segment_parts,
)
from ecmnet_app.bags.pictures import pictures
from ecmnet_app.bags.reader import open_bag
from ecmnet_app.core import Segmenter
from ecmnet_app.errors import BagError, ConfigError
from ecmnet_app.media.images import encode_image

STREET = Path(__file__).parents[2] / "assets" / "street.mcap"
FRONT, REAR = moving_blobs(48, 64, 0), moving_blobs(40, 56, 1)


def messages_of(bag: Path) -> Iterator[tuple[str, Any, int]]:
    """Topic, message and log time."""
    with bag.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            yield channel.topic, decoded, message.log_time


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive(tmp_path_factory.mktemp("recording") / "drive.mcap")


@pytest.fixture(scope="module")
def job(recording: Path, segmenter: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> BagJob:
    job = BagJob(recording, tmp_path_factory.mktemp("answers") / "drive")
    segment_bag(job, BagSettings(confidence=True), segmenter)
    return job


def test_masks_are_those_of_predict(job: BagJob, segmenter: Segmenter) -> None:
    seen = {"/front/image_raw": 0, "/rear/image_raw": 0}
    stamps = {topic: [] for topic in seen}
    for topic, message, time in messages_of(job.bag):
        camera, _, name = topic.rpartition("/")
        if name != "mask":
            continue
        answer = segmenter.predict((FRONT if camera.startswith("/front") else REAR)(seen[camera]))
        assert (message.encoding, message.step, message.is_bigendian) == ("mono8", message.width, 0)
        assert message.header.frame_id == "camera"
        np.testing.assert_array_equal(
            np.frombuffer(message.data, np.uint8).reshape(message.height, message.width), answer.labels
        )
        stamps[camera].append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
        assert stamps[camera][-1] == time
        seen[camera] += 1
    assert seen == {"/front/image_raw": 53, "/rear/image_raw": 24}
    assert stamps["/rear/image_raw"] == [EPOCH + 10**8 + k * 5 * 10**8 for k in range(24)]


def test_confidence_and_names_are_beside_them(job: BagJob, segmenter: Segmenter) -> None:
    first = next(message for topic, message, _ in messages_of(job.bag) if topic == "/front/image_raw/confidence")
    expected = np.rint(255 * segmenter.predict(FRONT(0)).confidence)
    np.testing.assert_array_equal(np.frombuffer(first.data, np.uint8).reshape(48, 64), expected)
    infos = [message for topic, message, _ in messages_of(job.bag) if topic == "/front/image_raw/label_info"]
    assert len(infos) == 1
    names = {one.class_id: one.class_name for one in infos[0].class_map}
    assert names == {label.id: label.name for label in segmenter.label_set.labels} | {255: "Unlabelled"}


def test_the_folder_is_a_bag_of_ros_2(job: BagJob) -> None:
    with Reader(job.out) as bag:  # of another library, by metadata.yaml
        counts = {connection.topic: connection.msgcount for connection in bag.connections}
        assert bag.message_count == sum(counts.values()) == 2 * 77 + 2
        latched = next(c for c in bag.connections if c.topic == "/front/image_raw/label_info")
    assert counts["/front/image_raw/mask"] == counts["/front/image_raw/confidence"] == 53
    assert latched.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_merged_with_the_bags_own_messages(segmenter: Segmenter, tmp_path: Path) -> None:
    sample = tmp_path / "street.mcap"
    shutil.copy(STREET, sample)
    job = BagJob(sample, tmp_path / "street")
    summary = segment_bag(job, BagSettings(merge=True, resolution=64), segmenter)
    assert summary.frames == 100
    with sample.open("rb") as one, job.bag.open("rb") as other:
        ours = [(c.topic, m.log_time, m.data) for _, c, m in make_reader(other).iter_messages()]
        theirs = [(c.topic, m.log_time, m.data) for _, c, m in make_reader(one).iter_messages()]
    topics = {topic for topic, _, _ in theirs}
    assert [row for row in ours if row[0] in topics] == theirs
    infos = [data for topic, _, data in ours if topic == "/camera/image_raw/compressed/camera_info"]
    assert infos == [data for topic, _, data in theirs if topic == "/camera/camera_info"]


def test_parts_in_any_order_give_the_same_bytes(
    job: BagJob, recording: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    other, settings = BagJob(recording, tmp_path / "drive"), BagSettings(confidence=True)
    plan = prepare_bag(other, settings, segmenter)
    assert (plan.parts, plan.frames, plan.done) == (3, 77, 0)
    segment_parts(other, settings, segmenter, 2)
    segment_parts(other, settings, segmenter, 0, 1)
    again = prepare_bag(other, settings, segmenter, resume=True)
    assert 0 < again.done < 77
    with pytest.raises(BagError, match="is missing; segment the bag again with --resume"):
        assemble_bag(other)
    segment_parts(other, settings, segmenter)
    assemble_bag(other)
    assert other.bag.read_bytes() == job.bag.read_bytes()
    assert other.frames.read_bytes() == job.frames.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


def compressed_of(data: bytes, time: int, form: str) -> Any:
    return STORE.types["sensor_msgs/msg/CompressedImage"](header_of(time), form, np.frombuffer(data, np.uint8))


def test_of_all_pictures_those_of_cameras_are_segmented(segmenter: Segmenter, tmp_path: Path) -> None:
    jpeg, grey = encode_image(FRONT(0), "a.jpg"), np.zeros((48, 64), np.uint8)
    depth = np.zeros((48, 64), np.uint16)
    pictures = {
        "/front/image_raw": image_of(FRONT(0), EPOCH),
        "/front/image_raw/compressed": compressed_of(jpeg, EPOCH, "rgb8; jpeg compressed bgr8"),
        "/front/image_rect": image_of(FRONT(0), EPOCH),
        "/infra/image_raw": image_of(grey, EPOCH, "mono8"),
        "/rear/image_raw/compressed": compressed_of(jpeg, EPOCH, "jpeg"),
        "/side/image_raw": image_of(grey, EPOCH, "bayer_rggb8"),
        "/strange": image_of(grey, EPOCH, "foo8"),
        "/d/image": image_of(depth, EPOCH, "16UC1"),
        "/d/image/compressed": compressed_of(b"png", EPOCH, "16UC1; png compressed "),
        "/d/image/compressedDepth": compressed_of(b"png", EPOCH, "16UC1; compressedDepth png"),
        "/d/meters": image_of(depth.astype(np.float32), EPOCH, "32FC1"),
        "/ecmnet/front/mask": image_of(grey, EPOCH, "mono8"),
        "/heat": image_of(depth, EPOCH, "mono16"),
    }
    source = write_messages(tmp_path / "a.mcap", ((topic, EPOCH, message) for topic, message in pictures.items()))
    summary = segment_bag(BagJob(source, tmp_path / "a"), BagSettings(), segmenter)
    left_out = ["/front/image_raw/compressed", *list(pictures)[7:]]
    assert [topic.topic for topic in summary.topics] == [topic for topic in sorted(pictures) if topic not in left_out]
    assert summary.topics[-1].skipped  # what is not known is told
    assert [sentence.split(" ")[0] for sentence in summary.left_out] == sorted(left_out)
    assert "/heat is left out, as mono16 holds no colours; --topic /heat takes it" in summary.left_out
    assert not summary.problems
    asked = BagSettings(topics=("/heat", "/front/image_raw/compressed"))
    summary = segment_bag(BagJob(source, tmp_path / "asked"), asked, segmenter)
    assert (summary.frames, summary.left_out) == (2, [])
    rows = [(topic, EPOCH, pictures[topic]) for topic in ("/heat", "/d/image")]
    with pytest.raises(BagError, match=r"no topics of cameras: /d/image is left out, as 16UC1 holds no colours;"):
        prepare_bag(BagJob(write_messages(tmp_path / "b.mcap", rows), tmp_path / "b"), BagSettings(), segmenter)


def test_every_topic_of_a_camera_gets_its_calibration(segmenter: Segmenter, tmp_path: Path) -> None:
    types, rows = STORE.types, []
    for index in range(3):
        time = EPOCH + index * 10**8
        region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        k, p = np.eye(3).ravel(), np.zeros(12)
        info = types["sensor_msgs/msg/CameraInfo"](
            header_of(time), 48, 64, "plumb_bob", np.zeros(5), k, k, p, 0, 0, region
        )
        rows.append(("/front/camera_info", time, info))
        rows += [(topic, time, image_of(FRONT(index), time)) for topic in ("/front/image_raw", "/front/image_rect")]
    job = BagJob(write_messages(tmp_path / "a.mcap", rows), tmp_path / "a")
    segment_bag(job, BagSettings(), segmenter)
    times = {topic: [] for topic in ("/front/image_raw/camera_info", "/front/image_rect/camera_info")}
    for topic, message, time in messages_of(job.bag):
        if topic in times:
            assert (message.distortion_model, message.width) == ("plumb_bob", 64)
            times[topic].append(time)
    assert list(times.values()) == 2 * [[EPOCH, EPOCH + 10**8, EPOCH + 2 * 10**8]]


MONTH = 30 * 86400.0


@pytest.mark.parametrize("chunk_bytes", [200_000, 5_000])  # all pictures in one block, and each in its own
def test_a_clock_that_jumps_while_it_is_recorded_makes_no_work(
    segmenter: Segmenter, tmp_path: Path, chunk_bytes: int
) -> None:
    seconds = [0.0, 6.0, MONTH, MONTH + 1, MONTH + 11]
    source = write_recording(tmp_path / "a.mcap", {"/camera": (FRONT, seconds)}, chunk_bytes)
    job = BagJob(source, tmp_path / "a")
    plan = prepare_bag(job, BagSettings(), segmenter)
    assert plan.parts < 10
    segment_parts(job, BagSettings(), segmenter, 1)
    summary = segment_bag(job, BagSettings(), segmenter, resume=True)
    assert (summary.frames, summary.problems) == (5, [])
    assert [time for topic, _, time in messages_of(job.bag) if topic == "/camera/mask"] == [
        EPOCH + int(second) * 10**9 for second in seconds
    ]


@pytest.mark.parametrize("place", ["message", "note"])
def test_after_a_failed_write_nothing_more_is_written_and_resume_gives_the_whole(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    source = write_recording(tmp_path / "a.mcap", {"/camera": (FRONT, [0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 11.0, 16.0])})
    whole, job = BagJob(source, tmp_path / "whole" / "a"), BagJob(source, tmp_path / "out" / "a")
    segment_bag(whole, BagSettings(), segmenter)
    calls = count()
    owner, name, failing = {
        "message": (segment.MessageWriter, "write", 2),  # the third picture's mask, in the middle of a part
        "note": (segment, "write_note", 0),
    }[place]
    written = getattr(owner, name)

    def full_once(*args: Any) -> None:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device") if place == "note" else BagError("cannot write")
        written(*args)

    monkeypatch.setattr(owner, name, full_once)
    with pytest.raises(BagError, match="cannot write"):
        segment_bag(job, BagSettings(), segmenter)
    assert [path.name for path in job.parts.iterdir()] == ["job.json"]
    summary = segment_bag(job, BagSettings(), segmenter, resume=True)
    assert (summary.frames, summary.problems) == (8, [])
    assert job.bag.read_bytes() == whole.bag.read_bytes()
    assert job.frames.read_bytes() == whole.frames.read_bytes()


def test_a_full_disk_is_said_and_leaves_whole_parts_only(segmenter: Segmenter, tmp_path: Path) -> None:
    """A limit of the system's on a file's size fails as a full disk does: with bytes left that no file has taken."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 240, 320, 3), dtype=np.uint8)
    source = write_recording(tmp_path / "a.mcap", {"/camera": (noise.__getitem__, np.arange(10) / 10)})
    job = BagJob(source, tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, hard))
    try:
        with pytest.raises(BagError, match=r"cannot write .* File too large; make room, and --resume"):
            segment_bag(job, BagSettings(merge=True), segmenter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in job.parts.iterdir()] == ["job.json"]


def test_a_part_that_was_cut_off_is_not_taken_for_whole(recording: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    job = BagJob(recording, tmp_path / "out")
    prepare_bag(job, BagSettings(), segmenter)
    segment_parts(job, BagSettings(), segmenter)
    part = parts.part_path(job.parts, 1)
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 3])
    with pytest.raises(BagError, match=r"000001\.mcap is damaged; remove it, and segment the bag again with --resume"):
        segment_bag(job, BagSettings(), segmenter, resume=True)
    assert not job.out.exists()
    part.unlink()
    summary = segment_bag(job, BagSettings(), segmenter, resume=True)
    assert len(list(masks_of(job.bag))) == summary.frames == 77


def test_a_time_that_no_clock_tells_costs_its_message_alone(segmenter: Segmenter, tmp_path: Path) -> None:
    times = [EPOCH, EPOCH + 10**8 + 2**63, EPOCH + 2 * 10**8]  # as where one bit was turned
    rows = [("/camera", time, image_of(FRONT(index), EPOCH)) for index, time in enumerate(times)]
    source = write_messages(tmp_path / "late.mcap", rows)
    job = BagJob(source, tmp_path / "out")
    summary = segment_bag(job, BagSettings(), segmenter)
    assert (summary.frames, summary.end_ns) == (2, times[2])
    span = "from 2026-01-01 00:00:00.000 to 2026-01-01 00:00:00.200"
    assert summary.problems == [f"late.mcap is damaged {span}: 2 of 3 messages could be read there"]
    early = sqlite_bag(tmp_path / "early.db3")
    with sqlite3.connect(early) as base:
        base.execute("UPDATE messages SET timestamp = -5 WHERE id = 2")
    summary = segment_bag(BagJob(early, tmp_path / "early"), BagSettings(), segmenter)
    assert (summary.frames, summary.start_ns) == (3, EPOCH)
    assert summary.problems == [f"{early} has 1 of before 1970 among its messages, left out"]


def test_a_mask_has_the_pictures_stamp_whatever_it_says(segmenter: Segmenter, tmp_path: Path) -> None:
    image = image_of(FRONT(0), EPOCH)
    image.header.stamp.sec, image.header.stamp.nanosec = 2**31 - 1, 2**32 - 1
    job = BagJob(write_messages(tmp_path / "a.mcap", [("/camera", EPOCH, image)]), tmp_path / "out")
    segment_bag(job, BagSettings(), segmenter)
    ((_, mask),) = masks_of(job.bag)
    assert (mask.header.stamp.sec, mask.header.stamp.nanosec) == (2**31 - 1, 2**32 - 1)


def test_of_a_recording_with_answers_neither_they_nor_their_names_are_taken(
    recording: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    once, twice = BagJob(recording, tmp_path / "once"), BagJob(tmp_path / "once", tmp_path / "twice")
    first = segment_bag(once, BagSettings(merge=True, confidence=True), segmenter)
    second = segment_bag(twice, BagSettings(merge=True), segmenter)
    assert [topic.topic for topic in second.topics] == ["/front/image_raw", "/rear/image_raw"]
    assert len(list(masks_of(twice.bag))) == second.frames == first.frames
    left_out = "/front/image_raw/mask is left out of what is merged, as an answer has its name"
    assert left_out in second.left_out
    with open_bag(recording) as source, open_bag(twice.out) as answers:
        assert len(list(pictures(source, answers, "/front/image_raw"))) == second.topics[0].frames
    rows = [("/camera", EPOCH, image_of(FRONT(0), EPOCH)), ("/camera/mask", EPOCH, image_of(FRONT(1), EPOCH))]
    foreign = BagJob(write_messages(tmp_path / "foreign.mcap", rows), tmp_path / "foreign")
    segment_bag(foreign, BagSettings(("/camera",), merge=True), segmenter)
    ((_, mask),) = masks_of(foreign.bag)
    assert mask.encoding == "mono8"


def test_a_file_that_is_put_beside_a_recording_does_not_change_it(
    recording: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    for number in range(2):
        shutil.copy(recording, folder / f"drive_{number}.mcap")
    names = ["drive_0.mcap", "drive_1.mcap"]
    (folder / "metadata.yaml").write_text(json.dumps({"rosbag2_bagfile_information": {"relative_file_paths": names}}))
    job = BagJob(folder, tmp_path / "out")
    prepare_bag(job, BagSettings(), segmenter)
    (folder / "notes.txt").write_text("rain from the second minute on")
    prepare_bag(job, BagSettings(), segmenter, resume=True)
    with (folder / "drive_1.mcap").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ConfigError, match="was made with another bag"):
        prepare_bag(job, BagSettings(), segmenter, resume=True)


def test_a_recording_that_goes_away_is_told(recording: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.mcap"
    shutil.copy(recording, source)
    with open_bag(source) as bag:
        source.unlink()
        with pytest.raises(BagError, match=r"cannot read .*a\.mcap: No such file"):
            list(bag.items(bag.start, bag.end + 1))


def test_what_is_there_is_not_overwritten(
    job: BagJob, recording: Path, segmenter: Segmenter, city_weights: Path
) -> None:
    settings = BagSettings(confidence=True)
    with pytest.raises(ConfigError, match="--resume"):
        prepare_bag(job, settings, segmenter)
    assert prepare_bag(job, settings, segmenter, resume=True).complete
    with pytest.raises(ConfigError, match="was made with another confidence; give the same"):
        prepare_bag(job, BagSettings(), segmenter, resume=True)
    with pytest.raises(ConfigError, match="was made with another weights; give"):
        prepare_bag(job, settings, Segmenter.from_pretrained(city_weights, "cpu"), resume=True)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_of_a_bag_that_was_cut_off_all_that_can_be_read_is_done(
    recording: Path, segmenter: Segmenter, tmp_path: Path, share: float
) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(recording.read_bytes()[: int(share * recording.stat().st_size)])
    summary = segment_bag(BagJob(cut, tmp_path / "out"), BagSettings(), segmenter)
    assert summary.problems
    assert "cut.mcap" in summary.problems[0]
    assert (share - 0.25) * 77 < summary.frames < 77
    assert all(topic.lost is None for topic in summary.topics)


def test_frames_that_change_or_are_none_are_counted(segmenter: Segmenter, tmp_path: Path) -> None:
    small, tiny = moving_blobs(40, 56, 1), moving_blobs(16, 16, 1)
    pictures = [FRONT, tiny, small, FRONT]
    source = write_recording(tmp_path / "a.mcap", {"/camera": (lambda k: pictures[k](k), [0.0, 0.1, 0.2, 0.3])})
    (topic,) = segment_bag(BagJob(source, tmp_path / "a"), BagSettings(batch=4), segmenter).topics
    assert topic.frames == 3
    assert list(topic.skipped.values()) == [1]
    assert "16x16" in next(iter(topic.skipped))
    assert topic.lost == 0
    sizes = [(m.height, m.width) for name, m, _ in messages_of(tmp_path / "a" / "a.mcap") if name == "/camera/mask"]
    assert sizes == [(48, 64), (40, 56), (48, 64)]


def ros1_bag(path: Path) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    kind, types = "sensor_msgs/msg/Image", store.types
    with Rosbag1Writer(path) as bag:
        connection = bag.add_connection("/front/image_raw", kind, typestore=store)
        for index in range(4):
            time = EPOCH + index * 10**8
            stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            header = types["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="camera")
            image = FRONT(index)
            message = types[kind](header, 48, 64, "rgb8", 0, 3 * 64, image.reshape(-1))
            bag.write(connection, time, store.serialize_ros1(message, kind))
    return path


def sqlite_bag(path: Path) -> Path:
    kind, types = "sensor_msgs/msg/Image", STORE.types
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, "
            "offered_qos_profiles TEXT)"
        )
        base.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)")
        base.execute("INSERT INTO topics VALUES(1, '/front/image_raw', 'sensor_msgs/msg/Image', 'cdr', '')")
        for index in range(4):
            time = EPOCH + index * 10**8
            stamp = types["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            message = types[kind](header, 48, 64, "rgb8", 0, 3 * 64, FRONT(index).reshape(-1))
            row = (index + 1, time, bytes(STORE.serialize_cdr(message, kind)))
            base.execute("INSERT INTO messages VALUES(?, 1, ?, ?)", row)
    return path


def test_of_ros_1_types_that_ros_2_has_changed_are_converted_too(segmenter: Segmenter, tmp_path: Path) -> None:
    """sensor_msgs/Range has one field more, visualization_msgs/Marker several; most others have the same."""
    store, kind = get_typestore(Stores.ROS1_NOETIC), "sensor_msgs/msg/Range"
    types, path = store.types, ros1_bag(tmp_path / "pictures.bag")
    with Rosbag1Reader(path) as reader, Rosbag1Writer(tmp_path / "a.bag") as bag:
        (camera,) = reader.connections
        copied = bag.add_connection(camera.topic, camera.msgtype, typestore=store)
        sonar = bag.add_connection("/sonar", kind, typestore=store)
        for index, (_, time, data) in enumerate(reader.messages()):
            bag.write(copied, time, data)
            stamp = types["builtin_interfaces/msg/Time"](sec=7, nanosec=index)
            header = types["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="sonar")
            bag.write(sonar, time, store.serialize_ros1(types[kind](header, 1, 0.5, 0.25, 4.0, 1.5 + index), kind))
    job = BagJob(tmp_path / "a.bag", tmp_path / "out")
    assert segment_bag(job, BagSettings(merge=True), segmenter).problems == []
    found = [message for topic, message, _ in messages_of(job.bag) if topic == "/sonar"]
    assert [(m.header.frame_id, m.header.stamp.nanosec, m.range, m.variance) for m in found] == [
        ("sonar", index, 1.5 + index, 0.0) for index in range(4)
    ]
    assert {(m.radiation_type, m.field_of_view, m.min_range, m.max_range) for m in found} == {(1, 0.5, 0.25, 4.0)}


@pytest.mark.parametrize(("make", "name"), [(ros1_bag, "a.bag"), (sqlite_bag, "a.db3")])
def test_bags_of_every_kind_give_the_same_masks(make: Any, name: str, segmenter: Segmenter, tmp_path: Path) -> None:
    job = BagJob(make(tmp_path / name), tmp_path / "out")
    segment_bag(job, BagSettings(merge=True), segmenter)
    found = [(topic, message) for topic, message, _ in messages_of(job.bag)]
    masks = [message for topic, message in found if topic == "/front/image_raw/mask"]
    originals = [message for topic, message in found if topic == "/front/image_raw"]
    assert len(masks) == len(originals) == 4
    for index, (mask, original) in enumerate(zip(masks, originals, strict=True)):
        assert bytes(original.data) == FRONT(index).tobytes()
        labels = np.frombuffer(mask.data, np.uint8).reshape(48, 64)
        np.testing.assert_array_equal(labels, segmenter.predict(FRONT(index)).labels)
        assert mask.header.stamp.nanosec == index * 10**8


def test_what_is_no_bag_or_has_no_pictures_is_told(recording: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    for name, content in (("a.mcap", b""), ("b.mcap", b"no bag at all, but text"), ("c.txt", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BagError, match=name):
            segment_bag(BagJob(tmp_path / name, tmp_path / "out"), BagSettings(), segmenter)
    with pytest.raises(BagError, match="cannot read"):
        segment_bag(BagJob(tmp_path / "none.mcap", tmp_path / "out"), BagSettings(), segmenter)
    with pytest.raises(ConfigError, match="it has some in /front/image_raw, /rear/image_raw"):
        segment_bag(BagJob(recording, tmp_path / "out"), BagSettings(topics=("/none",)), segmenter)
    assert not (tmp_path / "out").exists()


def test_bags_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("drives/one")
    folder.mkdir(parents=True)
    (folder / "metadata.yaml").write_text("")
    for name in ("drives/one/one_0.mcap", "drives/a.mcap", "drives/a.bag", "drives/notes.txt", "drives/b.db3.zstd"):
        Path(name).write_bytes(b"x")
    jobs, problems = find_bags(["drives", "drives/*.mcap", "none/*.mcap"], Path("masks"))
    assert {str(job.source): str(job.out) for job in jobs} == {
        "drives/a.bag": "masks/a",
        "drives/a.mcap": "masks/a_",
        "drives/b.db3.zstd": "masks/b",
        "drives/one": "masks/one",
    }
    assert len(problems) == 1
    assert "none/*.mcap" in problems[0]
    assert json.dumps(problems)


def found(inputs: list[str], out: str) -> dict[str, str]:
    """Bags and where their answers go."""
    jobs, _ = find_bags(inputs, Path(out))
    return {str(job.source): str(job.out) for job in jobs}


def test_a_bag_is_named_by_its_folder_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "one" / "metadata.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "one")
    assert found(["."], "masks") == {".": "masks/one"}
    assert found(["."], "..") == {".": "../one_"}  # for ../one is the bag
    monkeypatch.chdir(tmp_path / "one" / "deep")
    assert found([".."], "masks") == {"..": "masks/one"}


def test_answers_are_no_bags_but_recordings_beside_them_are(
    recording: Path, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drives").mkdir()
    shutil.copy(recording, "drives/a.mcap")
    for name in ("a", "half"):
        prepare_bag(BagJob(Path("drives/a.mcap"), Path("drives") / name), BagSettings(), segmenter)
    segment_parts(BagJob(Path("drives/a.mcap"), Path("drives/half")), BagSettings(), segmenter, 0, 1)
    segment_bag(BagJob(Path("drives/a.mcap"), Path("drives/a")), BagSettings(), segmenter, resume=True)
    for out in ("drives", ".", "elsewhere"):
        for inputs in (["drives"], ["drives/**/*.mcap"], ["drives/*"]):
            assert found(inputs, out) == {"drives/a.mcap": f"{out}/a".removeprefix("./")}
    assert found(["drives/a"], "drives") == {"drives/a": "drives/a_"}  # it is asked for
