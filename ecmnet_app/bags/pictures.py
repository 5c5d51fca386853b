"""The pictures of a bag beside their masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.jobs import BagJob
from ecmnet_app.bags.messages import PICTURES, labels_of, picture_of, stamp_of
from ecmnet_app.bags.reader import open_bag
from ecmnet_app.bags.storage import Message
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


def pictures(job: BagJob, topic: str, start: int | None = None, stop: int | None = None) -> Iterator[Picture]:
    """The frames of a topic in a bag that was segmented, in its order.

    Args:
        start, stop: log times, nanoseconds; all frames by default.

    Raises:
        BagError: the bag or its answers cannot be read.
    """
    masks = _messages(job.bag, f"{topic}/mask", start, stop)
    waiting = next(masks, None)
    for message in _messages(job.source, topic, start, stop):
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
            yield Picture(image, labels, stamp_of(header))
            waiting = next(masks, None)


def _messages(path: Path, topic: str, start: int | None, stop: int | None) -> Iterator[Message]:
    with open_bag(path) as bag:
        items = bag.items(bag.start if start is None else start, bag.end + 1 if stop is None else stop)
        for _, item in items:
            if isinstance(item, Message) and item.channel.topic == topic:
                yield item
