"""Running a node until it is told to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import rclpy
from rclpy.executors import SingleThreadedExecutor

__all__ = ["spin"]


def spin(make_node: Callable[[], Any]) -> NoReturn:
    """Make a node, run it until SIGINT or SIGTERM, call its `end`, and end the process with code 0.

    A second signal, as Ctrl-C under `ros2 launch` may send, changes nothing.
    """
    rclpy.init()
    _run(make_node)
    rclpy.try_shutdown()
    _ignore_signals()  # shutting down puts back the handlers of old
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is closed; taking the interpreter and torch apart takes seconds on a busy computer


def _run(make_node: Callable[[], Any]) -> None:
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make_node()
        executor.add_node(node)
        executor.spin()
    except KeyboardInterrupt:
        pass
    except Exception:
        if rclpy.ok():  # else the signal came in the middle of a call to ROS
            raise
    _ignore_signals()
    if node:
        node.end()
        node.destroy_node()


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
