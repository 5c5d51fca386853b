"""The ONNX graph, run by ONNX Runtime, against the network itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from random_nets import random_net

from ecmnet_app.core import CAMVID, Segmenter, load_weights, save_weights
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.onnx_graph import network_model
from ecmnet_app.network import ECMNetConfig

MakePicture = Callable[..., NDArray[np.uint8]]

CONFIGS = {
    **{name: ECMNetConfig.named(name) for name in ("baseline", "A2", "B1", "C1", "C3", "residual")},
    "states": ECMNetConfig(state_size=3, expand=2),
    "deep and wide": ECMNetConfig(widths=(48, 64, 96), decoder_width=8, ffm=False, dilations=((1,), (2, 3), (4,) * 5)),
}


def run(model: onnx.ModelProto, pictures: NDArray[np.uint8]) -> list[NDArray[np.generic]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"pictures": pictures}))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("C3", "residual") else pytest.mark.long) for name in CONFIGS]
)
def test_every_variant_is_the_same_function(name: str, tmp_path: Path, make_picture: MakePicture) -> None:
    weights = save_weights(tmp_path / "w", random_net(CONFIGS[name]), CAMVID, working_short_side=360)
    reference = EagerEngine(weights, torch.device("cpu"))
    dynamic = network_model(weights)
    for size in ((97, 131), (64, 96)):
        pictures = make_picture(*size)[None]
        expected = reference.logits(pictures).numpy()
        for model in (dynamic, network_model(weights, size)):
            (found,) = run(model, pictures)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_preprocessing_is_that_of_the_weights(tiny_weights: Path, make_picture: MakePicture) -> None:
    weights = replace(load_weights(tiny_weights), mean=(0.2, 0.4, 0.6), std=(0.3, 0.2, 0.1))
    pictures = make_picture(64, 96)[None]
    expected = EagerEngine(weights, torch.device("cpu")).logits(pictures).numpy()
    np.testing.assert_allclose(run(network_model(weights), pictures)[0], expected, atol=1e-3)


def test_a_batch_gives_what_each_picture_gives(tiny_weights: Path, make_picture: MakePicture) -> None:
    pictures = np.stack([make_picture(65, 94, seed) for seed in range(3)])
    model = network_model(load_weights(tiny_weights))
    (together,) = run(model, pictures)
    for picture, found in zip(pictures, together, strict=True):
        np.testing.assert_allclose(found, run(model, picture[None])[0][0], atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (100, 37)])
def test_labels_and_confidence_are_the_segmenters(
    tiny_weights: Path, make_picture: MakePicture, size: tuple[int, int]
) -> None:
    weights = replace(load_weights(tiny_weights), temperature=2.0)
    picture = make_picture(*size)
    answer = Segmenter(weights, EagerEngine(weights, torch.device("cpu"))).predict(picture)
    for model in (network_model(weights, answer=True), network_model(weights, size, answer=True)):
        labels, confidence = run(model, picture[None])
        assert (labels.dtype, labels.shape) == (np.uint8, (1, *size))
        assert (confidence.dtype, confidence.shape) == (np.float32, (1, *size))
        assert (labels[0] == answer.labels).mean() > 0.9999
        np.testing.assert_allclose(confidence[0], answer.confidence, atol=1e-4)


def test_a_fixed_size_needs_elementary_operations_only(tiny_weights: Path) -> None:
    weights = load_weights(tiny_weights)
    assert {node.op_type for node in network_model(weights).graph.node} >= {"Scan"}
    assert not {node.op_type for node in network_model(weights, (64, 96)).graph.node} & {"Scan", "Loop", "If"}
