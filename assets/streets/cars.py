"""Cars: a lofted, subdivided body whose windows and lights are regions given by signed distances, and wheels below it.

A car's own frame: +y ahead, the ground at z = 0, the origin below its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import bmesh
import bpy
import numpy as np

from .classes import Class
from .ground import Path
from .materials import Color, Palette, srgb
from .mesh import Mesh, place

COMMON = ("hatch", "hatch", "saloon", "suv", "small", "van")  # models, as often as they are seen
COLORS = (
    "7f858a",
    "9aa0a4",
    "23262b",
    "15171a",
    "8a1f1c",
    "1d2f55",
    "c9cbca",
    "30363c",
    "5a6168",
    "1c3a30",
    "6a1d22",
    "a9adb0",
    "34507a",
)

# y, half width, heights of the bottom, the shoulder and the top, half width at the top
Station = tuple[float, float, float, float, float, float]
Polygon = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Model:
    stations: tuple[Station, ...]
    axles: tuple[float, float]
    wheel: float  # radius in metres
    side_glass: tuple[Polygon, ...]  # in (y, z)
    windscreen: Polygon  # in (|x|, z)
    rear_glass: Polygon
    head_light: Polygon
    tail_light: Polygon
    grille: Polygon
    seams: tuple[float, ...]
    mirror: tuple[float, float, float]
    plate: tuple[float, float]  # heights of the front and rear number plates

    @property
    def length(self) -> float:
        return self.stations[-1][0] - self.stations[0][0]

    def scaled(self, x: float, y: float, z: float) -> Model:
        """The same shape stretched across, along and upwards."""

        def yz(polygon: Polygon) -> Polygon:
            return tuple((a * y, b * z) for a, b in polygon)

        def xz(polygon: Polygon) -> Polygon:
            return tuple((a * x, b * z) for a, b in polygon)

        return replace(
            self,
            stations=tuple((a * y, b * x, c * z, d * z, e * z, f * x) for a, b, c, d, e, f in self.stations),
            axles=(self.axles[0] * y, self.axles[1] * y),
            wheel=self.wheel * z,
            side_glass=tuple(yz(p) for p in self.side_glass),
            windscreen=xz(self.windscreen),
            rear_glass=xz(self.rear_glass),
            head_light=xz(self.head_light),
            tail_light=xz(self.tail_light),
            grille=xz(self.grille),
            seams=tuple(s * y for s in self.seams),
            mirror=(self.mirror[0] * x, self.mirror[1] * y, self.mirror[2] * z),
            plate=(self.plate[0] * z, self.plate[1] * z),
        )


HATCH = Model(
    stations=(
        (-1.98, 0.66, 0.36, 0.66, 0.80, 0.62),
        (-1.95, 0.80, 0.27, 0.76, 0.92, 0.70),
        (-1.84, 0.86, 0.24, 0.90, 1.06, 0.70),
        (-1.42, 0.875, 0.22, 0.95, 1.45, 0.62),
        (-0.75, 0.88, 0.21, 0.95, 1.53, 0.62),
        (-0.05, 0.88, 0.21, 0.94, 1.53, 0.61),
        (0.42, 0.88, 0.21, 0.93, 1.42, 0.61),
        (1.08, 0.875, 0.22, 0.90, 1.02, 0.72),
        (1.55, 0.86, 0.24, 0.84, 0.92, 0.68),
        (1.86, 0.80, 0.25, 0.70, 0.80, 0.62),
        (1.99, 0.64, 0.32, 0.56, 0.64, 0.52),
    ),
    axles=(1.24, -1.24),
    wheel=0.305,
    side_glass=(
        ((0.78, 0.97), (0.12, 1.38), (-0.22, 1.40), (-0.22, 0.96)),
        ((-0.32, 0.96), (-0.32, 1.40), (-1.02, 1.36), (-1.5, 1.06), (-1.42, 0.97)),
    ),
    windscreen=((0.0, 0.99), (0.71, 0.99), (0.56, 1.40), (0.0, 1.42)),
    rear_glass=((0.0, 1.03), (0.64, 1.03), (0.54, 1.34), (0.0, 1.36)),
    head_light=((0.40, 0.60), (0.44, 0.74), (0.9, 0.80), (0.9, 0.68)),
    tail_light=((0.54, 0.66), (0.60, 0.97), (0.95, 0.97), (0.95, 0.66)),
    grille=((0.0, 0.54), (0.34, 0.55), (0.36, 0.63), (0.0, 0.65)),
    seams=(0.9, -0.27, -1.05),
    mirror=(0.94, 0.66, 0.99),
    plate=(0.42, 0.76),
)

SALOON = replace(
    HATCH,
    stations=(
        (-2.24, 0.66, 0.36, 0.70, 0.82, 0.58),
        (-2.20, 0.80, 0.28, 0.82, 0.95, 0.66),
        (-2.02, 0.86, 0.25, 0.92, 1.02, 0.70),
        (-1.62, 0.88, 0.23, 0.94, 1.06, 0.68),
        (-1.0, 0.89, 0.21, 0.94, 1.42, 0.60),
        (-0.45, 0.89, 0.21, 0.94, 1.50, 0.61),
        (0.1, 0.89, 0.21, 0.93, 1.49, 0.60),
        (0.5, 0.89, 0.21, 0.92, 1.38, 0.60),
        (1.14, 0.885, 0.22, 0.90, 1.00, 0.72),
        (1.75, 0.87, 0.24, 0.82, 0.90, 0.66),
        (2.10, 0.80, 0.25, 0.70, 0.78, 0.60),
        (2.24, 0.64, 0.32, 0.56, 0.62, 0.52),
    ),
    axles=(1.36, -1.36),
    side_glass=(
        ((0.84, 0.96), (0.26, 1.34), (-0.14, 1.38), (-0.14, 0.95)),
        ((-0.24, 0.95), (-0.24, 1.38), (-0.78, 1.34), (-1.3, 1.04), (-1.24, 0.96)),
    ),
    windscreen=((0.0, 0.98), (0.71, 0.98), (0.56, 1.36), (0.0, 1.38)),
    rear_glass=((0.0, 1.05), (0.62, 1.05), (0.53, 1.33), (0.0, 1.35)),
    tail_light=((0.46, 0.70), (0.46, 0.86), (0.95, 0.90), (0.95, 0.70)),
    seams=(0.98, -0.19, -1.1),
    mirror=(0.95, 0.72, 0.97),
    plate=(0.42, 0.64),
)

VAN = Model(
    stations=(
        (-2.42, 0.82, 0.40, 1.10, 2.12, 0.72),
        (-2.40, 0.90, 0.32, 1.12, 2.20, 0.80),
        (-2.25, 0.93, 0.28, 1.12, 2.26, 0.82),
        (-1.2, 0.94, 0.26, 1.12, 2.30, 0.82),
        (0.2, 0.94, 0.26, 1.12, 2.30, 0.81),
        (0.75, 0.94, 0.26, 1.11, 2.22, 0.78),
        (1.55, 0.93, 0.26, 1.06, 1.42, 0.78),
        (2.1, 0.91, 0.27, 0.98, 1.14, 0.76),
        (2.36, 0.86, 0.28, 0.80, 0.92, 0.70),
        (2.46, 0.72, 0.34, 0.60, 0.70, 0.60),
    ),
    axles=(1.5, -1.5),
    wheel=0.335,
    side_glass=(((1.42, 1.24), (0.80, 1.86), (0.28, 1.92), (0.28, 1.20)),),
    windscreen=((0.0, 1.30), (0.78, 1.28), (0.70, 2.0), (0.0, 2.03)),
    rear_glass=((0.06, 1.36), (0.66, 1.36), (0.62, 1.92), (0.06, 1.92)),
    head_light=((0.52, 0.72), (0.54, 0.94), (0.95, 1.0), (0.95, 0.78)),
    tail_light=((0.76, 0.72), (0.76, 1.24), (1.0, 1.24), (1.0, 0.72)),
    grille=((0.0, 0.62), (0.44, 0.64), (0.46, 0.8), (0.0, 0.82)),
    seams=(1.3, 0.2, -1.0),
    mirror=(1.03, 1.2, 1.3),
    plate=(0.48, 0.6),
)

MODELS = {
    "hatch": HATCH,
    "saloon": SALOON,
    "suv": HATCH.scaled(1.04, 1.08, 1.13),
    "small": HATCH.scaled(0.95, 0.9, 0.97),
    "van": VAN,
}


def inside(points: np.ndarray, polygon: Polygon) -> np.ndarray:
    """Signed distance (N,) of points (N, 2) to a polygon's outline, positive inside."""
    corners = np.asarray(polygon, dtype=float)
    nearest, odd = np.full(len(points), np.inf), np.zeros(len(points), bool)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        edge, to = b - a, points - a
        t = np.clip(to @ edge / (edge @ edge), 0, 1)[:, None]
        nearest = np.minimum(nearest, np.linalg.norm(to - t * edge, axis=1))
        crosses = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= crosses & (points[:, 0] < a[0] + (points[:, 1] - a[1]) / (b[1] - a[1]) * edge[0])
    return np.where(odd, nearest, -nearest)


def _loft(model: Model) -> tuple[list[tuple[float, float, float]], list[tuple[int, ...]]]:
    """The control mesh: one closed ring of points for each station, a cap at either end."""
    points, faces = [], []
    for y, w, bottom, shoulder, top, upper in model.stations:
        waist = bottom + 0.55 * (shoulder - bottom)
        rise = top - shoulder
        half = [
            (0.0, bottom),
            (0.82 * w, bottom),
            (0.985 * w, bottom + 0.08),
            (w, waist),
            (0.985 * w, shoulder - 0.05),
            (0.94 * w, shoulder),
            (upper + 0.25 * max(0.0, 0.94 * w - upper), shoulder + 0.6 * rise),
            (upper, top - 0.12 * min(rise, 0.5)),
            (0.82 * upper, top),
            (0.0, top + 0.02),
        ]
        points += [(x, y, z) for x, z in half] + [(-x, y, z) for x, z in half[-2:0:-1]]
    ring = len(points) // len(model.stations)
    for i in range(len(model.stations) - 1):
        for k in range(ring):
            n = (k + 1) % ring
            faces.append((i * ring + k, i * ring + n, (i + 1) * ring + n, (i + 1) * ring + k))
    last = len(points) - ring
    for k in range(ring // 2 - 1):  # quads between the two halves close the ends
        a, b, c, d = k, k + 1, ring - 1 - k, (ring - k) % ring
        faces.append((a, d, c, b) if d != a else (a, c, b))
        faces.append((last + a, last + b, last + c, last + d) if d != a else (last + a, last + b, last + c))
    middle = ring // 2
    faces += [(middle - 1, middle + 1, middle), (last + middle - 1, last + middle, last + middle + 1)]
    return points, [f for f in faces if len(set(f)) == len(f)]


def _body(palette: Palette, model: Model) -> bpy.types.Mesh:
    points, faces = _loft(model)
    control = bpy.data.meshes.new("car")
    control.from_pydata(points, [], faces)
    outwards = bmesh.new()
    outwards.from_mesh(control)
    bmesh.ops.recalc_face_normals(outwards, faces=outwards.faces)
    outwards.to_mesh(control)
    outwards.free()
    shape = place(control, "car", Class.CAR)
    modifier = shape.modifiers.new("smooth", "SUBSURF")
    modifier.levels = modifier.render_levels = 4
    graph = bpy.context.evaluated_depsgraph_get()
    data = bpy.data.meshes.new_from_object(shape.evaluated_get(graph))
    bpy.data.objects.remove(shape)
    n = len(data.vertices)
    p, normal = np.empty(3 * n, np.float32), np.empty(3 * n, np.float32)
    data.vertices.foreach_get("co", p)
    data.vertex_normals.foreach_get("vector", normal)
    p, normal = p.reshape(n, 3), normal.reshape(n, 3)
    x, y, z = abs(p[:, 0]), p[:, 1], p[:, 2]
    xz, yz = np.stack([x, z], 1), np.stack([y, z], 1)
    front, back = y - 0.7 * model.stations[-1][0], 0.72 * model.stations[0][0] - y
    glass = np.minimum(np.max([inside(yz, w) for w in model.side_glass], 0), 0.3 * (abs(normal[:, 0]) - 0.5))
    glass = np.maximum(glass, np.minimum(inside(xz, model.windscreen), np.minimum(0.3 * (normal[:, 1] - 0.22), y)))
    glass = np.maximum(glass, np.minimum(inside(xz, model.rear_glass), np.minimum(0.3 * (-normal[:, 1] - 0.22), -y)))
    low = model.stations[0][2] + 0.03
    trim = np.maximum(np.minimum(inside(xz, model.grille), front), low - z)
    intake = [(0.0, low + 0.04), (0.5, low + 0.04), (0.56, low + 0.13), (0.0, low + 0.13)]
    trim = np.maximum(trim, np.minimum(inside(xz, intake), front))
    bumper = model.plate[1] - 0.19  # a dark strip along the rear bumper
    trim = np.maximum(trim, np.minimum(0.035 - abs(z - bumper), back))
    arches = [model.wheel + 0.035 - np.hypot(y - axle, z - model.wheel) for axle in model.axles]
    regions = {
        "glass": glass,
        "seal": np.minimum(glass + 0.035, 0.3 * (z - 0.6)),
        "trim": trim,
        "white": np.minimum(inside(xz, model.head_light), front),
        "red": np.minimum(inside(xz, model.tail_light), back),
        "arch": np.minimum(np.max(arches, 0), x - 0.5),
    }
    for name, distance in regions.items():
        data.attributes.new(name, "FLOAT", "POINT").data.foreach_set("value", distance.astype(np.float32))
    data.polygons.foreach_set("use_smooth", np.ones(len(data.polygons), bool))
    data.materials.clear()
    data.materials.append(palette.car_body(model.seams))
    return data


def _wheel(mesh: Mesh, palette: Palette, radius: float, at: tuple[float, float, float], out: int) -> None:
    x, y, z = at
    tyre, dark, rim = (
        palette.plain(srgb("161617"), 0.85),
        palette.plain(srgb("0b0b0c"), 0.6),
        palette.plain(srgb("a5a8ab"), 0.3, 0.8),
    )
    r = 0.66 * radius
    profile = [
        (-0.1, r),
        (-0.1, 0.93 * radius),
        (-0.07, radius),
        (0.07, radius),
        (0.1, 0.93 * radius),
        (0.1, r),
        (0.06, 0.95 * r),
    ]
    mesh.lathe([(out * a, b) for a, b in profile], tyre, at)
    mesh.lathe([(out * 0.09, r), (out * 0.095, 0.9 * r), (out * 0.05, 0.86 * r)], rim, at)
    mesh.lathe([(out * 0.05, 0.9 * r), (out * 0.05, 0.0)], dark, at)
    mesh.lathe([(out * 0.06, 0.24 * r), (out * 0.085, 0.2 * r), (out * 0.085, 0.0)], rim, at)
    for k in range(7):
        a = 2 * math.pi * k / 7 + 0.3
        ray, turn = np.array([math.cos(a), math.sin(a)]), np.array([-math.sin(a), math.cos(a)])
        spoke = [
            0.15 * r * ray + 0.12 * r * turn,
            0.9 * r * ray + 0.1 * r * turn,
            0.9 * r * ray - 0.1 * r * turn,
            0.15 * r * ray - 0.12 * r * turn,
        ]
        mesh.face([(x + out * 0.08, y + q[0], z + q[1]) for q in spoke], rim)


def _fittings(palette: Palette, model: Model) -> bpy.types.Mesh:
    """Wheels, their dark wells, number plates, mirrors and door handles."""
    m, black = Mesh(), palette.plain(srgb("08080a"), 0.9)
    for axle in model.axles:
        track = float(np.interp(axle, [s[0] for s in model.stations], [s[1] for s in model.stations])) - 0.115
        for out in (-1, 1):
            _wheel(m, palette, model.wheel, (out * track, axle, model.wheel), out)
        m.box((-track + 0.02, axle - 0.42, 0.2), (track - 0.02, axle + 0.42, 0.72), black)
    first, last = model.stations[0][0], model.stations[-1][0]
    m.box((-0.6, first + 0.25, 0.16), (0.6, last - 0.3, 0.3), black)
    ink = palette.plain(srgb("1a1a1a"), 0.5)
    for y, z, color in ((last - 0.03, model.plate[0], "d9d9d2"), (first + 0.03, model.plate[1], "c9a92c")):
        sign = 1 if y > 0 else -1
        m.box((-0.26, y - 0.05, z - 0.055), (0.26, y + 0.05, z + 0.055), palette.plain(srgb(color), 0.4))
        for k in (-0.19, -0.13, -0.07, -0.01, 0.07, 0.13, 0.19):
            m.box((k - 0.018, y + sign * 0.05, z - 0.033), (k + 0.018, y + sign * 0.053, z + 0.033), ink)
    x, y, z = model.mirror
    for side in (-1, 1):
        m.tube([(side * (x - 0.12), y, z), (side * x, y - 0.02, z + 0.04)], [0.03, 0.07], ink, 8)
        m.tube([(side * x, y + 0.04, z + 0.06), (side * (x + 0.01), y - 0.08, z + 0.06)], [0.06, 0.09], ink, 10)
    made = m.build("fittings", Class.CAR, smooth=False)
    data = made.data
    bpy.data.objects.remove(made)
    return data


class Garage:
    """Builds each model once and parks it as often as asked."""

    def __init__(self, palette: Palette) -> None:
        self.palette, self.parts = palette, {}

    def park(
        self, path: Path, s: float, d: float, model: str, color: str | Color, turn: float = 0.0, steer: float = 0.0
    ) -> bpy.types.Object:
        """A car of that model with its middle at (s, d), looking along the path turned by `turn`."""
        if model not in self.parts:
            self.parts[model] = (_body(self.palette, MODELS[model]), _fittings(self.palette, MODELS[model]))
        body, fittings = (place(data, model, Class.CAR) for data in self.parts[model])
        fittings.parent = body
        body.color = (*(srgb(color) if isinstance(color, str) else color), 1.0)
        return path.put(body, s, d, turn)

    def row(
        self, rng: Random, path: Path, s: tuple[float, float], d: float, turn: float = 0.0, fill: float = 0.8
    ) -> None:
        """Parked cars bumper to bumper, a place in five or so left empty."""
        at = s[0]
        while at < s[1]:
            model = rng.choice(COMMON)
            length = MODELS[model].length
            if rng.random() < fill:
                self.park(
                    path,
                    at + length / 2,
                    d + rng.uniform(-0.06, 0.06),
                    model,
                    rng.choice(COLORS),
                    turn + rng.uniform(-0.02, 0.02),
                )
            at += length + rng.uniform(0.8, 1.8)
