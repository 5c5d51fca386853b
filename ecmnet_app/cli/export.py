"""`ecmnet export`: weights for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, WEIGHTS_HELP, Commands, add_command, height_and_width


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "export",
        "Write weights as an ONNX file for other runtimes, from picture to labels and confidence",
        "  ecmnet export --out street.onnx                    # pictures of every size\n"
        "  ecmnet export --out street.onnx --size 360x480     # one size: for a Jetson, a phone, a browser",
    )
    parser.add_argument("--weights", default="default", help=WEIGHTS_HELP)
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="of the file (onnx)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--size",
        type=_picture_size,
        metavar="HxW",
        help="height and width of the pictures that it will take, or dynamic, for any (dynamic)",
    )
    parser.set_defaults(run=run)


def _picture_size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    try:
        return height_and_width(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"write HEIGHTxWIDTH, such as 360x480, or dynamic, not {text!r}") from None


def run(args: argparse.Namespace) -> int:
    """Write the file, and say what it takes."""
    from ecmnet_app.core.export import export_onnx
    from ecmnet_app.core.weights import load_weights

    weights = load_weights(args.weights)
    export_onnx(weights, args.out, args.size)
    sizes = "any size" if args.size is None else "{} rows of {} pixels".format(*args.size)
    print(f"{args.out}: {weights.name}, uint8 RGB pictures of {sizes} to labels and confidence")
    return DONE
