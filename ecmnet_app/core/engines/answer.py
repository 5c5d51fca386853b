"""From logits at half resolution to the class of every pixel of a picture, and how sure it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["answer_from_logits"]

BAND_VALUES = 350_000
"""Interpolated logits held at a time: 1.4 MB of float32, which a CPU's cache holds however large the picture is."""


def answer_from_logits(
    logits: Tensor, size: tuple[int, int], temperature: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Interpolate logits straight to `size` and take the likeliest class and its softmax probability.

    The logits of all classes at full size never exist at once: rows are answered in bands, each row from the two of the
    input between which it lies. An answer has the same bits alone and in a batch.

    Args:
        logits: (B, K, h, w), float32.
        size: (height, width) of the answer.
        temperature: divides the logits before the softmax.

    Returns:
        Labels, uint8, and confidence, float32. Shapes: (B, *size).
    """
    return (_by_opencv if logits.device.type == "cpu" else _by_torch)(logits, size, temperature)


def _rows_between(h: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Between which rows of h each of `height` lies, and the weight of the second, shape (height, 1): bilinear with
    pixel centres aligned by area, as F.interpolate(align_corners=False) does it."""
    source = ((np.arange(height) + 0.5) * (h / height) - 0.5).clip(min=0)
    above = source.astype(np.int64)
    return above, np.minimum(above + 1, h - 1), (source - above).astype(np.float32)[:, None]


@torch.inference_mode()
def _by_torch(
    logits: Tensor, size: tuple[int, int], temperature: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    batch, classes, h, _ = logits.shape
    height, width = size
    labels = torch.empty((batch, height, width), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty((batch, height, width), device=logits.device)
    above, below, weight = (torch.from_numpy(values).to(logits.device) for values in _rows_between(h, height))
    rows = max(1, BAND_VALUES // (batch * classes * width))
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        lines = torch.lerp(logits[:, :, above[band]], logits[:, :, below[band]], weight[band])
        values = F.interpolate(lines, (lines.shape[2], width), mode="bilinear", align_corners=False)
        top, labels[:, band] = values.max(dim=1)
        values.sub_(top[:, None]).div_(temperature).exp_()
        # Class by class: the order in which Tensor.sum adds depends on where in the band a pixel lies.
        confidence[:, band] = reduce(torch.add, values.unbind(dim=1)).reciprocal()
    return labels.cpu().numpy(), confidence.cpu().numpy()


def _by_opencv(
    logits: Tensor, size: tuple[int, int], temperature: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """On a CPU, in a third of the time that torch takes there to interpolate, compare and take exponentials."""
    pictures = logits.numpy()
    batch, classes, h, _ = pictures.shape
    height, width = size
    labels = np.zeros((batch, height, width), np.uint8)
    confidence = np.zeros((batch, height, width), np.float32)
    above, below, weight = _rows_between(h, height)
    # Of one picture, whatever the batch: the last bits of what OpenCV gives vary with the number of rows.
    rows = max(1, BAND_VALUES // (classes * width))

    def answer(picture: int, band: slice) -> None:
        lines, after = (pictures[picture][:, ends[band]] for ends in (above, below))
        lines += (after - lines) * weight[band]
        values = [cv2.resize(plane, (width, len(plane)), interpolation=cv2.INTER_LINEAR) for plane in lines]
        top, label, total = values[0].copy(), labels[picture, band], confidence[picture, band]
        for index, value in enumerate(values[1:], 1):
            np.copyto(label, index, where=value > top)
            np.maximum(top, value, out=top)
        for value in values:
            value -= top
            value /= temperature
            total += cv2.exp(value, value)
        np.reciprocal(total, out=total)

    tasks = [(picture, slice(start, start + rows)) for picture in range(batch) for start in range(0, height, rows)]
    threads = min(len(tasks), torch.get_num_threads(), 4)  # more would wait for Python's lock, and take longer
    if threads == 1:
        for task in tasks:
            answer(*task)
    else:
        with ThreadPoolExecutor(threads, "ecmnet-answer") as pool:
            list(pool.map(answer, *zip(*tasks, strict=True)))
    return labels, confidence
