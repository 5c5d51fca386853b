"""mIoU of weights on corrupted pictures: noise, blur, fog, rain, night, JPEG, a tilted camera, at five severities.

    python benchmarks/corruptions.py PATH/camvid
    python benchmarks/corruptions.py PATH/camvid --svg docs/accuracy/camvid-corruptions.svg \\
        > docs/accuracy/camvid-corruptions.md

It takes every 6th picture of CamVid's test split, 39 of 233, and runs each 41 times: minutes on a CPU. A report: the
corruptions (ecmnet_app/training/corruptions.py) choose nothing and are trained on nowhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ecmnet_app.core import Segmenter
from ecmnet_app.media.files import write_atomically
from ecmnet_app.training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ecmnet_app.training.datasets import find_samples
from ecmnet_app.training.figures import draw_corruptions
from ecmnet_app.training.metrics import ConfusionMatrix

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A picture (H, W, 3), and its class ids (H, W)."""

BATCH = 8
KINDS = (*CORRUPTIONS, "tilt")


def miou(segmenter: Segmenter, pairs: Iterable[Pair], progress: Callable[[int], object]) -> float:
    """mIoU over pictures, 0 to 1, in batches."""
    matrix = ConfusionMatrix(len(segmenter.label_set))
    pairs = list(pairs)
    for start in range(0, len(pairs), BATCH):
        images, targets = zip(*pairs[start : start + BATCH], strict=True)
        for answer, target in zip(segmenter.predict_batch(images), targets, strict=True):
            matrix.update(torch.from_numpy(answer.labels), torch.from_numpy(target))
        progress(len(images))
    return matrix.miou()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", help="folder of CamVid, or of another data set in its layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="take every Nth picture (6)")
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the curves into it")
    args = parser.parse_args()

    listing = find_samples(args.path, args.split)
    samples = listing.samples[:: args.every]
    pairs = {sample.stem: listing.read(sample) for sample in samples}
    segmenter = Segmenter.from_pretrained(args.weights, args.device)
    with tqdm(total=len(pairs) * (1 + len(KINDS) * len(SEVERITIES)), unit="pic", disable=None) as bar:
        clean = miou(segmenter, pairs.values(), bar.update)
        curves = {
            kind: [
                miou(segmenter, (corrupt(*pair, kind, severity, stem) for stem, pair in pairs.items()), bar.update)
                for severity in SEVERITIES
            ]
            for kind in KINDS
        }

    weights = segmenter.weights
    title = f"{weights.name} on one picture in {args.every} of {listing.name} {args.split}"
    print(f"{title}: {len(pairs)} pictures, mIoU %; weights {weights.sha256[:12]}, {segmenter.engine.device}, ", end="")
    print(f"{date.today().isoformat()}. As they are: {100 * clean:.1f}\n")
    print(f"| corruption | {' | '.join(f'{s:4d}' for s in SEVERITIES)} | mean | of clean |")
    print(f"| ---------- | {' | '.join('---:' for _ in SEVERITIES)} | ---: | -------: |")
    for kind, scores in [*curves.items(), ("mean", np.mean(list(curves.values()), axis=0).tolist())]:
        cells = " | ".join(f"{100 * score:4.1f}" for score in (*scores, np.mean(scores)))
        print(f"| {kind:10} | {cells} | {100 * np.mean(scores) / clean:6.0f} % |")
    if args.svg is not None:
        write_atomically(args.svg, draw_corruptions(clean, curves, title))
        print(f"\n![mIoU over severity]({args.svg.name})")


if __name__ == "__main__":
    main()
