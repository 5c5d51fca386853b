"""Buildings: a facade with real openings, windows set into them, roofs, chimneys and shop fronts.

A house's own frame: x along the street from 0 to its width, the facade at y = 0 looking to -y, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import bpy

from .classes import Class
from .materials import Palette, srgb
from .mesh import Mesh

BRICKS = ("9c8b68", "a3906c", "8a5a44", "7d4a3a", "94826a", "8d6a52")  # Cambridge gault and red brick
RENDERS = ("c4beae", "bcb19a", "cfccc2", "b5a688", "a6acaa", "c2b2a0", "aeb5ae")
FASCIAS = ("1d3a2c", "5c1a1c", "1b2a4a", "2a2a2c", "7a5a1e", "30584e", "8a2a1c", "20505e")
DOORS = ("1d2f26", "541a1a", "1a2440", "202022", "5a3a20", "30505c")
NAMES = (
    "BAKERY",
    "BOOKS",
    "THE CORNER CAFE",
    "FLORIST",
    "CYCLES",
    "TAILOR",
    "BARBER",
    "RECORDS",
    "DELI",
    "OPTICIAN",
    "TEA ROOMS",
    "TOYS",
)


@dataclass(frozen=True)
class Opening:
    x0: float
    z0: float
    x1: float
    z1: float
    kind: str = "window"


def facade(
    mesh: Mesh, width: float, low: float, high: float, openings: list[Opening], wall: bpy.types.Material, y: float = 0.0
) -> None:
    """The wall from z = low to high, left out where an opening is."""
    xs = sorted({0.0, width, *(o.x0 for o in openings), *(o.x1 for o in openings)})
    zs = sorted({low, high, *(o.z0 for o in openings), *(o.z1 for o in openings)})
    for x0, x1 in pairwise(xs):
        for z0, z1 in pairwise(zs):
            x, z = (x0 + x1) / 2, (z0 + z1) / 2
            if not any(o.x0 < x < o.x1 and o.z0 < z < o.z1 for o in openings):
                mesh.face([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], wall)


class Builder:
    """Builds one house into one mesh."""

    def __init__(self, palette: Palette, rng: Random) -> None:
        self.palette, self.rng, self.mesh = palette, rng, Mesh()
        self.frame = palette.plain(srgb(rng.choice(("e4e2dc", "dcd9d0", "e4e2dc", "3a3d40"))), 0.5)
        self.stone = palette.render(srgb(rng.choice(("c9c0ab", "bdb5a4", "d6d0c2"))))
        self.dark = palette.plain(srgb("2a2b2e"), 0.6)

    def glass(self) -> bpy.types.Material:
        return self.palette.glass(srgb(self.rng.choice(("23292d", "1a1f22", "2c3336", "363a3a"))))

    def window(
        self,
        o: Opening,
        wall: bpy.types.Material,
        rows: int = 2,
        columns: int = 1,
        sill: bool = True,
        deep: float = 0.13,
    ) -> None:
        m, r = self.mesh, self.rng
        for face in (
            [(o.x0, 0, o.z0), (o.x0, 0, o.z1), (o.x0, deep, o.z1), (o.x0, deep, o.z0)],
            [(o.x1, 0, o.z0), (o.x1, deep, o.z0), (o.x1, deep, o.z1), (o.x1, 0, o.z1)],
            [(o.x0, 0, o.z1), (o.x1, 0, o.z1), (o.x1, deep, o.z1), (o.x0, deep, o.z1)],
            [(o.x0, 0, o.z0), (o.x0, deep, o.z0), (o.x1, deep, o.z0), (o.x1, 0, o.z0)],
        ):
            m.face(face, wall)
        glass = self.glass()
        m.face([(o.x0, deep, o.z0), (o.x1, deep, o.z0), (o.x1, deep, o.z1), (o.x0, deep, o.z1)], glass)
        if r.random() < 0.4:  # a blind or curtains behind the pane, drawn on it
            cloth = self.palette.glass(srgb(r.choice(("8f8a7e", "a39c8c", "77756f"))), 0.12)
            down = o.z1 - (o.z1 - o.z0) * r.uniform(0.2, 0.9)
            m.face(
                [
                    (o.x0, deep - 0.01, down),
                    (o.x1, deep - 0.01, down),
                    (o.x1, deep - 0.01, o.z1),
                    (o.x0, deep - 0.01, o.z1),
                ],
                cloth,
            )
        t, y0, y1 = 0.055, deep - 0.07, deep - 0.005
        m.box((o.x0, y0, o.z0), (o.x0 + t, y1, o.z1), self.frame)
        m.box((o.x1 - t, y0, o.z0), (o.x1, y1, o.z1), self.frame)
        m.box((o.x0, y0, o.z0), (o.x1, y1, o.z0 + t), self.frame)
        m.box((o.x0, y0, o.z1 - t), (o.x1, y1, o.z1), self.frame)
        for i in range(1, rows):
            z = o.z0 + (o.z1 - o.z0) * i / rows
            m.box((o.x0, y0 - 0.01, z - 0.025), (o.x1, y1, z + 0.025), self.frame)
        for i in range(1, columns):
            x = o.x0 + (o.x1 - o.x0) * i / columns
            m.box((x - 0.02, y0, o.z0), (x + 0.02, y1, o.z1), self.frame)
        if sill:
            m.box((o.x0 - 0.1, -0.09, o.z0 - 0.12), (o.x1 + 0.1, 0.05, o.z0), self.stone)
            m.box((o.x0 - 0.12, -0.025, o.z1), (o.x1 + 0.12, 0.05, o.z1 + 0.2), self.stone)

    def door(self, o: Opening, wall: bpy.types.Material) -> None:
        m, deep = self.mesh, 0.22
        leaf = self.palette.plain(srgb(self.rng.choice(DOORS)), 0.35)
        for x in (o.x0, o.x1):
            m.face([(x, 0, o.z0), (x, 0, o.z1), (x, deep, o.z1), (x, deep, o.z0)], wall)
        m.face([(o.x0, 0, o.z1), (o.x1, 0, o.z1), (o.x1, deep, o.z1), (o.x0, deep, o.z1)], wall)
        light = o.z1 - 0.35
        m.box((o.x0, deep - 0.06, o.z0), (o.x1, deep, light - 0.06), leaf)
        m.box((o.x0, deep - 0.09, light - 0.06), (o.x1, deep, light), self.frame)
        m.face([(o.x0, deep, light), (o.x1, deep, light), (o.x1, deep, o.z1), (o.x0, deep, o.z1)], self.glass())
        m.box((o.x0 - 0.14, -0.05, o.z1), (o.x1 + 0.14, 0.05, o.z1 + 0.22), self.stone)
        m.box((o.x0 - 0.1, -0.35, o.z0 - 0.15), (o.x1 + 0.1, 0.1, o.z0), self.stone)

    def gable(self, width: float, depth: float, eaves: float, wall: bpy.types.Material, chimney: bool = True) -> None:
        """A pitched roof whose ridge runs along the street, with gutters, party walls and chimneys."""
        m, r = self.mesh, self.rng
        rise, over = depth * r.uniform(0.3, 0.4), 0.28
        ridge, mid = eaves + rise, depth / 2
        slates = self.palette.slate(srgb(r.choice(("4d5158", "565459", "6a4a3c", "45474c"))))
        drop = over * rise / mid
        slope = (rise**2 + mid**2) ** 0.5
        for y, turn in ((-over, 1), (depth + over, -1)):
            points = [(0, y, eaves - drop), (width, y, eaves - drop), (width, mid, ridge), (0, mid, ridge)]
            uv = [(0, 0), (width, 0), (width, slope), (0, slope)]
            m.face(points[::turn], slates, uv[::turn])
        for x in (0.0, width):
            m.face([(x, 0, eaves), (x, depth, eaves), (x, mid, ridge - 0.02)], wall)
        m.box((0, -over - 0.08, eaves - drop - 0.1), (width, -over + 0.04, eaves - drop), self.dark)
        m.box((0, -over + 0.04, eaves - drop - 0.02), (width, 0, eaves), self.frame)
        m.box((0, mid - 0.12, ridge - 0.06), (width, mid + 0.12, ridge + 0.05), slates)
        m.box((width - 0.2, -0.14, 0.1), (width - 0.12, -0.05, eaves - 0.1), self.dark)
        if chimney:
            x, y = width - 0.75, mid + r.choice((-0.8, 0.0))
            m.box((x, y - 0.6, eaves), (x + 0.75, y + 0.6, ridge + 1.3), wall)
            m.box((x - 0.06, y - 0.66, ridge + 1.3), (x + 0.81, y + 0.66, ridge + 1.42), self.stone)
            pot = self.palette.plain(srgb("9a5a3c"), 0.8)
            for k in range(r.choice((2, 3, 4))):
                py = y - 0.42 + 0.28 * k
                m.tube([(x + 0.37, py, ridge + 1.4), (x + 0.37, py, ridge + 1.85)], [0.12, 0.1], pot)

    def flat_roof(self, width: float, depth: float, top: float, wall: bpy.types.Material) -> None:
        m = self.mesh
        m.face([(0, 0, top - 0.5), (width, 0, top - 0.5), (width, depth, top - 0.5), (0, depth, top - 0.5)], self.dark)
        m.box((-0.05, -0.18, top - 0.28), (width + 0.05, 0.25, top), self.stone)
        m.box((0, depth - 0.25, top - 0.5), (width, depth, top), wall)
        if self.rng.random() < 0.6:
            x = self.rng.uniform(0.2, 0.6) * width
            m.box((x, depth * 0.4, top - 0.5), (x + 2.4, depth * 0.75, top + 1.5), wall)

    def shell(self, width: float, depth: float, height: float, wall: bpy.types.Material, storeys: int) -> None:
        """The side and back walls, the sides with a few windows that are seen where a row ends."""
        m = self.mesh
        m.face([(0, depth, 0), (0, 0, 0), (0, 0, height), (0, depth, height)], wall)
        m.face([(width, 0, 0), (width, depth, 0), (width, depth, height), (width, 0, height)], wall)
        m.face([(width, depth, 0), (0, depth, 0), (0, depth, height), (width, depth, height)], wall)
        for k in range(storeys):
            z = height * (k + 0.36) / storeys
            for y in (0.28 * depth, 0.68 * depth):
                m.box((-0.03, y - 0.5, z), (width + 0.03, y + 0.5, z + 1.4), self.frame)
                m.box((-0.035, y - 0.44, z + 0.06), (width + 0.035, y + 0.44, z + 0.68), self.glass())
                m.box((-0.035, y - 0.44, z + 0.74), (width + 0.035, y + 0.44, z + 1.34), self.glass())
                m.box((-0.09, y - 0.58, z - 0.1), (width + 0.09, y + 0.58, z), self.stone)

    def shop_front(self, width: float, top: float) -> None:
        """Stall riser, panes and mullions, a recessed door, and the fascia with the shop's name."""
        m, r, color = self.mesh, self.rng, srgb(self.rng.choice(FASCIAS))
        wood = self.palette.plain(color, 0.4)
        head = top - 0.75
        door = r.uniform(0.35, 0.6) * width
        m.face(
            [(0.2, 0.25, 0.55), (width - 0.2, 0.25, 0.55), (width - 0.2, 0.25, head), (0.2, 0.25, head)],
            self.palette.glass(srgb("2c2f30")),
        )
        for _ in range(int(width * 2)):  # goods in the window
            x, z = r.uniform(0.4, width - 0.9), r.uniform(0.6, 1.5)
            goods = self.palette.glass(
                srgb(r.choice(("b9a98c", "8c3a30", "3c5a78", "d6d2c8", "6a7a4a", "c9913c"))), 0.2
            )
            w, h = r.uniform(0.15, 0.5), r.uniform(0.2, 0.6)
            m.face([(x, 0.24, z), (x + w, 0.24, z), (x + w, 0.24, z + h), (x, 0.24, z + h)], goods)
        m.box((0, 0.02, 0), (width, 0.3, 0.55), wood)
        for x in (0.0, width - 0.22):
            m.box((x, -0.06, 0), (x + 0.22, 0.3, top), wood)
        step = max(1.0, (width - 0.4) / round((width - 0.4) / 1.3))
        x = 0.2 + step
        while x < width - 0.4:
            m.box((x - 0.04, 0.15, 0.5), (x + 0.04, 0.28, head), wood)
            x += step
        m.box((door, 0.2, 0.05), (door + 0.95, 0.29, 2.2), self.dark)
        m.face(
            [(door + 0.12, 0.19, 0.4), (door + 0.83, 0.19, 0.4), (door + 0.83, 0.19, 2.05), (door + 0.12, 0.19, 2.05)],
            self.glass(),
        )
        m.box((0, -0.16, head), (width, 0.3, top), wood)
        m.box((-0.02, -0.28, top), (width + 0.02, 0.05, top + 0.1), self.stone)
        letters = self.palette.plain(srgb(r.choice(("e8e0c8", "d8b860", "f0f0ea"))), 0.5)
        m.letters(r.choice(NAMES), (width / 2, -0.175, head + 0.2), min(0.42, 1.1 * width / 15 + 0.1), letters)
        if r.random() < 0.45:  # an awning
            stripes = self.palette.plain(srgb(r.choice(("8a2a24", "2a5a44", "c9bfa4", "2c3a5c"))), 0.9)
            a, b = (0.25, -0.16, head + 0.02), (width - 0.25, -1.25, head - 0.55)
            m.face([(a[0], b[1], b[2]), (b[0], b[1], b[2]), (b[0], a[1], a[2]), (a[0], a[1], a[2])], stripes)
            m.face(
                [(a[0], b[1], b[2] - 0.2), (b[0], b[1], b[2] - 0.2), (b[0], b[1], b[2]), (a[0], b[1], b[2])], stripes
            )

    def build(self, name: str) -> bpy.types.Object:
        return self.mesh.build(name, Class.BUILDING)


def terrace(palette: Palette, rng: Random, width: float, storeys: int = 2, painted: float = 0.3) -> bpy.types.Object:
    """A Victorian terraced house: a door and a window below, two windows on each floor above, maybe a bay."""
    b = Builder(palette, rng)
    wall = (
        palette.render(srgb(rng.choice(RENDERS))) if rng.random() < painted else palette.brick(srgb(rng.choice(BRICKS)))
    )
    depth, floor = rng.uniform(7.5, 9.0), rng.uniform(2.75, 3.0)
    eaves = 0.35 + floor * storeys
    openings = [Opening(0.55, 0.2, 1.5, 2.65, "door")]
    wide = rng.choice((1.0, 1.1, 1.6))
    openings.append(Opening(width * 0.68 - wide / 2, 0.95, width * 0.68 + wide / 2, 2.5))
    for k in range(1, storeys):
        z, high = 0.35 + floor * k + 0.65, 1.55 if k == 1 else 1.25
        for x in (1.05, width * 0.68):
            openings.append(Opening(x - 0.48, z, x + 0.48, z + high))
    facade(b.mesh, width, 0, eaves, openings, wall)
    for o in openings:
        b.door(o, wall) if o.kind == "door" else b.window(o, wall, columns=2 if o.x1 - o.x0 > 1.3 else 1)
    b.shell(width, depth, eaves, wall, storeys)
    b.gable(width, depth, eaves, wall)
    if rng.random() < 0.35:
        b.mesh.box((0, -0.04, 0.3 + floor - 0.12), (width, 0.02, 0.3 + floor + 0.1), b.stone)
    return b.build("terrace")


def shop(palette: Palette, rng: Random, width: float, storeys: int = 3, painted: float = 0.45) -> bpy.types.Object:
    """A shop with rooms above it."""
    b = Builder(palette, rng)
    wall = (
        palette.render(srgb(rng.choice(RENDERS))) if rng.random() < painted else palette.brick(srgb(rng.choice(BRICKS)))
    )
    depth, floor, base = rng.uniform(8.0, 11.0), rng.uniform(2.9, 3.3), rng.uniform(3.4, 3.8)
    eaves = base + floor * (storeys - 1) + 0.3
    count = max(2, round(width / 2.1))
    openings = []
    for k in range(storeys - 1):
        z, high = base + floor * k + 0.75, 1.75 - 0.2 * k
        for i in range(count):
            x = width * (i + 0.5) / count
            openings.append(Opening(x - 0.5, z, x + 0.5, z + high))
    facade(b.mesh, width, base, eaves, openings, wall)
    for o in openings:
        b.window(o, wall, columns=2)
    b.shop_front(width, base)
    b.shell(width, depth, eaves, wall, storeys)
    if rng.random() < 0.6:
        b.gable(width, depth, eaves, wall)
    else:
        b.flat_roof(width, depth, eaves + 0.7, wall)
        facade(b.mesh, width, eaves, eaves + 0.7, [], wall)
    return b.build("shop")


def block(palette: Palette, rng: Random, width: float, storeys: int = 4, brick: float = 0.6) -> bpy.types.Object:
    """Offices or flats: bands of wide windows under a flat roof."""
    b = Builder(palette, rng)
    wall = (
        palette.brick(srgb(rng.choice(BRICKS)))
        if rng.random() < brick
        else palette.render(srgb(rng.choice(("a39f96", "96938c", "b0ada4"))))
    )
    depth, floor = rng.uniform(10, 13), 3.05
    top = 0.6 + floor * storeys + 0.6
    count = max(2, round(width / 3.0))
    openings = []
    for k in range(storeys):
        for i in range(count):
            x, z = width * (i + 0.5) / count, 0.6 + floor * k + 0.85
            openings.append(Opening(x - 1.1, z, x + 1.1, z + 1.6))
    if rng.random() < 0.9:
        middle = count // 2
        openings[middle] = Opening(openings[middle].x0 + 0.4, 0.15, openings[middle].x1 - 0.4, 2.7, "door")
    facade(b.mesh, width, 0, top, openings, wall)
    for o in openings:
        b.door(o, wall) if o.kind == "door" else b.window(
            o, wall, rows=1, columns=rng.choice((2, 3)), sill=False, deep=0.2
        )
    for k in range(1, storeys + 1):
        z = 0.6 + floor * k
        b.mesh.box((0, -0.06, z - 0.1), (width, 0.03, z + 0.12), b.stone)
    b.shell(width, depth, top - 0.5, wall, storeys)
    b.flat_roof(width, depth, top, wall)
    return b.build("block")
