"""Labels that do not flicker: each frame's scores averaged with those of the frames before it, carried along by motion.

A network that sees one frame at a time changes its mind from frame to frame where two classes are nearly level. The
average of past probabilities does not; but a street moves, so the past is first moved to where the optical flow between
the two pictures says it went. What it does to accuracy and to flicker stands in docs/live.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmnet_app.errors import ConfigError

__all__ = ["Smoother"]

MIN_FLOW_SIDE = 32
"""OpenCV's flow crashes on smaller pictures; the past of those stays where it is."""


class Smoother:
    """Smooths the scores of one stream of frames, in their order. One thread at a time may use it.

    The exponential average of class probabilities, motion-compensated by dense inverse search (Kroeger et al., ECCV
    2016; OpenCV's), at the resolution of the logits.

    Args:
        temperature: of the weights, which makes probabilities of logits.
        newest: weight of the newest frame, above 0, up to 1 (no smoothing).

    Raises:
        ConfigError: `newest` is not such a weight.
    """

    def __init__(self, temperature: float, newest: float = 0.3) -> None:
        if not 0 < newest <= 1:
            raise ConfigError(f"the weight of the newest frame must be above 0 and at most 1, not {newest}")
        self._temperature = temperature
        self._newest = newest
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._past: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None

    def smooth(self, logits: Tensor, pictures: NDArray[np.uint8]) -> Tensor:
        """The scores to answer from in place of the network's. A change of size starts anew.

        Args:
            logits: of consecutive frames, float32. Shape: (B, K, h, w).
            pictures: that the network saw, RGB. Shape: (B, H, W, 3).

        Returns:
            Logits whose softmax at the temperature is the average, on the same device. Shape: (B, K, h, w).
        """
        height, width = logits.shape[-2:]
        averages = torch.softmax(logits / self._temperature, dim=1).cpu().numpy()
        for average, picture in zip(averages, pictures, strict=True):
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
            if self._past is not None and self._past[0].shape == average.shape:
                average *= self._newest
                average += (1 - self._newest) * self._moved(*self._past, grey)
            self._past = (average, grey)
        return (
            torch.from_numpy(averages).to(logits.device).clamp_min(torch.finfo(torch.float32).tiny).log()
            * self._temperature
        )

    @property
    def state(self) -> Mapping[str, NDArray[Any]]:
        """All that is remembered of the frames before, for another Smoother to go on with; never changed in place."""
        return {} if self._past is None else {"average": self._past[0], "grey": self._past[1]}

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._past = (state["average"], state["grey"]) if state else None

    def _moved(
        self, average: NDArray[np.float32], past: NDArray[np.uint8], now: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """The past average, each pixel from where the flow between the two grey pictures says that it was."""
        if min(now.shape) < MIN_FLOW_SIDE:
            return average
        rows, columns = np.indices(now.shape, dtype=np.float32)
        flow = self._flow.calc(now, past, None)  # type: ignore[call-overload]  # OpenCV's stubs know no None here
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        moved = [cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in average]
        return np.asarray(moved, np.float32)
