"""Running a node until it is told to end."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException

__all__ = ["spin"]


def spin(node: Any) -> None:
    """Run a node until SIGINT or SIGTERM, then call its `end`. A second signal, as Ctrl-C under `ros2 launch` may send,
    changes nothing."""
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    _ignore_signals()
    node.end()
    rclpy.try_shutdown()
    _ignore_signals()  # shutting down puts back the handlers of old


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
