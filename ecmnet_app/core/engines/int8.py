"""int8 for the dense convolutions of a network that OpenVINO has read: they are most of its time, and lose little.

OpenVINO runs a convolution in int8 where its input and its weights pass a FakeQuantize. All else stays in float32: the
1x1 and depthwise convolutions are fast as they are, gates, scan and the last layer say most about a pixel's class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import openvino

__all__ = ["quantize"]

LEAST_RANGE = 1e-6
"""Of values that are all zero: a step of nothing cannot be divided by."""


def quantize(core: openvino.Core, model: openvino.Model, pictures: Iterable[NDArray[np.uint8]]) -> None:
    """Make int8 of the convolutions that look at more than one pixel, in place.

    Args:
        pictures: what their inputs' ranges are taken from. Shapes: (H, W, 3).
    """
    dense = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Convolution" and max(op.input(1).get_shape()[2:]) > 1
    ]
    ranges = _ranges(core, model, [op.input_value(0) for op in dense], pictures)
    for op, (low, high) in zip(dense, ranges, strict=True):
        step = max(high - low, LEAST_RANGE) / 255
        zero = round(-low / step)  # a whole number, so that the padding is exact
        _faked(op.input(0), np.float32(-zero * step), np.float32((255 - zero) * step), levels=256)
        weight = op.input_value(1).get_node().data
        # Seven bits: AVX2 adds two products of bytes in 16 bits, where those of eight overflow.
        most = 2 * np.abs(weight).max((1, 2, 3), keepdims=True, initial=LEAST_RANGE)
        _faked(op.input(1), -most, most, levels=255)


def _ranges(
    core: openvino.Core,
    model: openvino.Model,
    values: Sequence[openvino.Output],
    pictures: Iterable[NDArray[np.uint8]],
) -> NDArray[np.float64]:
    """The least and the most of each value over all pictures, with zero among them. Shape: (values, 2)."""
    import openvino
    from openvino import opset8 as ops

    axes = ops.constant(np.arange(4))
    ends = [reduce(value, axes).output(0) for value in values for reduce in (ops.reduce_min, ops.reduce_max)]
    measured = core.compile_model(
        openvino.Model(ends, model.get_parameters(), "ranges"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = np.stack([[float(end) for end in measured([picture[None]]).values()] for picture in pictures])
    pairs = found.reshape(len(found), -1, 2)
    return np.stack([pairs[..., 0].min(0, initial=0), pairs[..., 1].max(0, initial=0)], axis=1)


def _faked(
    place: openvino.Input,
    low: np.float32 | NDArray[np.float32],
    high: np.float32 | NDArray[np.float32],
    levels: int,
) -> None:
    """Let what comes in at a place pass a FakeQuantize of so many levels from low to high."""
    from openvino import opset8 as ops

    ends = [ops.constant(end) for end in (low, high)]
    place.replace_source_output(ops.fake_quantize(place.get_source_output(), *ends, *ends, levels).output(0))
