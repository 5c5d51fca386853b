"""The streets themselves. Each function lays one out and returns it; `SCENES` names them."""

from __future__ import annotations

import math
from collections.abc import Callable

from . import furniture, ground
from .ground import KERB, Path
from .houses import block, shop, terrace
from .mesh import Mesh
from .trees import hedge
from .world import Light, World

SUNNY = Light(elevation=38, azimuth=55, sun=4.2, cover=0.35, softness=0.12, exposure=0.75)
OVERCAST = Light(
    elevation=55,
    azimuth=20,
    sun=0.9,
    angle=45,
    warmth=(1, 0.98, 0.95),
    zenith=(0.62, 0.66, 0.72),
    horizon=(0.95, 0.97, 1.0),
    cloud=(0.72, 0.75, 0.8),
    cover=0.85,
    softness=0.3,
    strength=1.15,
    exposure=0.95,
    haze=(0.8, 0.83, 0.87),
    visibility=1280,
)


def terraces() -> World:
    """A sunny street of Victorian terraces with parked cars on both sides."""
    w = World("terraces", SUNNY, Path(straight=45, radius=170), half=4.4, walk=2.2)
    w.base()
    w.road((-12, 190))
    w.pavements((-12, 190))
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-6, 180), 0.0, 2.0, 4.0)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (7, 30), (-2.6, -1.7), (0.042, 0.042, 0.045))
    ground.patch(w.palette, w.path, (16, 19), (0.4, 2.0), (0.085, 0.084, 0.085))
    ground.manhole(w.palette, w.path, 9.0, -0.6)
    ground.manhole(w.palette, w.path, 21.0, 0.9)
    w.houses(-1, (-14, 180), terrace, (4.8, 5.8), setback=1.6)
    w.houses(1, (-14, 180), terrace, (4.8, 5.8), setback=1.6)
    for side in (-1, 1):
        at = -12.0
        while at < 150:
            wall = furniture.garden_wall(
                w.palette, 4.2, w.rng.uniform(0.55, 0.95), w.rng.choice(("8d6a52", "94826a", "7d4a3a"))
            )
            w.path.put(wall, at, side * (w.front + 0.1), 0, KERB)
            if w.rng.random() < 0.4:
                w.path.put(hedge(w.palette, w.rng.randrange(4), 4.0, 1.4, 0.7), at, side * (w.front + 0.75), 0, KERB)
            at += 5.3
    w.parked(-1, (9, 110), 0.8)
    w.parked(1, (5.5, 110), 0.85)
    w.drive(34, 1.5, "hatch", "8a1f1c", -8)
    for s, d, kind in ((27, 6.2, 2), (46, -6.3, 0), (62, 6.4, 1), (84, -6.4, 2), (104, 6.4, 0)):
        w.tree(s, d, kind, 0.75)
    w.skyline(195)
    w.lamps((20, 60, 100), -1)
    w.lamps((40, 80), 1)
    w.sign("limit", 13, -1)
    w.walker(17, 5.6, -1)
    w.walker(14.5, -5.7, 1)
    w.walker(40, -5.9, -1)
    w.camera(0, -0.9, 7, turn=-1.0, pitch=0.5)
    return w


def high_street() -> World:
    """An overcast street of shops with people on foot and on bicycles."""
    w = World("high_street", OVERCAST, Path(straight=60, radius=-220), half=3.7, walk=3.2)
    w.base()
    w.road((-12, 220), (0.07, 0.07, 0.073))
    w.pavements((-12, 220), slabs="746f68")
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-5, 200), 0.0, 4.0, 2.0)
    for side in (-1, 1):
        ground.yellow_lines(m, w.palette, w.path, (-10, 60), side * w.half)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (10, 26), (0.5, 1.4), (0.05, 0.05, 0.052))
    ground.manhole(w.palette, w.path, 8.0, -2.0)
    w.houses(-1, (-14, 210), shop, (5.5, 8.5))
    w.houses(1, (-14, 210), shop, (5.5, 8.5))
    w.parked(1, (40, 70), 0.9)
    w.drive(17, -1.9, "saloon", "30363c", 7)
    w.drive(44, -1.9, "van", "c9cbca", 7)
    w.drive(31, 1.8, "suv", "9aa0a4", -8)
    w.drive(58, 1.8, "hatch", "1d2f55", -8)
    w.rider(13.5, 2.4, -1)
    w.rider(27, -3.0, 1)
    for s, d, along in (
        (9, -5.2, 1),
        (12, 5.4, -1),
        (14, 5.0, -1),
        (20, -6.0, -1),
        (22, 6.0, 1),
        (30, -5.0, 1),
        (31, -5.7, 1),
        (36, 5.5, -1),
        (45, -5.5, -1),
    ):
        w.walker(s, d, along)
    w.tree(52, -5.2, 2, 0.9)
    w.tree(66, 5.4, 2, 0.9)
    w.skyline(225)
    w.lamps((24, 58, 92), -1)
    w.lamps((41, 75), 1)
    w.sign("blue", 11.5, 1)
    w.sign("parking", 33, 1)
    w.sign("warning", 26, -1)
    for s in (5.0, 6.6, 8.2, 9.8):
        w.path.put(furniture.bollard(w.palette), s, 4.15, 0, KERB)
    w.camera(0, -1.8, 7, turn=-1.5, pitch=0.8)
    return w


def crossing() -> World:
    """A junction with traffic lights, a car crossing ahead and railings at the corner."""
    light = Light(
        elevation=30,
        azimuth=-65,
        sun=3.6,
        cover=0.55,
        softness=0.16,
        exposure=0.8,
        horizon=(0.95, 0.96, 1.0),
        visibility=1200,
        seed=3.0,
    )
    w = World("crossing", light, half=4.2, walk=2.8)
    half, middle = w.half, 24.0
    cross = Path(x=-90, y=middle, angle=0.0)
    near, far = middle - half, middle + half
    w.base()
    w.road((-12, 210))
    w.road((0, 180), path=cross, z=0.0015)
    for s in ((-12, near - 0.5), (far + 0.5, 210)):
        w.pavements(s, slabs="6c6862")
    for s in ((0, 90 - half - 0.5), (90 + half + 0.5, 180)):
        w.pavements(s, path=cross, slabs="6c6862")
    m = Mesh()
    ground.stripe(m, w.palette, w.path, (15.6, 15.9), -half / 2, half - 0.3)
    for s in ((-8, 15.5), (33, 190)):
        ground.dashes(m, w.palette, w.path, s, 0.0, 2.0, 2.5)
    for s in ((0, 80), (100, 180)):
        ground.dashes(m, w.palette, cross, s, 0.0, 2.0, 2.5)
    for k in range(13):  # two rows of studs where people cross
        for s in (17.2, 19.4):
            ground.stripe(m, w.palette, w.path, (s, s + 0.1), -half + 0.35 + k * (2 * half - 0.7) / 12, 0.1)
    for side in (-1, 1):
        ground.yellow_lines(m, w.palette, w.path, (-10, near - 1), side * half)
        ground.yellow_lines(m, w.palette, w.path, (far + 1, 70), side * half)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (2, 14), (-2.9, -1.9), (0.05, 0.05, 0.052))
    ground.manhole(w.palette, w.path, 11.0, -0.9)
    edge = half + 0.15 + w.walk
    w.houses(-1, (far + 4, 60), lambda p, r, x: shop(p, r, x, 3, 0.0), (6.0, 8.0))
    w.houses(-1, (60, 190), terrace, (5.0, 6.0))
    w.houses(1, (far + 4, 190), lambda p, r, x: block(p, r, x, 4, 1.0), (14.0, 18.0))
    w.houses(-1, (-14, near - 12), terrace, (5.0, 6.0))
    w.houses(1, (-14, near - 4), lambda p, r, x: shop(p, r, x, 2), (6.0, 8.0))
    w.houses(-1, (0, 90 - edge - 8), terrace, (5.0, 6.0), path=cross)
    w.houses(1, (90 + edge + 10, 170), terrace, (5.0, 6.0), path=cross)
    w.houses(-1, (90 + edge + 18, 170), terrace, (5.0, 6.0), path=cross)
    w.path.put(furniture.railings(w.palette, 11.0), 5.5, -half - 0.5, 0, KERB)
    w.path.put(furniture.railings(w.palette, 10.0), far + 2.5, half + 0.5, 0, KERB)
    for s, d, kind in ((15, -9.5, 0), (10, -11.0, 2), (33, -6.0, 2), (52, 6.0, 0), (76, -6.0, 1), (72, 6.0, 1)):
        w.tree(s, d, kind, 0.85)
    for s, d in ((70, -6), (112, 7), (124, -7), (58, 6.5)):
        w.tree(s, d, 0, 0.8, path=cross)
    w.skyline(215)
    for s, d, lit in (
        (15.2, -half - 0.5, "red"),
        (15.2, half + 0.5, "red"),
        (far + 1.6, half + 0.6, "red"),
        (far + 1.6, -half - 0.6, "red"),
    ):
        w.path.put(furniture.traffic_light(w.palette, lit), s, d, 0, KERB)
    w.drive(92.5, 1.9, "saloon", "7f858a", 7, path=cross)
    w.drive(101, -1.9, "hatch", "8a1f1c", -7, path=cross)
    w.drive(38, 2.0, "suv", "1d2f55", -4)
    w.drive(47, 2.0, "hatch", "c9cbca", -4)
    w.drive(52, -2.0, "van", "9aa0a4", 6)
    w.walker(18.2, 3.0, 1, turn=math.pi / 2)
    w.walker(18.4, 6.2, 1)
    w.walker(30.5, -6.0, -1)
    w.walker(32, 6.6, 1)
    w.walker(12, 6.0, 1)
    w.lamps((34, 70), -1)
    w.lamps((52,), 1)
    w.sign("name", 31, 1, 2.4, 2.2)
    w.camera(3.0, -1.9, 0, turn=-2.0, pitch=0.8)
    return w


def close_car() -> World:
    """Behind a car in low, warm sun, offices on the right and terraces on the left."""
    light = Light(
        elevation=24,
        azimuth=-38,
        sun=4.0,
        warmth=(1.0, 0.86, 0.68),
        zenith=(0.24, 0.38, 0.68),
        horizon=(1.0, 0.95, 0.88),
        cover=0.62,
        softness=0.14,
        exposure=0.8,
        haze=(0.86, 0.82, 0.76),
        visibility=1120,
        seed=7.0,
    )
    w = World("close_car", light, Path(straight=70, radius=260), half=4.6, walk=2.6)
    w.base()
    w.road((-12, 230), (0.066, 0.065, 0.066))
    w.pavements((-12, 230), slabs="706a62")
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-6, 200), 0.0, 2.0, 4.0)
    ground.stripe(m, w.palette, w.path, (-6, 200), -w.half + 1.5, 0.1)
    ground.yellow_lines(m, w.palette, w.path, (-10, 60), w.half)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (3, 60), (0.6, 1.5), (0.048, 0.048, 0.05))
    w.houses(-1, (-14, 220), lambda p, r, x: terrace(p, r, x, 3), (5.0, 6.2))
    w.houses(1, (-14, 70), lambda p, r, x: block(p, r, x, 4), (15.0, 19.0), setback=1.0)
    w.houses(1, (72, 220), lambda p, r, x: shop(p, r, x, 3), (6.0, 8.0))
    w.drive(8.4, -1.5, "hatch", "8a1f1c", 5)
    w.drive(19, -1.6, "suv", "5a6168", 5)
    w.drive(30, 1.9, "saloon", "15171a", -8)
    w.drive(13.5, 2.2, "small", "34507a", -8)
    w.drive(50, 1.9, "van", "c9cbca", -8)
    w.rider(15, -3.9, 1)
    for s, d, along in ((10, -5.9, 1), (21, 6.0, -1), (23, -6.4, -1), (35, 6.2, 1), (37, -6.0, 1)):
        w.walker(s, d, along)
    for s in (26, 44, 62, 80):
        w.tree(s, 5.6, 2, 0.95)
    for s in (58, 90):
        w.tree(s, -5.6, 0, 0.8)
    w.skyline(235)
    w.lamps((17, 51, 85), -1)
    w.lamps((34, 68), 1)
    w.sign("limit", 12.5, 1)
    w.camera(0, -1.6, 5, turn=-2.5, pitch=0.3)
    return w


def avenue() -> World:
    """A bright avenue of trees on grass verges, houses behind hedges and walls."""
    light = Light(
        elevation=47,
        azimuth=-42,
        sun=4.6,
        cover=0.42,
        softness=0.13,
        exposure=0.85,
        horizon=(0.92, 0.95, 1.0),
        visibility=1520,
        seed=11.0,
    )
    w = World("avenue", light, half=3.8, walk=1.9, verge=2.2)
    w.base()
    w.road((-12, 240), (0.075, 0.074, 0.074))
    w.pavements((-12, 240), slabs="")
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-6, 220), 0.0, 2.0, 4.0)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (6, 18), (-3.0, -2.0), (0.055, 0.055, 0.056))
    for side in (-1, 1):
        w.houses(side, (-14, 220), lambda p, r, x: terrace(p, r, x, 2, 0.0), (7.0, 9.5), setback=5.5)
        at = -12.0
        while at < 160:
            if w.rng.random() < 0.55:
                w.path.put(
                    hedge(w.palette, w.rng.randrange(4), 8.0, w.rng.uniform(1.2, 1.8)),
                    at,
                    side * (w.front + (0.2 if side > 0 else 1.1)),
                    0,
                    KERB,
                )
            else:
                w.path.put(furniture.garden_wall(w.palette, 8.0, 0.9), at, side * (w.front + 0.2), 0, KERB)
            at += 10.2
        for k in range(18):
            w.tree(9.5 + 12.5 * k + side * 1.5, side * (w.half + 1.2), (1, 0, 3)[(k + side) % 3], 0.86)
    w.path.put(furniture.railings(w.palette, 16.0, 1.1, 0.4), 3, -w.front - 0.3, 0, KERB)
    w.drive(27, 1.8, "saloon", "9aa0a4", -9)
    w.drive(40, -1.8, "hatch", "1d2f55", 9)
    w.drive(66, 1.8, "suv", "8a1f1c", -9)
    for s, model, color in (
        (13.5, "hatch", "c9cbca"),
        (20.5, "saloon", "1c3a30"),
        (46, "van", "d6d8d8"),
        (54, "hatch", "23262b"),
    ):
        w.garage.park(w.path, s, w.half - 0.95, model, color, math.pi)
    w.rider(16, -2.9, 1)
    w.walker(14, -7.0, 1)
    w.walker(25, 7.2, -1)
    w.skyline(245)
    w.lamps((30, 80), -1)
    w.sign("warning", 15.5, -1)
    w.camera(0, -1.7, 8, turn=-1.5, pitch=1.0)
    return w


def parkside() -> World:
    """A cloudy afternoon: a park behind railings on the left, tall terraces on the right."""
    light = Light(
        elevation=34,
        azimuth=120,
        sun=1.4,
        angle=20,
        zenith=(0.42, 0.47, 0.55),
        horizon=(0.95, 0.95, 0.93),
        cloud=(0.5, 0.53, 0.58),
        cover=0.75,
        softness=0.2,
        cloud_scale=1.4,
        exposure=1.25,
        haze=(0.72, 0.75, 0.78),
        visibility=1200,
        seed=21.0,
    )
    w = World("parkside", light, Path(straight=50, radius=-190), half=4.3, walk=2.4)
    w.base()
    w.road((-12, 220), (0.058, 0.058, 0.062))
    w.pavements((-12, 220), slabs="65615b")
    m = Mesh()
    ground.dashes(m, w.palette, w.path, (-6, 200), 0.0, 4.0, 2.0)
    ground.yellow_lines(m, w.palette, w.path, (-10, 90), -w.half)
    m.build("markings", ground.Class.ROAD)
    ground.patch(w.palette, w.path, (4, 40), (-2.4, -1.4), (0.045, 0.045, 0.048))
    ground.manhole(w.palette, w.path, 8.0, 0.8)
    w.houses(1, (-14, 210), lambda p, r, x: terrace(p, r, x, 3, 0.4), (5.2, 6.4))
    for at in range(-8, 96, 8):
        w.path.put(furniture.railings(w.palette, 8.0, 1.15, 0.45), at, -w.front - 0.2, 0, KERB)
    for k in range(16):
        w.tree(8 + 9 * k + w.rng.uniform(-2, 2), -w.front - w.rng.uniform(2.5, 5), k % 4, 0.95)
        w.tree(12 + 9 * k, -w.front - w.rng.uniform(12, 22), (k + 1) % 4, 1.1)
        w.tree(20 + 9 * k, -w.front - w.rng.uniform(40, 60), (k + 1) % 4, 1.2)
    w.parked(1, (8, 120), 0.85)
    w.drive(22, -1.9, "hatch", "34507a", 7)
    w.drive(40, 0.9, "saloon", "c9cbca", -8)
    w.rider(12.5, -3.4, 1)
    w.walker(13, -5.8, -1)
    w.walker(24, -6.0, 1)
    w.walker(19, 5.7, -1)
    w.skyline(225)
    w.lamps((26, 66), -1)
    w.lamps((46,), 1)
    w.sign("parking", 17, 1)
    w.sign("blue", 30, -1)
    w.camera(0, -1.7, 7, turn=1.0, pitch=0.8)
    return w


SCENES: dict[str, Callable[[], World]] = {
    f.__name__: f for f in (terraces, high_street, crossing, close_car, avenue, parkside)
}
