"""Processes of this machine: real ones, that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ecmnet_app.bags.workers import LocalWorkers, Tell
from ecmnet_app.errors import BagError, ConfigError


def square(number: int, tell: Tell) -> tuple[int, int]:
    tell(number)
    time.sleep(0.3)
    return number * number, os.getpid()


def fail() -> None:
    raise BagError("drive.mcap is an empty file; copy it again")


def alive(process: int) -> bool:
    """And not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(processes: set[int]) -> None:
    until = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < until, f"{processes} are still there"
        time.sleep(0.05)


def test_calls_are_made_beside_each_other_and_tell_how_far_they_are() -> None:
    with LocalWorkers(2) as workers:
        futures = [workers.submit(square, number, workers.tell(number)) for number in range(6)]
        results = [future.result(60) for future in futures]
        assert [result for result, _ in results] == [0, 1, 4, 9, 16, 25]
        assert [workers.told(number) for number in range(6)] == list(range(6))
        assert workers.told(6) == 0
        processes = {process for _, process in results}
        assert len(processes) == 2
        assert os.getpid() not in processes
        with pytest.raises(BagError, match="copy it again"):
            workers.submit(fail).result(60)
    wait_until_gone(processes)


def test_after_a_kill_there_are_new_processes() -> None:
    with LocalWorkers(1) as workers:
        _, process = workers.submit(square, 1, workers.tell(1)).result(60)
        future = workers.submit(square, 2, workers.tell(2))
        os.kill(process, signal.SIGKILL)
        with pytest.raises(workers.lost):
            future.result(60)
        result, another = workers.submit(square, 3, workers.tell(3)).result(60)
        assert result == 9
        assert another != process


def test_on_an_error_nothing_is_waited_for() -> None:
    workers = LocalWorkers(1)
    with suppress(KeyboardInterrupt), workers:
        process = workers.submit(os.getpid).result(60)
        began = time.monotonic()
        workers.submit(time.sleep, 60)
        raise KeyboardInterrupt
    wait_until_gone({process})
    assert time.monotonic() - began < 10


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_a_command_that_is_killed_takes_its_processes_along() -> None:
    program = (
        "import os, sys, time\n"
        "from ecmnet_app.bags.workers import LocalWorkers\n"
        "if __name__ == '__main__':\n"
        "    with LocalWorkers(1) as workers:\n"
        "        print(workers.submit(os.getpid).result(), flush=True)\n"
        "        workers.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as command:
        process = int(command.stdout.readline())
        assert alive(process)
        command.kill()
        command.wait()
        wait_until_gone({process})


def test_no_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="--jobs"):
        LocalWorkers(0)
