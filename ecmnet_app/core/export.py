"""The network as a file for other runtimes: ONNX, from pictures to labels and confidence."""

from __future__ import annotations

import json
import os
from pathlib import Path

from onnx import helper

import ecmnet_app
from ecmnet_app.core.onnx_graph import network_model
from ecmnet_app.core.weights import Weights
from ecmnet_app.errors import ConfigError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.network import MIN_SIZE

__all__ = ["export_onnx"]


def export_onnx(weights: Weights, path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> None:
    """Write an ONNX file that holds all that lies between a picture and its labels, preprocessing too.

    Input `pictures`: uint8 RGB, (B, H, W, 3). Outputs, at the same size: `labels`, uint8, (B, H, W), and `confidence`,
    float32, (B, H, W), 0 to 1. The metadata say what the labels mean and where the file comes from. Pictures are not
    resized: those much larger than `working_short_side` are better scaled down to it by area first.

    Args:
        weights: see `load_weights`.
        path: of the file; whole, or not there.
        size: (height, width) of the one picture that it will take, which suits devices and browsers: every operation
            in it is elementary. By default it takes any number of pictures of any one size.

    Raises:
        ConfigError: the size is too small, or the file cannot be written or does not end in .onnx.
    """
    if Path(path).suffix != ".onnx":
        raise ConfigError(f"ONNX is written to a file that ends in .onnx; {os.fspath(path)} does not")
    if size is not None and min(size) < MIN_SIZE:
        raise ConfigError(f"a size must be at least {MIN_SIZE}x{MIN_SIZE} pixels, not {size[0]}x{size[1]}")
    model = network_model(weights, size, answer=True)
    model.producer_name, model.producer_version = "ecmnet-app", ecmnet_app.__version__
    model.doc_string = f"ECMNet, weights {weights.name}: uint8 RGB pictures in, labels and confidence out"
    labels = {label.id: label.name for label in weights.label_set.labels}
    helper.set_model_props(
        model,
        {
            "name": weights.name,
            "labels": json.dumps(labels),
            "colors": json.dumps({label.id: label.color for label in weights.label_set.labels}),
            "mean": json.dumps(weights.mean),
            "std": json.dumps(weights.std),
            "temperature": json.dumps(weights.temperature),
            "working_short_side": str(weights.working_short_side),
            "licence": weights.licence,
            "sha256": weights.sha256,
        },
    )
    try:
        write_atomically(path, model.SerializeToString())
    except OSError as error:
        raise ConfigError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error
