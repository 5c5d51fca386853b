"""A street's centre line and what lies flat along it: carriageway, kerbs, pavements, verges and road markings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import bpy

from .classes import Class
from .materials import Palette, srgb
from .mesh import Mesh

KERB = 0.11  # metres that the pavement stands above the road


@dataclass(frozen=True)
class Path:
    """A centre line: straight for `straight` metres, then an arc of `radius` (positive bends right, 0 stays straight).

    Positions along it are `s` metres, across it `d` metres, positive to the right of someone walking it.
    """

    x: float = 0.0
    y: float = 0.0
    angle: float = math.pi / 2
    straight: float = 1000.0
    radius: float = 0.0

    def at(self, s: float, d: float = 0.0) -> tuple[float, float, float]:
        """World x and y, and the direction of the line there in radians."""
        ahead = s if not self.radius else min(s, self.straight)
        x, y, a = self.x + ahead * math.cos(self.angle), self.y + ahead * math.sin(self.angle), self.angle
        if ahead < s:
            turn = (s - ahead) / self.radius
            cx, cy = x + self.radius * math.sin(a), y - self.radius * math.cos(a)
            a -= turn
            x, y = cx - self.radius * math.sin(a), cy + self.radius * math.cos(a)
        return x + d * math.sin(a), y - d * math.cos(a), a

    def put(self, thing: bpy.types.Object, s: float, d: float, turn: float = 0.0, z: float = 0.0) -> bpy.types.Object:
        """Stand an object there, its own +y along the path turned left by `turn`."""
        x, y, a = self.at(s, d)
        thing.location, thing.rotation_euler = (x, y, z), (0, 0, a - math.pi / 2 + turn)
        return thing


def ribbon(
    mesh: Mesh, path: Path, s: tuple[float, float], profile: Sequence[tuple[float, float]], material: bpy.types.Material
) -> None:
    """Sweep a profile of (d, z) points, left to right, along the path from s[0] to s[1]; u is across, v along."""
    count = max(1, math.ceil((s[1] - s[0]) / (3.0 if path.radius else 12.0)))
    steps = [s[0] + (s[1] - s[0]) * i / count for i in range(count + 1)]
    for a, b in pairwise(steps):
        run = 0.0
        for (d0, z0), (d1, z1) in pairwise(profile):
            wide = math.hypot(d1 - d0, z1 - z0)
            corners = [(a, d0, z0), (a, d1, z1), (b, d1, z1), (b, d0, z0)]
            points = [(*path.at(at, d)[:2], z) for at, d, z in corners]
            start = d0 if z0 == z1 else run
            mesh.face(points, material, [(start, a), (start + wide, a), (start + wide, b), (start, b)])
            run += wide


def swapped(mesh: Mesh, first: int) -> None:
    """Turn the texture of all faces from `first` on, so that courses run along the street."""
    mesh.uvs[first:] = [[(v, u) for u, v in uv] for uv in mesh.uvs[first:]]


def carriageway(
    palette: Palette, path: Path, s: tuple[float, float], half: float, color: tuple[float, float, float], z: float = 0.0
) -> None:
    mesh = Mesh()
    ribbon(mesh, path, s, [(-half, z), (half, z)], palette.asphalt(color))
    mesh.build("road", Class.ROAD)


def patch(
    palette: Palette, path: Path, s: tuple[float, float], d: tuple[float, float], color: tuple[float, float, float]
) -> None:
    """A trench filled with newer asphalt."""
    mesh = Mesh()
    ribbon(mesh, path, s, [(d[0], 0.003), (d[1], 0.003)], palette.asphalt(color, 0.7))
    mesh.build("patch", Class.ROAD)


def manhole(palette: Palette, path: Path, s: float, d: float) -> None:
    mesh = Mesh()
    ring = [(0.33 * math.cos(a * math.pi / 12), 0.33 * math.sin(a * math.pi / 12), 0.005) for a in range(24)]
    mesh.face(ring, palette.plain(srgb("3d3b39"), 0.5, 0.3))
    path.put(mesh.build("manhole", Class.ROAD), s, d)


def pavement(
    palette: Palette,
    path: Path,
    s: tuple[float, float],
    edge: float,
    width: float,
    material: bpy.types.Material,
    verge: float = 0.0,
) -> None:
    """A footway `width` metres wide, `verge` metres of grass, and a kerb at d = edge, whose sign is the side."""
    side = 1 if edge > 0 else -1

    def across(*offsets: tuple[float, float]) -> list[tuple[float, float]]:
        points = [(edge + side * o, z) for o, z in offsets]
        return points if side > 0 else points[::-1]

    mesh = Mesh()
    ribbon(mesh, path, s, across((0.0, -0.02), (0.015, KERB - 0.02), (0.035, KERB), (0.15, KERB)), palette.kerb())
    start = 0.15 + verge
    ribbon(mesh, path, s, across((start, KERB - 0.002), (start + width, KERB + 0.03)), material)
    swapped(mesh, 0)
    mesh.build("pavement", Class.PAVEMENT)
    if verge:
        grass = Mesh()
        ribbon(
            grass, path, s, across((0.15, KERB - 0.01), (0.15 + verge / 2, KERB + 0.05), (start, KERB)), palette.grass()
        )
        grass.build("verge", Class.TREE)


def stripe(
    mesh: Mesh,
    palette: Palette,
    path: Path,
    s: tuple[float, float],
    d: float,
    width: float = 0.1,
    color: str = "d8d6cf",
) -> None:
    """A painted line along the path."""
    ribbon(mesh, path, s, [(d - width / 2, 0.006), (d + width / 2, 0.006)], palette.paint(srgb(color)))


def dashes(
    mesh: Mesh,
    palette: Palette,
    path: Path,
    s: tuple[float, float],
    d: float,
    on: float = 2.0,
    off: float = 4.0,
    width: float = 0.1,
) -> None:
    at = s[0]
    while at < s[1]:
        stripe(mesh, palette, path, (at, min(at + on, s[1])), d, width)
        at += on + off


def yellow_lines(mesh: Mesh, palette: Palette, path: Path, s: tuple[float, float], edge: float) -> None:
    """The pair of yellow lines along a kerb where nobody may park."""
    inwards = -1 if edge > 0 else 1
    for offset in (0.22, 0.38):
        stripe(mesh, palette, path, s, edge + inwards * offset, 0.07, "c9a63a")


def gullies(palette: Palette, path: Path, s: Sequence[float], edge: float) -> None:
    """Iron drain grates in the gutter."""
    mesh, iron, hole = Mesh(), palette.plain(srgb("33312f"), 0.5, 0.4), palette.plain(srgb("0c0c0c"), 0.9)
    inner = edge - math.copysign(0.45, edge)
    for at in s:
        ribbon(mesh, path, (at, at + 0.5), sorted([(edge, 0.004), (inner, 0.004)]), iron)
        for k in range(5):
            ribbon(
                mesh,
                path,
                (at + 0.06 + 0.09 * k, at + 0.09 + 0.09 * k),
                sorted([(edge - math.copysign(0.05, edge), 0.006), (inner + math.copysign(0.05, edge), 0.006)]),
                hole,
            )
    mesh.build("gullies", Class.ROAD)
