"""Full resolution in bounded memory: overlapping tiles, whose logits are blended."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.core.engines import Engine

__all__ = ["tile_spans", "tiled_logits"]


def tile_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Cover an axis with evenly spread tiles that start at even positions and overlap by `overlap` or more.

    Args:
        length: of the axis, pixels.
        tile: length of a tile, even; the last may be one pixel longer.
        overlap: pixels, below `tile` - 1.

    Returns:
        (start, end) of each tile, in order.
    """
    if length <= tile:
        return [(0, length)]
    slack = length - tile
    steps = -(-slack // (tile - overlap - 1))  # one pixel less, as starts are rounded down to even ones
    starts = [slack * i // steps // 2 * 2 for i in range(steps + 1)]
    return [(start, start + tile) for start in starts[:-1]] + [(starts[-1], length)]


@torch.inference_mode()
def tiled_logits(engine: Engine, picture: NDArray[np.uint8], tile: int, overlap: int) -> Tensor:
    """What `engine.logits` gives for one picture, from tiles of it.

    Where tiles overlap, their logits are averaged with weights that fall off towards the edge of each tile.

    Args:
        picture: RGB. Shape: (H, W, 3).
        tile: height and width of a tile, pixels, even.
        overlap: least overlap of neighbours, pixels.

    Returns:
        Logits at half resolution, float32. Shape: (1, K, ceil(H / 2), ceil(W / 2)).
    """
    height, width = picture.shape[:2]
    total = norm = torch.empty(0)
    for top, bottom in tile_spans(height, tile, overlap):
        for left, right in tile_spans(width, tile, overlap):
            logits = engine.logits(np.ascontiguousarray(picture[None, top:bottom, left:right]))
            if not total.numel():
                half = ((height + 1) // 2, (width + 1) // 2)
                total = logits.new_zeros((1, logits.shape[1], *half))
                norm = logits.new_zeros(half)
            h, w = logits.shape[-2:]
            weight = _ramp(h, overlap // 2, logits.device)[:, None] * _ramp(w, overlap // 2, logits.device)
            area = (slice(top // 2, top // 2 + h), slice(left // 2, left // 2 + w))
            total[(..., *area)] += logits * weight
            norm[area] += weight
    return total.div_(norm)


def _ramp(length: int, overlap: int, device: torch.device) -> Tensor:
    """1 inside, falling linearly to just above 0 over `overlap` at both ends. Shape: (length,)."""
    position = torch.arange(length, device=device)
    edge = torch.minimum(position, length - 1 - position) + 1.0
    return (edge / (overlap + 1)).clamp(max=1)
