"""Running a node until it is told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException

__all__ = ["spin"]


def spin(node: Any) -> NoReturn:
    """Run a node until SIGINT or SIGTERM, call its `end`, and end the process with code 0.

    A second signal, as Ctrl-C under `ros2 launch` may send, changes nothing.
    """
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    _ignore_signals()
    node.end()
    rclpy.try_shutdown()
    _ignore_signals()  # shutting down puts back the handlers of old
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is closed; taking the interpreter and torch apart takes seconds on a busy computer


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
