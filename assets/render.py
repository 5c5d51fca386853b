"""Render the street scenes: a picture and its exact labels for each.

    python assets/render.py                          # all scenes, as shipped
    python assets/render.py avenue --samples 16 --out /tmp/look

Needs assets/requirements.txt (Blender as a Python module), not the project itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from PIL import Image
from streets import rendering
from streets.scenes import SCENES

ROOT = Path(__file__).resolve().parent
PICTURES = ROOT.parent / "ecmnet_app" / "examples"
LABELS = ROOT / "labels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "scenes", nargs="*", metavar="SCENE", help=f"which to render, of {', '.join(SCENES)}; all by default"
    )
    parser.add_argument(
        "--out", type=Path, help="write PNG pictures and labels into this folder instead of the project's own"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--samples", type=int, default=24, help="rays a pixel before denoising")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the renderer's noise; the layout follows from the scene's name"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="the moment to show: traffic and camera move")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--labels-only", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.scenes) - set(SCENES):
        parser.error(f"no scene {', '.join(sorted(unknown))}; there are {', '.join(SCENES)}")
    for name in args.scenes or SCENES:
        start = time.perf_counter()
        rendering.reset()
        world = SCENES[name]()
        world.pose(args.seconds)
        built = time.perf_counter()
        pictures, masks = args.out or PICTURES, args.out or LABELS
        for folder in (pictures, masks):
            folder.mkdir(parents=True, exist_ok=True)
        if not args.labels_only:
            picture = rendering.develop(
                rendering.radiance(*args.size, args.samples, args.threads, args.seed), world.light.exposure, args.seed
            )
            if args.out:
                picture.save(pictures / f"{name}.png")
            else:
                picture.save(pictures / f"{name}.jpg", quality=92, subsampling=0, optimize=True)
        mask = Image.fromarray(rendering.labels(*args.size))
        mask.save(masks / (f"{name}_labels.png" if args.out else f"{name}.png"), optimize=True)
        print(f"{name}: built in {built - start:.0f} s, rendered in {time.perf_counter() - built:.0f} s", flush=True)


if __name__ == "__main__":
    main()
