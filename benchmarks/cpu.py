"""What runs the network on a CPU, in turn in one process: torch, ONNX Runtime and OpenVINO, at any size or at one.

    python benchmarks/cpu.py --size 360x480 --threads 2

Times are from uint8 picture to logits, and only their ratios mean something: machine and neighbours make the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch

from ecmnet_app.core import load_weights
from ecmnet_app.core.engines import make_engine, openvino_cpu
from ecmnet_app.core.onnx_graph import network_model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH (360x480)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.set_num_threads(args.threads)
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    weights = load_weights()
    run = {"torch eager, float32": _of_engine("eager", weights, picture)}
    for name, size in (("any size", None), ("one size", (height, width))):
        model = network_model(weights, size).SerializeToString()
        run[f"ONNX Runtime, float32, {name}"] = _of_onnxruntime(model, args.threads, picture)
        for precision in ("f32", "bf16"):
            label = {"f32": "float32", "bf16": "bfloat16"}[precision]
            run[f"OpenVINO, {label}, {name}"] = _of_openvino(model, precision, args.threads, picture)
    if "openvino-int8" in openvino_cpu.engines_here():
        run["OpenVINO, int8, any size"] = _of_engine("openvino-int8", weights, picture)
    times: dict[str, list[float]] = {name: [] for name in run}
    for round_ in range(args.rounds + 2):
        for name, once in run.items():
            time.sleep(0.1)  # threads of the one before spin for a while when they have nothing left to do
            start = time.perf_counter()
            once()
            if round_ >= 2:
                times[name].append(time.perf_counter() - start)
    print(f"{height}x{width}, {args.threads} threads, {args.rounds} rounds, torch {torch.__version__}")
    plain = times["torch eager, float32"]
    for name, spent in times.items():
        medians, least = np.median(plain) / np.median(spent), min(plain) / min(spent)
        print(f"{name:36} {medians:5.2f} x by medians, {least:5.2f} x by the least")


def _of_engine(name: str, weights: Any, picture: Any) -> Callable[[], object]:
    engine = make_engine(name, weights, torch.device("cpu"))
    return lambda: engine.logits(picture)


def _of_onnxruntime(model: bytes, threads: int, picture: Any) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"pictures": picture})


def _of_openvino(model: bytes, precision: str, threads: int, picture: Any) -> Callable[[], object]:
    core = openvino_cpu._core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model, b""), "CPU", settings).create_infer_request()
    return lambda: request.infer([picture])


if __name__ == "__main__":
    main()
