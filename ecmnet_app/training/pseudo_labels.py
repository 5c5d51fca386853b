"""Labels for pictures that have none: what teachers answer, where they are sure.

A teacher knows more of a whole picture, seen at several scales, than of one view that was cut out of it, darkened and
blurred (after Chen et al., "Naive-Student", ECCV 2020). So it is asked once, before the training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.training.augment import normalise
from ecmnet_app.training.datasets import Dataset

__all__ = ["SCALES", "SIDES", "pseudo_labels"]

SCALES = (0.75, 1.0, 1.25)
SIDES = (384, 640, 1024)
"""Pixels that both sides of a picture are padded to, whichever is the next, or to the next multiple of the last:
collected pictures have hundreds of sizes, and a GPU prepares every convolution of a teacher anew for each, which takes
some seconds."""


@torch.no_grad()
def pseudo_labels(dataset: Dataset, teachers: Sequence[nn.Module], least: float, batch_size: int = 16) -> Tensor:
    """The likeliest class of each pixel by the mean of all answers: of each teacher at each of SCALES.

    Args:
        dataset: its pictures; labels are not looked at.
        teachers: on the data set's device and in eval mode; each gives logits (B, K, h, w), at any resolution, of
            pictures (B, 3, H, W) that are normalised.
        least: probability from which on an answer is taken, 0 to 1.
        batch_size: pictures that are answered at once.

    Returns:
        Labels as the data set has them, (N, H, W) uint8: 255 where no class is so likely, and in the padding.
    """
    labels = torch.full_like(dataset.labels, UNLABELLED)
    sizes = dataset.sizes.cpu()
    padded = sizes.clone().apply_(_padded)
    with tqdm(total=len(dataset), desc=f"{dataset.name}, by teachers", unit="pic", disable=None) as bar:
        for height, width in torch.unique(padded, dim=0).tolist():
            alike = (padded == padded.new_tensor([height, width])).all(1).nonzero()[:, 0]
            for index in alike.split(batch_size):
                own = [(i, *sizes[i].tolist()) for i in index.tolist()]
                pictures = [dataset.images[i : i + 1, :, :h, :w].float() / 255 for i, h, w in own]
                rest = [(0, width - w, 0, height - h) for _, h, w in own]
                batch = torch.cat([F.pad(x, r, mode="replicate") for x, r in zip(pictures, rest, strict=True)])
                probability, answer = _mean_answer(batch, teachers).max(1)
                answer = answer.masked_fill(probability < least, UNLABELLED).to(labels.dtype)
                for (i, h, w), label in zip(own, answer, strict=True):
                    labels[i, :h, :w] = label[:h, :w]
                bar.update(len(own))
    return labels


def _padded(side: int) -> int:
    return next((s for s in SIDES if s >= side), -(-side // SIDES[-1]) * SIDES[-1])


def _mean_answer(pictures: Tensor, teachers: Sequence[nn.Module]) -> Tensor:
    """Pictures (B, 3, H, W) in 0 to 1 -> mean probabilities (B, K, H, W)."""
    size = pictures.shape[-2:]
    answers = []
    for scale in SCALES:
        scaled = [round(scale * side) for side in size]
        views = normalise(F.interpolate(pictures, scaled, mode="bilinear", align_corners=False, antialias=True))
        views = views.contiguous(memory_format=torch.channels_last)
        for teacher in teachers:
            with torch.autocast(views.device.type, torch.bfloat16, enabled=views.device.type == "cuda"):
                logits = teacher(views)
            answers.append(F.interpolate(logits.float(), size, mode="bilinear", align_corners=False).softmax(1))
    return torch.stack(answers).mean(0)
