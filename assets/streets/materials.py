"""Procedural materials. Texture coordinates are in metres, so bricks are brick-sized wherever they are used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import bpy

Color = tuple[float, float, float]
Socket = bpy.types.NodeSocket


def srgb(code: str) -> Color:
    """Linear RGB of a hexadecimal sRGB colour such as "8a7f6d"."""
    values = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return r, g, b


class Graph:
    """A node tree under construction; every method adds a node and returns its output socket."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        tree.nodes.clear()
        self.tree = tree

    def node(self, kind: str, **sockets: object) -> bpy.types.Node:
        made = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in sockets.items():
            self.set(made.inputs[name.replace("_", " ")], value)
        return made

    def set(self, socket: Socket, value: object) -> None:
        if isinstance(value, Socket):
            self.tree.links.new(value, socket)
        elif socket.type == "RGBA":
            socket.default_value = (*value, 1.0)
        else:
            socket.default_value = value

    def uv(self) -> Socket:
        return self.node("TexCoord").outputs["UV"]

    def position(self) -> Socket:
        return self.node("NewGeometry").outputs["Position"]

    def local(self) -> Socket:
        return self.node("TexCoord").outputs["Object"]

    def random(self) -> Socket:
        return self.node("ObjectInfo").outputs["Random"]

    def attribute(self, name: str) -> Socket:
        made = self.node("Attribute")
        made.attribute_name = name
        return made.outputs["Fac"]

    def noise(self, vector: Socket, scale: float, detail: float = 4, roughness: float = 0.55) -> Socket:
        return self.node("TexNoise", Vector=vector, Scale=scale, Detail=detail, Roughness=roughness).outputs["Fac"]

    def cells(self, vector: Socket, scale: float, feature: str = "F1") -> Socket:
        made = self.node("TexVoronoi", Vector=vector, Scale=scale)
        made.feature = feature
        return made.outputs["Distance"]

    def ramp(self, factor: Socket, low: float, high: float) -> Socket:
        """`factor` from low..high to 0..1, clamped."""
        return self.node("MapRange", Value=factor, From_Min=low, From_Max=high).outputs["Result"]

    def math(self, operation: str, a: object, b: object = 0.0) -> Socket:
        made = self.node("Math")
        made.operation = operation
        self.set(made.inputs[0], a)
        self.set(made.inputs[1], b)
        return made.outputs[0]

    def mix(self, factor: object, a: object, b: object, blend: str = "MIX") -> Socket:
        """Colours a and b mixed by factor."""
        made = self.node("Mix")
        made.data_type, made.blend_type = "RGBA", blend
        for index, value in ((0, factor), (6, a), (7, b)):
            self.set(made.inputs[index], value)
        return made.outputs[2]

    def shade(self, color: object, value: Socket, low: float, high: float) -> Socket:
        """`color` multiplied by low..high as `value` goes from 0 to 1."""
        made = self.node("MapRange", Value=value, To_Min=low, To_Max=high)
        return self.mix(1.0, color, made.outputs["Result"], "MULTIPLY")

    def bump(self, height: Socket, distance: float, strength: float = 1.0) -> Socket:
        return self.node("Bump", Height=height, Distance=distance, Strength=strength).outputs["Normal"]

    def principled(self, color: object, roughness: object = 0.8, **more: object) -> Socket:
        return self.node("BsdfPrincipled", Base_Color=color, Roughness=roughness, **more).outputs[0]

    def blend(self, factor: object, a: Socket, b: Socket) -> Socket:
        """Shaders a and b mixed by factor."""
        made = self.node("MixShader", Fac=factor)
        self.set(made.inputs[1], a)
        self.set(made.inputs[2], b)
        return made.outputs[0]


class Palette:
    """The materials of one scene. Each fades into `haze` with distance, to 1/e in `visibility` metres."""

    def __init__(self, haze: Color, visibility: float) -> None:
        self.haze, self.visibility = haze, visibility

    def _new(self, name: str) -> tuple[bpy.types.Material, Graph]:
        material = bpy.data.materials.new(name)
        material.use_nodes = True
        return material, Graph(material.node_tree)

    def _finish(self, made: tuple[bpy.types.Material, Graph], shader: Socket) -> bpy.types.Material:
        material, g = made
        distance = g.node("CameraData").outputs["View Distance"]
        clear = g.math("EXPONENT", g.math("MULTIPLY", distance, -1 / self.visibility))
        seen = g.node("LightPath").outputs["Is Camera Ray"]
        amount = g.math("MULTIPLY", g.math("SUBTRACT", 1.0, clear), seen)
        mist = g.node("Emission", Color=self.haze).outputs[0]
        g.node("OutputMaterial", Surface=g.blend(amount, shader, mist))
        material.cycles.emission_sampling = "NONE"  # mist lights nothing; as lamps, all triangles would be sorted
        return material

    @cache  # noqa: B019  one palette lives as long as its scene
    def plain(self, color: Color, roughness: float = 0.6, metallic: float = 0.0) -> bpy.types.Material:
        """One colour with a little dirt."""
        made = self._new("plain")
        g = made[1]
        dirty = g.shade(color, g.noise(g.position(), 3.0), 0.75, 1.15)
        return self._finish(made, g.principled(dirty, roughness, Metallic=metallic))

    @cache  # noqa: B019
    def glow(self, color: Color, strength: float) -> bpy.types.Material:
        made = self._new("glow")
        return self._finish(made, made[1].node("Emission", Color=color, Strength=strength).outputs[0])

    def _asphalt(self, g: Graph, color: Color) -> tuple[Socket, Socket]:
        p = g.position()
        grain = g.noise(p, 24, 6, 0.75)
        stones = g.ramp(g.cells(p, 60), 0.0, 0.55)
        base = g.shade(color, g.ramp(grain, 0.25, 0.75), 0.5, 1.5)
        base = g.shade(base, stones, 1.25, 0.85)
        base = g.shade(base, g.noise(p, 0.35, 5, 0.6), 0.72, 1.28)
        base = g.shade(base, g.ramp(g.noise(p, 2.2, 3), 0.45, 0.75), 1.0, 0.86)
        # Tar seals and old repairs: broad patches of another age.
        base = g.shade(base, g.ramp(g.noise(p, 0.9, 8, 0.7), 0.52, 0.6), 1.0, 0.84)
        # Wheels polish two dark tracks a lane; u is across the road in metres.
        across = g.node("SeparateXYZ", Vector=g.uv()).outputs[0]
        tracks = g.math("COSINE", g.math("MULTIPLY", across, 2 * 3.14159 / 1.62))
        base = g.shade(base, g.ramp(tracks, -1, 1), 0.92, 1.06)
        wobble = g.mix(0.12, p, g.node("TexNoise", Vector=p, Scale=1.3, Detail=4.0).outputs["Color"])
        crack = g.ramp(g.cells(wobble, 0.45, "DISTANCE_TO_EDGE"), 0.002, 0.006)
        base = g.shade(base, g.math("MAXIMUM", crack, g.ramp(g.noise(p, 0.3, 3), 0.36, 0.4)), 0.72, 1.0)
        height = g.math("ADD", g.math("MULTIPLY", grain, 0.6), g.math("MULTIPLY", stones, -0.4))
        return base, g.bump(height, 0.012)

    @cache  # noqa: B019
    def asphalt(self, color: Color, roughness: float = 0.78) -> bpy.types.Material:
        made = self._new("asphalt")
        base, normal = self._asphalt(made[1], color)
        return self._finish(made, made[1].principled(base, roughness, Normal=normal))

    @cache  # noqa: B019
    def paint(self, color: Color, wear: float = 0.42, asphalt: Color = (0.07, 0.07, 0.075)) -> bpy.types.Material:
        """Road paint, worn through to the asphalt in places."""
        made = self._new("road paint")
        g = made[1]
        base, normal = self._asphalt(g, asphalt)
        p = g.position()
        worn = g.math("ADD", g.math("MULTIPLY", g.noise(p, 30, 3), 0.5), g.math("MULTIPLY", g.noise(p, 1.7, 3), 0.5))
        keep = g.ramp(worn, wear - 0.05, wear + 0.06)
        dirty = g.shade(color, g.noise(p, 6), 0.65, 1.1)
        return self._finish(made, g.principled(g.mix(keep, base, dirty), 0.6, Normal=normal))

    @cache  # noqa: B019
    def blocks(
        self,
        color: Color,
        mortar: Color,
        size: tuple[float, float],
        joint: float = 0.01,
        vary: float = 0.3,
        rough: float = 0.85,
        depth: float = 0.006,
        shift: float = 0.5,
    ) -> bpy.types.Material:
        """Courses of bricks, slabs, slates or kerb stones of `size` (width, height) in metres."""
        made = self._new("blocks")
        g = made[1]
        uv, p = g.uv(), g.position()
        brick = g.node(
            "TexBrick",
            Vector=uv,
            Color1=(1 - vary,) * 3,
            Color2=(1 + vary,) * 3,
            Mortar=(1, 1, 1),
            Scale=1.0,
            Mortar_Size=joint,
            Mortar_Smooth=0.2,
            Brick_Width=size[0],
            Row_Height=size[1],
        )
        brick.offset = shift
        tint = g.mix(1.0, color, brick.outputs["Color"], "MULTIPLY")
        tint = g.shade(tint, g.noise(p, 40, 3), 0.7, 1.3)
        base = g.mix(brick.outputs["Fac"], tint, mortar)
        base = g.shade(base, g.noise(p, 0.5, 5, 0.6), 0.68, 1.28)
        # Rain draws soot downwards in streaks.
        streak = g.node("Mapping", Vector=uv, Scale=(2.5, 0.18, 1.0)).outputs[0]
        base = g.shade(base, g.ramp(g.noise(streak, 1.0, 5), 0.5, 0.8), 1.0, 0.78)
        height = g.math("SUBTRACT", g.math("MULTIPLY", g.noise(p, 30), 0.4), brick.outputs["Fac"])
        return self._finish(made, g.principled(base, rough, Normal=g.bump(height, depth)))

    def brick(self, color: Color) -> bpy.types.Material:
        return self.blocks(color, srgb("9a9184"), (0.225, 0.075), 0.01, 0.28)

    def slate(self, color: Color) -> bpy.types.Material:
        return self.blocks(color, srgb("26282c"), (0.3, 0.22), 0.008, 0.25, 0.55, 0.02)

    def slabs(self, color: Color) -> bpy.types.Material:
        return self.blocks(color, srgb("4a4844"), (0.9, 0.6), 0.012, 0.14, 0.8)

    def kerb(self) -> bpy.types.Material:
        return self.blocks(srgb("8f8b84"), srgb("4a4844"), (0.9, 5.0), 0.012, 0.12, 0.75, shift=0.0)

    @cache  # noqa: B019
    def render(self, color: Color) -> bpy.types.Material:
        """Painted render with rain streaks and a dirty foot."""
        made = self._new("render")
        g = made[1]
        uv, p = g.uv(), g.position()
        base = g.shade(color, g.noise(p, 0.6, 6, 0.65), 0.82, 1.14)
        streak = g.node("Mapping", Vector=uv, Scale=(3.0, 0.16, 1.0)).outputs[0]
        base = g.shade(base, g.ramp(g.noise(streak, 1.0, 6), 0.48, 0.85), 1.0, 0.72)
        foot = g.node("SeparateXYZ", Vector=p).outputs[2]
        base = g.shade(base, g.ramp(g.math("ADD", foot, g.noise(p, 1.5)), 0.5, 1.4), 0.72, 1.0)
        return self._finish(made, g.principled(base, 0.85, Normal=g.bump(g.noise(p, 60), 0.003)))

    @cache  # noqa: B019
    def glass(self, color: Color, roughness: float = 0.04) -> bpy.types.Material:
        """A window by day: a dark room, the sky mirrored in old, slightly wavy panes."""
        made = self._new("glass")
        g = made[1]
        p = g.position()
        room = g.shade(color, g.noise(p, 0.9, 3), 0.35, 1.7)
        wave = g.bump(g.noise(p, 1.2, 2), 0.03)
        return self._finish(
            made, g.principled(room, roughness, IOR=1.6, Normal=wave, Coat_Weight=0.6, Coat_Normal=wave)
        )

    @cache  # noqa: B019
    def leaves(self, dark: Color, light: Color) -> bpy.types.Material:
        """Leaf cards: u is a random number for each leaf, the object's own random number shifts the whole tree."""
        made = self._new("leaves")
        g = made[1]
        each = g.node("SeparateXYZ", Vector=g.uv()).outputs[0]
        base = g.shade(g.mix(each, dark, light), g.random(), 0.72, 1.2)
        base = g.shade(base, g.noise(g.position(), 0.8, 2), 0.7, 1.3)
        front = g.principled(base, 0.5)
        through = g.node("BsdfTranslucent", Color=g.mix(1.0, base, (1.5, 1.6, 0.6), "MULTIPLY")).outputs[0]
        return self._finish(made, g.blend(0.42, front, through))

    @cache  # noqa: B019
    def bark(self, color: Color = (0.075, 0.062, 0.048)) -> bpy.types.Material:
        made = self._new("bark")
        g = made[1]
        p = g.node("Mapping", Vector=g.local(), Scale=(1.0, 1.0, 0.2)).outputs[0]
        ridges = g.noise(p, 22, 4)
        base = g.shade(color, ridges, 0.4, 1.7)
        return self._finish(made, g.principled(base, 0.9, Normal=g.bump(ridges, 0.03)))

    @cache  # noqa: B019
    def grass(self) -> bpy.types.Material:
        made = self._new("grass")
        g = made[1]
        p = g.position()
        base = g.mix(g.ramp(g.noise(p, 0.7, 5), 0.35, 0.7), srgb("4b5528"), srgb("6d7038"))
        base = g.shade(base, g.noise(p, 45, 3), 0.5, 1.5)
        return self._finish(made, g.principled(base, 0.95, Normal=g.bump(g.noise(p, 45), 0.05)))

    @cache  # noqa: B019
    def car_body(self, seams: Sequence[float]) -> bpy.types.Material:
        """Car paint in the object's own colour; signed distances in the mesh tell glass, lights and so on."""
        made = self._new("car body")
        g = made[1]
        color = g.node("ObjectInfo").outputs["Color"]
        axes = g.node("SeparateXYZ", Vector=g.local()).outputs
        paint_color = g.shade(color, g.noise(g.position(), 5, 4), 0.85, 1.1)
        paint_color = g.shade(
            paint_color,
            g.ramp(g.math("ADD", axes[2], g.math("MULTIPLY", g.noise(g.position(), 9), 0.2)), 0.3, 0.65),
            0.6,
            1,
        )
        for y in seams:
            gap = g.node("Math", Value=axes[1])
            gap.operation = "COMPARE"
            gap.inputs[1].default_value, gap.inputs[2].default_value = y, 0.005
            low = g.math("MULTIPLY", gap.outputs[0], g.math("GREATER_THAN", axes[2], 0.34))
            paint_color = g.mix(low, paint_color, (0.004, 0.004, 0.004))
        shader = g.principled(paint_color, 0.38, Metallic=0.25, Coat_Weight=0.9, Coat_Roughness=0.06)
        parts = {
            "trim": g.principled(srgb("232426"), 0.55),
            "white": g.principled(srgb("c9ced2"), 0.08, Metallic=0.6, Coat_Weight=1.0),
            "red": g.principled(
                srgb("a01414"), 0.15, Coat_Weight=1.0, Emission_Color=(0.6, 0.02, 0.01), Emission_Strength=0.12
            ),
            "seal": g.principled(srgb("111214"), 0.5),
            "glass": g.principled(srgb("1d2326"), 0.03, IOR=1.7, Coat_Weight=0.8),
            "arch": g.node("BsdfTransparent").outputs[0],
        }
        for name, part in parts.items():
            shader = g.blend(g.math("GREATER_THAN", g.attribute(name), 0.0), shader, part)
        return self._finish(made, shader)

    @cache  # noqa: B019
    def skin_and_cloth(self) -> bpy.types.Material:
        """People: the mesh's own colour, with the folds of cloth."""
        made = self._new("cloth")
        g = made[1]
        color = g.node("Attribute")
        color.attribute_name = "tint"
        base = g.shade(color.outputs["Color"], g.noise(g.local(), 9, 3), 0.65, 1.3)
        return self._finish(made, g.principled(base, 0.85, Normal=g.bump(g.noise(g.local(), 7, 3), 0.03)))


def sky(
    zenith: Color,
    horizon: Color,
    cloud: Color,
    cover: float,
    softness: float,
    strength: float,
    seed: float,
    scale: float = 1.1,
) -> None:
    """The world: a gradient behind a layer of clouds, whose `cover` runs from 0 (clear) to 1 (closed)."""
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 256  # the default takes seconds
    g = Graph(world.node_tree)
    direction = g.node("TexCoord").outputs["Generated"]
    x, y, z = g.node("SeparateXYZ", Vector=direction).outputs
    up = g.math("MAXIMUM", z, 0.0)
    clear = g.mix(g.math("POWER", g.ramp(up, 0.0, 0.75), 0.55), horizon, zenith)
    far = g.math("ADD", up, 0.14)
    flat = g.node("CombineXYZ", X=g.math("DIVIDE", x, far), Y=g.math("DIVIDE", y, far), Z=seed).outputs[0]
    shape = g.noise(flat, scale, 9, 0.56)
    amount = g.ramp(shape, 0.72 - 0.45 * cover - softness, 0.72 - 0.45 * cover + softness)
    body = g.shade(cloud, g.noise(flat, 1.9 * scale, 6, 0.55), 0.72, 1.22)
    fade = g.math("MULTIPLY", amount, g.ramp(up, 0.0, 0.22))
    color = g.mix(fade, clear, body)
    # The camera sees a brighter sky than the one that lights the street, as every exposure for the street does.
    seen = g.node("LightPath").outputs["Is Camera Ray"]
    power = g.math("MULTIPLY", strength, g.math("ADD", 1.0, g.math("MULTIPLY", seen, 0.6)))
    g.node("OutputWorld", Surface=g.node("Background", Color=color, Strength=power).outputs[0])
