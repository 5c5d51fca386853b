"""What the node decides without ROS: names, settings, health, why a topic is silent, which topics of a bag to play."""

from __future__ import annotations

from typing import Any

import pytest

from ecmnet.bag import choose, storage_of
from ecmnet.health import ERROR, OK, WARN, Health
from ecmnet.names import camera_info_topic, compressed_topic, output_prefixes
from ecmnet.settings import PARAMETERS, Settings
from ecmnet.silence import Endpoint, conflict, explain_silence, explain_unheard
from ecmnet.throttle import Throttle
from ecmnet_app.errors import ConfigError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def test_one_cameras_outputs_are_the_nodes_own() -> None:
    assert output_prefixes(["/camera/color/image_raw"], "/robot/ecmnet") == ["/robot/ecmnet"]


def test_several_cameras_have_outputs_beside_them() -> None:
    topics = ["/front/image_raw", "/rear/image_raw/compressed", "/image_raw"]
    assert output_prefixes(topics, "/robot/ecmnet") == ["/front/ecmnet", "/rear/ecmnet", "/ecmnet"]


@pytest.mark.parametrize(
    ("topics", "words"),
    [
        ([], "image_topics is empty"),
        (["/a/left", "/a/right"], "/a/left and /a/right would both publish /a/ecmnet/mask"),
        (["/a/image_raw", "/a/image_raw/compressed"], "would both publish"),
    ],
)
def test_cameras_that_would_publish_over_each_other_are_refused(topics: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        output_prefixes(topics, "/ecmnet")


def test_calibration_and_compressed_pictures_lie_where_image_transport_puts_them() -> None:
    assert camera_info_topic("/front/image_raw") == "/front/camera_info"
    assert camera_info_topic("/front/image_raw/compressed") == "/front/camera_info"
    assert compressed_topic("/front/image_raw") == "/front/image_raw/compressed"
    assert compressed_topic("/front/image_raw/compressed") == "/front/image_raw/compressed"


def values(**changes: Any) -> dict[str, Any]:
    return {**{name: parameter.default for name, parameter in PARAMETERS.items()}, **changes}


def test_settings_say_what_their_values_mean() -> None:
    assert Settings.from_values(values()) == Settings(None, None, "native", 0.5)
    given = values(
        resolution=240, confidence_threshold=0.6, output_size="640x360", overlay_opacity=1.0, other="ignored"
    )
    assert Settings.from_values(given) == Settings(240, 0.6, (360, 640), 1.0)
    assert Settings.from_values(values(output_size="network")).output_size == "network"


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 31},
        {"output_size": ""},
        {"output_size": "0x10"},
        {"output_size": "640 x 360"},
        {"output_size": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        Settings.from_values(values(**change))


def test_health_counts_what_became_of_each_picture() -> None:
    health = Health(now=100.0)
    for time in range(10):
        health.picture(100 + time / 10)
    for _ in range(7):
        health.dropped()
    health.mask(age=0.25, latency=0.3)
    health.mask(age=0.2, latency=None)
    first = health.report(101.0)
    assert (first.level, first.message) == (OK, "2.0 masks per second")
    assert first.values["pictures"] == "10"
    assert first.values["dropped"] == "7"
    assert first.values["masks"] == "2"
    assert first.values["age [ms]"] == "200"
    assert first.values["latency [ms]"] == "none yet"
    assert health.report(103.0).values["masks per second"] == "0.0"  # the rate is of the time since the last report


def test_a_bad_picture_is_reported_once_and_stays_in_the_counts() -> None:
    health = Health(now=0.0)
    health.bad("step is 3")
    report = health.report(1.0)
    assert report.level == WARN
    assert "1 bad pictures" in report.message
    assert "step is 3" in report.message
    after = health.report(2.0)
    assert after.level == OK
    assert (after.values["bad"], after.values["last error"]) == ("1", "step is 3")


def test_silence_is_noticed_in_time_to_be_said_within_five_seconds() -> None:
    health = Health(now=0.0)
    assert not health.silent(3.9)
    assert health.silent(4.0)  # and a look every second makes it 5
    health.picture(4.5)
    assert not health.silent(8.0)
    assert health.silent(8.5)


def test_while_pictures_did_not_count_there_was_neither_silence_nor_a_rate() -> None:
    health = Health(now=0.0)
    health.report(1.0)
    health.renew(100.0)
    assert not health.silent(103.9)
    assert health.silent(104.0)
    for _ in range(4):
        health.mask(age=0.1, latency=None)
    assert health.report(102.0).message == "2.0 masks per second"


def test_a_line_is_not_repeated_and_keeps_no_other_quiet() -> None:
    throttle = Throttle()
    assert throttle.passes("depth is 57 ms away", now=0.0, quiet=5.0)
    assert not throttle.passes("depth is 8 ms away", now=4.9, quiet=5.0)
    assert throttle.passes("the stamp is zero", now=4.9, quiet=5.0)
    assert throttle.passes("depth is 57 ms away", now=5.0, quiet=5.0)
    assert not throttle.passes("the stamp is zero", now=9.8, quiet=5.0)


def test_a_problem_and_missing_stamps_are_said() -> None:
    health = Health(now=0.0)
    health.unstamped()
    assert health.report(1.0).level == WARN
    assert health.report(1.5).level == OK, "none has come since"
    report = health.report(2.0, problem="nobody publishes it")
    assert (report.level, report.message) == (ERROR, "nobody publishes it")


def publisher(kind: str = IMAGE, qos: str = "best_effort, volatile", clash: str = "") -> Endpoint:
    return Endpoint("/front/driver", kind, qos, clash)


@pytest.mark.parametrize(
    ("publishers", "others", "words"),
    [
        ([], [], ["nobody publishes it", "no topic here carries pictures"]),
        ([], ["/front/image_raw"], ["nobody publishes it", "pictures are on /front/image_raw"]),
        ([publisher(COMPRESSED)], [], ["subscribed to as " + IMAGE, COMPRESSED, "/front/driver"]),
        ([publisher(clash="they clash")], [], ["QoS does not fit", "they clash", "best_effort, volatile", "our, qos"]),
        ([publisher()], [], ["/front/driver", "best_effort, volatile", "running", "receive buffer"]),
    ],
)
def test_silence_is_explained_by_what_the_graph_shows(
    publishers: list[Endpoint], others: list[str], words: list[str]
) -> None:
    text = explain_silence("/image_raw", IMAGE, "our, qos", publishers, others)
    assert text.startswith("no picture on /image_raw")
    for word in words:
        assert word in text


@pytest.mark.parametrize("offered", ["reliable, volatile", "reliable, transient_local", "best_effort, volatile"])
@pytest.mark.parametrize("asked", ["reliable, volatile", "reliable, transient_local", "best_effort, volatile"])
def test_qos_conflicts_are_those_of_the_middleware(offered: str, asked: str) -> None:
    ranks = {"best_effort": 0, "reliable": 1, "volatile": 0, "transient_local": 1}
    fits = all(ranks[o] >= ranks[a] for o, a in zip(offered.split(", "), asked.split(", "), strict=True))
    assert (conflict(offered, asked) == "") == fits


def test_a_subscriber_that_gets_nothing_is_named() -> None:
    deaf = Endpoint("/nav", IMAGE, "reliable, volatile", "the subscriber asks for reliable")
    text = explain_unheard("/ecmnet/mask", "best_effort, volatile", [publisher(), deaf])
    assert "/nav gets nothing from /ecmnet/mask" in text
    assert explain_unheard("/ecmnet/mask", "reliable, volatile", [publisher()]) == ""


def test_of_a_bag_the_cameras_are_chosen() -> None:
    topics = {
        "/front/image_raw/compressed": COMPRESSED,
        "/front/image_raw": IMAGE,
        "/rear/image_raw/compressed": COMPRESSED,
        "/front/depth/image_rect_raw": IMAGE,
        "/front/image_raw/compressedDepth": COMPRESSED,
        "/up/camera_info": "sensor_msgs/msg/CameraInfo",
    }
    assert choose(topics) == ["/front/image_raw", "/rear/image_raw/compressed"]
    assert choose({"/image_raw": IMAGE}) == ["/image_raw"]


def test_a_single_files_storage_is_known_by_its_suffix() -> None:
    assert [storage_of(path) for path in ("a/street.mcap", "street.db3", "a/street")] == ["mcap", "sqlite3", ""]
