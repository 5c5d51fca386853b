"""LabelSet: ids, names and colours. The one palette of the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.errors import ConfigError

__all__ = ["CAMVID", "CITYSCAPES", "UNLABELLED", "UNLABELLED_COLOR", "UNLABELLED_NAME", "Label", "LabelSet"]

UNLABELLED = 255
"""Id of a pixel without a class, in everything that leaves the core."""
UNLABELLED_NAME = "Unlabelled"
UNLABELLED_COLOR = (0, 0, 0)


@dataclass(frozen=True)
class Label:
    """One class: its id in masks, its name for people, its colour as RGB, 0 to 255."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """The classes of one data set, with ids 0 to N - 1 in order.

    Raises:
        ConfigError: ids are not 0 to N - 1, a name is empty or used twice, or a colour is not RGB bytes.
    """

    name: str
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        where = f"label set {self.name!r}"
        if not 1 <= len(self.labels) <= UNLABELLED:
            raise ConfigError(f"{where} must have 1 to {UNLABELLED} labels, not {len(self.labels)}")
        ids = [label.id for label in self.labels]
        if ids != list(range(len(ids))):
            raise ConfigError(f"{where}: ids must be 0 to {len(ids) - 1} in order, not {ids}")
        taken = {UNLABELLED_NAME}
        for label in self.labels:
            if not isinstance(label.name, str) or not label.name or label.name in taken:
                raise ConfigError(f"{where}: label {label.id} has the name {label.name!r}, which is empty or taken")
            taken.add(label.name)
            if len(label.color) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in label.color):
                raise ConfigError(f"{where}: colour of {label.name!r} must be three of 0 to 255, not {label.color}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order of id."""
        return tuple(label.name for label in self.labels)

    @property
    def with_unlabelled(self) -> tuple[Label, ...]:
        """What a mask can hold: the labels in order of id, and last that of a pixel without a class, 255."""
        return (*self.labels, Label(UNLABELLED, UNLABELLED_NAME, UNLABELLED_COLOR))

    @property
    def colors(self) -> NDArray[np.uint8]:
        """RGB of each id. Shape: (N, 3)."""
        return np.array([label.color for label in self.labels], np.uint8)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """RGB of every value a mask can hold; ids that are not labels, 255 too, are black. Shape: (256, 3)."""
        palette = np.full((256, 3), UNLABELLED_COLOR, np.uint8)
        palette[: len(self)] = self.colors
        return palette

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is its inverse."""
        labels = [{"id": label.id, "name": label.name, "color": list(label.color)} for label in self.labels]
        return {"name": self.name, "labels": labels}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSet:
        """Build from `to_dict`'s output after a trip through JSON.

        Raises:
            ConfigError: a field is missing or has a value that no label set can have.
        """
        try:
            labels = tuple(Label(v["id"], v["name"], tuple(v["color"])) for v in values["labels"])
            return cls(values["name"], labels)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"a label set is {{name, labels: [{{id, name, color: [r, g, b]}}]}}; this one is not ({error})"
            ) from error


def _label_set(name: str, rows: Iterable[tuple[str, int, int, int]]) -> LabelSet:
    return LabelSet(name, tuple(Label(i, label, (r, g, b)) for i, (label, r, g, b) in enumerate(rows)))


CAMVID = _label_set(
    "CamVid",
    [
        ("Sky", 128, 128, 128),
        ("Building", 128, 0, 0),
        ("Pole", 192, 192, 128),
        ("Road", 128, 64, 128),
        ("Pavement", 60, 40, 222),
        ("Tree", 128, 128, 0),
        ("Sign", 192, 128, 128),
        ("Fence", 64, 64, 128),
        ("Car", 64, 0, 128),
        ("Pedestrian", 64, 64, 0),
        ("Bicyclist", 0, 128, 192),
    ],
)
"""The 11 classes that the literature reports on, in the order and colours of SegNet."""

CITYSCAPES = _label_set(
    "Cityscapes",
    [
        ("Road", 128, 64, 128),
        ("Sidewalk", 244, 35, 232),
        ("Building", 70, 70, 70),
        ("Wall", 102, 102, 156),
        ("Fence", 190, 153, 153),
        ("Pole", 153, 153, 153),
        ("Traffic light", 250, 170, 30),
        ("Traffic sign", 220, 220, 0),
        ("Vegetation", 107, 142, 35),
        ("Terrain", 152, 251, 152),
        ("Sky", 70, 130, 180),
        ("Person", 220, 20, 60),
        ("Rider", 255, 0, 0),
        ("Car", 0, 0, 142),
        ("Truck", 0, 0, 70),
        ("Bus", 0, 60, 100),
        ("Train", 0, 80, 100),
        ("Motorcycle", 0, 0, 230),
        ("Bicycle", 119, 11, 32),
    ],
)
"""The 19 train ids of Cityscapes, in its official order and colours."""
