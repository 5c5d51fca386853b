"""Labels that do not flicker: each frame's scores averaged with those of the frames before it, carried along by motion.

A network that sees one frame at a time changes its mind from frame to frame where two classes are nearly level. The
average of past probabilities does not; but a street moves, so the past is first moved to where the optical flow between
the two pictures says it went, and counts only where what was seen there looks like what is there now: not where a car
has driven away. What it does to accuracy and to flicker stands in docs/live.md.
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

TOLERANCE = 15.0
"""Grey levels, of 255, by which past and present may differ for the past to count 1 / e of what it does where they are
equal."""


class Smoother:
    """Smooths the scores of one stream of frames, in their order. One thread at a time may use it.

    The exponential average of class probabilities, motion-compensated by dense inverse search (Kroeger et al., ECCV
    2016; OpenCV's).

    Args:
        temperature: of the weights, which makes probabilities of logits.
        newest: weight of the newest frame where the past fits, above 0, up to 1 (no smoothing).

    Raises:
        ConfigError: `newest` is not such a weight.
    """

    def __init__(self, temperature: float, newest: float = 0.5) -> None:
        if not 0 < newest <= 1:
            raise ConfigError(f"the weight of the newest frame must be above 0 and at most 1, not {newest}")
        self._temperature = temperature
        self._newest = newest
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._past: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None

    def smooth(self, logits: Tensor, pictures: NDArray[np.uint8]) -> Tensor:
        """The scores to answer from in place of the network's. A change of size starts anew.

        Args:
            logits: of consecutive frames, float32. Shape: (B, K, h, w).
            pictures: that the network saw, RGB. Shape: (B, H, W, 3).

        Returns:
            Logits whose softmax at the temperature is the average, on the same device. Shape: (B, K, h, w).
        """
        averages = torch.softmax(logits / self._temperature, dim=1).cpu().numpy()
        for average, picture in zip(averages, pictures, strict=True):
            grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
            if self._past is not None and self._past[0].shape == average.shape and self._past[1].shape == grey.shape:
                past, fit = self._moved(*self._past, grey)
                average += (1 - self._newest) * fit * (past - average)
            self._past = (average, grey)
        smoothed = torch.from_numpy(averages).to(logits.device)
        return smoothed.clamp_min(torch.finfo(torch.float32).tiny).log() * self._temperature

    @property
    def state(self) -> Mapping[str, NDArray[Any]]:
        """All that is remembered of the frames before, for another Smoother to go on with; never changed in place."""
        return {} if self._past is None else {"average": self._past[0], "grey": self._past[1]}

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._past = (state["average"], state["grey"]) if state else None

    def _moved(
        self, average: NDArray[np.float32], past: NDArray[np.uint8], now: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The past average, each pixel from where the flow between the two grey pictures says that it was; and how well
        the past picture, moved in the same way, fits the present one, 0 to 1. Shapes: (K, h, w) and (h, w)."""
        rows, columns = np.indices(now.shape, dtype=np.float32)
        flow = self._flow.calc(now, past, None)  # type: ignore[call-overload]  # OpenCV's stubs know no None here
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        difference = cv2.absdiff(cv2.remap(past, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), now)
        fit = np.exp(-((cv2.blur(difference.astype(np.float32), (5, 5)) / TOLERANCE) ** 2))
        height, width = now.shape
        fit *= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)

        # From the picture's pixels to those of the logits, which are larger.
        h, w = average.shape[-2:]
        fit, x, y = (cv2.resize(values, (w, h), interpolation=cv2.INTER_AREA) for values in (fit, x, y))
        x, y = (x + 0.5) * (w / width) - 0.5, (y + 0.5) * (h / height) - 0.5
        moved = [cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in average]
        return np.asarray(moved, np.float32), np.asarray(fit, np.float32)
