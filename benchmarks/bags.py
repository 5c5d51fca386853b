"""What recordings cost, each a table. Frames are those of the sample bag, again and again.

python benchmarks/bags.py throughput   # `ecmnet bag` beside `predict_batch` on the same frames, turn about
python benchmarks/bags.py shares       # where the time of 1,000 frames goes: read, decode, network, write
python benchmarks/bags.py memory       # peak of one process for 200 and for 5,000 frames, of 160x120
python benchmarks/bags.py ray          # two workers of a Ray cluster beside one process, one thread each
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from ecmnet_app.bags import BagJob, BagSettings, assemble_bag, prepare_bag, segment_bag, segment_parts
from ecmnet_app.bags.messages import IMAGE, channel_of, gray_image, picture_of
from ecmnet_app.bags.parts import MessageWriter
from ecmnet_app.bags.reader import open_bag
from ecmnet_app.bags.spread import Work, segment_bags
from ecmnet_app.bags.storage import Message
from ecmnet_app.bags.workers import Network
from ecmnet_app.core import Segmenter

SAMPLE = Path(__file__).resolve().parent.parent / "assets" / "street.mcap"
TOPIC = "/camera/image_raw/compressed"
STEP = 10**8
"""Nanoseconds from a frame to the next."""


def sample_messages() -> list[Message]:
    """The pictures of the sample bag."""
    with open_bag(SAMPLE) as bag:
        items = [item for _, item in bag.items(bag.start, bag.end + 1)]
    return [item for item in items if isinstance(item, Message) and item.channel.topic == TOPIC]


def write_bag(path: Path, frames: int, size: tuple[int, int] | None = None) -> Path:
    """Frames of the sample, ten a second; of another size (width, height) as JPEG where one is given."""
    messages = sample_messages()
    if size is not None:
        messages = [message._replace(data=smaller(message, size)) for message in messages]
    start = messages[0].log_time
    with MessageWriter(path) as writer:
        for number, message in enumerate(islice(cycle(messages), frames)):
            stamped = restamped(message.data, start + number * STEP)
            writer.write(message._replace(data=stamped, log_time=start + number * STEP, publish_time=start))
    return path


def restamped(data: bytes, time_ns: int) -> bytes:
    """A CDR message that begins with a header, with another stamp."""
    stamp = np.array([time_ns // 10**9, time_ns % 10**9], "<u4").tobytes()
    return data[:4] + stamp + data[12:]


def smaller(message: Message, size: tuple[int, int]) -> bytes:
    """The message with a smaller picture in it."""
    _, image = picture_of(message)
    picture = cv2.resize(image[..., ::-1], size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    end = message.data.index(b"\xff\xd8")  # where the JPEG begins, behind its length
    return message.data[: end - 4] + len(jpeg).to_bytes(4, "little") + jpeg


def throughput(args: argparse.Namespace) -> None:
    segmenter = Segmenter.from_pretrained(args.weights, threads=args.threads)
    batch = 1 if segmenter.engine.device.type == "cpu" else 8
    images = [picture_of(message)[1] for message in sample_messages()]
    for image in images[:5]:
        segmenter.predict(image)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        source = write_bag(Path(folder) / "source.mcap", len(images))
        for number in range(args.rounds):  # turn about, as other work on the machine comes and goes
            start = time.perf_counter(), time.process_time()
            segment_bag(BagJob(source, Path(folder) / f"{number}"), BagSettings(batch=batch), segmenter)
            between = time.perf_counter(), time.process_time()
            for first in range(0, len(images), batch):
                segmenter.predict_batch(images[first : first + batch])
            end = time.perf_counter(), time.process_time()
            ratios.append([(end[k] - between[k]) / (between[k] - start[k]) for k in (0, 1)])
            rate = len(images) / (between[0] - start[0])
            print(f"{rate:.1f} frames a second, {ratios[-1][0]:.2f} of predict_batch", flush=True)
    by_clock, by_processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"\n{segmenter.engine.name} on {segmenter.engine.device}, {len(images)} frames of 640x480, JPEG: median of "
        f"{args.rounds} rounds {by_clock:.2f} of predict_batch, {by_processor:.2f} by processor time "
        f"({date.today().isoformat()})"
    )


def shares(args: argparse.Namespace) -> None:
    segmenter = Segmenter.from_pretrained(args.weights, threads=args.threads)
    messages = sample_messages()
    segmenter.predict(picture_of(messages[0])[1])
    spent = dict.fromkeys(("read", "decode", "network", "write", "put together"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        source = write_bag(Path(folder) / "source.mcap", len(messages))
        clock = time.process_time  # of all threads: what a core is busy with, whoever else is there
        start = clock()
        with open_bag(source) as bag:
            messages = [item for _, item in bag.items(bag.start, bag.end + 1) if isinstance(item, Message)]
        spent["read"] += clock() - start
        start = clock()
        pictures = [picture_of(message) for message in messages]
        spent["decode"] += clock() - start
        start = clock()
        answers = [segmenter.predict(image) for _, image in pictures]
        spent["network"] += clock() - start
        start = clock()
        with MessageWriter(Path(folder) / "masks.mcap") as writer:
            for message, (header, _), answer in zip(messages, pictures, answers, strict=True):
                answer.areas()
                answer.confidence.mean(dtype=np.float64)
                data = gray_image(header, answer.labels)
                writer.write(message._replace(channel=channel_of(f"{TOPIC}/mask", IMAGE), data=data))
        spent["write"] += clock() - start
        job = BagJob(source, Path(folder) / "out")
        prepare_bag(job, BagSettings(), segmenter)
        segment_parts(job, BagSettings(), segmenter)
        start = clock()
        assemble_bag(job)
        spent["put together"] += clock() - start
        sizes = source.stat().st_size, job.bag.stat().st_size
    total = sum(spent.values())
    print(f"| {len(messages)} frames of 640x480, JPEG | processor seconds for 1,000 | share |\n|---|---|---|")
    for name, seconds in spent.items():
        print(f"| {name} | {1000 * seconds / len(messages):.1f} | {100 * seconds / total:.1f} % |")
    print(f"| all | {1000 * total / len(messages):.1f} | |")
    in_, out = (size / len(messages) / 1000 for size in sizes)
    print(f"\n{segmenter.engine.name} on {segmenter.engine.device}; {in_:.0f} KB in and {out:.1f} KB out a frame")


def memory(args: argparse.Namespace) -> None:
    print("| frames of 160x120 | peak memory |\n|---|---|")
    for frames in args.frames:
        with tempfile.TemporaryDirectory() as folder:
            source = write_bag(Path(folder) / "source.mcap", frames, (160, 120))
            command = [sys.executable, __file__, "--weights", args.weights, "--threads", "1", "one", str(source)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {text[0]} | {int(text[1]) / 1024:.0f} MB |", flush=True)


def one(args: argparse.Namespace) -> None:
    """A process of its own for each length, whose peak it tells."""
    job = BagJob(args.source, args.source.with_suffix(""))
    work = Work(Network(args.weights, threads=args.threads), BagSettings(), video=True, thumbnails=8)
    (result,) = segment_bags([job], work)
    print(result.summary.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def ray(args: argparse.Namespace) -> None:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")  # and on 127.0.0.1 alone
    from ray.cluster_utils import Cluster

    from ecmnet_app.bags.cluster import RayWorkers

    machine = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    cluster.add_node(**machine)
    network = Network(args.weights, "cpu", args.engine, threads=1)
    work = Work(network, BagSettings())
    with tempfile.TemporaryDirectory() as folder, RayWorkers(cluster.address) as workers:
        sources = [write_bag(Path(folder) / f"{name}.mcap", args.frames // 2) for name in "ab"]
        warm = [write_bag(Path(folder) / f"warm{name}.mcap", 2) for name in "abcd"]
        ratios = []
        for number in range(args.rounds + 1):
            seconds = []
            for who in (None, workers):
                out = Path(folder) / f"{number}-{who is None}"
                jobs = [BagJob(path, out / path.stem) for path in (sources if number else warm)]
                start = time.perf_counter()
                results = segment_bags(jobs, work, who)
                seconds.append(time.perf_counter() - start)
                assert all(result.summary is not None for result in results)
            if number:  # in the first, processes start and load the network
                ratios.append(seconds[0] / seconds[1])
                print(f"one process {seconds[0]:.1f} s, two workers {seconds[1]:.1f} s: {ratios[-1]:.2f}", flush=True)
    cluster.shutdown()
    print(f"\n{args.frames} frames in two bags, one thread each: median {statistics.median(ratios):.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    parser.add_argument("--threads", type=int, help="of the CPU")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("throughput")
    command.add_argument("--rounds", type=int, default=5)
    command.set_defaults(run=throughput)
    command = commands.add_parser("shares")
    command.set_defaults(run=shares)
    command = commands.add_parser("memory")
    command.add_argument("--frames", type=int, nargs="+", default=[200, 5000])
    command.set_defaults(run=memory)
    command = commands.add_parser("one")
    command.add_argument("source", type=Path)
    command.set_defaults(run=one)
    command = commands.add_parser("ray")
    command.add_argument("--frames", type=int, default=400)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--engine", default="auto")
    command.set_defaults(run=ray)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
