"""The lifecycle node `ecmnet`: any number of cameras, one network, one batched forward.

configure loads the network and opens the outputs, activate subscribes, deactivate unsubscribes, cleanup lets go of all.
The network runs on the stream worker's thread, so that parameters, services and new pictures never wait for it.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from ecmnet import qos
from ecmnet.camera import Camera, Frame
from ecmnet.decoder import Decoder, make_decoder
from ecmnet.health import OK, WARN, Report
from ecmnet.names import output_prefixes
from ecmnet.settings import PARAMETERS, TRANSPORTS, Parameter, Settings
from ecmnet.spinning import spin
from ecmnet_app.core import Segmentation, Segmenter
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.errors import ConfigError, DeviceError, EcmnetError

__all__ = ["SegmentNode", "main"]

SHUTDOWN = 1.0
"""Seconds that a running batch is given when the process is told to end."""


class SegmentNode(LifecycleNode):
    """Lifecycle, parameters, the service and diagnostics; `Camera` has the topics."""

    decoder: Decoder
    settings: Settings

    def __init__(self) -> None:
        super().__init__("ecmnet")
        for name, parameter in PARAMETERS.items():
            self.declare_parameter(name, parameter.default, _descriptor(parameter))
        self.settings = Settings.from_values({name: parameter.default for name, parameter in PARAMETERS.items()})
        self.enabled = True
        self._active = False
        self._fallback = ""
        self._segmenter: Segmenter | None = None
        self._worker: StreamWorker | None = None
        self._cameras: list[Camera] = []
        self._page: Any = None
        self.add_on_set_parameters_callback(self._set_parameters)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.outgoing(), qos_overriding_options=qos.overridable()
        )
        self.create_service(SetBool, "~/enable", self._enable)
        # By a steady clock: a paused bag stops the node's own.
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._configure, undo=self._close)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._activate, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._close)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try(self._close)

    def _try(self, change: Callable[[], None], undo: Callable[[], None] | None = None) -> TransitionCallbackReturn:
        try:
            change()
        except Exception as error:  # rclpy would swallow it without a word
            known = isinstance(error, EcmnetError)
            self.get_logger().error(str(error) if known else f"{change.__name__}: {type(error).__name__}: {error}")
            if undo:
                undo()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        values = self._values()
        self.settings = Settings.from_values(values)
        if values["transport"] not in TRANSPORTS:
            raise ConfigError(f"transport must be one of {', '.join(TRANSPORTS)}, not {values['transport']!r}")
        topics = [self.resolve_topic_name(topic) for topic in values["image_topics"] if topic]
        depths = [self.resolve_topic_name(topic) if topic else "" for topic in values["depth_topics"]]
        if len(depths) > len(topics):
            raise ConfigError(
                f"there are {len(depths)} depth_topics for {len(topics)} image_topics; give at most one each"
            )
        prefixes = output_prefixes(topics, self.get_fully_qualified_name())
        self.decoder = make_decoder()
        self._segmenter = self._load(values)
        self._worker = StreamWorker(self._predict, values["max_batch"] or self._segmenter.engine.best_batch)
        for index, (topic, prefix) in enumerate(zip(topics, prefixes, strict=True)):
            self._cameras.append(Camera(self, topic, prefix, depths[index] if index < len(depths) else ""))
        if values["web"]:
            self._page = self._open_page(values["web_port"])

    def _open_page(self, port: int) -> Any:
        try:
            from ecmnet.web import Page
        except ImportError as error:
            self.get_logger().error(f"no page: {error.name} cannot be imported ({error}); pip install gradio")
            return None
        assert self._worker is not None
        try:
            page = Page(self._cameras, self._worker, port)
        except ConfigError as error:
            self.get_logger().error(f"no page: {error}")
            return None
        self.get_logger().info(f"what the robot sees is at {page.url}")
        return page

    def _load(self, values: dict[str, Any]) -> Segmenter:
        self._fallback = ""
        choice = {"name": values["weights"], "threads": values["threads"] or None}
        try:
            return Segmenter.from_pretrained(device=values["device"], engine=values["engine"], **choice)
        except DeviceError as error:
            if values["device"] == "cpu":
                raise
            self._fallback = f"running on the CPU instead: {error}"
            self.get_logger().warning(self._fallback)
            return Segmenter.from_pretrained(device="cpu", **choice)

    def _activate(self) -> None:
        assert self._segmenter is not None
        assert self._worker is not None
        for camera in self._cameras:
            camera.publish_labels(self._segmenter.label_set, self.settings.threshold)
            camera.start(self._worker)
        self._active = True
        self.get_logger().info(
            f"segmenting {', '.join(camera.topic for camera in self._cameras)} with the weights "
            f"{self._segmenter.weights.name} on {self._segmenter.engine.device}"
        )

    def _deactivate(self) -> None:
        self._active = False
        for camera in self._cameras:
            camera.stop()

    def _close(self) -> None:
        self._deactivate()
        if self._page:
            self._page.close()
            self._page = None
        if self._worker:
            self._worker.close()  # first: its thread publishes
        for camera in self._cameras:
            camera.destroy()
        self._cameras.clear()
        self._worker = self._segmenter = None
        gc.collect()

    def end(self) -> None:
        """Let go of all, but wait no longer than `SHUTDOWN`: a thread inside torch cannot be stopped."""
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(SHUTDOWN)

    def destroy_node(self) -> None:
        """The lifecycle's services too: rclpy's go with the last name of the node, which a running batch may have."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # -- the network -------------------------------------------------------------------------------------------------

    def _predict(self, frames: Sequence[Frame], **options: Any) -> list[Segmentation]:
        """On the worker's thread."""
        assert self._segmenter is not None
        return self._segmenter.predict_batch([frame.decode() for frame in frames], **options)

    def output_size(self, size: tuple[int, int], settings: Settings) -> tuple[int, int]:
        """(height, width) of the mask of a picture of this size."""
        if settings.output_size == "native" or self._segmenter is None:
            return size
        if isinstance(settings.output_size, tuple):
            return settings.output_size
        return self._segmenter.working_size(*size, settings.resolution)

    # -- parameters, service, diagnostics ----------------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in PARAMETERS}

    def _set_parameters(self, changes: Sequence[Any]) -> SetParametersResult:
        try:
            settings = Settings.from_values({**self._values(), **{change.name: change.value for change in changes}})
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._active and self._segmenter and settings.threshold != self.settings.threshold:
            for camera in self._cameras:
                camera.publish_labels(self._segmenter.label_set, settings.threshold)
        self.settings = settings
        return SetParametersResult(successful=True)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self.enabled:
            for camera in self._cameras:
                camera.health.renew(time.monotonic())
        self.enabled = request.data
        response.success = True
        response.message = (
            "pictures are segmented" if request.data else "pictures are ignored until it is enabled again"
        )
        return response

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        message.status.append(_status(name, self._report()))
        if self._active and self.enabled:
            message.status += [_status(f"{name}: {camera.topic}", camera.report()) for camera in self._cameras]
        self._diagnostics.publish(message)

    def _report(self) -> Report:
        values = {"cameras": str(len(self._cameras))}
        if self._segmenter:
            values["weights"] = self._segmenter.weights.name
            values["device"] = str(self._segmenter.engine.device)
        if self._fallback:
            return Report(WARN, self._fallback, values)
        if not self._active:
            return Report(OK, "not active", values)
        return Report(OK, "segmenting" if self.enabled else "switched off by ~/enable", values)


def _status(name: str, report: Report) -> DiagnosticStatus:
    values = [KeyValue(key=key, value=value) for key, value in report.values.items()]
    return DiagnosticStatus(level=bytes([report.level]), name=name, message=report.message, values=values)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=parameter.description, read_only=parameter.read_only)
    if parameter.least is not None:
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=parameter.least, to_value=parameter.most)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=parameter.least, to_value=parameter.most, step=1)]
    return descriptor


def main() -> NoReturn:
    """Run the node until SIGINT or SIGTERM."""
    spin(SegmentNode)
