"""The ROS package's source is importable, whether or not a workspace with it is sourced."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ros2_ws" / "src" / "ecmnet"
sys.path.insert(0, str(PACKAGE))
