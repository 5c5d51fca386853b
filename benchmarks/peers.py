"""ECMNet beside what a person might pick instead, in one process, turn about.

    python benchmarks/peers.py                                     # on a GPU: captured, bf16
    python benchmarks/peers.py --size 360x480 --batch 1 --device cpu    # eager, float32

Everybody starts from uint8 pictures on the device and ends with the label of every pixel on the device, of 11 classes.
The peers are written from their papers (peer_networks.py) and have random weights, which change their answers and not
their time. On a GPU they are captured in CUDA graphs, in bf16 with channels last, their batch norms folded where a
convolution comes before, and the fastest of cuDNN's algorithms chosen; ours is the engine that "auto" takes, whose
answer includes confidence, and beside it the plain network in float32, operation by operation. Prints a Markdown table.
`--json FILE` keeps more: the roofline of each layer group and the kernels of our engine in their order.

Needs torch, numpy and safetensors alone, Triton on a GPU, and OpenCV on a CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peer_networks import PEERS
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Absent(ModuleType):
    """Stands for a library that a bare GPU machine lacks and that nothing calls there: pictures are drawn at random."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


for library in ("cv2", "PIL"):
    try:
        importlib.import_module(library)
    except ImportError:
        sys.modules[library] = Absent(library)

from ecmnet_app.core.engines import Engine, available_engines, choose_device, make_engine  # noqa: E402
from ecmnet_app.core.weights import Weights, load_weights  # noqa: E402
from ecmnet_app.network.traffic import layer_groups  # noqa: E402
from ecmnet_app.roofline import Rates, bounds, estimate_ms  # noqa: E402

CLASSES = 11
SHAPES = [((512, 1024), 1), ((360, 480), 1), ((1024, 1024), 1), ((360, 480), 16)]
"""(height, width) and batch."""

HOST = [((480, 640), (480, 640), 1), ((360, 480), (480, 640), 1), ((360, 480), (360, 480), 16)]
"""Size of the network's pictures, size of the answer, batch: for those who have pictures in the host's memory."""

Run = Callable[[], object]


@dataclass
class Contender:
    """A network that is ready to answer one batch."""

    network: str
    form: str
    parameters: int
    run: Run
    first_ms: float = 0.0
    """The first answer of this shape; what was captured before has it behind it."""
    ms: list[float] = field(default_factory=list)
    """Each from an idle device."""
    in_a_row_ms: list[float] = field(default_factory=list)
    """Means of many in a row, one a round."""


class PlainAnswer(nn.Module):
    """uint8 (B, H, W, 3) in, uint8 labels (B, H, W) out, around any network."""

    def __init__(self, net: nn.Module, weights: Weights) -> None:
        super().__init__()
        self.net = net
        std = torch.tensor(weights.std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -torch.tensor(weights.mean).view(3, 1, 1) / std)

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift
        logits = self.net(x).contiguous()
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)
        return logits.argmax(dim=1).to(torch.uint8)


def fold_norms(net: nn.Module) -> nn.Module:
    """Put each batch norm that follows a convolution in a Sequential into the convolution's weights."""
    for module in list(net.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                module[i] = fuse_conv_bn_eval(conv, norm, isinstance(conv, nn.ConvTranspose2d))
                module[i + 1] = nn.Identity()
    return net


def captured(run: Run) -> Run:
    """A CUDA graph of it, with the fastest of the algorithms that cuDNN thinks best."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run()
    torch.backends.cudnn.benchmark = False

    def replay(run: Run = run) -> object:  # kept: the graph reads its weights and pictures
        graph.replay()
        return answer

    return replay


def contenders(
    engines: Sequence[Engine], weights: Weights, device: torch.device, size: tuple[int, int], batch: int
) -> list[Contender]:
    """Everybody, ready for pictures of one shape."""
    noise = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    pictures = torch.from_numpy(noise).to(device)
    parameters = sum(p.numel() for p in weights.build().parameters())
    answer = []
    for engine in engines:
        form = f"engine {engine.name}, {short(engine.dtype)}"
        answer.append(Contender("ECMNet", form, parameters, on_device(engine, pictures, weights)))

    plain = PlainAnswer(weights.build(), weights).to(device).eval()
    answer.append(Contender("ECMNet, plain", "eager, float32", parameters, lambda: plain(pictures)))

    for peer in PEERS:
        net = peer.build(CLASSES).eval()
        parameters = sum(p.numel() for p in net.parameters())
        whole = PlainAnswer(fold_norms(net), weights).to(device).eval()
        if device.type == "cuda":
            whole = whole.to(torch.bfloat16, memory_format=torch.channels_last)
            run = captured(lambda whole=whole: whole(pictures))
            answer.append(Contender(peer.name, "captured, bf16", parameters, run))
        else:
            whole = whole.to(memory_format=torch.channels_last)
            answer.append(Contender(peer.name, "eager, float32", parameters, lambda whole=whole: whole(pictures)))
    return answer


def short(dtype: torch.dtype) -> str:
    return {"bfloat16": "bf16"}.get(name := str(dtype).removeprefix("torch."), name)


def on_device(engine: Engine, pictures: Tensor, weights: Weights) -> Run:
    """Our engine, from pictures on the device to labels and confidence on the device."""
    size = (pictures.shape[1], pictures.shape[2])
    if hasattr(engine, "segment_on_device"):
        return lambda: engine.segment_on_device(pictures, size, weights.temperature)
    host = pictures.cpu().numpy()
    return lambda: engine.segment(host, size, weights.temperature)


def milliseconds(run: Run, device: torch.device) -> float:
    """From an idle device to the answer."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def milliseconds_in_a_row(run: Run, device: torch.device, times: int) -> float:
    """Of one answer among several that are asked for at once: the host no longer matters."""
    if device.type != "cuda":
        return sum(milliseconds(run, device) for _ in range(times)) / times

    def all_of_them() -> None:
        for _ in range(times):
            run()

    return milliseconds(all_of_them, device) / times


def race(everybody: Sequence[Contender], device: torch.device, seconds: float, rounds: int = 5) -> None:
    """Time everybody for about `seconds` each, in turns."""
    for contender in everybody:
        start = time.perf_counter()
        milliseconds(contender.run, device)
        contender.first_ms = 1e3 * (time.perf_counter() - start)
        for _ in range(2):
            contender.run()
    for _ in range(rounds):
        for contender in everybody:
            until = time.perf_counter() + seconds / rounds / 2
            contender.ms.append(milliseconds(contender.run, device))
            while time.perf_counter() < until:
                contender.ms.append(milliseconds(contender.run, device))
            times = max(1, round(1e3 * seconds / rounds / 2 / contender.ms[-1]))
            contender.in_a_row_ms.append(milliseconds_in_a_row(contender.run, device, times))


def kernels(run: Run) -> list[dict[str, Any]]:
    """The kernels and copies of one run, by their start: name, start and duration in microseconds, stream, grid."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    found = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    found.sort(key=lambda e: e["ts"])
    return [
        {
            "name": e["name"],
            "start": round(e["ts"] - found[0]["ts"], 3),
            "us": round(e["dur"], 3),
            "stream": e["args"].get("stream"),
            "grid": e["args"].get("grid"),
        }
        for e in found
    ]


def main() -> None:
    """Parse arguments, race, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", default="default", help="ours: name, or path of a .safetensors file with its .json"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", nargs="+", metavar="HxW", help="each with each --batch, in place of the usual four")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each network at each shape")
    parser.add_argument("--limit", type=float, default=90.0, metavar="S", help="start no shape after so many seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    began = time.perf_counter()
    shapes = SHAPES
    if args.size:
        sizes = [tuple(int(side) for side in text.split("x")) for text in args.size]
        shapes = [(size, batch) for size in sizes for batch in args.batch]
    device = choose_device(args.device)
    weights = load_weights(args.weights)
    engines = engines_here(weights, device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rates = Rates(device)
    report: dict[str, Any] = {
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "copy_bytes_per_second": rates.copy,
        "operations_per_second": {short(dtype): rates.product(dtype)},
        "weights": weights.name,
        "shapes": [],
    }

    def keep() -> None:  # after every step: a run that is cut off has not been for nothing
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))

    print(f"{report['machine']}, torch {torch.__version__}, {report['date']}.", end=" ")
    print(f"A copy moves {rates.copy / 1e9:.0f} GB/s,", end=" ")
    print(f"a {short(dtype)} matrix product runs at {rates.product(dtype) / 1e12:.3g} TFLOP/s.\n")
    print("| size | batch | network | how | parameters, M | p50, ms | p99, ms | in a row, ms | pictures/s | ratio |")
    print("|---|--:|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for size, batch in shapes:
        if time.perf_counter() - began > args.limit:
            print(f"not measured, as {args.limit:g} s were over: {size[0]}x{size[1]}, batch {batch}")
            continue
        with torch.inference_mode():
            everybody = contenders(engines, weights, device, size, batch)
            race(everybody, device, args.seconds)
        shape = {"size": size, "batch": batch, "networks": results(everybody, batch)}
        report["shapes"].append(shape)
        print(lines(shape), flush=True)
        keep()
        if device.type == "cuda":
            shape["kernels"] = kernels(everybody[0].run)
        groups = bounds(layer_groups(weights.architecture, size), batch, dtype, rates)
        shape |= {"roofline_ms": estimate_ms(groups), "groups": [asdict(group) for group in groups]}
        keep()
    if engines and not args.size:
        report["host"] = [from_host(engines[0], weights, *case, args.seconds) for case in HOST]
        print("\nFrom the host's memory and back, labels and confidence, engine", engines[0].name)
        for line in report["host"]:
            print(f"{line['size']}, batch {line['batch']}, answered at {line['answer']}: p50 {line['p50_ms']:.2f} ms")
        keep()
    print(f"\nratio: p50 over that of the first line of the shape; {time.perf_counter() - began:.0f} s in all")


def engines_here(weights: Weights, device: torch.device) -> list[Engine]:
    """All but eager, which is the plain network, as fast as they get."""
    engines = []
    for name in available_engines(device):
        if name == "eager":
            continue
        try:
            engines.append(make_engine(name, weights, device))
            engines[-1].wait()
        except Exception as error:  # the others are worth measuring without it
            print(f"the engine {name}: {type(error).__name__}: {error}\n")
    return engines


def lines(shape: dict[str, Any]) -> str:
    """Of the table."""
    height, width = shape["size"]
    return "\n".join(
        f"| {height}x{width} | {shape['batch']} | {row['network']} | {row['form']} | {row['parameters'] / 1e6:.2f} "
        f"| {row['p50_ms']:.3f} | {row['p99_ms']:.3f} | {row['in_a_row_ms']:.3f} | {row['per_second']:.0f} "
        f"| {row['ratio']:.2f} |"
        for row in shape["networks"]
    )


def from_host(
    engine: Engine, weights: Weights, size: tuple[int, int], answer: tuple[int, int], batch: int, seconds: float
) -> dict[str, Any]:
    """What a caller waits for who has pictures in the host's memory."""
    pictures = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    spent: list[float] = []
    while len(spent) < 5 or sum(spent) < 1e3 * seconds:
        start = time.perf_counter()
        engine.segment(pictures, answer, weights.temperature)
        spent.append(1e3 * (time.perf_counter() - start))
    p50, p99 = (float(value) for value in np.percentile(spent[3:], [50, 99]))
    return {
        "size": size,
        "answer": answer,
        "batch": batch,
        "p50_ms": p50,
        "p99_ms": p99,
        "per_second": 1e3 * batch / p50,
    }


def results(everybody: Sequence[Contender], batch: int) -> list[dict[str, Any]]:
    """What was measured of each."""
    ours = everybody[0]
    rows = []
    for contender in everybody:
        p50, p99 = (float(value) for value in np.percentile(contender.ms, [50, 99]))
        rows.append(
            {
                "network": contender.network,
                "form": contender.form,
                "parameters": contender.parameters,
                "runs": len(contender.ms),
                "first_ms": contender.first_ms,
                "p50_ms": p50,
                "p99_ms": p99,
                "in_a_row_ms": (in_a_row := float(np.median(contender.in_a_row_ms))),
                "per_second": 1e3 * batch / in_a_row,
                "ratio": p50 / float(np.median(ours.ms)),
                "ratio_in_a_row": in_a_row / float(np.median(ours.in_a_row_ms)),
            }
        )
    return rows


if __name__ == "__main__":
    main()
