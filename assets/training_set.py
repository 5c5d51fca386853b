"""Render streets drawn at random, pictures and exact labels, as `ecmnet train --data rendered=FOLDER` reads them.

    python assets/training_set.py FOLDER --seeds 0 200     # what is there already is kept

Needs assets/requirements.txt (Blender as a Python module), not the project itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from PIL import Image
from streets import rendering
from streets.anywhere import anywhere
from streets.painted import painted

SECONDS = (0.0, 1.5, 3.0, 4.5)  # moments of each street


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("FIRST", "END"))
    parser.add_argument("--size", type=int, nargs=2, default=(480, 360), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--samples", type=int, default=2, help="rays a pixel before denoising")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    pictures, masks = args.folder / "train", args.folder / "trainannot"
    for folder in (pictures, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in range(*args.seeds):
        if (masks / f"{seed:04d}_{len(SECONDS) - 1}.png").exists():
            continue
        start = time.perf_counter()
        rendering.reset()
        world = anywhere(seed)
        for k, seconds in enumerate(SECONDS):
            world.pose(seconds)
            light = rendering.radiance(*args.size, args.samples, args.threads, seed, draft=True)
            picture = rendering.develop(light, world.light.exposure, seed)
            picture.save(pictures / f"{seed:04d}_{k}.webp", quality=88, method=4)
            mask = Image.fromarray(painted(rendering.labels(*args.size)))
            unfinished = masks / f"{seed:04d}_{k}.part"  # half a label must not pass for a street that is done
            mask.save(unfinished, "png", optimize=True)
            unfinished.rename(unfinished.with_suffix(".png"))
        print(f"{seed}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
