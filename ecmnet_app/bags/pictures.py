"""The pictures of a bag beside their masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.messages import PICTURES, labels_of, picture_of, stamp_of
from ecmnet_app.bags.reader import Bag
from ecmnet_app.bags.storage import Message
from ecmnet_app.core import LabelSet, Segmentation
from ecmnet_app.errors import ImageError

__all__ = ["Picture", "pictures"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame that was segmented."""

    image: NDArray[np.uint8]
    """RGB. Shape: (H, W, 3)."""
    labels: NDArray[np.uint8]
    """Class ids. Shape: (H, W)."""
    stamp_ns: int
    log_time_ns: int

    def overlay(self, label_set: LabelSet, opacity: float = 0.5) -> NDArray[np.uint8]:
        """See `Segmentation.overlay`; the label set of the weights that segmented it."""
        return Segmentation(self.labels, np.empty(0, np.float32), label_set).overlay(self.image, opacity)


def pictures(
    source: Bag, answers: Bag, topic: str, start: int | None = None, stop: int | None = None
) -> Iterator[Picture]:
    """The frames of a topic in a bag that was segmented, in its order; those that are not in both are passed over.

    Args:
        source, answers: the bag, and that of its masks.
        topic: of the pictures.
        start, stop: log times, nanoseconds; all frames by default.

    Raises:
        ImageError: a mask is damaged.
    """
    masks = _messages(answers, f"{topic}/mask", start, stop)
    waiting = next(masks, None)
    for message in _messages(source, topic, start, stop):
        while waiting is not None and waiting.log_time < message.log_time:
            waiting = next(masks, None)  # a mask of a message that is there no more
        if waiting is None:
            return
        if message.log_time != waiting.log_time or message.channel.kind not in PICTURES:
            continue  # a message without an answer
        try:
            header, image = picture_of(message)
        except ImageError:
            continue
        labels = labels_of(waiting)
        if image.shape[:2] == labels.shape:
            yield Picture(image, labels, stamp_of(header), message.log_time)
            waiting = next(masks, None)


def _messages(bag: Bag, topic: str, start: int | None, stop: int | None) -> Iterator[Message]:
    items = bag.items(bag.start if start is None else start, bag.end + 1 if stop is None else stop)
    for _, item in items:
        if isinstance(item, Message) and item.channel.topic == topic:
            yield item
