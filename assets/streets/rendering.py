"""Cycles on the CPU: the light that reaches the camera, developed into a picture, and the class under each pixel."""

from __future__ import annotations

import tempfile
from pathlib import Path

import bpy
import numpy as np
from PIL import Image

from .materials import Graph

STEP = 20  # label ids are rendered as multiples of this, so that a rounding error would be seen


def reset() -> None:
    """An empty Blender. What does not move between two renders is prepared once."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.use_persistent_data = True


def _render(width: int, height: int, path: Path) -> None:
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width, height, 100
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def radiance(
    width: int = 640, height: int = 480, samples: int = 64, threads: int = 2, seed: int = 0, draft: bool = False
) -> np.ndarray:
    """Linear light (height, width, 3) float32, path-traced and denoised; a draft has direct light only."""
    scene = bpy.context.scene
    scene.render.engine, scene.render.threads_mode, scene.render.threads = "CYCLES", "FIXED", threads
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.seed = "CPU", samples, seed
    cycles.use_denoising, cycles.denoiser, cycles.denoising_quality = True, "OPENIMAGEDENOISE", "HIGH"
    cycles.denoising_prefilter = "ACCURATE"
    cycles.use_adaptive_sampling = False
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces, cycles.transparent_max_bounces = 4, 2, 2, 4
    if draft:
        cycles.max_bounces, cycles.denoising_quality, cycles.denoising_prefilter = 0, "FAST", "FAST"
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 4.0
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    kind = scene.render.image_settings
    kind.file_format, kind.color_mode, kind.color_depth = "OPEN_EXR", "RGB", "32"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "light.exr"
        _render(width, height, path)
        stored = bpy.data.images.load(str(path))
        pixels = np.empty(width * height * 4, np.float32)
        stored.pixels.foreach_get(pixels)
        bpy.data.images.remove(stored)
    return pixels.reshape(height, width, 4)[::-1, :, :3]


def _blur(light: np.ndarray, radius: int) -> np.ndarray:
    """Three box blurs across and down, the edge repeated: nearly a Gaussian."""
    for axis in (0, 1) * 3:
        pads = [(radius + 1, radius) if a == axis else (0, 0) for a in range(3)]
        total = np.cumsum(np.pad(light, pads, "edge"), axis, dtype=np.float64)
        size, width = light.shape[axis], 2 * radius + 1
        light = (np.take(total, range(width, width + size), axis) - np.take(total, range(size), axis)) / width
    return light


def develop(light: np.ndarray, exposure: float, seed: int = 0) -> Image.Image:
    """What a small car camera makes of linear light, `exposure` in stops.

    Veiling glare, vignette, a contrasty curve that clips the sky softly, grain.
    """
    height, width = light.shape[:2]
    glare = _blur(np.minimum(light, 4.0), width // 60)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = (0.955 * light + 0.045 * glare) * (1 - 0.12 * (x * x + y * y))[..., None] * 2**exposure
    light = light * (1 + light / 9.0) / (1 + 0.75 * light)  # a shoulder
    display = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)
    display = np.clip(display, 0, 1)
    display = display + 0.32 * (display - 0.5) * 4 * display * (1 - display)  # contrast about the middle
    grain = np.random.default_rng(seed).normal(scale=0.007, size=(height, width, 3))
    grain = 0.7 * grain.mean(-1, keepdims=True) * 1.7 + 0.5 * grain
    return Image.fromarray((np.clip(display + grain, 0, 1) * 255 + 0.5).astype(np.uint8))


def labels(width: int = 640, height: int = 480) -> np.ndarray:
    """Class ids (height, width) uint8: one ray through the centre of each pixel, every object glowing in its own id."""
    scene = bpy.context.scene
    paint = bpy.data.materials.new("labels")
    paint.use_nodes = True
    paint.cycles.emission_sampling = "NONE"
    g = Graph(paint.node_tree)
    value = g.math("MULTIPLY", g.node("ObjectInfo").outputs["Object Index"], STEP / 255)
    g.node("OutputMaterial", Surface=g.node("Emission", Color=value).outputs[0])
    kind = scene.render.image_settings
    kind.file_format, kind.color_mode, kind.color_depth = "PNG", "RGB", "8"
    kept = scene.world
    bpy.context.view_layer.material_override = paint
    scene.world = None
    scene.view_settings.view_transform, scene.view_settings.look = "Raw", "None"
    scene.render.engine, cycles = "CYCLES", scene.cycles
    cycles.samples, cycles.use_denoising, cycles.use_adaptive_sampling, cycles.pixel_filter_type = (
        1,
        False,
        False,
        "BOX",
    )
    cycles.filter_width, scene.render.dither_intensity = 0.01, 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.png"
            _render(width, height, path)
            with Image.open(path) as picture:
                coded = np.asarray(picture.convert("RGB"))[..., 0].astype(np.int32)
    finally:
        bpy.context.view_layer.material_override = None
        scene.world = kept
    ids = (coded + STEP // 2) // STEP
    if abs(coded - ids * STEP).max() > 1:
        raise RuntimeError("the label render is not exact: a colour transform or a filter was at work")
    return ids.astype(np.uint8)
