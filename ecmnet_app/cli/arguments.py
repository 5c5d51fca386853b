"""What several commands share: exit codes, and arguments that mean the same in each."""

from __future__ import annotations

import argparse

DONE, FILES_FAILED, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all went well; some files failed or are damaged and the rest are done; nothing could be done; Ctrl-C."""

WEIGHTS_HELP = "name, or path of a .safetensors file with its .json; those that ship: see `ecmnet info`"

Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def add_command(
    commands: Commands[argparse.ArgumentParser], name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    """A command's parser, with its summary in the list of commands and examples under its help."""
    return commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=f"{summary}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_arguments(parser: argparse.ArgumentParser, engine: str = "auto") -> None:
    """What runs the network; `engine` is the default."""
    group = parser.add_argument_group("network")
    group.add_argument("--weights", default="default", help=WEIGHTS_HELP)
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    group.add_argument(
        "--engine", default=engine, help=f"auto, the fastest here, or one that `ecmnet info` lists ({engine})"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    group.add_argument(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="short side to resize pictures to; by default the weights', and smaller pictures stay as they are",
    )


def add_data_arguments(parser: argparse.ArgumentParser, split: str | None = None) -> None:
    """Which pictures of a labelled data set; `split` is the default, without which it must be said."""
    parser.add_argument("path", metavar="PATH", help="folder of the data set, in CamVid's or Cityscapes' layout")
    what = "test, val, train, or several joined by +" + (f" ({split})" if split else "")
    parser.add_argument("--split", default=split, required=split is None, help=what)
    parser.add_argument("--only", metavar="PREFIXES", help="take only pictures whose names start so, comma separated")
    parser.add_argument("--leave-out", metavar="PREFIXES", help="leave out pictures whose names start so")


def height_and_width(text: str) -> tuple[int, int]:
    """Of HEIGHTxWIDTH, for argparse."""
    height, x, width = text.partition("x")
    if not (x and text.isascii() and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"write HEIGHTxWIDTH in pixels, such as 360x480, not {text!r}")
    return int(height), int(width)
