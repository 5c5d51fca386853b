"""The engine for CPUs: its answers, what it keeps on disk, and what goes wrong there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_nets import FEW_BLOCKS, random_net

from ecmnet_app.core import CAMVID, Segmenter, load_weights, save_weights
from ecmnet_app.core import cache as files
from ecmnet_app.core.engines import available_engines, make_engine, openvino_cpu
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.engines.folded import fold
from ecmnet_app.errors import DeviceError
from ecmnet_app.media.files import EXAMPLES_FOLDER
from ecmnet_app.media.images import read_image
from ecmnet_app.training.datasets import load_dataset
from ecmnet_app.training.metrics import ConfusionMatrix

MakePicture = Callable[..., NDArray[np.uint8]]

CPU = torch.device("cpu")
HERE = list(openvino_cpu.engines_here())
needs_int8 = pytest.mark.skipif("openvino-int8" not in HERE, reason="not for this processor")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ecmnet"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("name", HERE)
def test_logits_are_those_of_the_plain_engine(name: str, make_picture: MakePicture) -> None:
    weights = replace(load_weights(), mean=(0.4, 0.5, 0.6), std=(0.3, 0.25, 0.2))
    engine, plain = make_engine(name, weights, CPU), EagerEngine(weights, CPU)
    most, mean = {"openvino": (1e-5, 1e-5), "openvino-bf16": (0.03, 0.02), "openvino-int8": (0.3, 0.12)}[name]
    for size in ((97, 131), (32, 32), (33, 200), (240, 320)):
        pictures = make_picture(*size)[None]
        expected = plain.logits(pictures).numpy()
        found = engine.logits(pictures)
        assert found.dtype == torch.float32
        error = np.abs(found.numpy() - expected)
        assert error.max() <= most * np.abs(expected).max()
        assert error.mean() <= mean * np.abs(expected).mean()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("weights", ["camvid", "street"])
def test_labels_of_the_shipped_weights_hold_on_real_pictures(weights: str, camvid: Path) -> None:
    data = load_dataset(camvid, "val")
    names = ["eager", *HERE]
    segmenters = [Segmenter.from_pretrained(weights, device="cpu", engine=name) for name in names]
    matrices = [ConfusionMatrix(len(data.label_set)) for _ in names]
    equal = np.zeros(len(names))
    images, truths = data.images[::4], data.labels[::4]
    for image, truth in zip(images, truths, strict=True):
        picture = image.permute(1, 2, 0).contiguous().numpy()
        labels = [torch.from_numpy(segmenter.predict(picture).labels) for segmenter in segmenters]
        for matrix, found in zip(matrices, labels, strict=True):
            matrix.update(found, truth)
        equal += [float((found == labels[0]).double().mean()) / len(images) for found in labels]
    miou = [100 * matrix.miou() for matrix in matrices]
    for name, share, score in zip(names, equal, miou, strict=True):
        print(f"{weights}, {name}: {share:.3%} of pixels equal, mIoU {score:.3f} ({score - miou[0]:+.3f})")
        least, most = (0.995, 0.3) if name == "openvino-int8" else (0.998, 0.1)
        assert share >= least
        assert abs(score - miou[0]) <= most


@pytest.mark.parametrize("name", HERE)
def test_pictures_grow_along_one_side(name: str, make_picture: MakePicture) -> None:
    """As where a wide picture follows a narrow one of equal height: what has to do with the height alone keeps its
    shape, while all else needs more memory."""
    weights = load_weights()
    engine, plain = make_engine(name, weights, CPU), EagerEngine(weights, CPU)
    for size in ((360, 480), (360, 640), (360, 480), (352, 640), (512, 640)):
        pictures = make_picture(*size)[None]
        expected = plain.logits(pictures).numpy()
        for _ in range(2):
            error = np.abs(engine.logits(pictures).numpy() - expected).mean() / np.abs(expected).mean()
            assert error <= {"openvino": 1e-5, "openvino-bf16": 0.02, "openvino-int8": 0.2}[name], size


@pytest.mark.parametrize("name", HERE)
def test_an_answer_depends_on_nothing_but_the_picture(
    name: str, tiny_weights: Path, make_picture: MakePicture, folder: Path
) -> None:
    weights = load_weights(tiny_weights)
    pictures = [make_picture(*size, seed) for seed, size in enumerate([(64, 96), (97, 131), (64, 96), (200, 90)])]
    compiled = make_engine(name, weights, CPU)
    answers = [compiled.logits(picture[None]).numpy().tobytes() for picture in pictures]
    batch = compiled.logits(np.stack(pictures[:3:2]))
    assert [part.numpy().tobytes() for part in batch] == answers[:3:2]
    only_file(folder)
    read_again = make_engine(name, weights, CPU)
    for picture, answer in [*zip(pictures, answers, strict=True)][::-1]:
        assert read_again.logits(picture[None]).numpy().tobytes() == answer


def test_answers_stay_when_the_engine_goes_on(tiny_weights: Path, make_picture: MakePicture) -> None:
    engine = make_engine(HERE[0], load_weights(tiny_weights), CPU)
    first = engine.logits(make_picture(64, 96)[None])
    before = first.clone()
    engine.logits(make_picture(64, 96, 1)[None])
    assert torch.equal(first, before)


def test_it_runs_on_as_many_threads_as_asked(tiny_weights: Path, folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):  # compiled, and read again
            engine = Segmenter.from_pretrained(tiny_weights, device="cpu", engine=HERE[0], threads=threads).engine
            assert isinstance(engine, openvino_cpu.OpenVINOEngine)
            assert engine._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads
            only_file(folder)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("abilities", "machine", "expected"),
    [
        (["FP32", "BF16", "INT8"], "x86_64", ["openvino-bf16", "openvino"]),
        (["FP32", "INT8"], "x86_64", ["openvino", "openvino-int8"]),
        (["FP32", "INT8"], "aarch64", ["openvino"]),
    ],
)
def test_a_processor_has_the_engines_it_is_fast_in(
    abilities: list[str], machine: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_cpu, "_core", lambda: SimpleNamespace(get_property=lambda *_: abilities))
    monkeypatch.setattr(openvino_cpu.platform, "machine", lambda: machine)
    openvino_cpu.engines_here.cache_clear()
    try:
        assert list(openvino_cpu.engines_here()) == expected
    finally:
        openvino_cpu.engines_here.cache_clear()


@needs_int8
def test_the_dense_convolutions_and_no_others_are_int8() -> None:
    weights = load_weights()
    engine = make_engine("openvino-int8", weights, CPU)
    assert isinstance(engine, openvino_cpu.OpenVINOInt8Engine)
    found = {"f32": 0, "u8": 0}
    for op in engine._request.get_compiled_model().get_runtime_model().get_ops():
        if op.rt_info["layerType"].astype(str) == "Convolution":
            found[op.rt_info["runtimePrecision"].astype(str)] += 1
    net = fold(weights.build())
    dense = []  # a layer as often as it is run: those of the MSAU look at three maps each
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1:
            layer.register_forward_hook(lambda layer, *_: dense.append(layer))
    net(torch.rand(1, 3, 64, 96))
    assert found["u8"] == len(dense)
    assert found["f32"] > len(dense)


@needs_int8
def test_int8_names_a_street_as_float32_does() -> None:
    street = read_image(next(EXAMPLES_FOLDER.glob("*.jpg")))[::2, ::2]
    engines = [make_engine(name, load_weights(), CPU) for name in ("openvino", "openvino-int8")]
    expected, found = (engine.logits(street[None]).argmax(1) for engine in engines)
    assert (found == expected).double().mean() >= 0.99


@needs_int8
def test_int8_bears_channels_that_are_nothing(tmp_path: Path, make_picture: MakePicture) -> None:
    net = random_net(FEW_BLOCKS)
    first = next(module for module in net.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight[::2] = 0
    save_weights(tmp_path / "half", net, CAMVID, working_short_side=360)
    weights = load_weights(tmp_path / "half.safetensors")
    picture = make_picture(64, 96)[None]
    expected = EagerEngine(weights, CPU).logits(picture)
    error = (make_engine("openvino-int8", weights, CPU).logits(picture) - expected).abs()
    assert error.mean() <= 0.1 * expected.abs().mean()


def test_auto_takes_the_first_that_starts(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = load_weights(tiny_weights)
    assert available_engines(CPU) == [*HERE, "eager"]
    assert make_engine("auto", weights, CPU).name == HERE[0]

    def fail(*_: object) -> None:
        raise RuntimeError("unsupported processor")

    monkeypatch.setattr(openvino_cpu, "_compiled", fail)
    assert make_engine("auto", weights, CPU).name == "eager"
    assert "unsupported processor" in caplog.text
    with pytest.raises(DeviceError, match=r"OpenVINO cannot run .*unsupported processor.*choose the engine eager"):
        make_engine("openvino", weights, CPU)


@pytest.mark.parametrize("package", ["openvino", "onnx"])
def test_without_its_packages_eager_runs_and_a_warning_says_so(
    package: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = openvino_cpu.importlib.util.find_spec
    monkeypatch.setattr(openvino_cpu.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    openvino_cpu.engines_here.cache_clear()
    try:
        assert make_engine("auto", load_weights(tiny_weights), CPU).name == "eager"
        assert f"pip install {package}" in caplog.text
        with pytest.raises(DeviceError, match="no engine 'openvino' for cpu; choose one of auto, eager"):
            make_engine("openvino", load_weights(tiny_weights), CPU)
    finally:
        openvino_cpu.engines_here.cache_clear()


@pytest.fixture
def answer_anew(tiny_weights: Path, make_picture: MakePicture, folder: Path) -> Callable[[], bytes]:
    """A new engine's answer to one picture."""
    weights = load_weights(tiny_weights)
    return lambda: make_engine(HERE[0], weights, CPU).logits(make_picture(64, 96)[None]).numpy().tobytes()


def test_a_damaged_file_is_made_again(
    answer_anew: Callable[[], bytes], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = answer_anew()
    path = only_file(folder)
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        path.write_bytes(damaged)
        caplog.clear()
        assert answer_anew() == answer
        assert "is damaged and is made again" in caplog.text
        caplog.clear()
        assert answer_anew() == answer  # from what was made, whose length differs by some bytes now and then
        assert not caplog.text


def test_what_openvino_cannot_read_is_compiled_again(
    answer_anew: Callable[[], bytes], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = answer_anew()
    path = only_file(folder)
    path.write_bytes(files._digest(b"of another kind") + b"\nof another kind")
    assert answer_anew() == answer
    assert "it is compiled again" in caplog.text


def test_a_folder_that_cannot_be_written_costs_time_only(
    answer_anew: Callable[[], bytes], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("in the way")
    answer = answer_anew()
    assert "so each start compiles it anew" in caplog.text
    folder.unlink()
    assert answer_anew() == answer


def test_other_weights_settings_and_precisions_are_kept_apart(tiny_weights: Path, folder: Path) -> None:
    weights = load_weights(tiny_weights)
    for name in HERE:
        make_engine(name, weights, CPU)
    make_engine(HERE[0], replace(weights, mean=(0.1, 0.2, 0.3)), CPU)
    make_engine(HERE[0], replace(weights, temperature=2.0), CPU)  # not the network's
    assert len(list(folder.iterdir())) == len(HERE) + 1


def test_so_many_files_are_kept_and_the_least_wanted_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 3)
    for i, key in enumerate("abc"):
        files.keep(key, key.encode())
        os.utime(files._path(key), (i, i))
    assert files.kept("a") == b"a"  # wanted again
    files.keep("d", b"d")
    assert [files.kept(key) for key in "abcd"] == [b"a", None, b"c", b"d"]


START = """
import sys
import numpy as np
from ecmnet_app.core import Segmenter
segmenter = Segmenter.from_pretrained(sys.argv[1], device="cpu", engine=sys.argv[2], threads=1)
print(segmenter.predict(np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)).confidence.tobytes().hex())
"""


def test_processes_that_start_at_once_do_not_disturb_each_other(tiny_weights: Path, folder: Path) -> None:
    def start(_: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", START, str(tiny_weights), HERE[0]]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)

    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(start, range(2)))
    assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * 2
    assert len({run.stdout for run in runs}) == 1
    only_file(folder)


GUARD = """
import socket, sys
def refuse(*arguments, **named):
    print("LOOKED UP", arguments, file=sys.stderr)
    raise OSError
socket.getaddrinfo = socket.socket.connect = refuse
"""


def test_it_calls_nobody_and_leaves_nothing_at_home(tiny_weights: Path, tmp_path: Path, folder: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", f"{GUARD}{START}\nimport time; time.sleep(1)", str(tiny_weights), HERE[0]]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(home), "CI": ""}
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert not list(home.iterdir())


def test_pictures_of_ever_new_sizes_take_no_more_memory() -> None:
    engine = make_engine(HERE[0], load_weights(), CPU)
    rng = np.random.default_rng(0)

    def grown(count: int) -> float:
        """MB by which this process grew over so many pictures."""
        before = resident()
        for height, width in rng.integers(32, 128, (count, 2)):
            found = engine.logits(np.zeros((1, height, width, 3), np.uint8))
            assert found.shape == (1, 11, (height + 1) // 2, (width + 1) // 2)
        return resident() - before

    grown(30)
    assert grown(60) < 40


def resident() -> float:
    """Memory of this process, MB."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
