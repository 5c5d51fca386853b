"""Streets drawn at random, for training: other light, widths, houses, people and furniture for each seed."""

from __future__ import annotations

import math
from random import Random

from . import furniture, ground
from .cars import COLORS, COMMON
from .ground import KERB, Path
from .houses import block, shop, terrace
from .materials import Color
from .mesh import Mesh
from .trees import hedge
from .world import Light, World

END = 170.0  # metres along the street; what is farther is skyline
HOUSES = {"terrace": (terrace, (4.8, 7.5)), "shop": (shop, (5.5, 8.5)), "block": (block, (13.0, 19.0))}  # and widths


def anywhere(seed: int) -> World:
    """The same street for the same seed."""
    rng = Random(f"anywhere {seed}")
    bend = rng.choice((0.0, 1.0, -1.0)) * rng.uniform(150, 400)
    path = Path(straight=rng.uniform(20, 80), radius=bend) if bend else Path()
    w = World(
        f"anywhere {seed}",
        _light(rng),
        path,
        half=rng.uniform(3.3, 5.4),
        walk=rng.uniform(1.6, 3.6),
        verge=rng.uniform(1.0, 2.6) if rng.random() < 0.2 else 0.0,
    )
    _ground(w, rng)
    for side in (-1, 1):
        _frontage(w, rng, side)
        _kerbside(w, rng, side)
    w.skyline(END + 15)
    _traffic(w, rng)
    w.camera(
        0,
        rng.uniform(-0.62, -0.25) * w.half,
        rng.uniform(4, 9),
        turn=rng.gauss(0, 5),
        pitch=rng.gauss(0.5, 2),
        fov=rng.uniform(48, 72),
    )
    return w


def _light(rng: Random) -> Light:
    def grey(low: float, high: float) -> Color:
        value = rng.uniform(low, high)
        return value, value + 0.03, value + 0.06

    if rng.random() < 0.45:  # overcast
        return Light(
            elevation=rng.uniform(30, 65),
            azimuth=rng.uniform(-180, 180),
            sun=rng.uniform(0.2, 1.4),
            angle=rng.uniform(15, 60),
            warmth=(1, 0.98, 0.95),
            zenith=grey(0.35, 0.65),
            horizon=grey(0.85, 0.98),
            cloud=grey(0.5, 0.78),
            cover=rng.uniform(0.7, 0.95),
            softness=rng.uniform(0.15, 0.35),
            strength=rng.uniform(0.7, 1.2),
            exposure=rng.uniform(0.5, 1.4),
            haze=grey(0.7, 0.85),
            visibility=rng.uniform(500, 1500),
            seed=rng.uniform(0, 100),
        )
    low = rng.random() < 0.4
    return Light(
        elevation=rng.uniform(8, 25) if low else rng.uniform(25, 62),
        azimuth=rng.uniform(-180, 180),
        sun=rng.uniform(2.2, 4.8),
        warmth=(1.0, rng.uniform(0.78, 0.9), rng.uniform(0.55, 0.75)) if low else (1.0, 0.93, 0.82),
        zenith=(rng.uniform(0.14, 0.3), rng.uniform(0.3, 0.45), rng.uniform(0.6, 0.8)),
        cover=rng.uniform(0.2, 0.7),
        softness=rng.uniform(0.08, 0.2),
        exposure=rng.uniform(0.3, 1.2),
        visibility=rng.uniform(700, 2000),
        seed=rng.uniform(0, 100),
    )


def _ground(w: World, rng: Random) -> None:
    w.base()
    tone = rng.uniform(0.045, 0.11)
    w.road((-12, END + 40), (tone, tone, tone + 0.003))
    w.pavements((-12, END + 40), slabs=rng.choice(("", "6f6b64", "746f68", "65615b", "8a857c")))
    m = Mesh()
    if rng.random() < 0.75:
        ground.dashes(m, w.palette, w.path, (-6, END), 0.0, rng.choice((2.0, 4.0)), rng.choice((2.0, 4.0)))
    for side in (-1, 1):
        if rng.random() < 0.4:
            ground.yellow_lines(m, w.palette, w.path, (-10, rng.uniform(30, END)), side * w.half)
    if rng.random() < 0.3:
        ground.stripe(m, w.palette, w.path, (-6, END), -w.half + 1.5, 0.1)
    m.build("markings", ground.Class.ROAD)
    for _ in range(rng.randrange(4)):
        s, d = rng.uniform(2, 40), rng.uniform(-0.7, 0.5) * w.half
        dark = tone * rng.uniform(0.65, 1.25)
        ground.patch(w.palette, w.path, (s, s + rng.uniform(2, 20)), (d, d + rng.uniform(0.6, 1.6)), (dark,) * 3)
    for _ in range(rng.randrange(3)):
        ground.manhole(w.palette, w.path, rng.uniform(5, 30), rng.uniform(-0.6, 0.6) * w.half)


def _frontage(w: World, rng: Random, side: int) -> None:
    """Houses in one to three rows, with gaps of green; walls, railings, fences and hedges before them."""
    at = -14.0
    while at < END:
        to = min(END + 20, at + rng.uniform(30, 130))
        kind = rng.choice(("terrace", "terrace", "shop", "shop", "block", "green"))
        if kind == "green":
            to = min(to, at + 45)
            for _ in range(int((to - at) / 5)):
                away = rng.uniform(2.5, 30)
                w.tree(rng.uniform(at, to), side * (w.front + away), rng.randrange(4), rng.uniform(0.7, 1.2))
            _edge(w, rng, side, at, to, rng.choice(("railings", "boards", "hedge", "railings")))
        else:
            setback = 0.0 if kind == "shop" else rng.choice((0.0, 1.6, 2.5, 5.5))
            storeys, share = rng.randrange(2, 6 if kind == "block" else 4), rng.random()
            make, widths = HOUSES[kind]
            w.houses(side, (at, to), lambda p, r, x, m=make, n=storeys, c=share: m(p, r, x, n, c), widths, setback)
            if setback:
                _edge(w, rng, side, at, to, rng.choice(("wall", "hedge", "railings", "boards", "mixed")))
        at = to + rng.choice((2.0, 6.0, 12.0))


def _edge(w: World, rng: Random, side: int, at: float, to: float, kind: str) -> None:
    """What divides gardens from the pavement, in pieces, with a gap here and there."""
    bricks = rng.choice(("8d6a52", "94826a", "7d4a3a"))
    height = rng.uniform(0.6, 1.1)
    while at < min(to, 110):
        length = rng.uniform(4, 9)
        now = rng.choice(("wall", "hedge", "railings", "boards")) if kind == "mixed" else kind
        if now == "wall":
            piece = furniture.garden_wall(w.palette, length, height, bricks)
        elif now == "hedge":
            piece = hedge(w.palette, rng.randrange(4), length, rng.uniform(1.0, 1.9))
        elif now == "railings":
            piece = furniture.railings(w.palette, length, rng.uniform(0.9, 1.5), rng.choice((0.0, 0.45)))
        else:
            piece = furniture.board_fence(w.palette, length, rng.uniform(1.2, 1.9))
        w.path.put(piece, at, side * (w.front + (1.1 if now == "hedge" and side < 0 else 0.2)), 0, KERB)
        at += length + (rng.uniform(0.8, 3) if rng.random() < 0.3 else 0.0)


def _kerbside(w: World, rng: Random, side: int) -> None:
    """Lamps, signs, lights, bollards, railings and trees along the kerb, and people behind it."""
    gap = rng.uniform(18, 45)
    w.lamps([rng.uniform(6, 20) + gap * k for k in range(int(120 / gap))], side)
    for _ in range(rng.randrange(5)):
        kind = rng.choice(("limit", "warning", "blue", "name", "parking"))
        w.sign(kind, rng.uniform(7, 60), side, rng.uniform(0.35, w.walk), rng.uniform(2.0, 2.9))
    if rng.random() < 0.3:
        s = rng.uniform(10, 30)
        for at in (s, s + rng.uniform(8, 14)):
            light = furniture.traffic_light(w.palette, rng.choice(("red", "green")))
            w.path.put(light, at, side * (w.half + 0.5), 0, KERB)
        w.path.put(furniture.railings(w.palette, 8.0), s + 1, side * (w.half + 0.5), 0, KERB)
    if rng.random() < 0.25:
        s = rng.uniform(4, 20)
        for k in range(rng.randrange(3, 8)):
            w.path.put(furniture.bollard(w.palette), s + 1.6 * k, side * (w.half + 0.4), 0, KERB)
    if rng.random() < 0.5:
        gap, kind, size = rng.uniform(9, 22), rng.randrange(4), rng.uniform(0.65, 1.0)
        for k in range(int(130 / gap)):
            w.tree(rng.uniform(6, 12) + gap * k, side * (w.half + 0.9), kind, size)
    if rng.random() < 0.6:
        w.parked(side, (rng.uniform(5, 25), rng.uniform(40, 120)), rng.uniform(0.4, 0.95))
    for _ in range(rng.randrange(2, 12)):
        s, d = 6 + 50 * rng.random() ** 1.6, w.half + rng.uniform(0.5, w.walk + w.verge)
        w.walker(s, side * d, rng.choice((-1, 1)))


def _traffic(w: World, rng: Random) -> None:
    for along, first in ((1, (9, 30)), (-1, (6, 40))):
        at = rng.uniform(*first)
        while at < 90:
            d = -along * rng.uniform(0.35, 0.5) * w.half
            w.drive(at, d, rng.choice(COMMON), rng.choice(COLORS), along * rng.uniform(4, 9))
            at += rng.uniform(9, 50)
    for _ in range(rng.randrange(1, 5)):
        along = rng.choice((-1, 1))
        w.rider(7 + 30 * rng.random() ** 1.5, -along * rng.uniform(0.55, 0.8) * w.half, along)
    if rng.random() < 0.35:  # somebody crosses
        w.walker(rng.uniform(8, 25), rng.uniform(-0.8, 0.8) * w.half, rng.choice((-1, 1)), turn=math.pi / 2)
