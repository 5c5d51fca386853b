"""The engine for CPUs: the folded network, compiled by OpenVINO for this processor, in float32 or bfloat16.

One compiled network takes pictures of every size. Compiling takes a second or two, once: it is kept in the user's cache
folder, and a later start takes a fraction of that.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core import cache as files
from ecmnet_app.core.engines import folded
from ecmnet_app.core.engines.base import Engine
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import DeviceError

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVINOBf16Engine", "OpenVINOEngine", "engines_here"]

_log = logging.getLogger(__name__)


class OpenVINOEngine(Engine):
    """Runs pictures one after the other, each on all threads: batches gain nothing on a CPU, nor change an answer.

    It uses as many threads as torch does when it is made.

    Raises:
        DeviceError: OpenVINO cannot compile the network here.
        WeightsError: the tensors do not fit their architecture.
    """

    name = "openvino"
    precision = "f32"

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.device = device
        try:
            self._request = _compiled(weights, self.precision).create_infer_request()
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO cannot run the network here ({error}); choose the engine eager") from error

    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        """See `Engine.logits`."""
        return torch.from_numpy(np.concatenate([self._logits(picture) for picture in pictures]))

    def _logits(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            answers = self._request.infer([np.ascontiguousarray(picture[None])])
        except RuntimeError as error:
            height, width = picture.shape[:2]
            raise DeviceError(
                f"OpenVINO failed on a picture of {width}x{height} ({error}); send a smaller one, "
                "or choose the engine eager"
            ) from error
        return np.asarray(answers[0], np.float32)


class OpenVINOBf16Engine(OpenVINOEngine):
    """In bfloat16, for processors that multiply it themselves."""

    name = "openvino-bf16"
    precision = "bf16"
    dtype = torch.bfloat16


@cache
def engines_here() -> dict[str, type[OpenVINOEngine]]:
    """The engines of this module that this machine has, by name, the fastest first."""
    for package in ("openvino", "onnx"):
        if importlib.util.find_spec(package) is None:
            _log.warning("the engine eager runs, at a third of the speed: pip install %s", package)
            return {}
    try:
        abilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError) as error:
        _log.warning("OpenVINO is installed, but does not start (%s); the engine eager runs instead", error)
        return {}
    found = [OpenVINOBf16Engine, OpenVINOEngine] if "BF16" in abilities else [OpenVINOEngine]
    return {engine.name: engine for engine in found}


@cache
def _core() -> openvino.Core:
    return _openvino().Core()


def _openvino() -> ModuleType:
    """OpenVINO without openvino_telemetry, through which a mere import reports to its makers over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails, as OpenVINO expects
    import openvino

    return openvino


def _compiled(weights: Weights, precision: str) -> openvino.CompiledModel:
    core = _core()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        "CPU_RUNTIME_CACHE_CAPACITY": 0,  # kernels of other sizes: 1.3 GB of them after 300 sizes
    }
    key = _key(weights, precision, core)
    if (data := files.kept(key)) is not None:
        try:
            return core.import_model(io.BytesIO(data), "CPU", settings)
        except RuntimeError as error:
            _log.warning("the compiled network that was kept cannot be read (%s); it is compiled again", error)
    from ecmnet_app.core.onnx_graph import network_model

    model = core.read_model(network_model(weights).SerializeToString(), b"")
    compiled = core.compile_model(model, "CPU", settings)
    files.keep(key, compiled.export_model().getvalue())
    return compiled


def _key(weights: Weights, precision: str, core: openvino.Core) -> str:
    """Names all that the compiled network depends on: weights, our code, OpenVINO and the processor."""
    code = [Path(folded.__file__), Path(__file__).parent.parent / "onnx_graph.py"]
    return repr(
        [
            weights.sha256,
            weights.architecture,
            weights.mean,
            weights.std,
            precision,
            [path.read_bytes() for path in code],
            _openvino().__version__,
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        ]
    )
