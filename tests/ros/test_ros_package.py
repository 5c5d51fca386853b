"""The package's files hold together: link, parameters, who imports ROS, and a clear word where something is missing."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from ecmnet.settings import PARAMETERS
from ecmnet_app.core import CAMVID

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ros2_ws" / "src" / "ecmnet"
MODULES = sorted((PACKAGE / "ecmnet").glob("*.py"))
WITHOUT_ROS = {
    "__init__",
    "bag",
    "cloud",
    "decoder",
    "health",
    "main",
    "names",
    "settings",
    "silence",
    "sizes",
    "throttle",
}
"""Modules that can be imported where there is no ROS."""


def test_the_launch_file_is_the_packages_own_and_the_projects_is_a_relative_link_to_it() -> None:
    link = ROOT / "launch" / "segment.launch.py"
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    target = PACKAGE / "launch" / "segment.launch.py"
    assert not target.is_symlink()
    assert link.resolve() == target.resolve()


def test_a_persons_own_settings_of_fast_dds_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("launch_ros", reason="launch_ros does not import: no ROS 2 is sourced")
    try:
        launch_file = runpy.run_path(str(PACKAGE / "launch" / "segment.launch.py"))
    except LookupError:  # what a package that is not found is
        pytest.skip("the package ecmnet is not built and sourced: colcon build in ros2_ws")
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert len(launch_file["large_messages"]()) == 2
    for name in names:
        with monkeypatch.context() as patch:
            patch.setenv(name, "mine")
            assert launch_file["large_messages"]() == []


def test_the_node_is_short() -> None:
    assert len((PACKAGE / "ecmnet" / "segment_node.py").read_text().splitlines()) <= 300


def imported_at_the_top(path: Path) -> set[str]:
    names = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            names.add((statement.module or "").partition(".")[0])
    return names


def test_logic_imports_no_ros_and_only_the_page_imports_gradio() -> None:
    ros = {"rclpy", "sensor_msgs", "std_msgs", "vision_msgs", "diagnostic_msgs", "rcl_interfaces", "cv_bridge"}
    page = {"web"}  # through `camera`
    assert {path.stem for path in MODULES if not imported_at_the_top(path) & ros} - page == WITHOUT_ROS
    assert {path.stem for path in MODULES if "import gradio" in path.read_text()} == page


def test_the_commented_parameters_are_the_defaults() -> None:
    written = yaml.safe_load((PACKAGE / "config" / "params.yaml").read_text())["/**"]["ros__parameters"]
    assert written == {name: parameter.default for name, parameter in PARAMETERS.items()}


def test_every_parameter_is_explained_and_within_its_range() -> None:
    for name, parameter in PARAMETERS.items():
        assert name == name.lower()
        assert len(parameter.description) > 10
        if parameter.least is not None:
            assert parameter.most is not None
            assert parameter.least <= parameter.default <= parameter.most


def test_the_manifest_names_what_is_imported() -> None:
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    named = {entry.text for entry in manifest.iter("exec_depend")}
    imported = set().union(*(imported_at_the_top(path) for path in MODULES))
    assert (
        imported & {"sensor_msgs", "std_msgs", "std_srvs", "vision_msgs", "diagnostic_msgs", "rcl_interfaces", "rclpy"}
        <= named
    )
    address = manifest.find("maintainer").attrib[
        "email"
    ]  # an invalid one makes colcon take the package for plain Python
    assert address.count("@") == 1
    assert "." in address.partition("@")[2]
    assert manifest.findtext("export/build_type") == "ament_python"


@pytest.mark.parametrize(
    ("missing", "words"),
    [("rclpy", "cannot import rclpy"), ("ecmnet_app", "cannot import ecmnet_app"), ("torch", "cannot import torch")],
)
@pytest.mark.parametrize("executable", ["segment_node", "camera_node"])
def test_an_interpreter_that_lacks_something_is_told_in_one_line(executable: str, missing: str, words: str) -> None:
    if executable == "camera_node" and missing == "torch":
        pytest.skip("the camera publisher needs no torch")
    blocker = f"""
import importlib.abc, sys, types
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
if {missing!r} != "rclpy":
    sys.modules["rclpy"] = types.ModuleType("rclpy")
from ecmnet.main import {executable}
sys.exit({executable}())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", blocker], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert "python:=" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_nav2_example_names_our_topics_and_classes() -> None:
    document = yaml.safe_load((PACKAGE / "config" / "nav2_semantic_layer.yaml").read_text())
    camera = document["local_costmap"]["local_costmap"]["ros__parameters"]["semantic_layer"]["camera"]
    outputs = (PACKAGE / "ecmnet" / "camera.py").read_text()
    for key in ("segmentation_topic", "confidence_topic", "labels_topic", "pointcloud_topic"):
        assert f'"{camera[key].removeprefix("/ecmnet/")}"' in outputs or camera[key] == "/ecmnet/points"
    named = [name for kind in camera["class_types"] for name in camera[kind]["classes"]]
    assert len(named) == len(set(named))
    assert set(named) == set(CAMVID.names) - {"Sky"}


def test_example_parameters_are_parameters() -> None:
    written = yaml.safe_load((PACKAGE / "config" / "compressed.yaml").read_text())["/**"]["ros__parameters"]
    assert written.keys() <= PARAMETERS.keys()
