"""What video files cost and what smoothing does, each a table.

    python benchmarks/video.py smooth      # mIoU and flicker on the rendered clip, whose every frame has exact labels
    python benchmarks/video.py throughput  # frames a second of a whole video beside `predict` on its decoded frames
    python benchmarks/video.py memory      # peak memory for one and for ten minutes; `--minutes 1 10`

Flicker is the share of pixels whose answer changes from one frame to the next though the truth does not: of the pixels
around which, to three pixels away, the renderer drew one same class in both frames. There is no reason to change them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ecmnet_app.core import UNLABELLED, Segmenter
from ecmnet_app.core.engines import answer_from_logits
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.core.video import VideoAnswers, segment_video
from ecmnet_app.media.videos import VideoReader
from ecmnet_app.training.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "ecmnet_app" / "examples" / "street.mp4"
LABELS = ROOT / "assets" / "labels" / "street"
AROUND = np.ones((7, 7), np.uint8)


class Standing(Smoother):
    """A smoother whose past does not move: what motion compensation is worth."""

    def _moved(self, average, past, now):  # type: ignore[no-untyped-def]
        return average, np.float32(1)


class Trusting(Smoother):
    """One whose past counts whether it fits or not."""

    def _moved(self, average, past, now):  # type: ignore[no-untyped-def]
        return super()._moved(average, past, now)[0], np.float32(1)


VARIANTS = {
    "off": None,
    "average in place, 0.5 of it new": lambda t: Standing(t, 0.5),
    "along motion, 0.5": lambda t: Trusting(t, 0.5),
    "along motion where it fits, 0.7": lambda t: Smoother(t, 0.7),
    "along motion where it fits, 0.5 (`--smooth`)": lambda t: Smoother(t, 0.5),
    "along motion where it fits, 0.3": lambda t: Smoother(t, 0.3),
}


def plain(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels around which there is one class only. Shape: (H, W)."""
    return np.asarray((cv2.erode(truth, AROUND) == cv2.dilate(truth, AROUND)) & (truth != UNLABELLED))


def flicker(answers: Iterable[NDArray[np.uint8]], truths: Iterable[NDArray[np.uint8]]) -> float:
    """The share that the head of this file defines, 0 to 1."""
    changed = still = 0
    for (answer, truth), (next_answer, next_truth) in pairwise(zip(answers, truths, strict=True)):
        same = plain(truth) & plain(next_truth) & (truth == next_truth)
        changed += int((answer != next_answer)[same].sum())
        still += int(same.sum())
    return changed / still


def smooth(args: argparse.Namespace) -> None:
    segmenter = Segmenter.from_pretrained(args.weights)
    temperature = segmenter.weights.temperature
    names = {int(path.stem): path for path in LABELS.glob("*.png")}
    with VideoReader(CLIP) as reader:
        frames = [(i, f.image) for i, f in enumerate(reader.frames()) if i in names][: args.frames]
    truths = [np.array(Image.open(names[i]), np.uint8) for i, _ in frames]
    logits = [segmenter.logits(image) for _, image in tqdm(frames, unit="frame", disable=None)]
    print(f"{segmenter.weights.name} on {len(frames)} frames of {CLIP.name}, {date.today().isoformat()}\n")
    print("| smoothing | mIoU | flicker | milliseconds a frame |")
    print("|---|---|---|---|")
    for name, make in VARIANTS.items():
        smoother = make(temperature) if make else None
        matrix, answers, spent = ConfusionMatrix(len(segmenter.label_set)), [], 0.0
        for (_, image), scores, truth in zip(frames, logits, truths, strict=True):
            size = segmenter.working_size(*image.shape[:2])
            picture = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
            start = time.perf_counter()
            smoothed = scores if smoother is None else smoother.smooth(scores, picture[None])
            spent += time.perf_counter() - start
            answers.append(answer_from_logits(smoothed, truth.shape, temperature)[0][0])
            matrix.update(torch.from_numpy(answers[-1]), torch.from_numpy(truth))
        cost = f"{1000 * spent / len(frames):.0f}" if smoother else ""
        print(f"| {name} | {100 * matrix.miou():.2f} | {100 * flicker(answers, truths):.2f} % | {cost} |", flush=True)


def throughput(args: argparse.Namespace) -> None:
    segmenter = Segmenter.from_pretrained(args.weights)
    source = args.video or CLIP
    with VideoReader(source) as reader:
        images = [frame.image for frame in islice(reader.frames(), args.frames)]
    for image in images[:3]:
        segmenter.predict(image)
    alone = whole = 0.0
    with tempfile.TemporaryDirectory() as folder:
        steps = segment_video(source, VideoAnswers(Path(folder) / "v"), segmenter.predict_batch)
        next(steps)
        done = 0
        for _ in range(args.rounds):  # turn about, as other work on the machine comes and goes
            target, start = done + len(images) // args.rounds, time.perf_counter()
            while done < target:
                done = next(steps).done
            whole += time.perf_counter() - start
            start = time.perf_counter()
            for image in images[: len(images) // args.rounds]:
                segmenter.predict(image)
            alone += time.perf_counter() - start
        steps.close()
    count = len(images) // args.rounds * args.rounds
    print(f"{source.name}, {segmenter.engine.device}: {count / whole:.2f} frames a second as a video,", end=" ")
    print(f"{count / alone:.2f} by predict alone: {alone / whole:.2f} of it ({date.today().isoformat()})")


def long_video(path: Path, minutes: float) -> None:
    """The clip's own pictures again and again, small and 10 a second, with a tone."""
    with VideoReader(CLIP) as reader:
        images = [cv2.resize(frame.image, (128, 96), interpolation=cv2.INTER_AREA) for frame in reader.frames()]
    with av.open(str(path), "w") as output:
        video, audio = output.add_stream("libx264", rate=10), output.add_stream("aac", rate=48000)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        silence = np.zeros((1, 4800), np.int16)
        for index in range(round(600 * minutes)):
            frame = av.VideoFrame.from_ndarray(np.asarray(images[index % len(images)], np.uint8), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.mux(video.encode(frame))
            block = av.AudioFrame.from_ndarray(silence, "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 48000, 4800 * index, Fraction(1, 48000)
            output.mux(audio.encode(block))
        output.mux(video.encode())
        output.mux(audio.encode())


def memory(args: argparse.Namespace) -> None:
    print("| minutes | frames | peak memory |\n|---|---|---|")
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "long.mp4"
            long_video(source, minutes)
            command = [sys.executable, __file__, "--weights", args.weights, "one", str(source)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {minutes:g} | {text[0]} | {int(text[1]) / 1024:.0f} MB |", flush=True)


def one(args: argparse.Namespace) -> None:
    """A process of its own for each length, whose peak it tells."""
    segmenter = Segmenter.from_pretrained(args.weights)
    smoother = Smoother(segmenter.weights.temperature)
    steps = segment_video(
        args.source, VideoAnswers(args.source.with_suffix("")), segmenter.predict_batch, smoother=smoother
    )
    done = max(progress.done for progress in steps)
    print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("smooth")
    command.add_argument("--frames", type=int, help="only the first N")
    command.set_defaults(run=smooth)
    command = commands.add_parser("throughput")
    command.add_argument("--video", type=Path, help="another than the clip")
    command.add_argument("--frames", type=int, default=90)
    command.add_argument("--rounds", type=int, default=6)
    command.set_defaults(run=throughput)
    command = commands.add_parser("memory")
    command.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    command.set_defaults(run=memory)
    command = commands.add_parser("one")
    command.add_argument("source", type=Path)
    command.set_defaults(run=one)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    args.run(args)


if __name__ == "__main__":
    main()
