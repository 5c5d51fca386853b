"""The engine for CPUs: the folded network, compiled by OpenVINO for this processor, in float32, bfloat16 or int8.

One compiled network takes pictures of every size. Compiling takes a second or two, once: it is kept in the user's cache
folder, and a later start takes a fraction of that.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import platform
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
from ecmnet_app.core.engines import folded, int8
from ecmnet_app.core.engines.base import Engine
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import DeviceError
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import read_image

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVINOBf16Engine", "OpenVINOEngine", "OpenVINOInt8Engine", "engines_here"]

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


class OpenVINOInt8Engine(OpenVINOEngine):
    """With the dense convolutions in int8, for x86 processors without bfloat16.

    For networks that see streets: on rendered ones the ranges of int8 are measured. So it runs when asked for by name.
    """

    name = "openvino-int8"
    precision = "int8"


@cache
def engines_here() -> dict[str, type[OpenVINOEngine]]:
    """The engines of this module that this machine has, by name, the one that "auto" takes first."""
    for package in ("openvino", "onnx"):
        if importlib.util.find_spec(package) is None:
            _log.warning("the engine eager runs, at a third of the speed: pip install %s", package)
            return {}
    try:
        abilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError) as error:
        _log.warning("OpenVINO is installed, but does not start (%s); the engine eager runs instead", error)
        return {}
    found: list[type[OpenVINOEngine]] = [OpenVINOEngine]
    if "BF16" in abilities:
        found.insert(0, OpenVINOBf16Engine)
    elif platform.machine() in ("x86_64", "AMD64"):
        found.append(OpenVINOInt8Engine)
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
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
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
    if precision == "int8":
        int8.quantize(core, model, [read_image(path) for path in _streets()])
    compiled = core.compile_model(model, "CPU", settings)
    files.keep(key, compiled.export_model().getvalue())
    return compiled


def _key(weights: Weights, precision: str, core: openvino.Core) -> str:
    """Names all that the compiled network depends on: weights, our code, OpenVINO and the processor."""
    read = [Path(folded.__file__), Path(__file__).parent.parent / "onnx_graph.py"]
    if precision == "int8":
        read += [Path(int8.__file__), *_streets()]
    return repr(
        [
            weights.sha256,
            weights.architecture,
            weights.mean,
            weights.std,
            precision,
            [path.read_bytes() for path in read],
            _openvino().__version__,
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        ]
    )


def _streets() -> list[Path]:
    """What int8 takes its ranges from."""
    return sorted(EXAMPLES_FOLDER.glob("*.jpg"))
