"""ros2 launch ecmnet segment.launch.py image_topic:=/camera/image_raw

Starts the node and takes it to active. `--show-args` lists every argument; docs/robot.md has examples.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from ecmnet import bag

SHARE = Path(get_package_share_directory("ecmnet"))
ACTIVE_PYTHON = os.path.join(os.environ["VIRTUAL_ENV"], "bin", "python") if "VIRTUAL_ENV" in os.environ else ""
AFTER_BAG = 3.0
"""Seconds for the last masks after a bag has ended."""
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Name a file of settings to Fast DDS: the first of Humble and Jazzy, the second of what came after."""
RECORDED = "mask|confidence|label_info|camera_info|latency"

ARGUMENTS = [
    ("image_topic", "", "topic of pictures, or several with commas between them; the default is image_raw"),
    (
        "transport",
        "",
        "raw, compressed, or auto: what is published; the default of this and others is the params_file's",
    ),
    (
        "depth_topic",
        "",
        "depth aligned to the pictures, in the order of image_topic (,/b: of the second alone); publishes ~/points",
    ),
    ("namespace", "", "namespace of the node"),
    (
        "params_file",
        str(SHARE / "config" / "params.yaml"),
        "parameters; arguments that are given go before those of the file",
    ),
    ("use_sim_time", "", "take time from /clock; true with bag:="),
    ("device", "", "auto, cpu, cuda or cuda:N"),
    ("weights", "", "name of weights, or the path of a .safetensors file"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
    (
        "python",
        ACTIVE_PYTHON,
        "interpreter that runs the node; the default is that of the active venv, if there is one",
    ),
    ("bag", "", "play this bag, with its clock, into the node, and stop when it ends"),
    ("rate", "1.0", "of the bag"),
    ("loop", "false", "play the bag again and again"),
    ("record", "", "record the masks into a new bag at this path"),
    ("camera", "", "publish this camera of this machine, such as /dev/video0, or a video file"),
    ("rviz", "false", "open RViz"),
    ("web", "", "show what the robot sees on a page at http://127.0.0.1:7860"),
]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    declared = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Any]:
    """The processes, once the arguments are known."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    topics = [topic for topic in split(arguments["image_topic"]) if topic]
    namespace = arguments["namespace"]
    played = bag.topics_to_play(arguments["bag"]) if arguments["bag"] else {}
    if arguments["bag"] and not (topics and played):
        topics = bag.choose(played)
        if not topics:
            raise RuntimeError(f"{arguments['bag']} holds no pictures of a camera; name a topic with image_topic:=")
        if len(topics) == 1 and not namespace:  # one camera's outputs too lie beside it
            namespace = topics[0].removesuffix("/compressed").rpartition("/")[0]
    if arguments["bag"]:
        arguments["use_sim_time"] = "true"

    node = LifecycleNode(
        package="ecmnet",
        executable="segment_node",
        name="ecmnet",
        namespace=namespace,
        prefix=arguments["python"] or None,
        parameters=[arguments["params_file"], overrides(arguments, topics)],
        arguments=["--ros-args", "--log-level", f"ecmnet:={arguments['log_level']}"],
        output="screen",
        emulate_tty=True,
    )
    actions: list[Any] = [*large_messages(), node, *autostart(node)]
    if arguments["camera"]:
        actions.append(camera(arguments, namespace))
    if arguments["record"]:
        actions.append(record(arguments["record"]))
    if arguments["bag"]:
        play = ExecuteProcess(cmd=play_command(arguments, list(played)), output="screen", name="bag")
        once_active = OnStateTransition(
            target_lifecycle_node=node, goal_state="active", entities=[play], handle_once=True
        )
        actions += [
            RegisterEventHandler(once_active),
            RegisterEventHandler(
                OnProcessExit(
                    target_action=play,
                    on_exit=[TimerAction(period=AFTER_BAG, actions=[Shutdown(reason="the bag has ended")])],
                )
            ),
        ]
    if is_true(arguments["rviz"]):
        layout = str(SHARE / "rviz" / "ecmnet.rviz")
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=namespace,
                arguments=["-d", layout],
                parameters=[arguments["params_file"], switches(arguments, "use_sim_time")],
            )
        )
    return actions


def overrides(arguments: dict[str, str], topics: list[str]) -> dict[str, Any]:
    """Parameters that were given as arguments."""
    given: dict[str, Any] = {name: arguments[name] for name in ("transport", "device", "weights") if arguments[name]}
    if topics:
        given["image_topics"] = topics
    if arguments["depth_topic"]:
        given["depth_topics"] = split(arguments["depth_topic"])
    return given | switches(arguments, "use_sim_time", "web")


def switches(arguments: dict[str, str], *names: str) -> dict[str, bool]:
    """Those that were given, true or false."""
    return {name: is_true(arguments[name]) for name in names if arguments[name]}


def large_messages() -> list[Any]:
    """For Fast DDS, under which a camera's pictures and our clouds would not arrive; what a person has set stays."""
    if any(name in os.environ for name in (*PROFILES, "FASTDDS_BUILTIN_TRANSPORTS")):
        return []
    return [SetEnvironmentVariable(name, str(SHARE / "config" / "fastdds.xml")) for name in PROFILES]


def autostart(node: LifecycleNode) -> list[Any]:
    """Configure at once and activate when that is done, this once: a node that is deactivated by hand stays so."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
        handle_once=True,
    )
    return [RegisterEventHandler(configured), change(Transition.TRANSITION_CONFIGURE)]


def camera(arguments: dict[str, str], namespace: str) -> Node:
    """v4l2_camera where it is installed and the camera is a device, else our own small publisher."""
    device = arguments["camera"]
    if device.startswith("/dev/") and is_installed("v4l2_camera"):
        parameters = [{"video_device": device, "camera_frame_id": "camera_optical_frame"}]
        return Node(
            package="v4l2_camera",
            executable="v4l2_camera_node",
            namespace=namespace,
            parameters=parameters,
            output="screen",
        )
    return Node(
        package="ecmnet",
        executable="camera_node",
        namespace=namespace,
        prefix=arguments["python"] or None,
        parameters=[{"device": device}],
        output="screen",
        emulate_tty=True,
    )


def play_command(arguments: dict[str, str], topics: list[str]) -> list[str]:
    """`ros2 bag play` of these topics of the bag: Humble's can leave none out."""
    path, storage = arguments["bag"], bag.storage_of(arguments["bag"])
    command = [
        "ros2",
        "bag",
        "play",
        path,
        "--clock",
        "100",
        "--rate",
        arguments["rate"],
        "--disable-keyboard-controls",
        "--topics",
        *topics,
    ]
    return command + (["--storage", storage] if storage else []) + (["--loop"] if is_true(arguments["loop"]) else [])


def record(path: str) -> ExecuteProcess:
    """`ros2 bag record` of what the node publishes."""
    command = ["ros2", "bag", "record", "--output", path, "--regex", f".*/ecmnet/({RECORDED})$"]
    return ExecuteProcess(cmd=command, output="screen", name="record")


def split(text: str) -> list[str]:
    """Topics, with commas or spaces between them. Of a camera without depth, nothing before or between commas."""
    return re.split(r"\s*,\s*|\s+", text.strip())


def is_true(text: str) -> bool:
    """Of a launch argument."""
    return text.lower() in ("true", "1", "yes", "on")


def is_installed(package: str) -> bool:
    """Whether the workspace has a package."""
    try:
        return bool(get_package_share_directory(package))
    except PackageNotFoundError:
        return False
