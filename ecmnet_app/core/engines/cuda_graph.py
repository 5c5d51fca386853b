"""The engine for a GPU: fused kernels, captured as a CUDA graph for each picture size that comes back.

A picture is uploaded as bytes; normalisation, network, interpolation, labels and confidence are made on the GPU. The
kernels are compiled once, whatever the sizes, by a thread of their own, which a process that ends waits for, as Triton
keeps what it made on disk and the next start takes a second or two; until they are there, PyTorch's own operations run
the folded network. A size that comes for the first time is answered by launching the kernels one by one, the second
time it is captured.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines.answer import answer_from_logits
from ecmnet_app.core.engines.base import Engine, normalisation
from ecmnet_app.core.engines.device_errors import device_errors, is_out_of_memory
from ecmnet_app.core.engines.folded import fold
from ecmnet_app.core.engines.fused import FusedECMNet, can_fuse
from ecmnet_app.core.engines.graph_cache import GraphCache
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import DeviceError

__all__ = ["MAX_GRAPHS", "CudaGraphEngine"]

MAX_GRAPHS = 8
"""Graphs kept; each holds the activations of its size, about 0.4 KB for each pixel of its batch."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Key(NamedTuple):
    batch: int
    height: int
    width: int
    answer: tuple[int, int, float] | None
    """Height and width of the labels, and temperature; None where logits are asked for."""


def _key_of(pictures: NDArray[np.uint8] | Tensor, answer: tuple[int, int, float] | None) -> _Key:
    batch, height, width, _ = pictures.shape
    return _Key(batch, height, width, answer)


class CudaGraphEngine(Engine):
    """Runs the paper's full network in bfloat16, with sums and scan states in float32.

    Raises:
        DeviceError: the architecture is one of the paper's ablations, which have no kernels, or the GPU failed.
    """

    name = "cuda-graph"
    dtype = torch.bfloat16

    def __init__(self, weights: Weights, device: torch.device) -> None:
        if not can_fuse(weights.architecture):
            raise DeviceError(
                f"the engine {self.name} has kernels for the full network only, and {weights.name!r} is an ablation of "
                "it; use the engine eager"
            )
        self.device = device
        with device_errors(device):
            net = weights.build().to(device)
            self._fused = FusedECMNet(net, weights.mean, weights.std, device, self.dtype)
            self._folded = fold(net)
            self._scale, self._shift = (x.view(3, 1, 1).to(device) for x in normalisation(weights.mean, weights.std))
            self._stream = torch.cuda.Stream(device)
        self.graphs: GraphCache[_Key, _Graph] = GraphCache(self._capture, torch.cuda.empty_cache, MAX_GRAPHS)
        self._failure: BaseException | None = None
        self._compiling = threading.Thread(target=self._compile, name="ecmnet-compile")
        self._compiling.start()

    def wait(self) -> None:
        """See `Engine.wait`: until the kernels are compiled.

        Raises:
            DeviceError: they cannot be compiled here; the engine goes on with PyTorch's own operations.
        """
        self._compiling.join()
        if self._failure is not None:
            raise DeviceError(f"the kernels cannot be compiled here ({self._failure})") from self._failure

    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        """See `Engine.logits`."""
        return self._with_room(lambda: self._logits(pictures))

    def segment(
        self, pictures: NDArray[np.uint8], size: tuple[int, int], temperature: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See `Engine.segment`."""
        return self._with_room(lambda: self._segment(pictures, size, temperature))

    def segment_on_device(self, pictures: Tensor, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        """`segment` without copies to or from the host, for callers that have their pictures on the GPU.

        The answer is overwritten by the next call with pictures of this size.
        """
        return self._with_room(lambda: self._segment_on_device(pictures, size, temperature))

    def _with_room(self, call: Callable[[], T]) -> T:
        """A call on the GPU; where memory runs out, once more without the graphs of other sizes."""
        with device_errors(self.device), torch.cuda.device(self.device), torch.inference_mode():
            try:
                return call()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.graphs.clear()  # here, where the error is gone: its frames hold tensors
            return call()

    def _graph_of(self, key: _Key) -> _Graph | None:
        """None also while the kernels are not compiled."""
        return None if self._compiling.is_alive() or self._failure is not None else self.graphs.get(key)

    def _logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        graph = self._graph_of(_key_of(pictures, None))
        with torch.cuda.stream(self._stream):
            if graph is None:
                logits = self._logits_of(torch.from_numpy(pictures).to(self.device))
            else:
                graph.upload(pictures)
                graph.graph.replay()
                logits = self._as_logits(graph.outputs[0])
        self._stream.synchronize()
        return logits

    def _segment(
        self, pictures: NDArray[np.uint8], size: tuple[int, int], temperature: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        graph = self._graph_of(_key_of(pictures, (*size, temperature)))
        with torch.cuda.stream(self._stream):
            if graph is not None:
                graph.upload(pictures)
                graph.graph.replay()
                return graph.download()
            on_device = torch.from_numpy(pictures).to(self.device)
            if self._compiling.is_alive() or self._failure is not None:
                return answer_from_logits(self._logits_of(on_device), size, temperature)
            labels, confidence = self._fused_answer(on_device, size, temperature)
            return labels.cpu().numpy(), confidence.cpu().numpy()

    def _segment_on_device(self, pictures: Tensor, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        graph = self._graph_of(_key_of(pictures, (*size, temperature)))
        with torch.cuda.stream(self._stream):
            self._stream.wait_stream(torch.cuda.default_stream(self.device))
            if graph is None:
                labels, confidence = self._fused_answer(pictures, size, temperature)
            else:
                graph.pictures.copy_(pictures)
                graph.graph.replay()
                labels, confidence = graph.outputs
        torch.cuda.default_stream(self.device).wait_stream(self._stream)
        return labels, confidence

    def _fused_answer(self, pictures: Tensor, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        return self._fused.answer(self._fused.logits(pictures), size, temperature)

    def _logits_of(self, pictures: Tensor) -> Tensor:
        if self._compiling.is_alive() or self._failure is not None:
            logits: Tensor = self._folded(pictures.permute(0, 3, 1, 2) * self._scale + self._shift)
            return logits
        return self._as_logits(self._fused.logits(pictures))

    def _as_logits(self, padded: Tensor) -> Tensor:
        """From what the kernels write to what `Engine.logits` returns; a copy."""
        return padded[..., : self._fused.config.num_classes].permute(0, 3, 1, 2).contiguous()

    def _capture(self, key: _Key) -> _Graph:
        return _Graph(self._fused, key, self._stream)

    def _compile(self) -> None:
        """Run every kernel once, with small and with large tiles."""
        try:
            with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.Stream(self.device)):
                picture = torch.zeros((1, 64, 64, 3), dtype=torch.uint8, device=self.device)
                for large in (False, True):
                    self._fused.answer(self._fused.logits(picture, large), (64, 64), 1.0)
                torch.cuda.current_stream().synchronize()
        except Exception as error:  # Triton needs a C compiler, and fails in as many ways as there are machines
            self._failure = error
            _log.warning("the engine %s runs without its kernels, which do not compile here: %s", self.name, error)


class _Graph:
    """One captured run, with its buffers on both sides."""

    def __init__(self, fused: FusedECMNet, key: _Key, stream: torch.cuda.Stream) -> None:
        shape = (key.batch, key.height, key.width, 3)
        self.pictures = torch.zeros(shape, dtype=torch.uint8, device=fused.device)
        self._pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.graph = torch.cuda.CUDAGraph()
        stream.synchronize()
        with (
            torch.cuda.stream(stream),  # gives the former stream back, which a capture that fails to end does not
            torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"),
        ):
            logits = fused.logits(self.pictures)
            self.outputs: tuple[Tensor, ...] = (logits,)
            if key.answer is not None:
                self.outputs = fused.answer(logits, key.answer[:2], key.answer[2])
        downloaded = self.outputs if key.answer is not None else ()
        self._answers = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in downloaded)
        self._ready = tuple(torch.cuda.Event() for _ in downloaded)

    def upload(self, pictures: NDArray[np.uint8]) -> None:
        """Picture by picture, so that one is on its way while the next is read."""
        for source, pinned, target in zip(pictures, self._pinned, self.pictures, strict=True):
            np.copyto(pinned.numpy(), source)  # torch would wake a thread for each core
            target.copy_(pinned, non_blocking=True)

    def download(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The answers; the labels are handed over while the confidence is on its way."""
        for output, pinned, ready in zip(self.outputs, self._answers, self._ready, strict=True):
            pinned.copy_(output, non_blocking=True)
            ready.record()
        copies = []
        for pinned, ready in zip(self._answers, self._ready, strict=True):
            ready.synchronize()
            copies.append(pinned.numpy().copy())
        return copies[0], copies[1]
