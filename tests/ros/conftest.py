"""The ROS package's source is importable, whether or not a workspace with it is sourced; its nodes run where we do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ros2_ws" / "src" / "ecmnet"
sys.path.insert(0, str(PACKAGE))
if sys.prefix != sys.base_prefix:
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)  # whose interpreter the launch file takes, as if it were activated
