"""Many bags by several processes: the bytes of one process, whoever is killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recordings import drive, masks_of

from ecmnet_app.bags import BagJob, BagSettings, prepare_bag, segment_parts, spread
from ecmnet_app.bags.frames import read_frames
from ecmnet_app.bags.report import write_report
from ecmnet_app.bags.spread import BagResult, Work, segment_bags
from ecmnet_app.bags.workers import LocalWorkers, Network
from ecmnet_app.core import Segmenter
from ecmnet_app.core.labels import CAMVID
from ecmnet_app.errors import BagError, ConfigError, EcmnetError

FRAMES = 53 + 24
"""Of a drive's two cameras."""
STORE_BYTES = 100 * 2**20


def jobs_below(folder: Path, recordings: list[Path]) -> list[BagJob]:
    return [BagJob(path, folder / path.stem) for path in recordings]


def files_of(result: BagResult) -> dict[str, bytes]:
    """Whatever a bag's answers are, but for their own path in the record."""
    files = {path.name: path.read_bytes() for path in sorted(result.job.out.iterdir())}
    record = json.loads(files[result.job.record.name])
    record["out"] = None
    files[result.job.record.name] = json.dumps(record).encode()
    return files


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    return [drive(folder / "a.mcap", seed=0), drive(folder / "b.mcap", seed=5)]


@pytest.fixture(scope="module")
def work(tiny_weights: Path) -> Work:
    return Work(Network(str(tiny_weights), "cpu", "eager", threads=1), BagSettings())


@pytest.fixture(scope="module")
def undisturbed(recordings: list[Path], work: Work, tmp_path_factory: pytest.TempPathFactory) -> list[BagResult]:
    """By this process alone."""
    told: list[tuple[int, int | None]] = []
    folder = tmp_path_factory.mktemp("undisturbed")
    results = segment_bags(jobs_below(folder, recordings), work, progress=lambda *now: told.append(now))
    assert told[-1] == (2 * FRAMES, 2 * FRAMES)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    return results


def check(results: list[BagResult], undisturbed: list[BagResult]) -> None:
    """Equal bytes, and every frame once."""
    for result, expected in zip(results, undisturbed, strict=True):
        assert result.problem is None
        assert result.summary.frames == FRAMES
        assert files_of(result) == files_of(expected)
        assert not result.job.parts.exists()
        stamps = Counter((topic, m.header.stamp.sec, m.header.stamp.nanosec) for topic, m in masks_of(result.job.bag))
        assert len(stamps) == FRAMES
        assert set(stamps.values()) == {1}


def test_two_processes_give_the_bytes_of_one(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    with LocalWorkers(2) as workers:
        results = segment_bags(jobs_below(tmp_path, recordings), work, workers, lambda *now: told.append(now))
    check(results, undisturbed)
    assert told[-1] == (2 * FRAMES, 2 * FRAMES)


@pytest.mark.long
def test_a_process_that_is_killed_loses_nothing_and_doubles_nothing(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    killed = []

    def kill(done: int, _: int | None) -> None:
        for part in (1, 2, 3):
            if len(killed) < part and done > part * FRAMES // 3:
                process = multiprocessing.active_children()[0]
                process.kill()
                killed.append(process.pid)

    with LocalWorkers(2) as workers:
        results = segment_bags(jobs_below(tmp_path, recordings), work, workers, kill)
    assert len(killed) == 3
    check(results, undisturbed)


@pytest.mark.long
def test_processes_that_are_killed_again_and_again_are_given_up(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    def kill(done: int, _: int | None) -> None:
        for process in multiprocessing.active_children():
            process.kill()  # which one that is dead already may be told, too

    jobs = jobs_below(tmp_path, recordings[:1])
    with LocalWorkers(1) as workers:
        (result,) = segment_bags(jobs, work, workers, kill)
        assert result.summary is None
        assert "take fewer of them, and --resume" in str(result.problem)
        results = segment_bags(jobs, replace(work, resume=True), workers)
    check(results, undisturbed[:1])


KILLED_AT_THE_END = """
import multiprocessing, sys, time
from ecmnet_app.bags.workers import LocalWorkers

with LocalWorkers(3) as workers:
    for future in [workers.submit(time.sleep, 0.5) for _ in range(3)]:
        future.result()
    processes = multiprocessing.active_children()
    assert len(processes) == 3
    processes.pop(int(sys.argv[1]))
    time.sleep(0.1)  # now all of them wait
    for process in processes:
        process.kill()
assert not multiprocessing.active_children()
"""


@pytest.mark.parametrize("spared", range(3))
def test_processes_that_are_killed_once_all_is_done_hold_nothing_up(spared: int) -> None:
    """One of the three that wait holds the lock by which they are told that all is over, and may be killed with it."""
    subprocess.run([sys.executable, "-c", KILLED_AT_THE_END, str(spared)], check=True, timeout=60)


class LosingWorkers:
    """This process, which does each call and then loses it the first time."""

    count, lost, tries = 1, (ConnectionError,), 2

    def __init__(self) -> None:
        self._done: set[Any] = set()

    def fit(self, network: Network) -> Network:
        return network

    def submit(self, call: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            result = call(*args)
        except EcmnetError as error:
            future.set_exception(error)
        else:
            if call in self._done:
                future.set_result(result)
            else:
                self._done.add(call)
                future.set_exception(ConnectionError("lost"))
        return future

    def tell(self, number: int) -> Any:
        return lambda done: None

    def told(self, number: int) -> int:
        return 0


def test_a_worker_that_is_lost_when_its_call_is_all_but_over_loses_nothing(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    jobs = jobs_below(tmp_path, recordings[:1])
    check(segment_bags(jobs, work, LosingWorkers()), undisturbed[:1])
    (again,) = segment_bags(jobs, work, LosingWorkers())
    assert "--resume goes on with it" in str(again.problem)


def test_a_run_that_was_killed_before_it_had_written_what_it_is_about_is_gone_on_with(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    jobs = jobs_below(tmp_path, recordings[:1])
    jobs[0].parts.mkdir()
    (jobs[0].parts / ".job.json.1-2").write_bytes(b"{")
    check(segment_bags(jobs, replace(work, resume=True)), undisturbed[:1])


def test_what_a_loss_of_power_has_emptied_fails_its_bag_alone(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    names = ["job.json", "000000.json"]
    jobs = [*(BagJob(recordings[0], tmp_path / name) for name in names), BagJob(recordings[1], tmp_path / "b")]
    segmenter = Segmenter.from_pretrained(work.network.weights, "cpu", "eager", 1)
    for job, name in zip(jobs, names, strict=False):
        prepare_bag(job, work.settings, segmenter)
        segment_parts(job, work.settings, segmenter, 0, 1)
        (job.parts / name).write_bytes(b"")
    *failed, done = segment_bags(jobs, replace(work, resume=True))
    for result, name in zip(failed, names, strict=True):
        parts = result.job.parts
        assert str(result.problem) == f"{parts / name} is damaged; remove {parts}, and segment the bag again"
    check([done], undisturbed[1:])


@pytest.mark.parametrize("processes", [0, 1])
def test_a_bag_that_fails_does_so_alone(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path, processes: int
) -> None:
    (tmp_path / "empty.mcap").write_bytes(b"")
    jobs = jobs_below(tmp_path / "out", [tmp_path / "empty.mcap", recordings[0]])
    if processes:
        with LocalWorkers(processes) as workers:
            failed, done = segment_bags(jobs, work, workers)
    else:
        failed, done = segment_bags(jobs, work)
    assert isinstance(failed.problem, BagError)
    assert "empty.mcap" in str(failed.problem)
    assert failed.summary is None
    check([done], undisturbed[:1])


def test_what_is_done_is_read_back(
    recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    jobs = jobs_below(tmp_path, recordings[:1])
    segment_bags(jobs, work)
    before = jobs[0].bag.stat().st_mtime_ns
    more = replace(work, resume=True, video=True, thumbnails=2)
    (result,) = segment_bags(jobs, more)
    assert jobs[0].bag.stat().st_mtime_ns == before
    assert result.digest is not None
    assert [len(topic.thumbnails) for topic in result.digest.topics] == [2, 2]
    assert sorted(path.name for path in jobs[0].out.glob("*.mp4")) == [
        "front_image_raw_overlay.mp4",
        "rear_image_raw_overlay.mp4",
    ]


def test_another_version_of_the_package_is_refused(recordings: list[Path], work: Work, tmp_path: Path) -> None:
    old = replace(work, version="0.0.1")
    (result,) = segment_bags(jobs_below(tmp_path, recordings[:1]), old)
    assert "install the same everywhere" in str(result.problem)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that does no work and two machines that do, each a raylet of its own on this one."""
    # Before Ray is imported: it counts nobody's use, and stays on 127.0.0.1.
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    from ray.cluster_utils import Cluster

    # Bags of 79 messages are done in a few looks, and progress has to be seen.
    monkeypatch.setattr(spread, "SECONDS", 0.02)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    yield cluster
    cluster.shutdown()


def workers_of(node: Any) -> list[int]:
    """Processes that a node has started and that are busy with a call."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            parent = int(rest.split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == raylet and name.startswith("ray::_run"):
            found.append(int(status.parent.name))
    return found


def parts_below(folder: Path) -> int:
    """Of bags that are being segmented there."""
    return len(list(folder.glob("*.parts/*.mcap")))


@contextmanager
def again_and_again(disturb: Callable[[], None]) -> Iterator[None]:
    """On a thread: whoever looks only as often as progress is told may find all done between two looks."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.002):
            disturb()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.long
def test_a_cluster_gives_the_bytes_of_one_process(
    cluster: Any, recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    from ecmnet_app.bags.cluster import RayWorkers

    told: list[tuple[int, int | None]] = []
    asked = replace(work, thumbnails=2)
    with RayWorkers(cluster.address) as workers:
        assert workers.count == 2
        assert workers.fit(work.network) == work.network
        results = segment_bags(jobs_below(tmp_path, recordings), asked, workers, lambda *now: told.append(now))
    check(results, undisturbed)
    assert told[-1] == (2 * FRAMES, 2 * FRAMES)
    assert any(0 < done < 2 * FRAMES for done, _ in told)
    write_report(tmp_path / "report.html", [result.digest for result in results], CAMVID, "tiny")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count("<article") == 4
    assert text.count("<img") == 8


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(
    cluster: Any, recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    from ecmnet_app.bags.cluster import RayWorkers

    killed: list[int] = []
    seen = 0

    def kill() -> None:
        nonlocal seen
        parts = parts_below(tmp_path)
        if len(killed) < 3 and parts > seen:
            busy = [process for node in cluster.list_all_nodes() for process in workers_of(node)]
            for process in set(busy[:1]) - set(killed):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                seen = parts

    with RayWorkers(cluster.address) as workers, again_and_again(kill):
        results = segment_bags(jobs_below(tmp_path, recordings), work, workers)
    assert len(killed) >= 2
    check(results, undisturbed)


@pytest.mark.long
def test_a_machine_that_is_lost_loses_nothing_and_doubles_nothing(
    cluster: Any, recordings: list[Path], work: Work, undisturbed: list[BagResult], tmp_path: Path
) -> None:
    from ecmnet_app.bags.cluster import RayWorkers

    lost = []

    def lose() -> None:
        # Whichever is at work: Ray may well give one of them all.
        if not lost and parts_below(tmp_path):
            for machine in [machine for machine in cluster.worker_nodes if workers_of(machine)][:1]:
                cluster.remove_node(machine, allow_graceful=False)
                lost.append(machine)

    with RayWorkers(cluster.address) as workers, again_and_again(lose):
        results = segment_bags(jobs_below(tmp_path, recordings), work, workers)
    assert lost
    check(results, undisturbed)


def no_module_of_theirs() -> None:
    pass


@pytest.mark.long
def test_what_a_cluster_has_not_is_told(cluster: Any, work: Work, tmp_path: Path) -> None:
    from ecmnet_app.bags.cluster import RayWorkers

    with pytest.raises(ConfigError, match="no GPU"), RayWorkers(cluster.address, device="cuda"):
        pass
    with pytest.raises(ConfigError, match="fewer --threads"), RayWorkers(cluster.address, threads=8):
        pass
    with RayWorkers(cluster.address) as workers:
        error = workers.submit(read_frames, tmp_path / "none.csv").exception(60)
        assert type(error) is BagError
        assert str(error) == f"cannot read {tmp_path}/none.csv: No such file or directory"
        # What the workers cannot import, here this module, as there the package if it is not installed.
        error = workers.submit(no_module_of_theirs).exception(60)
        assert type(error) is ConfigError
        assert "install ecmnet-app in the same version on every machine" in str(error)
        assert "No module named 'test_bag_spread'" in str(error)
        (tmp_path / "empty.mcap").write_bytes(b"")
        (result,) = segment_bags(jobs_below(tmp_path / "out", [tmp_path / "empty.mcap"]), work, workers)
        assert "empty.mcap" in str(result.problem)


def test_a_cluster_that_is_not_there_is_told() -> None:
    pytest.importorskip("ray")
    from ecmnet_app.bags.cluster import RayWorkers

    with pytest.raises(ConfigError, match=r"--device is auto, cpu or cuda, not cuda:1"):
        RayWorkers("auto", device="cuda:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
    for wrong in (address, "nonsense"):
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at {wrong}"), RayWorkers(wrong):
            pass


@pytest.mark.parametrize(("gpu", "visible", "index"), [("2", None, 2), ("3", "1,3", 1), ("GPU-a", "GPU-b,GPU-a", 1)])
def test_a_gpu_of_ray_is_found_among_those_that_cuda_sees(gpu: str, visible: str | None, index: int) -> None:
    pytest.importorskip("ray")
    from ecmnet_app.bags.cluster import cuda_index

    assert cuda_index(gpu, visible) == index
