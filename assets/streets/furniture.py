"""Lamp posts, signs, traffic lights, bollards, railings, walls; each in its own frame, looking to -y."""

from __future__ import annotations

import math

import bpy

from .classes import Class
from .materials import Palette, srgb
from .mesh import Mesh


def lamp_post(palette: Palette, height: float = 7.5, reach: float = 1.4) -> bpy.types.Object:
    """A steel column whose arm reaches to -x."""
    steel, m = palette.plain(srgb("73777a"), 0.5, 0.4), Mesh()
    m.tube([(0, 0, 0), (0, 0, 1.2)], [0.095, 0.095], steel, 12)
    m.tube([(0, 0, 1.2), (0, 0, height)], [0.07, 0.045], steel, 12)
    arc = [(-reach * k / 5, 0, height + 0.45 * math.sin(k / 5 * math.pi / 2)) for k in range(6)]
    m.tube(arc, [0.04] * 6, steel)
    m.box(
        (-reach - 0.6, -0.13, height + 0.38), (-reach + 0.05, 0.13, height + 0.52), palette.plain(srgb("a8adb0"), 0.4)
    )
    return m.build("lamp post", Class.POLE, smooth=False)


def post(palette: Palette, height: float, radius: float = 0.038, color: str = "6e7274") -> bpy.types.Object:
    m = Mesh()
    m.tube([(0, 0, 0), (0, 0, height)], [radius, radius], palette.plain(srgb(color), 0.5, 0.3), 10)
    return m.build("post", Class.POLE, smooth=True)


def _disc(
    m: Mesh, radius: float, z: float, y: float, material: bpy.types.Material, sides: int = 40, turn: float = 0.0
) -> None:
    m.face(
        [
            (
                radius * math.cos(turn + 2 * math.pi * k / sides),
                y,
                z + radius * math.sin(turn + 2 * math.pi * k / sides),
            )
            for k in range(sides)
        ],
        material,
    )


def sign(palette: Palette, kind: str = "limit", height: float = 2.5) -> bpy.types.Object:
    """A plate on a post: "limit" (red ring), "warning" (triangle), "blue" (disc), "name", "parking"."""
    pole = post(palette, height + 0.35)
    m = Mesh()
    red, white, blue, black = (palette.plain(srgb(c), 0.35) for c in ("b3161b", "e8e8e6", "1c4f96", "1b1b1c"))
    if kind == "limit":
        _disc(m, 0.3, height, -0.06, red)
        _disc(m, 0.22, height, -0.064, white)
        m.letters("30", (0.0, -0.068, height - 0.11), 0.3, black)
    elif kind == "warning":
        _disc(m, 0.42, height, -0.06, red, 3, math.pi / 2)
        _disc(m, 0.27, height, -0.064, white, 3, math.pi / 2)
        m.box((-0.03, -0.07, height - 0.08), (0.03, -0.066, height + 0.14), black)
    elif kind == "blue":
        _disc(m, 0.3, height, -0.06, blue)
        m.box((-0.04, -0.07, height - 0.16), (0.04, -0.066, height + 0.16), white)
    elif kind == "parking":
        m.box((-0.28, -0.065, height - 0.35), (0.28, -0.05, height + 0.35), blue)
        m.box((-0.12, -0.07, height - 0.2), (-0.04, -0.066, height + 0.2), white)
        m.box((-0.12, -0.07, height), (0.12, -0.066, height + 0.2), white)
    else:
        m.box((-0.7, -0.06, height - 0.16), (0.7, -0.04, height + 0.16), white)
        m.box((-0.6, -0.065, height - 0.05), (0.6, -0.061, height + 0.05), black)
    _disc(m, 0.2, height, -0.045, palette.plain(srgb("5f6365"), 0.6))
    m.build("sign", Class.SIGN).parent = pole
    return pole


def traffic_light(palette: Palette, lit: str = "green") -> bpy.types.Object:
    pole = post(palette, 3.4, 0.055, "3a3c3e")
    m, case = Mesh(), palette.plain(srgb("151617"), 0.6)
    m.box((-0.22, -0.03, 2.2), (0.22, 0.0, 3.45), palette.plain(srgb("1c1d1e"), 0.7))
    m.box((-0.14, -0.24, 2.3), (0.14, -0.03, 3.32), case)
    for name, z, bright, off in (
        ("red", 3.12, (1.0, 0.05, 0.02), "3a0d0c"),
        ("amber", 2.81, (1.0, 0.4, 0.02), "3a260c"),
        ("green", 2.5, (0.05, 0.9, 0.4), "0c2a1c"),
    ):
        glass = palette.glow(bright, 5.0) if name == lit else palette.plain(srgb(off), 0.2)
        _disc(m, 0.105, z, -0.245, glass, 24)
        m.box((-0.12, -0.36, z + 0.1), (0.12, -0.24, z + 0.125), case)
    m.build("lights", Class.SIGN).parent = pole
    return pole


def bollard(palette: Palette) -> bpy.types.Object:
    m, iron = Mesh(), palette.plain(srgb("1d1e20"), 0.4)
    m.tube(
        [(0, 0, 0), (0, 0, 0.15), (0, 0, 0.8), (0, 0, 0.86), (0, 0, 0.95), (0, 0, 1.0)],
        [0.1, 0.075, 0.06, 0.085, 0.075, 0.02],
        iron,
        14,
    )
    m.tube([(0, 0, 0.66), (0, 0, 0.74)], [0.068, 0.068], palette.plain(srgb("d9d9d6"), 0.4), 14)
    return m.build("bollard", Class.POLE, smooth=True)


def railings(palette: Palette, length: float, height: float = 1.15, plinth: float = 0.0) -> bpy.types.Object:
    """Iron railings along their own y axis from 0 to `length`, maybe on a low brick plinth."""
    m, iron = Mesh(), palette.plain(srgb("1f2422"), 0.45)
    if plinth:
        m.box((-0.12, 0, 0), (0.12, length, plinth), palette.brick(srgb("8a6a52")))
    top = plinth + height
    for z in (plinth + 0.12, top - 0.15):
        m.box((-0.018, 0, z), (0.018, length, z + 0.04), iron)
    count = int(length / 0.125)
    for k in range(count + 1):
        y = length * k / count
        wide = 0.03 if k % 16 == 0 else 0.011
        m.box((-wide, y - wide, plinth), (wide, y + wide, top + (0.08 if k % 16 == 0 else 0)), iron)
    return m.build("railings", Class.FENCE)


def board_fence(palette: Palette, length: float, height: float = 1.8) -> bpy.types.Object:
    """A close-boarded timber fence along its own y axis."""
    m = Mesh()
    m.box(
        (-0.02, 0, 0.05),
        (0.02, length, height),
        palette.blocks(srgb("6a5240"), srgb("241c16"), (5.0, 0.12), 0.008, 0.2, shift=0.0),
    )
    m.uvs = [[(v, u) for u, v in uv] for uv in m.uvs]
    return m.build("board fence", Class.FENCE)


def garden_wall(palette: Palette, length: float, height: float = 0.7, color: str = "8d6a52") -> bpy.types.Object:
    """A brick wall along its own y axis; CamVid counts walls as building."""
    m = Mesh()
    m.box((0, 0, 0), (0.22, length, height), palette.brick(srgb(color)))
    m.box((-0.03, 0, height), (0.25, length, height + 0.07), palette.render(srgb("a8a294")))
    return m.build("wall", Class.BUILDING)
