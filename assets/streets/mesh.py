"""Polygons collected in plain Python, then turned into one Blender object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import bpy
import numpy as np
from mathutils import Vector

from .classes import Class

Point = Sequence[float]


class Mesh:
    """A growing mesh. Faces have a material and texture coordinates in metres, by default along their main axis."""

    def __init__(self) -> None:
        self.vertices: list[Point] = []
        self.faces: list[tuple[int, ...]] = []
        self.uvs: list[Sequence[Point]] = []
        self.slots: list[int] = []
        self.materials: list[bpy.types.Material] = []

    def _slot(self, material: bpy.types.Material) -> int:
        if material not in self.materials:
            self.materials.append(material)
        return self.materials.index(material)

    def face(self, points: Sequence[Point], material: bpy.types.Material, uv: Sequence[Point] | None = None) -> None:
        """One polygon, counter-clockwise seen from outside."""
        start = len(self.vertices)
        self.vertices.extend(points)
        self.faces.append(tuple(range(start, start + len(points))))
        self.slots.append(self._slot(material))
        if uv is None:
            a, b, c = (Vector(p) for p in points[:3])
            normal = (b - a).cross(c - a)
            size = [abs(n) for n in normal]
            if size[2] == max(size):
                uv = [(p[0], p[1]) for p in points]
            elif size[0] == max(size):
                uv = [(p[1], p[2]) for p in points]
            else:
                uv = [(p[0], p[2]) for p in points]
        self.uvs.append(uv)

    def box(self, low: Point, high: Point, material: bpy.types.Material) -> None:
        """An axis-aligned box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        c = [
            (x0, y0, z0),
            (x1, y0, z0),
            (x1, y1, z0),
            (x0, y1, z0),
            (x0, y0, z1),
            (x1, y0, z1),
            (x1, y1, z1),
            (x0, y1, z1),
        ]
        for f in ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)):
            self.face([c[i] for i in f], material)

    def tube(
        self, points: Sequence[Point], radii: Sequence[float], material: bpy.types.Material, sides: int = 8
    ) -> None:
        """A tube along a polyline with one radius for each point, closed at both ends."""
        path = [Vector(p) for p in points]
        rings = []
        for i, (p, r) in enumerate(zip(path, radii, strict=True)):
            along = (path[min(i + 1, len(path) - 1)] - path[max(i - 1, 0)]).normalized()
            side = along.cross(Vector((0, 1, 0)) if abs(along.y) < 0.9 else Vector((1, 0, 0))).normalized()
            up = side.cross(along)
            angles = [2 * math.pi * k / sides for k in range(sides)]
            rings.append([tuple(p + float(r) * (math.cos(a) * side + math.sin(a) * up)) for a in angles])
        for low, high in pairwise(rings):
            for k in range(sides):
                n = (k + 1) % sides
                self.face([low[k], high[k], high[n], low[n]], material)
        self.face(rings[0], material)
        self.face(rings[-1][::-1], material)

    def lathe(
        self, profile: Sequence[tuple[float, float]], material: bpy.types.Material, center: Point, sides: int = 32
    ) -> None:
        """A profile of (x, radius) turned about the x axis through `center`."""
        cx, cy, cz = center
        rings = [
            [
                (cx + x, cy + r * np.cos(2 * np.pi * k / sides), cz + r * np.sin(2 * np.pi * k / sides))
                for k in range(sides)
            ]
            for x, r in profile
        ]
        for low, high in pairwise(rings):
            for k in range(sides):
                n = (k + 1) % sides
                self.face([low[k], low[n], high[n], high[k]], material)

    def letters(self, text: str, at: Point, size: float, material: bpy.types.Material) -> None:
        """Flat letters in Blender's own font, looking to -y, centred above `at`."""
        curve = bpy.data.curves.new("letters", "FONT")
        curve.body, curve.size, curve.align_x, curve.resolution_u = text, size, "CENTER", 2
        holder = bpy.data.objects.new("letters", curve)
        flat = holder.to_mesh()
        x, y, z = at
        for polygon in flat.polygons:
            corners = (flat.vertices[i].co for i in polygon.vertices)
            self.face([(x + c.x, y, z + c.y) for c in corners], material)
        holder.to_mesh_clear()
        bpy.data.objects.remove(holder)

    def build(self, name: str, label: Class, smooth: bool = False) -> bpy.types.Object:
        """The finished object, linked to the scene, every pixel of it labelled `label`."""
        data = bpy.data.meshes.new(name)
        data.from_pydata([tuple(map(float, v)) for v in self.vertices], [], self.faces)
        for material in self.materials:
            data.materials.append(material)
        data.polygons.foreach_set("material_index", self.slots)
        data.polygons.foreach_set("use_smooth", [smooth] * len(self.faces))
        flat = np.array([c for uv in self.uvs for p in uv for c in p], dtype=np.float32)
        data.uv_layers.new(name="UVMap").uv.foreach_set("vector", flat)
        data.update()
        return place(data, name, label)


def place(data: bpy.types.Mesh, name: str, label: Class) -> bpy.types.Object:
    """An object that shows `data`; several objects may share one mesh."""
    made = bpy.data.objects.new(name, data)
    made.pass_index = int(label)
    bpy.context.scene.collection.objects.link(made)
    return made


def quads(name: str, corners: np.ndarray, uv: np.ndarray, material: bpy.types.Material) -> bpy.types.Mesh:
    """Many separate quads at once: corners (N, 4, 3) in metres, uv (N, 4, 2)."""
    n = len(corners)
    data = bpy.data.meshes.new(name)
    data.vertices.add(4 * n)
    data.vertices.foreach_set("co", corners.astype(np.float32).ravel())
    data.loops.add(4 * n)
    data.loops.foreach_set("vertex_index", np.arange(4 * n, dtype=np.int32))
    data.polygons.add(n)
    data.polygons.foreach_set("loop_start", np.arange(0, 4 * n, 4, dtype=np.int32))
    data.uv_layers.new(name="UVMap").uv.foreach_set("vector", uv.astype(np.float32).ravel())
    data.materials.append(material)
    data.update(calc_edges=True)
    return data
