"""The folded network as an ONNX graph: one function a layer, and the scan in the form that engines run well.

torch's own exporter needs half a minute for this network and writes four times the operations, nearly all for the scan
and for sizes. Here it is a third of a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ecmnet_app.core.engines.base import normalisation
from ecmnet_app.core.engines.folded import (
    FoldedECMNet,
    FoldedEDAB,
    FoldedMSAU,
    FoldedResidualBlock,
    ScaledPReLU,
    fold,
)
from ecmnet_app.core.weights import Weights

__all__ = ["OPSET", "network_model"]

OPSET = 17
"""Of ONNX: the oldest with layer norm, for runtimes on devices lag behind."""

Layer: TypeAlias = Any
"""A part of the network: torch's own types do not say what is inside a module."""


def network_model(weights: Weights, size: tuple[int, int] | None = None, answer: bool = False) -> onnx.ModelProto:
    """The network with its preprocessing.

    The graph takes `pictures`, uint8 RGB of shape (B, H, W, 3), and gives

        logits      (B, K, ceil(H / 2), ceil(W / 2)), float32: what `Engine.logits` gives; or, with `answer`,
        labels      (B, H, W), uint8: ids of the weights' label set,
        confidence  (B, H, W), float32: the softmax probability of that label.

    Args:
        weights: whose network it is.
        size: (height, width) of the one picture that it takes; any sizes and any number by default.
        answer: labels and confidence in place of logits.

    With a size the scan is unrolled to elementary operations, which every runtime has; without, it is ONNX's Scan.
    """
    graph = _Graph(size)
    with torch.no_grad():
        logits = _logits(graph, fold(weights.build()), weights)
        outputs = (
            _answer(graph, logits, weights.temperature) if answer else [graph.op("Identity", logits, name="logits")]
        )
    batch, height, width = (1, *size) if size else ("batch", "height", "width")
    half = [(side + 1) // 2 for side in size] if size else ["half_height", "half_width"]
    kinds: dict[str, tuple[int, list[int | str]]] = {
        "logits": (TensorProto.FLOAT, [batch, len(weights.label_set), *half]),
        "labels": (TensorProto.UINT8, [batch, height, width]),
        "confidence": (TensorProto.FLOAT, [batch, height, width]),
    }
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, [batch, height, width, 3])
    answers = [helper.make_tensor_value_info(name, *kinds[name]) for name in outputs]
    made = helper.make_graph(graph.nodes, "ECMNet", [pictures], answers, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


class _Graph:
    """A list of nodes and constants that grows; values are named by the node that makes them."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str | ArrayLike | Tensor, name: str | None = None, **attributes: Any) -> str:
        """Add a node of one output; inputs that are no names become constants."""
        return self.ops(kind, 1, *inputs, names=[name] if name else None, **attributes)[0]

    def ops(
        self,
        kind: str,
        count: int,
        *inputs: str | ArrayLike | Tensor,
        names: list[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add a node of `count` outputs."""
        stem = f"{kind}_{len(self.nodes)}"
        outputs = names or [f"{stem}.{i}" if count > 1 else stem for i in range(count)]
        sources = [source if isinstance(source, str) else self._constant(source) for source in inputs]
        self.nodes.append(helper.make_node(kind, sources, outputs, name=stem, **attributes))
        return outputs

    def _constant(self, value: ArrayLike | Tensor) -> str:
        array: NDArray[Any] = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def split(self, value: str, axis: int, count: int) -> list[str]:
        """`count` slices of one position each."""
        return self.ops("Split", count, value, [1] * count, axis=axis) if count > 1 else [value]

    def sum(self, values: Sequence[str]) -> str:
        total = values[0]
        for value in values[1:]:
            total = self.op("Add", total, value)
        return total

    def mean(self, value: str, *axes: int) -> str:
        return self.op("ReduceMean", value, axes=list(axes), keepdims=1)

    def affine(self, x: str, scale: Tensor, shift: Tensor) -> str:
        """Scale and shift of each channel."""
        return self.op("Add", self.op("Mul", x, _channels(scale)), _channels(shift))

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))


def _logits(graph: _Graph, net: FoldedECMNet, weights: Weights) -> str:
    """From pictures to logits at half of their size: `FoldedECMNet.forward` after preprocessing."""
    parts: Layer = net
    x = graph.op("Cast", graph.op("Transpose", "pictures", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    half = x = _emit(parts.stem, graph, graph.affine(x, *normalisation(weights.mean, weights.std)))
    stages = []
    for downsample, blocks in zip(parts.downsamples, parts.encoder, strict=True):
        x = _emit(blocks, graph, _downsampled(graph, downsample, x))
        stages.append(x)
    deepest_first = stages[::-1]
    lines = [
        _emit(parts.msau, graph, _emit(c, graph, s)) for c, s in zip(parts.connections, deepest_first, strict=False)
    ]
    x = _emit(parts.bridge, graph, x)
    if net.config.ffm:
        x = _fused(graph, parts.ffm, x, lines[1:] if len(lines) == 3 else [])
    targets = zip([*deepest_first[1:], half], (8, 4, 2), strict=True)
    for i, (blocks, upsample, (like, scale)) in enumerate(zip(parts.decoder, parts.upsamples, targets, strict=True)):
        if i < len(lines):
            x = graph.op("Add", x, lines[i])
        x = _upsampled(graph, upsample, _emit(blocks, graph, x), like, scale)
    return x


def _answer(graph: _Graph, logits: str, temperature: float) -> list[str]:
    """Labels and confidence at the size of the pictures; see `engines.answer_from_logits`."""
    if graph.size is None:
        sizes = graph.op(
            "Concat", graph.op("Shape", logits, end=2), graph.op("Shape", "pictures", start=1, end=3), axis=0
        )
        full = graph.op("Resize", logits, "", "", sizes, mode="linear")
    else:
        classes = graph.op("Shape", logits, end=2)
        full = graph.op("Resize", logits, "", "", graph.op("Concat", classes, list(graph.size), axis=0), mode="linear")
    graph.op("Cast", graph.op("ArgMax", full, axis=1, keepdims=0), name="labels", to=TensorProto.UINT8)
    probabilities = graph.op("Softmax", graph.op("Mul", full, np.float32(1 / temperature)), axis=1)
    graph.op("ReduceMax", probabilities, name="confidence", axes=[1], keepdims=0)
    return ["labels", "confidence"]


@singledispatch
def _emit(layer: Layer, graph: _Graph, x: str) -> str:
    """Add what this layer does to `x`, and name its output."""
    raise TypeError(f"no ONNX form of {type(layer).__name__}")


@_emit.register
def _(layer: nn.Identity, graph: _Graph, x: str) -> str:
    return x


@_emit.register
def _(layer: nn.Sequential, graph: _Graph, x: str) -> str:
    for part in layer:
        x = _emit(part, graph, x)
    return x


@_emit.register
def _(layer: nn.Conv2d, graph: _Graph, x: str) -> str:
    bias = [] if layer.bias is None else [layer.bias]
    top, left = (int(pad) for pad in layer.padding)
    return graph.op(
        "Conv",
        x,
        layer.weight,
        *bias,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=[top, left, top, left],
        dilations=layer.dilation,
        group=layer.groups,
    )


@_emit.register
def _(layer: nn.PReLU, graph: _Graph, x: str) -> str:
    return graph.op("PRelu", x, _channels(layer.weight))


@_emit.register
def _(layer: nn.ReLU, graph: _Graph, x: str) -> str:
    return graph.op("Relu", x)


@_emit.register
def _(layer: nn.Sigmoid, graph: _Graph, x: str) -> str:
    return graph.op("Sigmoid", x)


@_emit.register
def _(layer: nn.GELU, graph: _Graph, x: str) -> str:
    risen = graph.op("Add", graph.op("Erf", graph.op("Mul", x, np.float32(math.sqrt(0.5)))), np.float32(1))
    return graph.op("Mul", graph.op("Mul", x, risen), np.float32(0.5))


@_emit.register
def _(layer: nn.Linear, graph: _Graph, x: str) -> str:
    product = graph.op("MatMul", x, layer.weight.T)
    return product if layer.bias is None else graph.op("Add", product, layer.bias)


@_emit.register
def _(layer: nn.LayerNorm, graph: _Graph, x: str) -> str:
    return graph.op("LayerNormalization", x, layer.weight, layer.bias, axis=-1, epsilon=layer.eps)


@_emit.register
def _(layer: ScaledPReLU, graph: _Graph, x: str) -> str:
    return _emit(layer.act, graph, graph.affine(x, layer.scale, layer.shift))


@_emit.register
def _(layer: FoldedEDAB, graph: _Graph, x: str) -> str:
    up = _emit(layer.wide, graph, _emit(layer.high, graph, _emit(layer.before, graph, x)))
    local, context = _emit(layer.local[:-1], graph, up), _emit(layer.context[:-1], graph, up)
    local = graph.op("Mul", local, _channel_gate(graph, layer.local[-1], local, layer.expand.in_channels))
    rows, columns = _axis_gates(graph, layer.context[-1], context)
    context = graph.op("Mul", graph.op("Mul", context, rows), columns)
    y = _emit(layer.after, graph, graph.op("Add", graph.op("Add", up, local), context))
    return graph.op("Add", _emit(layer.expand, graph, y), x)


def _channel_gate(graph: _Graph, layer: Layer, x: str, channels: int) -> str:
    """ECA's: the three taps along the channels are the band of a matrix, so of a 1x1 convolution."""
    taps = layer.conv.weight.flatten()
    band = torch.stack([torch.diag(taps[i].expand(channels - abs(i - 1)), i - 1) for i in range(3)]).sum(0)
    return graph.op("Sigmoid", graph.op("Conv", graph.mean(x, 2, 3), band[:, :, None, None]))


def _axis_gates(graph: _Graph, layer: Layer, x: str) -> tuple[str, str]:
    """DDA's gates of rows and of columns."""
    rows = graph.op("Sigmoid", _emit(layer.rows, graph, graph.mean(x, 3)))
    return rows, graph.op("Sigmoid", _emit(layer.columns, graph, graph.mean(x, 2)))


@_emit.register
def _(layer: FoldedResidualBlock, graph: _Graph, x: str) -> str:
    y = _emit(layer.last, graph, _emit(layer.conv, graph, _emit(layer.before, graph, x)))
    return graph.op("Add", y, x)


@_emit.register
def _(layer: FoldedMSAU, graph: _Graph, x: str) -> str:
    x1 = _emit(layer.scales, graph, _emit(layer.reduce, graph, x))
    x2 = _emit(layer.expand, graph, graph.op("Mul", x1, _emit(layer.columns, graph, graph.mean(x1, 2))))
    x3 = _emit(layer.mean_gate, graph, graph.mean(_emit(layer.mean_features, graph, x), 2, 3))
    x4 = _emit(layer.max_gate, graph, graph.op("GlobalMaxPool", _emit(layer.max_features, graph, x)))
    return graph.op("Add", x, graph.op("Mul", x2, graph.op("Add", x3, x4)))


def _downsampled(graph: _Graph, layer: Layer, x: str) -> str:
    """See `FoldedDownsample`; either part is activated before they meet, where engines fuse it."""
    y = _emit(layer.conv, graph, x)
    if not layer.grows:
        return _emit(layer.act, graph, y)
    pooled = graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    pooled = graph.affine(pooled, layer.scale, layer.shift)
    wide = layer.conv.out_channels
    slopes = layer.act.weight.split([wide, len(layer.act.weight) - wide])
    parts = [graph.op("PRelu", part, _channels(slope)) for part, slope in zip((y, pooled), slopes, strict=True)]
    return graph.op("Concat", *parts, axis=1)


def _upsampled(graph: _Graph, layer: Layer, x: str, like: str, scale: int) -> str:
    """See `FoldedUpsample`: to the size of `like`, which is the pictures' divided by `scale`."""
    odd = [-(-side // scale) % 2 for side in graph.size] if graph.size else [0, 0]
    y = graph.op(
        "ConvTranspose",
        x,
        layer.conv.weight,
        layer.conv.bias,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1 - side for side in odd],
    )
    if graph.size is None:  # of an odd size, what comes is one too long
        y = graph.op("Slice", y, [0, 0], graph.op("Shape", like, start=2), [2, 3])
    return y


def _fused(graph: _Graph, layer: Layer, x: str, finer: Sequence[str]) -> str:
    """See `network.ffm.FFM`."""
    if finer:
        eighth, quarter = finer
        from_finer = [_emit(layer.from_eighth, graph, eighth), _emit(layer.from_quarter, graph, quarter)]
        fused = graph.op("Concat", x, *from_finer, axis=1)
    else:
        fused = _emit(layer.widen, graph, x)
    normed = _emit(layer.norm, graph, graph.op("Transpose", fused, perm=[0, 2, 3, 1]))
    update = _emit(layer.ffn, graph, _scanned(graph, layer.ss2d, normed))
    return graph.op("Add", x, graph.op("Transpose", update, perm=[0, 3, 1, 2]))


def _scanned(graph: _Graph, layer: Layer, x: str) -> str:
    """See `network.ss2d.SS2D`: (B, H, W, C) -> (B, H, W, C).

    No sequence is unrolled or turned round. A scan by rows runs along all rows side by side and then from row to row,
    so it wants the column first: the map is transposed once for both of them. Backwards is the same from the end.
    """
    value, gate = (graph.op("MatMul", x, weight.T) for weight in layer.in_proj.weight.chunk(2))
    value = graph.silu(_emit(layer.conv, graph, graph.op("Transpose", value, perm=[0, 3, 1, 2])))
    by_column = graph.op("Transpose", value, perm=[0, 2, 3, 1])
    by_row = graph.op("Transpose", value, perm=[0, 3, 2, 1])
    steps = tuple(-(-side // 16) for side in graph.size) if graph.size else None
    columns = _both_ways(graph, layer, by_column, (1, 3), steps)
    rows = _both_ways(graph, layer, by_row, (0, 2), steps and steps[::-1])
    skipped = graph.op("Mul", by_column, layer.D.sum(0))
    y = graph.sum([graph.op("Transpose", rows, perm=[0, 2, 1, 3]), columns, skipped])
    return _emit(layer.out_proj, graph, graph.op("Mul", _emit(layer.out_norm, graph, y), graph.silu(gate)))


def _both_ways(graph: _Graph, layer: Layer, u: str, directions: tuple[int, int], steps: tuple[int, ...] | None) -> str:
    """The scans along the first axis of a map and back, without their skips: (B, T, S, D) -> (B, T, S, D).

    Args:
        directions: SS2D's numbers of the scan forward and of the one back.
        steps: (T, S), where they are known.
    """
    rank, states = layer.rank, layer.state_size
    decays, inputs, matrices = [], [], []
    for k in directions:
        to_dt, to_b, to_c = layer.x_proj[k].split([rank, states, states])
        dt = graph.op("MatMul", graph.op("MatMul", u, to_dt.T), layer.dt_proj[k].T)
        delta = graph.op("Softplus", graph.op("Add", dt, layer.dt_bias[k]))
        a = -torch.exp(layer.A_log[k].double()).T  # (N, D): what follows is (B, T, S, N, D)
        decays.append(graph.op("Exp", graph.op("Mul", graph.op("Unsqueeze", delta, [3]), a)))
        driven = graph.op("Unsqueeze", graph.op("Mul", delta, u), [3])
        inputs.append(graph.op("Mul", driven, graph.op("Unsqueeze", graph.op("MatMul", u, to_b.T), [4])))
        matrices.append(graph.op("Unsqueeze", graph.op("MatMul", u, to_c.T), [4]))
    recurrences = _unrolled(graph, decays, inputs, *steps) if steps else _looped(graph, decays, inputs)
    read = [graph.op("Mul", h, c) for h, c in zip(recurrences, matrices, strict=True)]
    return graph.op("ReduceSum", graph.sum(read), [3], keepdims=0)


def _unrolled(graph: _Graph, decays: Sequence[str], inputs: Sequence[str], steps: int, sequences: int) -> list[str]:
    """h_t = decay_t h_{t-1} + input_t along sequences that follow each other, by elementary operations.

    Every sequence runs from zero; their ends follow the same recurrence, with their total decays, and give what each
    should have started from.

    Args:
        decays, inputs: of the scan forward and of the one back. Shapes: (B, steps, sequences, N, D).

    Returns:
        h of either scan, in the same shape.
    """
    found = []
    for way, decay, driven in zip((1, -1), decays, inputs, strict=True):
        a, b = graph.split(decay, 1, steps)[::way], graph.split(driven, 1, steps)[::way]
        h, total = [b[0]], [a[0]]
        for t in range(1, steps):
            h.append(graph.op("Add", graph.op("Mul", a[t], h[-1]), b[t]))
            total.append(graph.op("Mul", a[t], total[-1]))
        a, b = graph.split(total[-1], 2, sequences)[::way], graph.split(h[-1], 2, sequences)[::way]
        start = [graph.op("Mul", b[0], np.float32(0))]
        for s in range(sequences - 1):
            start.append(graph.op("Add", graph.op("Mul", a[s], start[-1]), b[s]))
        own, totals, starts = (
            graph.op("Concat", *parts[::way], axis=axis) for parts, axis in ((h, 1), (total, 1), (start, 2))
        )
        found.append(graph.op("Add", own, graph.op("Mul", totals, starts)))
    return found


def _looped(graph: _Graph, decays: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """`_unrolled` for any number of steps and sequences: two of ONNX's Scans, each of which runs both ways at once.

    The first runs along the steps of all sequences side by side. The total decay follows the recurrence too, from one
    and without input: it is kept beside h, as N more states. The second runs from sequence to sequence, and adds to all
    of each what it should have started from.
    """
    edge = graph.op("Gather", inputs[0], 0, axis=1)  # (B, sequences, N, D)
    first = graph.op("Concat", _filled(graph, edge, 0.0), _filled(graph, edge, 1.0), axis=2)
    none = _filled(graph, inputs[0], 0.0)
    found = _scan(
        graph,
        first,
        [graph.op("Concat", decay, decay, axis=3) for decay in decays],
        [graph.op("Concat", driven, none, axis=3) for driven in inputs],
        step=_one_step,
        axis=1,
    )
    nothing = _filled(graph, graph.op("Gather", edge, 0, axis=1), 0.0)  # (B, N, D)
    own, totals = zip(*(graph.ops("Split", 2, both, axis=3) for both in found), strict=True)
    return _scan(graph, nothing, own, totals, step=_one_sequence, axis=2)


def _scan(
    graph: _Graph,
    first: str,
    *slices: Sequence[str],
    step: Callable[[str, bool], list[onnx.NodeProto]],
    axis: int,
) -> list[str]:
    """A recurrence along an axis, forward for the first and back for the second of each of `slices`.

    Both axes of the map are in the shape of what is found. In that of the last states, which a Scan gives as well, they
    are not, and these are no use: where the pictures grow and a shape stays, OpenVINO's bfloat16 reads what a loop gave
    from memory that was freed (2026.4; see docs/performance-cpu.md).

    Args:
        first: the state before the first slice, of both ways.
        slices: what is cut along `axis`, of either way.
        step: the nodes of one step, from `h_before` and `slice0`, `slice1` and so on to `h` and `found`, each with the
            suffix that it is given; it is told, too, whether they are for the way back.

    Returns:
        `found` of all slices along `axis`, of both ways.
    """
    nodes = [*step("", False), *step("_back", True)]
    taken = [f"slice{i}{suffix}" for suffix in ("", "_back") for i in range(len(slices))]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        for names in (["h_before", "h_before_back", *taken], ["h", "h_back", "found", "found_back"])
    )
    return graph.ops(
        "Scan",
        4,
        *(first, first),
        *(each[way] for way in (0, 1) for each in slices),
        body=helper.make_graph(nodes, "step", inputs, outputs),
        num_scan_inputs=len(taken),
        scan_input_axes=[axis] * len(taken),
        scan_input_directions=[0] * len(slices) + [1] * len(slices),
        scan_output_axes=[axis, axis],
        scan_output_directions=[0, 1],
    )[2:]


def _one_step(suffix: str, back: bool) -> list[onnx.NodeProto]:
    """h = slice0 h_before + slice1, which is what is found."""
    return [
        helper.make_node("Mul", [f"slice0{suffix}", f"h_before{suffix}"], [f"kept{suffix}"]),
        helper.make_node("Add", [f"kept{suffix}", f"slice1{suffix}"], [f"h{suffix}"]),
        helper.make_node("Identity", [f"h{suffix}"], [f"found{suffix}"]),
    ]


def _one_sequence(suffix: str, back: bool) -> list[onnx.NodeProto]:
    """What is found is all of a sequence, (B, steps, N, D): its own h, slice0, and what is left after the total decays,
    slice1, of where it starts. h is its end."""
    return [
        helper.make_node("Constant", [], [f"axis{suffix}"], value_ints=[1]),
        helper.make_node("Unsqueeze", [f"h_before{suffix}", f"axis{suffix}"], [f"start{suffix}"]),
        helper.make_node("Mul", [f"slice1{suffix}", f"start{suffix}"], [f"carried{suffix}"]),
        helper.make_node("Add", [f"slice0{suffix}", f"carried{suffix}"], [f"found{suffix}"]),
        helper.make_node("Constant", [], [f"end{suffix}"], value_int=0 if back else -1),
        helper.make_node("Gather", [f"found{suffix}", f"end{suffix}"], [f"h{suffix}"], axis=1),
    ]


def _filled(graph: _Graph, like: str, value: float) -> str:
    filling = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
    return graph.op("ConstantOfShape", graph.op("Shape", like), value=filling)


def _channels(values: Tensor) -> Tensor:
    """One value a channel, with the rank of a map: engines fuse what has one rank."""
    return values.reshape(1, -1, 1, 1)
