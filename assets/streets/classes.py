"""CamVid's eleven class ids, again: the renderer runs in Blender, without the project. A test compares them."""

from __future__ import annotations

from enum import IntEnum


class Class(IntEnum):
    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
