"""A scene under construction: the street, its light, its camera, what stands in it and what moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import bpy

from . import furniture, ground, people
from .cars import Garage
from .ground import KERB, Path
from .materials import Color, Palette, sky, srgb
from .mesh import Mesh
from .trees import Tree

House = Callable[[Palette, Random, float], bpy.types.Object]


@dataclass(frozen=True)
class Light:
    """Sun and sky, in degrees. Azimuth 0 is behind the camera, 90 to its right; clouds widen the sun's `angle`."""

    elevation: float
    azimuth: float
    sun: float
    angle: float = 0.6
    warmth: Color = (1.0, 0.93, 0.82)
    zenith: Color = (0.16, 0.32, 0.72)
    horizon: Color = (0.86, 0.92, 1.0)
    cloud: Color = (1.0, 1.0, 1.0)
    cover: float = 0.5
    softness: float = 0.1
    cloud_scale: float = 1.1
    strength: float = 1.0
    exposure: float = 0.9  # stops
    haze: Color = (0.75, 0.8, 0.86)
    visibility: float = 1500.0
    seed: float = 0.0


@dataclass
class Mover:
    """Something that travels along a path at `speed` metres a second (negative: against the path's direction)."""

    thing: bpy.types.Object
    path: Path
    s: float
    d: float
    speed: float
    turn: float = 0.0
    z: float = 0.0


@dataclass
class World:
    """One street: `half` the carriageway, the width of a pavement and of a grass verge, in metres."""

    name: str
    light: Light
    path: Path = field(default_factory=Path)
    half: float = 3.6
    walk: float = 2.4
    verge: float = 0.0

    def __post_init__(self) -> None:
        self.rng = Random(self.name)
        self.palette = Palette(self.light.haze, self.light.visibility)
        self.garage = Garage(self.palette)
        self.movers: list[Mover] = []
        self.people: list[people.Person] = []
        self.species: dict[int, Tree] = {}
        self._lit()

    def _lit(self) -> None:
        now = self.light
        sky(now.zenith, now.horizon, now.cloud, now.cover, now.softness, now.strength, now.seed, now.cloud_scale)
        lamp = bpy.data.lights.new("sun", "SUN")
        lamp.energy, lamp.angle, lamp.color = now.sun, math.radians(now.angle), now.warmth
        sun = bpy.data.objects.new("sun", lamp)
        sun.rotation_euler = (math.radians(90 - now.elevation), 0, math.radians(now.azimuth))
        bpy.context.scene.collection.objects.link(sun)

    @property
    def front(self) -> float:
        """Distance of the back of the pavement from the centre line."""
        return self.half + 0.15 + self.verge + self.walk

    def camera(
        self, s: float, d: float, speed: float = 0.0, turn: float = 0.0, pitch: float = 0.0, fov: float = 58.0
    ) -> None:
        """The driver's view, 1.3 m up; turn (to the left) and pitch in degrees."""
        lens = bpy.data.cameras.new("camera")
        lens.angle, lens.clip_end = math.radians(fov), 2000.0
        eye = bpy.data.objects.new("camera", lens)
        holder = bpy.data.objects.new("driver", None)
        eye.parent, eye.rotation_euler = holder, (math.radians(90 + pitch), 0, math.radians(turn))
        for made in (holder, eye):
            bpy.context.scene.collection.objects.link(made)
        bpy.context.scene.camera = eye
        self.move(holder, s, d, speed, z=1.3)

    def move(
        self,
        thing: bpy.types.Object,
        s: float,
        d: float,
        speed: float,
        turn: float = 0.0,
        z: float = 0.0,
        path: Path | None = None,
    ) -> bpy.types.Object:
        self.movers.append(Mover(thing, path or self.path, s, d, speed, turn, z))
        return thing

    def pose(self, seconds: float) -> None:
        """Put everything that moves where it is at that time."""
        for m in self.movers:
            m.path.put(m.thing, m.s + m.speed * seconds, m.d, m.turn, m.z)
        for person in self.people:
            person.step(seconds)

    def base(self) -> None:
        """Grass under everything, so that no gap shows the void."""
        m = Mesh()
        m.face([(-600, -200, -0.06), (600, -200, -0.06), (600, 900, -0.06), (-600, 900, -0.06)], self.palette.grass())
        m.build("ground", ground.Class.TREE)

    def road(
        self,
        s: tuple[float, float],
        color: Color = (0.062, 0.062, 0.066),
        path: Path | None = None,
        half: float | None = None,
        z: float = 0.0,
    ) -> None:
        ground.carriageway(self.palette, path or self.path, s, half or self.half, color, z)

    def pavements(
        self, s: tuple[float, float], sides: Sequence[int] = (-1, 1), path: Path | None = None, slabs: str = "6f6b64"
    ) -> None:
        for side in sides:
            material = self.palette.slabs(srgb(slabs)) if slabs else self.palette.asphalt((0.1, 0.1, 0.1))
            ground.pavement(self.palette, path or self.path, s, side * self.half, self.walk, material, self.verge)
            grates = range(int(s[0]) + 17 + 4 * side, int(s[1]), 22)
            ground.gullies(self.palette, path or self.path, grates, side * (self.half - 0.02))

    def houses(
        self,
        side: int,
        s: tuple[float, float],
        make: House,
        widths: tuple[float, float],
        setback: float = 0.0,
        path: Path | None = None,
    ) -> None:
        """A closed row of houses along one side, facing the street."""
        at, path = s[0], path or self.path
        while at < s[1]:
            width = self.rng.uniform(*widths)
            house = make(self.palette, self.rng, width)
            if side > 0:
                path.put(house, at + width, self.front + setback, -math.pi / 2, KERB)
            else:
                path.put(house, at, -self.front - setback, math.pi / 2, KERB)
            at += width

    def tree(self, s: float, d: float, species: int = 0, scale: float = 1.0, path: Path | None = None) -> None:
        if species not in self.species:
            height, leaves, leaf, clear = (
                (9.0, 120000, 0.115, 2.6),
                (10.5, 150000, 0.12, 3.0),
                (7.0, 90000, 0.105, 1.8),
                (12.0, 160000, 0.13, 3.4),
            )[species % 4]
            self.species[species] = Tree(self.palette, species, height, leaves, leaf, clear)
        x, y, _ = (path or self.path).at(s, d)
        self.species[species].plant(x, y, scale * self.rng.uniform(0.88, 1.12), self.rng.uniform(0, 6.28), KERB / 2)

    def skyline(self, s: float, spread: float = 90.0, count: int = 26, species: Sequence[int] = (1, 3)) -> None:
        """A belt of trees that closes the view at the end of the street."""
        for k in range(count):
            d = spread * (2 * (k + 0.5) / count - 1)
            self.tree(
                s + self.rng.uniform(-8, 18),
                d + self.rng.uniform(-2, 2),
                self.rng.choice(species),
                self.rng.uniform(0.8, 1.2),
            )

    def lamps(self, s: Sequence[float], side: int) -> None:
        for at in s:
            self.path.put(
                furniture.lamp_post(self.palette), at, side * (self.half + 0.55), 0 if side > 0 else math.pi, KERB
            )

    def sign(self, kind: str, s: float, side: int, offset: float = 0.5, height: float = 2.4) -> None:
        self.path.put(furniture.sign(self.palette, kind, height), s, side * (self.half + offset), 0, KERB)

    def walker(self, s: float, d: float, along: int = 1, path: Path | None = None, turn: float = 0.0) -> None:
        """A pedestrian walking with (1) or against (-1) the street."""
        person = people.pedestrian(self.palette, self.rng)
        level = KERB if abs(d) > self.half else 0.0
        self.people.append(person)
        self.move(person.thing, s, d, 1.35 * along, turn + (0 if along > 0 else math.pi), level, path)

    def rider(self, s: float, d: float, along: int = 1) -> None:
        person = people.cyclist(self.palette, self.rng)
        self.people.append(person)
        self.move(person.thing, s, d, 4.5 * along, 0 if along > 0 else math.pi)

    def drive(
        self, s: float, d: float, model: str, color: str, speed: float, turn: float = 0.0, path: Path | None = None
    ) -> None:
        """A car under way; a negative speed comes towards the camera."""
        car = self.garage.park(path or self.path, s, d, model, color)
        self.move(car, s, d, speed, turn + (math.pi if speed < 0 else 0.0), path=path)

    def parked(self, side: int, s: tuple[float, float], fill: float = 0.8, forward: bool | None = None) -> None:
        """Cars along the kerb; by default on the left they point ahead, on the right they point back."""
        ahead = side < 0 if forward is None else forward
        self.garage.row(self.rng, self.path, s, side * (self.half - 1.05), 0.0 if ahead else math.pi, fill)
