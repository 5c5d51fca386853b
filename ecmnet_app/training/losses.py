"""The training loss: weighted cross entropy, the Jaccard index made soft, auxiliary heads, and a teacher's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ecmnet_app.core.labels import UNLABELLED

__all__ = ["BEHIND", "class_weights", "distillation_loss", "segmentation_loss"]

BEHIND = 64
"""Added to a label in a target: the pixel is of this class, or something unnamed stands before it."""

Reduce = Callable[[Tensor], Tensor]
"""Adds sums over processes; the identity for one process."""


def class_weights(shares: Tensor, offset: float) -> Tensor:
    """ENet's weights, 1 / ln(offset + share): (K,) shares of the labelled pixels -> (K,)."""
    return 1 / torch.log(offset + shares)


def segmentation_loss(
    logits: Tensor,
    auxiliary: Sequence[Tensor],
    target: Tensor,
    weights: Tensor,
    jaccard_weight: float,
    auxiliary_weights: Sequence[float],
    unnamed: Sequence[int],
    reduce: Reduce,
    boundary_weight: float = 1.0,
) -> Tensor:
    """Loss of a batch.

    Where the target is a class + BEHIND, the loss is that of the named classes alone, as if the unnamed ones were not
    among the answers: it says which of the named is there or behind, and nothing of what stands before.

    Args:
        logits: (B, K, h, w) at half of the target's resolution, interpolated here as in the network.
        auxiliary: logits of the auxiliary heads at their own resolutions; the target is subsampled.
        target: (B, H, W) int64, 255 where ignored, BEHIND added where the class is that of what is behind.
        weights: (K,) class weights.
        jaccard_weight: of 1 - the mean soft Jaccard index of the classes that occur.
        auxiliary_weights: one for each auxiliary head.
        unnamed: the classes that labels with BEHIND added may hide.
        reduce: adds the sums of all processes, so that several equal one with the whole batch.
        boundary_weight: how many times a pixel that has another class beside it counts in the cross entropies.
    """
    full = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)
    log_probability, known = _named(full, target, unnamed)
    loss = _cross_entropy(log_probability, known, weights, reduce, boundary_weight)
    if jaccard_weight:
        loss = loss + jaccard_weight * _jaccard(log_probability.exp(), known, reduce)
    for aux, weight in zip(auxiliary, auxiliary_weights, strict=True):
        small = F.interpolate(target[:, None].float(), aux.shape[-2:], mode="nearest")[:, 0].long()
        loss = loss + weight * _cross_entropy(*_named(aux.float(), small, unnamed), weights, reduce, boundary_weight)
    return loss


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, temperature: float, reduce: Reduce, share: Tensor | None = None
) -> Tensor:
    """How far the student's probabilities are from the teacher's (Hinton, Vinyals, Dean 2015).

    Args:
        logits: (B, K, h, w) of the student.
        teacher_logits: of the same shape.
        temperature: divides both; above 1 the less likely classes count more.
        reduce: adds the sums of all processes, so that several equal one with the whole batch.
        share: (B, h, w), how much each pixel counts, 0 to 1; by default fully.

    Returns:
        Mean over the pixels of KL(teacher || student), times temperature^2, which keeps the gradients' size.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)
    if share is not None:
        divergence = divergence * share
    # The number of pixels is filled in on the device: a copy to it is nothing that a graph records.
    sums = reduce(torch.stack([divergence.sum(), divergence.new_full((), divergence.numel())]))
    return sums[0] / sums[1] * temperature**2


def _named(logits: Tensor, target: Tensor, unnamed: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log probabilities, and the target without BEHIND: where it was, the unnamed classes have no probability."""
    if not unnamed:  # no label bears BEHIND, and there are sets of more classes than that
        return F.log_softmax(logits, dim=1), target
    behind = (target >= BEHIND) & (target != UNLABELLED)
    left_out = _one_of(unnamed, logits) & behind[:, None]
    return F.log_softmax(logits.masked_fill(left_out, -1e4), dim=1), torch.where(behind, target - BEHIND, target)


def _cross_entropy(
    log_probability: Tensor, target: Tensor, weights: Tensor, reduce: Reduce, boundary_weight: float
) -> Tensor:
    labelled = target != UNLABELLED
    index = torch.where(labelled, target, 0)
    weight = weights[index] * labelled
    if boundary_weight != 1:
        weight = torch.where(_at_boundary(index), boundary_weight * weight, weight)
    likelihood = log_probability.gather(1, index[:, None])[:, 0]
    sums = reduce(torch.stack([(weight * likelihood).sum(), weight.sum()]))
    return -sums[0] / sums[1].clamp_min(1e-6)


def _at_boundary(index: Tensor) -> Tensor:
    """Which pixels have another class among the eight around them, unlabelled ones counting as the first class.

    Args:
        index: a class each. Shape: (B, H, W).

    Returns:
        The same shape, bool.
    """
    classes = index[:, None].float()
    greatest, least = (sign * F.max_pool2d(sign * classes, 3, stride=1, padding=1) for sign in (1, -1))
    return (greatest != least)[:, 0]


def _jaccard(probability: Tensor, target: Tensor, reduce: Reduce) -> Tensor:
    classes = torch.arange(probability.shape[1], device=target.device)[:, None, None]
    labelled = (target != UNLABELLED)[:, None]
    truth = (target[:, None] == classes).float()
    probability = probability * labelled
    intersection = (probability * truth).sum(dim=(0, 2, 3))
    union = (probability + truth).sum(dim=(0, 2, 3)) - intersection
    occurring = truth.sum(dim=(0, 2, 3))
    intersection, union, occurring = reduce(torch.stack([intersection, union, occurring])).unbind(0)
    present = (occurring > 0).float()
    index = (intersection + 1) / (union + 1)
    return 1 - (index * present).sum() / present.sum().clamp_min(1)


def _one_of(ids: Sequence[int], scores: Tensor) -> Tensor:
    """Whether each class is one of the ids: (K, 1, 1), made without a copy to the device, which no graph records."""
    classes = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    mask = classes < 0
    for k in ids:
        mask = mask | (classes == k)
    return mask
