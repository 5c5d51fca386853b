"""A robot for the tests: the node as a process of its own, and another node that sees what it publishes."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

TIMEOUT = 60.0
# A raw picture is more than the system's receive buffer takes by default, and best effort sends nothing twice.
BUFFER = "<CycloneDDS><Domain><Internal><SocketReceiveBufferSize max='4MB'/></Internal></Domain></CycloneDDS>"
os.environ.setdefault("CYCLONEDDS_URI", BUFFER)
LATCHED = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


def picture_message(picture: np.ndarray, encoding: str = "rgb8", stamp: float = 1.0, **fields: Any) -> Image:
    """A message without padding. `picture` is what `encoding` says, of shape (H, W, C) or (H, W)."""
    seconds = int(stamp)
    header = Header(frame_id="optical")
    header.stamp.sec, header.stamp.nanosec = seconds, round((stamp - seconds) * 1e9)
    message = Image(header=header, encoding=encoding, height=picture.shape[0], width=picture.shape[1])
    message.step = picture[0].nbytes
    message.data = array.array("B", picture.tobytes())
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def stamp_of(message: Any) -> float:
    """Seconds of a message's header."""
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9


class Observer:
    """A node of the test's own, with every message that it got, by topic."""

    def __init__(self) -> None:
        self.node = Node("observer")
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.when: dict[str, list[float]] = defaultdict(list)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def listen(self, kind: Any, topic: str, qos: Any = 50) -> None:
        """Keep what comes on a topic."""

        def keep(message: Any) -> None:
            self.got[topic].append(message)
            self.when[topic].append(time.monotonic())

        self.node.create_subscription(kind, topic, keep, qos)

    def spin(self, seconds: float) -> None:
        """Let messages come for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait(self, condition: Callable[[], Any], timeout: float = TIMEOUT, what: str = "") -> Any:
        """Until the condition holds; its value."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < end, f"waited {timeout} s in vain for {what or condition}"
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def call(self, kind: Any, service: str, request: Any, timeout: float = TIMEOUT) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        self.wait(client.service_is_ready, timeout, service)
        future = client.call_async(request)
        self.wait(future.done, timeout, f"an answer of {service}")
        self.node.destroy_client(client)
        return future.result()

    def statuses(self, name: str) -> list[Any]:
        """Of one name, from all /diagnostics so far."""
        return [status for array in self.got["/diagnostics"] for status in array.status if status.name == name]

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()


class Robot:
    """`segment_node` of the sourced workspace as a process.

    Args:
        observer: sees what it publishes.
        log: file for its output.
        parameters: of the node, beside the tests' own: one thread.
        arguments: more, such as remappings.
    """

    def __init__(self, observer: Observer, log: Path, arguments: Sequence[str] = (), **parameters: Any) -> None:
        self.observer, self.log = observer, log
        executable = Path(get_package_prefix("ecmnet")) / "lib" / "ecmnet" / "segment_node"
        command = [sys.executable, str(executable), "--ros-args", *arguments]
        for name, value in {"threads": 1, "device": "cpu", **parameters}.items():
            command += ["-p", f"{name}:={value}"]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ)
        if "/diagnostics" not in observer.got:
            observer.listen(DiagnosticArray, "/diagnostics")
            observer.got["/diagnostics"]

    def change(self, transition: int) -> bool:
        """Ask for a lifecycle transition; whether it was made."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.observer.call(ChangeState, "/ecmnet/change_state", request).success

    def start(self) -> Robot:
        """Take it to active."""
        assert self.change(CONFIGURE), self.log.read_text()
        assert self.change(ACTIVATE), self.log.read_text()
        return self

    def set(self, name: str, value: str | float | int) -> Any:
        """Set a parameter; the node's answer."""
        kinds = {
            str: ("string_value", ParameterType.PARAMETER_STRING),
            float: ("double_value", ParameterType.PARAMETER_DOUBLE),
        }
        field, kind = kinds.get(type(value), ("integer_value", ParameterType.PARAMETER_INTEGER))
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
        request = SetParameters.Request(parameters=[parameter])
        return self.observer.call(SetParameters, "/ecmnet/set_parameters", request).results[0]

    def stop(self, how: signal.Signals = signal.SIGINT) -> float:
        """End it; the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(how)  # nothing where it has ended
        self.process.wait(20)
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))
