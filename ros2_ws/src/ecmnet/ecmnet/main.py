"""The executables: each looks first whether this interpreter has what it needs, and says in one line how to mend it."""

from __future__ import annotations

import importlib
import sys

__all__ = ["camera_node", "segment_node"]


def segment_node() -> int:
    """Segment pictures until SIGINT or SIGTERM."""
    return _run("segment_node", needs="ecmnet_app.core")


def camera_node() -> int:
    """Publish the pictures of a camera until SIGINT or SIGTERM."""
    return _run("camera_node", needs="ecmnet_app.ros_messages")


def _run(module: str, needs: str) -> int:
    try:
        try:
            importlib.import_module("rclpy")
            importlib.import_module(needs)
        except ImportError as error:
            print(_how_to_mend(module, error), file=sys.stderr)
            return 1
        return importlib.import_module(f"ecmnet.{module}").main()
    except KeyboardInterrupt:  # before rclpy listens to signals
        return 0


def _how_to_mend(module: str, error: ImportError) -> str:
    here = f"{sys.executable} (Python {sys.version_info.major}.{sys.version_info.minor})"
    if (error.name or "").partition(".")[0] in ("rclpy", "_rclpy_pybind11"):
        return (
            f"{module}: {here} cannot import rclpy ({error}); give python:= the interpreter that this ROS is built for"
        )
    return (
        f"{module}: {here} cannot import {error.name or 'what it needs'} ({error}); install ecmnet-app into a venv "
        "made with --system-site-packages, and activate it before ros2 launch or give its interpreter as python:=PATH"
    )
