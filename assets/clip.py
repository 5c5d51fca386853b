"""Render the clip: a drive of ten seconds, with the exact labels of every frame.

    python assets/clip.py labels               # into assets/labels/street
    python assets/clip.py frames FOLDER        # PNG pictures; those that are there already are kept
    python assets/clip.py encode FOLDER        # the H.264 file that is shipped

Needs assets/requirements.txt (Blender as a Python module), not the project itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent
CLIP = ROOT.parent / "ecmnet_app" / "examples" / "street.mp4"
LABELS = ROOT / "labels" / "street"
SIZE, FOV = (640, 480), 58.0  # pixels; degrees from the left edge to the right
SECONDS, RATE = 10, 10
SAMPLES = 2  # rays a pixel before denoising


def render(args: argparse.Namespace) -> None:
    from streets import rendering
    from streets.drive import drive

    args.folder.mkdir(parents=True, exist_ok=True)
    rendering.reset()
    world = drive(FOV)
    for index in range(*slice(*args.frames).indices(SECONDS * RATE)):
        path = args.folder / f"{index:03d}.png"
        if path.exists():
            continue
        start = time.perf_counter()
        world.pose(index / RATE)
        if args.command == "labels":
            picture = Image.fromarray(rendering.labels(*SIZE))
        else:  # the same noise in every frame, which does not flicker; the grain is the sensor's and does
            light = rendering.radiance(*SIZE, SAMPLES, args.threads, draft=True)
            picture = rendering.develop(light, world.light.exposure, seed=index)
        unfinished = path.with_suffix(".part")
        picture.save(unfinished, "PNG", optimize=True)
        unfinished.rename(path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


def encode(args: argparse.Namespace) -> None:
    import av
    from av.video.reformatter import Colorspace

    with av.open(str(CLIP), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "slow", "crf": "17"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        code = stream.codec_context
        code.gop_size = RATE  # a key frame a second, for seeking
        code.color_primaries = code.color_trc = code.colorspace = code.color_range = 1  # BT.709, limited
        for index in range(SECONDS * RATE):
            with Image.open(args.folder / f"{index:03d}.png") as picture:
                frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")))
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range="MPEG")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    print(f"{CLIP}: {CLIP.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (("labels", "the class of every pixel"), ("frames", "the pictures")):
        command = commands.add_parser(name, help=summary)
        command.add_argument("folder", type=Path, **({"nargs": "?", "default": LABELS} if name == "labels" else {}))
        command.add_argument(
            "--frames", type=int, nargs=3, default=(0, None, 1), metavar=("FIRST", "END", "STEP"), help="only these"
        )
        command.add_argument("--threads", type=int, default=2)
        command.set_defaults(run=render)
    command = commands.add_parser("encode", help="the pictures as one file")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=encode)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
