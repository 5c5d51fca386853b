"""Trees and hedges: a branching skeleton with tens of thousands of leaf cards."""

from __future__ import annotations

import bpy
import numpy as np

from .classes import Class
from .materials import Palette, srgb
from .mesh import Mesh, place, quads

FOLIAGE = (("333c18", "7a8540"), ("3c4420", "8a8d46"), ("2c361a", "66733a"), ("454a22", "96924e"))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def leaf_cards(rng: np.random.Generator, centers: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Diamond leaves around `centers` (N, 3): corners (N, 4, 3) and uv (N, 4, 2), where u is random for each leaf."""
    n = len(centers)
    along = _unit(rng.normal(size=(n, 3)) - np.array([0, 0, 0.35]))
    side = _unit(np.cross(along, rng.normal(size=(n, 3))))
    long = size * rng.uniform(0.7, 1.3, (n, 1))
    wide = long * 0.36
    corners = np.stack(
        [
            centers,
            centers + 0.5 * long * along + wide * side,
            centers + long * along,
            centers + 0.5 * long * along - wide * side,
        ],
        1,
    )
    u = np.repeat(rng.uniform(size=(n, 1)), 4, 1)
    return corners, np.stack([u, np.broadcast_to([0.0, 0.5, 1.0, 0.5], (n, 4))], -1)


class Tree:
    """One species-like pair of meshes (wood and leaves); `plant` shows it again elsewhere."""

    def __init__(
        self,
        palette: Palette,
        seed: int,
        height: float = 9.0,
        leaves: int = 30000,
        leaf: float = 0.15,
        clear: float = 2.4,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.wood, self.tips = Mesh(), []
        self.bark = palette.bark()
        self._grow(np.zeros(3), np.array([0.0, 0.0, 1.0]), clear, 0.02 * height, 0, height)
        tips = np.array(self.tips)
        chosen = tips[self.rng.integers(len(tips), size=leaves)]
        centers = chosen + self.rng.normal(scale=0.042 * height, size=(leaves, 3)) * [1, 1, 0.8]
        corners, uv = leaf_cards(self.rng, centers, leaf)
        dark, light = FOLIAGE[seed % len(FOLIAGE)]
        self.foliage = quads("leaves", corners, uv, palette.leaves(srgb(dark), srgb(light)))
        made = self.wood.build("wood", Class.TREE, smooth=True)
        self.trunk = made.data
        bpy.data.objects.remove(made)

    def _grow(
        self, start: np.ndarray, direction: np.ndarray, length: float, radius: float, level: int, height: float
    ) -> None:
        points, radii = [start], [radius]
        steps = 4
        for k in range(steps):
            direction = _unit(direction + self.rng.normal(scale=0.07 + 0.05 * level, size=3) + [0, 0, 0.06 * level])
            points.append(points[-1] + direction * length / steps)
            radii.append(radius * (1 - 0.45 * (k + 1) / steps))
            if level >= 2:
                self.tips.append(points[-1])
        self.wood.tube([tuple(p) for p in points], radii, self.bark, sides=10 if level == 0 else 5)
        if level == 3:
            return
        children = (6, 5, 4)[level]
        turn = self.rng.uniform(0, 2 * np.pi)
        for k in range(children):
            azimuth = turn + 2 * np.pi * (k + self.rng.uniform(-0.25, 0.25)) / children
            lift = self.rng.uniform(0.35, 1.25) if level == 0 else self.rng.uniform(0.1, 0.9)
            outwards = np.array([np.cos(azimuth), np.sin(azimuth), lift])
            at = points[-1] if level == 0 else points[int(self.rng.integers(2, steps + 1))]
            share = (0.36, 0.2, 0.12)[level] * self.rng.uniform(0.75, 1.2)
            self._grow(
                at,
                _unit(0.45 * direction + outwards),
                share * height,
                radii[-1] * (0.7, 0.6, 0.5)[level],
                level + 1,
                height,
            )

    def plant(self, x: float, y: float, scale: float = 1.0, turn: float = 0.0, z: float = 0.0) -> None:
        for data in (self.trunk, self.foliage):
            made = place(data, data.name, Class.TREE)
            made.location, made.scale, made.rotation_euler = (x, y, z), (scale,) * 3, (0, 0, turn)


def hedge(palette: Palette, seed: int, length: float, height: float = 1.5, thick: float = 0.9) -> bpy.types.Object:
    """A clipped hedge along its own y axis from 0 to `length`."""
    rng = np.random.default_rng(seed)
    n = int(900 * length * (height + thick))
    p = rng.uniform(size=(n, 3)) * [thick, length, height]
    face = rng.integers(3, size=n)  # most leaves sit in the surface: front, back or top
    p[face == 0, 0] = rng.normal(0, 0.06, (face == 0).sum())
    p[face == 1, 0] = thick + rng.normal(0, 0.06, (face == 1).sum())
    p[face == 2, 2] = height + rng.normal(0, 0.07, (face == 2).sum())
    p[:, 2] += 0.12 * np.sin(1.7 * p[:, 1] + seed) * (p[:, 2] > 0.8 * height)
    corners, uv = leaf_cards(rng, p, 0.085)
    dark, light = FOLIAGE[seed % len(FOLIAGE)]
    made = place(quads("hedge", corners, uv, palette.leaves(srgb(dark), srgb(light))), "hedge", Class.TREE)
    core = Mesh()
    core.box((0.08, 0.05, 0), (thick - 0.08, length - 0.05, height - 0.1), palette.plain(srgb("1d2212"), 0.95))
    core.build("hedge core", Class.TREE).parent = made
    return made
