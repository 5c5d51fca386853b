"""The GPU engine: what can be said of it without a GPU, and, where there is one, that it answers as the others do."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core import Segmentation, Segmenter, load_weights
from ecmnet_app.core.engines import make_engine
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.engines.fallback import FallbackEngine
from ecmnet_app.core.engines.graph_cache import GraphCache
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.errors import DeviceError
from ecmnet_app.media import read_image

EXAMPLES = Path(__file__).resolve().parents[2] / "ecmnet_app" / "examples"
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
Picture = Callable[..., NDArray[np.uint8]]


class Graph:
    """Stands for a captured graph."""

    def __init__(self, key: int) -> None:
        self.key = key


@given(keys=st.lists(st.integers(0, 12), max_size=200), most=st.integers(1, 5))
def test_the_cache_of_graphs_is_bounded_and_lets_go(keys: list[int], most: int) -> None:
    made: list[weakref.ref[Graph]] = []
    freed: list[int] = []

    def make(key: int) -> Graph:
        graph = Graph(key)
        made.append(weakref.ref(graph))
        return graph

    def alive() -> int:
        return sum(reference() is not None for reference in made)

    cache: GraphCache[int, Graph] = GraphCache(make, lambda: freed.append(alive()), most)
    seen: set[int] = set()
    for key in keys:
        graph = cache.get(key)
        assert graph is None or (key in seen and graph.key == key)
        seen.add(key)
        del graph
        assert alive() == len(cache) <= most
    # When memory was given back, the graph that had to go was gone, and the new one not made yet.
    assert all(count == most - 1 for count in freed)
    cache.clear()
    assert alive() == len(cache) == 0


def test_the_graph_that_was_not_used_for_longest_goes() -> None:
    cache: GraphCache[int, Graph] = GraphCache(Graph, lambda: None, 2)
    for key in (1, 1, 2, 2, 1, 3, 3):
        cache.get(key)
    assert cache.get(1) is not None
    assert cache.get(2) is None  # as if it came for the first time


def test_a_graph_that_cannot_be_made_is_tried_again() -> None:
    def fail(key: int) -> Graph:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cache: GraphCache[int, Graph] = GraphCache(fail, lambda: None, 2)
    assert cache.get(1) is None
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            cache.get(1)
    assert len(cache) == 0


class FullEngine(EagerEngine):
    """Has no memory for pictures of more than `most` pixels, as a GPU says it."""

    most = 100 * 100
    asked = 0

    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        self.asked += 1
        if pictures[..., 0].size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().logits(pictures)


class BrokenEngine(FullEngine):
    """Fails as a GPU does after an illegal access: at everything, for ever."""

    def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
        self.asked += 1
        error = getattr(torch, "AcceleratorError", RuntimeError)
        raise error("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA` ...")


def test_a_device_without_memory_is_a_clear_error_and_others_live_on(tiny_weights: Path, make_picture: Picture) -> None:
    weights = load_weights(tiny_weights)
    segmenter = Segmenter(weights, FullEngine(weights, CPU))
    with StreamWorker(segmenter.predict_batch, max_batch=2) as worker, worker.open() as large, worker.open() as small:
        for _ in range(2):
            answers = [large.submit(make_picture(200, 200)), small.submit(make_picture(64, 80))]
            failed, answered = (answer.result(60).result for answer in answers)
            assert isinstance(answered, Segmentation)
            assert isinstance(failed, DeviceError)
            assert "ran out of memory; send fewer or smaller pictures" in str(failed)


def test_a_device_that_fails_is_a_clear_error(tiny_weights: Path, make_picture: Picture) -> None:
    weights = load_weights(tiny_weights)
    with pytest.raises(
        DeviceError, match=r"cpu failed \(CUDA error: an illegal memory access was encountered\); start"
    ):
        Segmenter(weights, BrokenEngine(weights, CPU)).predict(make_picture(64, 64))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory\nCompile with ..."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
    ids=["PyTorch", "CUDA", "Triton"],
)
def test_whoever_says_that_memory_ran_out_the_gpu_is_asked_again(
    error: RuntimeError, tiny_weights: Path, make_picture: Picture
) -> None:
    class OnceFullEngine(EagerEngine):
        asked = 0

        def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
            self.asked += 1
            if self.asked == 1:
                raise error
            return super().logits(pictures)

    weights = load_weights(tiny_weights)
    with pytest.raises(DeviceError, match="cpu ran out of memory; send fewer or smaller pictures"):
        Segmenter(weights, OnceFullEngine(weights, CPU)).predict(make_picture(64, 64))
    first = OnceFullEngine(weights, CPU)
    segmenter = Segmenter(weights, FallbackEngine(lambda: first, lambda: EagerEngine(weights, CPU)))
    for _ in range(2):
        segmenter.predict(make_picture(64, 64))
    assert first.asked == 2


def test_other_errors_stay_what_they_are(tiny_weights: Path, make_picture: Picture) -> None:
    class WrongEngine(EagerEngine):
        def logits(self, pictures: NDArray[np.uint8]) -> Tensor:
            raise RuntimeError("a mistake of ours")

    weights = load_weights(tiny_weights)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        Segmenter(weights, WrongEngine(weights, CPU)).predict(make_picture(64, 64))


@pytest.mark.parametrize(("kind", "asked_again"), [(FullEngine, True), (BrokenEngine, False)])
def test_the_cpu_takes_over_with_a_warning(
    kind: type[FullEngine],
    asked_again: bool,
    tiny_weights: Path,
    make_picture: Picture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = load_weights(tiny_weights)
    first = kind(weights, CPU)
    segmenter = Segmenter(weights, FallbackEngine(lambda: first, lambda: make_engine("eager", weights, CPU)))
    picture = make_picture(130, 120)
    expected = Segmenter(weights, EagerEngine(weights, CPU)).predict(picture)
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            answer = segmenter.predict(picture)
        assert np.array_equal(answer.labels, expected.labels)
        assert np.array_equal(answer.confidence, expected.confidence)
    assert first.asked == (2 if asked_again else 1)
    warnings = [record.getMessage() for record in caplog.records if "the CPU takes over" in record.getMessage()]
    assert len(warnings) == first.asked


def test_the_cpu_takes_over_from_a_gpu_that_does_not_start(
    tiny_weights: Path, make_picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> EagerEngine:
        raise DeviceError("cuda:0 ran out of memory; send fewer or smaller pictures, or use the device cpu")

    weights = load_weights(tiny_weights)
    engine = FallbackEngine(fail, lambda: EagerEngine(weights, CPU))
    assert (engine.name, engine.device, engine.dtype) == ("eager", CPU, torch.float32)
    assert "cuda:0 ran out of memory" in caplog.text
    assert Segmenter(weights, engine).predict(make_picture(64, 64)).labels.shape == (64, 64)


def test_without_triton_the_package_works() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, ecmnet_app.core.engines as engines\n"
        "assert engines.available_engines(torch.device('cuda')) == ['eager']"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


@pytest.fixture(scope="module")
def gpu_segmenter() -> Segmenter:
    from ecmnet_app.core.engines.cuda_graph import CudaGraphEngine

    segmenter = Segmenter.from_pretrained(device="cuda")
    assert isinstance(segmenter.engine, CudaGraphEngine)
    segmenter.engine.wait()
    return segmenter


@needs_gpu
@pytest.mark.parametrize("size", [(360, 480), (97, 131), (33, 400)])
def test_a_graph_answers_as_the_reference_does(
    gpu_segmenter: Segmenter, make_picture: Picture, size: tuple[int, int]
) -> None:
    picture = make_picture(*size)
    answers = [gpu_segmenter.predict(picture) for _ in range(4)]  # kernels, capture, replays
    assert all(np.array_equal(answer.labels, answers[0].labels) for answer in answers)
    assert all(np.array_equal(answer.confidence, answers[0].confidence) for answer in answers)
    reference = Segmenter.from_pretrained(device="cuda", engine="eager").predict(picture)
    assert (answers[0].labels == reference.labels).mean() > 0.99  # no street: many pixels stand between two classes


@needs_gpu
def test_streets_get_the_labels_of_the_reference(gpu_segmenter: Segmenter) -> None:
    reference = Segmenter.from_pretrained(device="cuda", engine="eager")
    paths = sorted(EXAMPLES.glob("*.jpg"))
    assert paths
    for picture in map(read_image, paths):
        assert (gpu_segmenter.predict(picture).labels == reference.predict(picture).labels).mean() > 0.998


@needs_gpu
def test_before_the_kernels_are_compiled_it_answers(make_picture: Picture) -> None:
    segmenter = Segmenter.from_pretrained(device="cuda", engine="cuda-graph")
    reference = Segmenter.from_pretrained(device="cuda", engine="eager").predict(make_picture(96, 96))
    assert (segmenter.predict(make_picture(96, 96)).labels == reference.labels).mean() > 0.99


@contextmanager
def memory_left(mebibytes: int) -> Iterator[None]:
    """The GPU, full but for so much."""
    torch.cuda.empty_cache()
    taken = torch.empty(torch.cuda.mem_get_info()[0] - mebibytes * 2**20, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del taken
        torch.cuda.empty_cache()


@needs_gpu
def test_from_a_full_gpu_the_cpu_takes_over_until_there_is_room(
    make_picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    segmenter = Segmenter.from_pretrained(device="auto")
    segmenter.engine.wait()
    picture = make_picture(1200, 2000)
    before = segmenter.predict(picture, resolution=1200)
    with memory_left(32):
        answer = segmenter.predict(picture, resolution=1200)
    assert (answer.labels == before.labels).mean() > 0.98  # no street: many pixels stand between two classes
    assert "ran out of memory; send fewer or smaller pictures" in caplog.text
    assert np.array_equal(segmenter.predict(picture, resolution=1200).labels, before.labels)
    assert caplog.text.count("the CPU takes over") == 1


@needs_gpu
def test_however_little_memory_is_left_it_answers_or_says_so(gpu_segmenter: Segmenter, make_picture: Picture) -> None:
    from ecmnet_app.core.engines.cuda_graph import CudaGraphEngine

    assert isinstance(gpu_segmenter.engine, CudaGraphEngine)
    picture = make_picture(1200, 2000)
    before = gpu_segmenter.predict(picture, resolution=1200)
    said: list[str] = []
    answered = 0
    for left in (32, *range(96, 1600, 32)):  # MiB: it ends at one layer after the other, with work aside and without
        gpu_segmenter.engine.graphs.clear()
        with memory_left(left):
            for _ in range(2):  # one by one, and captured
                try:
                    answer = gpu_segmenter.predict(picture, resolution=1200)
                except DeviceError as error:
                    said.append(str(error))
                else:
                    assert np.array_equal(answer.labels, before.labels)
                    answered += 1
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert answered
    assert said
    assert all("ran out of memory; send fewer or smaller pictures" in text for text in said)
    assert np.array_equal(gpu_segmenter.predict(picture, resolution=1200).labels, before.labels)


@needs_gpu
@pytest.mark.long
def test_ten_thousand_frames_of_changing_sizes(gpu_segmenter: Segmenter) -> None:
    from ecmnet_app.core.engines.cuda_graph import MAX_GRAPHS, CudaGraphEngine

    assert isinstance(gpu_segmenter.engine, CudaGraphEngine)
    random = np.random.default_rng(0)
    common = [(96 + 8 * i, 128 + 16 * i) for i in range(6)]
    held = 0
    for frame in range(10_000):
        rare = frame % 50 == 0
        size = tuple(random.integers(32, 300, 2)) if rare else common[frame // 100 % len(common)]
        answer = gpu_segmenter.predict(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        assert answer.labels.shape == size
        assert len(gpu_segmenter.engine.graphs) <= MAX_GRAPHS
        if frame == 2_000:
            gc.collect()
            held = torch.cuda.memory_reserved()
    assert torch.cuda.memory_reserved() <= held + 2**26
