"""The node's parameters: names, defaults, ranges, and what their values mean. ROS declares what is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecmnet_app.errors import ConfigError
from ecmnet_app.network import MIN_SIZE

__all__ = ["PARAMETERS", "TRANSPORTS", "Parameter", "Settings"]

TRANSPORTS = ("auto", "raw", "compressed")


@dataclass(frozen=True)
class Parameter:
    """What a parameter's descriptor says."""

    default: Any
    """Its type is the parameter's; `list` stands for a list of strings."""
    description: str
    least: float | None = None
    most: float | None = None
    read_only: bool = False


PARAMETERS = {
    "image_topics": Parameter(
        ["image_raw"], "Topics of pictures, one a camera: sensor_msgs Image or CompressedImage.", read_only=True
    ),
    "transport": Parameter(
        "auto", "raw, compressed (image_transport's name for it is added), or auto: what is published.", read_only=True
    ),
    "depth_topics": Parameter(
        [""], "Depth pictures aligned to the cameras', in their order; ~/points is published with them.", read_only=True
    ),
    "weights": Parameter("default", "Name of weights, or the path of a .safetensors file.", read_only=True),
    "device": Parameter("auto", "auto (a GPU if there is one), cpu, cuda or cuda:N.", read_only=True),
    "engine": Parameter("auto", "What runs the network.", read_only=True),
    "threads": Parameter(0, "Threads of the CPU; 0: torch's own choice.", 0, 256, read_only=True),
    "max_batch": Parameter(
        0, "Most pictures that the network runs at once; 0: 8 on a GPU, 1 on the CPU.", 0, 64, read_only=True
    ),
    "resolution": Parameter(
        0, "Short side in pixels at which the network sees a picture; 0: the weights' own.", 0, 4096
    ),
    "confidence_threshold": Parameter(0.0, "Pixels with less confidence become 255, unlabelled.", 0.0, 1.0),
    "output_size": Parameter("native", "Size of mask and confidence: native (the camera's), network, or WIDTHxHEIGHT."),
    "overlay_opacity": Parameter(0.5, "Of the colours in ~/overlay: 0 is the picture alone.", 0.0, 1.0),
    "web": Parameter(False, "Show on a page what the robot sees.", read_only=True),
    "web_port": Parameter(7860, "Port of that page, on 127.0.0.1.", 1, 65535, read_only=True),
}


@dataclass(frozen=True)
class Settings:
    """Values of the parameters that take effect while the node runs."""

    resolution: int | None
    threshold: float | None
    output_size: str | tuple[int, int]
    """"native", "network", or (height, width)."""
    opacity: float

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """Read the values of `PARAMETERS` by name; others are ignored.

        Raises:
            ConfigError: a value cannot work.
        """
        resolution = values["resolution"]
        if 0 < resolution < MIN_SIZE:
            raise ConfigError(
                f"resolution must be 0 for the weights' own, or at least {MIN_SIZE} pixels, not {resolution}"
            )
        return cls(
            resolution=resolution or None,
            threshold=values["confidence_threshold"] or None,
            output_size=_size(values["output_size"]),
            opacity=values["overlay_opacity"],
        )


def _size(text: str) -> str | tuple[int, int]:
    if text in ("native", "network"):
        return text
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise ConfigError(f"output_size must be native, network or WIDTHxHEIGHT such as 640x360, not {text!r}")
    return int(match[2]), int(match[1])
