"""The training loss: weighted cross entropy, the Jaccard index made soft, auxiliary heads, and a teacher's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ecmnet_app.core.labels import UNLABELLED

__all__ = ["BEHIND", "class_weights", "distillation_loss", "segmentation_loss"]

BEHIND = 64
"""Added to a label in a target: the pixel is of this class or of an unnamed one that stands before it."""

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
) -> Tensor:
    """Loss of a batch.

    Where the target is a class + BEHIND, any answer of that class or of the unnamed ones is right: their
    probabilities count together (partial labels, Cour, Sapp, Taskar, JMLR 2011).

    Args:
        logits: (B, K, h, w) at half of the target's resolution, interpolated here as in the network.
        auxiliary: logits of the auxiliary heads at their own resolutions; the target is subsampled.
        target: (B, H, W) int64, 255 where ignored, BEHIND added where the class is that of what is behind.
        weights: (K,) class weights.
        jaccard_weight: of 1 - the mean soft Jaccard index of the classes that occur.
        auxiliary_weights: one for each auxiliary head.
        unnamed: the classes that labels with BEHIND added may hide.
        reduce: adds the sums of all processes, so that several equal one with the whole batch.
    """
    full = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)
    log_probability = F.log_softmax(full, dim=1)
    loss = _cross_entropy(log_probability, target, weights, unnamed, reduce)
    if jaccard_weight:
        loss = loss + jaccard_weight * _jaccard(log_probability.exp(), target, unnamed, reduce)
    for aux, weight in zip(auxiliary, auxiliary_weights, strict=True):
        small = F.interpolate(target[:, None].float(), aux.shape[-2:], mode="nearest")[:, 0].long()
        loss = loss + weight * _cross_entropy(F.log_softmax(aux.float(), dim=1), small, weights, unnamed, reduce)
    return loss


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """How far the student's probabilities are from the teacher's (Hinton, Vinyals, Dean 2015).

    Args:
        logits: (B, K, h, w) of the student.
        teacher_logits: of the same shape.
        temperature: divides both; above 1 the less likely classes count more.

    Returns:
        Mean over the pixels of KL(teacher || student), times temperature^2, which keeps the gradients' size.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1).mean() * temperature**2


def _cross_entropy(
    log_probability: Tensor, target: Tensor, weights: Tensor, unnamed: Sequence[int], reduce: Reduce
) -> Tensor:
    labelled = target != UNLABELLED
    index = torch.where(labelled, _class_of(target, unnamed), 0)
    weight = weights[index] * labelled
    likelihood = log_probability.gather(1, index[:, None])[:, 0]
    if unnamed:
        hiding = log_probability.masked_fill(~_one_of(unnamed, log_probability), -torch.inf).logsumexp(dim=1)
        likelihood = torch.where(target >= BEHIND, torch.logaddexp(likelihood, hiding), likelihood)
    sums = reduce(torch.stack([(weight * likelihood).sum(), weight.sum()]))
    return -sums[0] / sums[1].clamp_min(1e-6)


def _jaccard(probability: Tensor, target: Tensor, unnamed: Sequence[int], reduce: Reduce) -> Tensor:
    classes = torch.arange(probability.shape[1], device=target.device)[:, None, None]
    labelled = (target != UNLABELLED)[:, None]
    truth = (labelled & (_class_of(target, unnamed)[:, None] == classes)).float()
    if unnamed:
        # What unnamed classes got is counted for the label that they stand before.
        hiding = probability * _one_of(unnamed, probability)
        moved = probability - hiding + truth * hiding.sum(dim=1, keepdim=True)
        probability = torch.where(target[:, None] >= BEHIND, moved, probability)
    probability = probability * labelled
    intersection = (probability * truth).sum(dim=(0, 2, 3))
    union = (probability + truth).sum(dim=(0, 2, 3)) - intersection
    occurring = truth.sum(dim=(0, 2, 3))
    intersection, union, occurring = reduce(torch.stack([intersection, union, occurring])).unbind(0)
    present = (occurring > 0).float()
    index = (intersection + 1) / (union + 1)
    return 1 - (index * present).sum() / present.sum().clamp_min(1)


def _class_of(target: Tensor, unnamed: Sequence[int]) -> Tensor:
    """Without BEHIND, which no label bears where nothing is unnamed: there are sets of more classes."""
    return target % BEHIND if unnamed else target


def _one_of(ids: Sequence[int], scores: Tensor) -> Tensor:
    """Whether each class is one of the ids: (K, 1, 1), made without a copy to the device, which no graph records."""
    classes = torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    mask = classes < 0
    for k in ids:
        mask = mask | (classes == k)
    return mask
