"""The GPU engine on this card: its times, its labels beside the plain network's, and where its microseconds go.

python benchmarks/gpu_engine.py times
python benchmarks/gpu_engine.py host       # the parts of what a caller waits for who has a picture in the host's memory
python benchmarks/gpu_engine.py labels     # on the rendered pictures of the page's examples
python benchmarks/gpu_engine.py labels --camvid PATH/camvid    # on its val split, and both mIoU
python benchmarks/gpu_engine.py profile
python benchmarks/gpu_engine.py start      # with an empty TRITON_CACHE_DIR: what a first start costs
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from ecmnet_app.core import Segmentation, Segmenter
from ecmnet_app.core.engines.cuda_graph import CudaGraphEngine, _Graph, _Key
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.segmenter import _resize
from ecmnet_app.core.weights import Weights, load_weights
from ecmnet_app.media.images import read_image
from ecmnet_app.training.datasets import find_samples
from ecmnet_app.training.metrics import ConfusionMatrix

EXAMPLES = Path(__file__).resolve().parent.parent / "ecmnet_app" / "examples"
SHAPES = ((1, 360, 480), (1, 480, 640), (1, 512, 1024), (1, 1024, 1024), (16, 360, 480))
REPLAYS = 12
"""Of a profile, of which each kernel's shortest time counts."""


def percentiles(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and 99th percentile of the milliseconds from call to done, on the wall clock."""
    for _ in range(10):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def ready_engine(weights: Weights) -> CudaGraphEngine:
    """The engine with its kernels compiled."""
    engine = CudaGraphEngine(weights, torch.device("cuda:0"))
    engine.wait()
    return engine


def times(weights: Weights) -> None:
    """Milliseconds of each shape, eager float32 on the same bytes beside it."""
    engine, eager = ready_engine(weights), EagerEngine(weights, torch.device("cuda:0"))
    print(
        "| batch | size | on the GPU, p50 / p99 | host to host, p50 / p99 | eager float32, p50 | ratio | pictures/s |"
    )
    print("|---|---|---|---|---|---|---|")
    for batch, height, width in SHAPES:
        size = (height, width)
        pictures = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)
        on_device = torch.from_numpy(pictures).cuda()

        def plain(on_device: torch.Tensor = on_device, size: tuple[int, int] = size) -> None:
            with torch.inference_mode():
                logits = eager.net(on_device.permute(0, 3, 1, 2) * eager.scale + eager.shift, size=size)
                torch.softmax(logits / weights.temperature, 1).max(1)

        runs = 300 if batch == 1 else 100
        ours = percentiles(lambda p=on_device, s=size: engine.segment_on_device(p, s, weights.temperature), runs)
        host = percentiles(lambda p=pictures, s=size: engine.segment(p, s, weights.temperature), runs)
        slow, _ = percentiles(plain, 60)
        print(
            f"| {batch} | {height}x{width} | {ours[0]:.3f} / {ours[1]:.3f} | {host[0]:.3f} / {host[1]:.3f} | "
            f"{slow:.2f} | {slow / ours[0]:.1f} | {1e3 * batch / ours[0]:.0f} |",
            flush=True,
        )


def host(weights: Weights) -> None:
    """Milliseconds of a picture of 640x480 from host to host, and of each part alone."""
    engine = ready_engine(weights)
    segmenter = Segmenter(weights, engine)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    size = (480, 640)
    working = segmenter.working_size(*size)
    seen = _resize(picture, working)
    segmenter.predict(picture)
    with torch.inference_mode():
        graph = _Graph(engine._fused, _Key(1, *working, (*size, weights.temperature)), torch.cuda.Stream())
        graph.upload(seen[None])
        graph.graph.replay()
        answer, confidence = graph.download()
        for name, part in {
            "Segmenter.predict": lambda: segmenter.predict(picture),
            "the engine, at the picture's own size": lambda: engine.segment(picture[None], size, weights.temperature),
            "the engine, at the working size": lambda: engine.segment(seen[None], size, weights.temperature),
            "resize to the working size": lambda: _resize(picture, working),
            "into pinned memory": lambda: np.copyto(graph._pinned[0].numpy(), seen),
            "into pinned memory, and upload": lambda: graph.upload(seen[None]),
            "replay": graph.graph.replay,
            "download, and into fresh arrays": graph.download,
            "into fresh arrays": lambda: [pinned.numpy().copy() for pinned in graph._answers],
            "Segmentation": lambda: Segmentation(answer[0], confidence[0], weights.label_set),
        }.items():
            p50, p99 = percentiles(part, 300)
            print(f"{name:40} {p50:6.3f} / {p99:6.3f}", flush=True)


def labels(weights: Weights) -> None:
    """Share of labels that are those of eager float32."""
    engine, eager = ready_engine(weights), EagerEngine(weights, torch.device("cuda:0"))
    for path in sorted(EXAMPLES.glob("*.jpg")):
        picture: NDArray[np.uint8] = read_image(path)[None]
        size = (picture.shape[1], picture.shape[2])
        ours, theirs = (e.segment(picture, size, weights.temperature) for e in (engine, eager))
        same = 100 * float((ours[0] == theirs[0]).mean())
        print(f"{path.name:20} {same:.3f} % of labels, confidence within {np.abs(ours[1] - theirs[1]).max():.3f}")


def labels_of_camvid(weights: Weights, folder: Path) -> None:
    """The same of CamVid val, at the Segmenter's working size, and the mIoU of both."""
    device = torch.device("cuda:0")
    ours, theirs = (Segmenter(weights, engine) for engine in (ready_engine(weights), EagerEngine(weights, device)))
    listing = find_samples(folder, "val")
    matrices = [ConfusionMatrix(len(listing.label_set.names)) for _ in range(2)]
    same = []
    for sample in listing.samples:
        picture, target = listing.read(sample)
        answers = [segmenter.predict(picture).labels for segmenter in (ours, theirs)]
        same.append(100 * float((answers[0] == answers[1]).mean()))
        for matrix, answer in zip(matrices, answers, strict=True):
            matrix.update(torch.from_numpy(answer), torch.from_numpy(target))
    print(f"{len(same)} pictures: {np.mean(same):.3f} % of labels, {min(same):.3f} % in the worst picture; ", end="")
    print(f"mIoU {100 * matrices[0].miou():.3f} for {100 * matrices[1].miou():.3f}")


def where(weights: Weights) -> None:
    """Kernels of one replay, each with the shortest time that it took."""
    engine = ready_engine(weights)
    for batch, height, width in SHAPES:
        pictures = torch.zeros((batch, height, width, 3), dtype=torch.uint8, device="cuda:0")
        for _ in range(3):
            engine.segment_on_device(pictures, (height, width), weights.temperature)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            for _ in range(REPLAYS):
                engine.segment_on_device(pictures, (height, width), weights.temperature)
                torch.cuda.synchronize()
        kernels = [e for e in recorded.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        kernels.sort(key=lambda e: e.time_range.start)
        count = len(kernels) // REPLAYS
        total: dict[str, list[float]] = defaultdict(list)
        for index in range(count):
            total[kernels[index].name].append(
                min(kernels[r * count + index].time_range.elapsed_us() for r in range(REPLAYS))
            )
        spans = [
            kernels[(r + 1) * count - 1].time_range.end - kernels[r * count].time_range.start for r in range(REPLAYS)
        ]
        print(f"\n{batch} x {height}x{width}: {count} kernels and copies in {min(spans):.0f} us")
        for name, spent in sorted(total.items(), key=lambda item: -sum(item[1])):
            print(f"  {name[:60]:60} {len(spent):4} x {np.mean(spent):7.2f} us = {sum(spent):7.1f} us")


def start(weights: Weights) -> None:
    """Seconds to the engine, to its first answer, and to its kernels."""
    begun = time.perf_counter()
    engine = CudaGraphEngine(weights, torch.device("cuda:0"))
    made = time.perf_counter()
    engine.segment(np.zeros((1, 360, 480, 3), np.uint8), (360, 480), weights.temperature)
    answered = time.perf_counter()
    engine.wait()
    compiled = time.perf_counter()
    print(f"made after {made - begun:.1f} s, first answer {answered - made:.1f} s later, kernels compiled ", end="")
    print(f"{compiled - made:.1f} s after it was made")


def main() -> None:
    """Parse arguments and run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {"times": times, "host": host, "labels": labels, "profile": where, "start": start}
    parser.add_argument("what", choices=list(what))
    parser.add_argument("--camvid", type=Path, metavar="FOLDER", help="labels: of its val split, not of the examples")
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU here")
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    weights = load_weights(args.weights)
    if args.what == "labels" and args.camvid is not None:
        labels_of_camvid(weights, args.camvid)
    else:
        what[args.what](weights)


if __name__ == "__main__":
    main()
