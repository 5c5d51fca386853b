"""People on foot and on bicycles: limbs joined into one surface, coloured as clothes, hair and skin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

import bpy
import numpy as np

from .classes import Class
from .materials import Color, Palette, srgb
from .mesh import Mesh, place

COATS = ("1c1f26", "2a2430", "3a1c1c", "20303c", "5a1a1c", "4a4438", "17202e", "6d6a5e", "2c3a2a", "8a2a20")
TROUSERS = ("16181c", "1f2a40", "2c2a28", "3a352c", "23304a")
HAIR = ("1a1410", "3a2818", "55402a", "6a6258")
SKIN = ("c99a7c", "a8775a", "7a5038", "d6ab8e")

PHASES = 12  # poses of a cycle of steps, or of a turn of the pedals
STEPS = 1.19  # seconds of two steps, which are 1.6 m long: the feet do not slide at walking pace
PEDALS = 0.86  # seconds of a turn

Limb = tuple[str, list[tuple[float, float, float]], list[float]]


@dataclass(frozen=True)
class Outfit:
    colors: dict[str, Color]  # of each kind of limb
    hair: Color
    long_coat: bool


@dataclass
class Person:
    """Someone under way: `thing` is moved along the street, `step` moves the limbs of `body`."""

    thing: bpy.types.Object
    body: bpy.types.Object
    seconds: float  # of one cycle
    shape: Callable[[int], bpy.types.Mesh]  # the body in each phase, 0 as at the start

    def step(self, seconds: float) -> None:
        """Take the pose of that moment."""
        self.body.data = self.shape(round(PHASES * seconds / self.seconds) % PHASES)


def _limbs(stride: float, lift: float | None = None) -> list[Limb]:
    """A body 1.75 m tall looking to +y; `stride` in -1..1 swings legs and arms.

    With a `lift` it sits on a bicycle: the pedals are `stride` ahead and `lift` up.
    """
    seated = lift is not None
    lean = 0.42 if seated else 0.03

    def up(z: float, x: float = 0.0, y: float = 0.0) -> tuple[float, float, float]:
        """A point of the upper body, leaning forward about the hips."""
        h = z - 0.9
        base = (-0.18, 0.98) if seated else (0.0, 0.9)
        return (x, base[0] + y + h * math.sin(lean), base[1] + h * math.cos(lean))

    limbs: list[Limb] = [
        (
            "head",
            [up(1.5, 0, 0.01), up(1.57, 0, 0.03), up(1.63, 0, 0.03), up(1.7, 0, 0.02), up(1.745, 0, 0.01)],
            [0.06, 0.085, 0.098, 0.085, 0.035],
        ),
        ("neck", [up(1.4), up(1.54, 0, 0.01)], [0.07, 0.058]),
    ]
    for side in (-1, 1):
        limbs.append(
            (
                "coat",
                [up(0.86, 0.07 * side), up(1.05, 0.065 * side), up(1.28, 0.085 * side), up(1.42, 0.08 * side)],
                [0.125, 0.115, 0.125, 0.085],
            )
        )
        swing = 0.5 * stride * side
        shoulder = up(1.4, 0.185 * side)
        if seated:
            hand = (0.24 * side, 0.42, 1.03)
            elbow = (0.3 * side, 0.14, 1.06)
            hip, foot = (0.09 * side, -0.18, 0.97), (0.1 * side, 0.02 + 0.15 * side * stride, 0.3 + 0.16 * side * lift)
            knee = (0.12 * side, 0.27, 0.68 + 0.1 * side * lift)
        else:
            elbow = (0.25 * side, -0.28 * math.sin(-swing), 1.13)
            hand = (0.25 * side, elbow[1] + 0.12 - 0.2 * math.sin(-swing), 0.89)
            hip = (0.085 * side, 0.0, 0.9)
            knee = (0.09 * side, 0.42 * math.sin(swing) + 0.04, 0.48)
            foot = (0.09 * side, 0.84 * math.sin(swing) - 0.03, 0.09 + 0.07 * max(0.0, -swing))
        limbs.append(("coat", [shoulder, elbow, hand], [0.068, 0.056, 0.042]))
        limbs.append(("skin", [hand, (hand[0], hand[1] + 0.03, hand[2] - 0.08)], [0.04, 0.035]))
        limbs.append(("legs", [hip, knee, foot], [0.105, 0.072, 0.052]))
        limbs.append(
            (
                "shoe",
                [(foot[0], foot[1] - 0.03, foot[2] - 0.04), (foot[0], foot[1] + 0.17, foot[2] - 0.05)],
                [0.05, 0.042],
            )
        )
    return limbs


def _distance(p: np.ndarray, limb: Limb) -> np.ndarray:
    """Distance of points (N, 3) to a limb's surface."""
    nearest = np.full(len(p), np.inf)
    _, points, radii = limb
    for a, b, ra, rb in zip(points, points[1:], radii, radii[1:], strict=False):
        a, b = np.array(a), np.array(b)
        t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(p - (a + t[:, None] * (b - a)), axis=1) - (ra + t * (rb - ra)))
    return nearest


def _outfit(rng: Random, may_be_long: bool) -> Outfit:
    long_coat = may_be_long and rng.random() < 0.4
    coat, legs, skin = srgb(rng.choice(COATS)), srgb(rng.choice(TROUSERS)), srgb(rng.choice(SKIN))
    colors = {"coat": coat, "legs": legs, "skin": skin, "shoe": srgb("17130f"), "head": skin, "neck": skin}
    return Outfit(colors, srgb(rng.choice(HAIR)), long_coat)


def _figure(palette: Palette, outfit: Outfit, limbs: list[Limb]) -> bpy.types.Mesh:
    soup, material = Mesh(), palette.skin_and_cloth()
    for _, points, radii in limbs:
        soup.tube(points, radii, material, 12)
    if outfit.long_coat:
        skirt: Limb = ("coat", [(0, 0, 0.62), (0, 0.01, 0.95)], [0.2, 0.165])
        limbs = [*limbs, skirt]
        soup.tube(skirt[1], skirt[2], material, 14)
    rough = soup.build("person", Class.PEDESTRIAN)
    remesh = rough.modifiers.new("skin", "REMESH")
    remesh.mode, remesh.voxel_size, remesh.use_smooth_shade = "VOXEL", 0.018, True
    smooth = rough.modifiers.new("smooth", "SMOOTH")
    smooth.iterations = 4
    data = bpy.data.meshes.new_from_object(rough.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    bpy.data.objects.remove(rough)
    n = len(data.vertices)
    p = np.empty(3 * n, np.float32)
    data.vertices.foreach_get("co", p)
    p = p.reshape(n, 3)
    part = np.argmin([_distance(p, limb) for limb in limbs], 0)
    rgba = np.array([(*outfit.colors[limbs[i][0]], 1.0) for i in part], np.float32)
    head = np.array(limbs[0][1][2])
    rel = p - head
    hair = (np.linalg.norm(rel, axis=1) < 0.2) & ((rel[:, 2] > 0.035) | (rel[:, 1] < -0.02)) & (rel[:, 2] > -0.06)
    rgba[hair] = (*outfit.hair, 1.0)
    data.attributes.new("tint", "FLOAT_COLOR", "POINT").data.foreach_set("color", rgba.ravel())
    data.polygons.foreach_set("use_smooth", np.ones(len(data.polygons), bool))
    if not data.materials:
        data.materials.append(material)
    return data


def pedestrian(palette: Palette, rng: Random) -> Person:
    """Someone walking to +y."""
    start = math.acos(rng.choice((-1, 1)) * rng.uniform(0.5, 1.0))
    outfit = _outfit(rng, may_be_long=True)

    @cache
    def shape(phase: int) -> bpy.types.Mesh:
        return _figure(palette, outfit, _limbs(math.cos(start + 2 * math.pi * phase / PHASES)))

    made = place(shape(0), "person", Class.PEDESTRIAN)
    made.scale = (rng.uniform(0.95, 1.08),) * 2 + (rng.uniform(0.93, 1.05),)
    return Person(made, made, STEPS, shape)


def cyclist(palette: Palette, rng: Random) -> Person:
    """A bicycle with its rider, heading to +y."""
    m = Mesh()
    tyre, steel = palette.plain(srgb("141415"), 0.8), palette.plain(srgb("9a9da0"), 0.3, 0.8)
    paint = palette.plain(srgb(rng.choice(("1f3a2c", "7a1a1c", "1c2c55", "2a2a2c"))), 0.3)
    axles = ((-0.5, 0.34), (0.55, 0.34))
    for y, z in axles:
        ring = [(0, y + 0.335 * math.cos(a * math.pi / 16), z + 0.335 * math.sin(a * math.pi / 16)) for a in range(33)]
        m.tube(ring, [0.02] * 33, tyre, 6)
        for k in range(12):
            a = math.pi * k / 6
            m.tube([(0, y, z), (0, y + 0.32 * math.cos(a), z + 0.32 * math.sin(a))], [0.003, 0.003], steel, 3)
        m.tube([(-0.05, y, z), (0.05, y, z)], [0.025, 0.025], steel, 6)
    crank, seat, head = (0, -0.05, 0.3), (0, -0.2, 0.86), (0, 0.42, 0.86)
    for a, b in (
        (crank, seat),
        (crank, head),
        (seat, head),
        (seat, (0, *axles[0])),
        (crank, (0, *axles[0])),
        ((0, 0.44, 0.98), (0, *axles[1])),
    ):
        m.tube([a, b], [0.018, 0.018], paint, 8)
    m.tube([(-0.28, 0.36, 1.0), (0, 0.45, 1.0), (0.28, 0.36, 1.0)], [0.014] * 3, steel, 6)
    m.box((-0.07, -0.33, 0.88), (0.07, -0.08, 0.93), tyre)
    m.box((-0.02, -0.86, 0.62), (0.02, -0.83, 0.68), palette.plain(srgb("b01818"), 0.3))
    bicycle = m.build("bicycle", Class.BICYCLIST)
    outfit = _outfit(rng, may_be_long=False)

    @cache
    def shape(phase: int) -> bpy.types.Mesh:
        angle = 0.985 - 2 * math.pi * phase / PHASES
        return _figure(palette, outfit, _limbs(1.085 * math.cos(angle), 1.2 * math.sin(angle)))

    rider = place(shape(0), "rider", Class.BICYCLIST)
    rider.parent = bicycle
    return Person(bicycle, rider, PEDALS, shape)
