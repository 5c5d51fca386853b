"""What teachers answer for whole pictures: labels where they are sure, and probabilities to be learnt from.

A teacher knows more of a whole picture, seen at several scales, than of one view that was cut out of it, darkened and
blurred (after Chen et al., "Naive-Student", ECCV 2020). So it is asked once, before the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ecmnet_app.core.labels import UNLABELLED
from ecmnet_app.training.augment import GREY, normalise
from ecmnet_app.training.datasets import Dataset

__all__ = ["SIDES", "answered"]

SIDES = (384, 640, 1024)
"""Pixels that both sides of a picture are padded to, whichever is the next, or to the next multiple of the last:
collected pictures have hundreds of sizes, and a GPU prepares every convolution of a teacher anew for each, which takes
some seconds. The rest is grey, as what lies outside of a picture was in their training: with the last row and column
repeated instead, IDD-Lite's pictures in squares of 384 were answered 1.9 points of mIoU worse."""


@torch.no_grad()
def answered(
    dataset: Dataset,
    teachers: Sequence[nn.Module],
    scales: Sequence[float],
    *,
    least: float = 0.0,
    keep: bool = False,
    batch_size: int = 16,
) -> Dataset:
    """The data set with the mean of all answers: of each teacher at each scale.

    Args:
        dataset: its pictures; labels are not looked at.
        teachers: on the data set's device and in eval mode; each gives logits (B, K, h, w), at any resolution, of
            pictures (B, 3, H, W) that are normalised.
        scales: magnifications of the picture.
        least: above 0, the likeliest class of each pixel becomes its label, or 255 where it is not so likely, 0 to 1.
        keep: whether the probabilities become the data set's `answers`.
        batch_size: pictures that are answered at once.
    """
    count, height, width = dataset.labels.shape
    labels = torch.full_like(dataset.labels, UNLABELLED) if least else dataset.labels
    half = -(-height // 2), -(-width // 2)
    answers = labels.new_zeros((count, len(dataset.label_set), *half)) if keep else None
    sizes = dataset.sizes.cpu()
    padded = sizes.clone().apply_(_padded)
    with tqdm(total=count, desc=f"{dataset.name}, by teachers", unit="pic", disable=None) as bar:
        for height, width in torch.unique(padded, dim=0).tolist():
            alike = (padded == padded.new_tensor([height, width])).all(1).nonzero()[:, 0]
            for index in alike.split(batch_size):
                own = [(i, *sizes[i].tolist()) for i in index.tolist()]
                pictures = [dataset.images[i : i + 1, :, :h, :w].float() / 255 for i, h, w in own]
                rest = [(0, width - w, 0, height - h) for _, h, w in own]
                batch = torch.cat([F.pad(x, r, value=GREY) for x, r in zip(pictures, rest, strict=True)])
                for (i, h, w), answer in zip(own, _mean_answer(batch, teachers, scales), strict=True):
                    answer = answer[:, :h, :w]
                    if least:
                        probability, label = answer.max(0)
                        labels[i, :h, :w] = label.masked_fill(probability < least, UNLABELLED).to(labels.dtype)
                    if answers is not None:
                        halved = F.avg_pool2d(answer[None], 2, ceil_mode=True)[0]
                        answers[i, :, : halved.shape[1], : halved.shape[2]] = (255 * halved).round().to(answers.dtype)
                bar.update(len(own))
    return replace(dataset, labels=labels, answers=answers)


def _padded(side: int) -> int:
    return next((s for s in SIDES if s >= side), -(-side // SIDES[-1]) * SIDES[-1])


def _mean_answer(pictures: Tensor, teachers: Sequence[nn.Module], scales: Sequence[float]) -> Tensor:
    """Pictures (B, 3, H, W) in 0 to 1 -> mean probabilities (B, K, H, W)."""
    size = pictures.shape[-2:]
    answers = []
    for scale in scales:
        scaled = [round(scale * side) for side in size]
        views = normalise(F.interpolate(pictures, scaled, mode="bilinear", align_corners=False, antialias=True))
        views = views.contiguous(memory_format=torch.channels_last)
        for teacher in teachers:
            with torch.autocast(views.device.type, torch.bfloat16, enabled=views.device.type == "cuda"):
                logits = teacher(views)
            answers.append(F.interpolate(logits.float(), size, mode="bilinear", align_corners=False).softmax(1))
    return torch.stack(answers).mean(0)
