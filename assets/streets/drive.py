"""The street of the clip: a drive of ten seconds along terraces and shops, with traffic both ways."""

from __future__ import annotations

import math

from . import furniture, ground
from .ground import KERB, Path
from .houses import block, shop, terrace
from .mesh import Mesh
from .trees import hedge
from .world import Light, World

SPEED = 8.0  # metres a second, of the camera

LIGHT = Light(
    elevation=40,
    azimuth=50,
    sun=3.8,
    cover=0.45,
    softness=0.14,
    exposure=0.78,
    horizon=(0.92, 0.95, 1.0),
    visibility=1400,
    seed=5.0,
)


def drive(fov: float) -> World:
    """Left-hand traffic; the camera starts at s = 0 in its lane, ten seconds later it is in the bend at s = 80."""
    w = World("drive", LIGHT, Path(straight=66, radius=230), half=5.0, walk=2.5)
    w.base()
    w.road((-20, 275), (0.064, 0.064, 0.067))
    w.pavements((-20, 275), slabs="706b64")
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-18, 270), 0.0, 2.0, 4.0)
    ground.yellow_lines(m, w.palette, w.path, (29, 76), -w.half)
    m.build("markings", ground.Class.ROAD)
    for s, d, color in (
        ((8, 33), (0.5, 1.4), (0.046, 0.046, 0.048)),
        ((40, 62), (-2.7, -1.9), (0.05, 0.05, 0.052)),
        ((70, 74), (-0.4, 2.2), (0.084, 0.083, 0.084)),
        ((92, 130), (0.4, 1.3), (0.046, 0.046, 0.048)),
    ):
        ground.patch(w.palette, w.path, s, d, color)
    for s, d in ((10, -1.4), (37, 0.9), (57, -0.8), (81, -1.2), (98, 1.1)):
        ground.manhole(w.palette, w.path, s, d)

    w.houses(-1, (-18, 88), lambda p, r, x: terrace(p, r, x, 2, 0.12), (4.9, 5.9), setback=1.6)
    w.houses(-1, (104, 265), lambda p, r, x: terrace(p, r, x, 3, 0.12), (5.2, 6.2), setback=1.6)
    w.houses(1, (-18, 50), lambda p, r, x: shop(p, r, x, 3, 0.2), (5.8, 8.2))
    w.houses(1, (52, 120), lambda p, r, x: block(p, r, x, 4, 1.0), (14.0, 18.0), setback=1.2)
    w.houses(1, (122, 265), lambda p, r, x: terrace(p, r, x, 2, 0.12), (4.9, 5.9), setback=1.6)
    at = -16.0
    while at < 180:
        wall = furniture.garden_wall(
            w.palette, 4.2, w.rng.uniform(0.55, 0.95), w.rng.choice(("8d6a52", "94826a", "7d4a3a"))
        )
        w.path.put(wall, at, -w.front - 0.1, 0, KERB)
        if w.rng.random() < 0.5:
            w.path.put(hedge(w.palette, w.rng.randrange(4), 4.0, 1.4, 0.7), at, -w.front - 0.8, 0, KERB)
        at += 5.3
    w.path.put(furniture.railings(w.palette, 14.0, 1.15, 0.4), 89.0, -w.front - 0.1, 0, KERB)

    for s, d, kind, scale in (
        (17, -6.0, 0, 0.85),
        (34, -6.0, 1, 0.85),
        (53, -6.0, 3, 0.8),
        (72, -6.0, 0, 0.9),
        (99, -6.0, 1, 0.85),
        (122, -6.0, 0, 0.85),
        (146, -6.0, 3, 0.8),
        (27, 6.0, 2, 0.95),
        (60, 6.0, 0, 0.85),
        (84, 6.0, 1, 0.8),
        (108, 6.0, 2, 1.0),
        (134, 6.0, 0, 0.85),
        (92, -11.5, 1, 1.0),
        (99, -15.0, 3, 1.0),
        (95, -22.0, 0, 1.1),
    ):
        w.tree(s, d, kind, scale)
    w.skyline(285)
    w.lamps((44, 88, 132), -1)
    w.lamps((22, 66, 112), 1)
    w.sign("limit", 13, -1)
    w.sign("parking", 39, 1)
    w.sign("warning", 61, -1)
    w.sign("blue", 92, 1)

    w.parked(-1, (-8, 26), 0.85)
    w.parked(-1, (80, 106), 0.85)
    w.parked(-1, (116, 170), 0.85)
    w.parked(1, (-8, 20), 0.8)
    w.parked(1, (42, 106), 0.8)
    w.parked(1, (116, 160), 0.8)

    w.drive(19, -1.7, "hatch", "8a1f1c", SPEED - 0.6)
    w.drive(52, -1.7, "van", "c9cbca", SPEED + 0.5)
    for s, model, color in (
        (27, "saloon", "30363c"),
        (58, "hatch", "34507a"),
        (71, "suv", "9aa0a4"),
        (103, "van", "c9cbca"),
        (168, "hatch", "15171a"),
        (182, "saloon", "7f858a"),
    ):
        w.drive(s, 1.75, model, color, -SPEED)
    w.rider(33, -3.7, 1)
    w.rider(36, 3.6, -1)
    for s, d, along in (
        (12, -6.9, 1),
        (21, 6.6, -1),
        (26, 7.0, -1),
        (38, -6.9, -1),
        (44, 6.8, 1),
        (45, 7.3, 1),
        (63, -6.7, 1),
        (70, 6.9, -1),
        (84, -6.8, -1),
        (97, 6.8, -1),
        (108, -6.9, -1),
    ):
        w.walker(s, d, along)
    x, y, a = w.path.at(112, w.half)  # someone crosses from the right kerb, in the gap between two cars
    w.walker(0, 0, path=Path(x, y, a + math.pi / 2))
    w.camera(0, -1.7, SPEED, turn=-1.0, pitch=0.7, fov=fov)
    return w
