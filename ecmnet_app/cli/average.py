"""`ecmnet average`: the mean of several weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, Commands, add_command


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "average",
        "The mean of weights that were trained from the same ones, as one network",
        "  ecmnet average camvid runs/street/street.safetensors --out runs/mean/street\n"
        "  ecmnet average camvid runs/street/street.safetensors --shares 1 3 --out runs/mean/street",
    )
    parser.add_argument("weights", nargs="+", metavar="NAME|PATH", help="two weights or more")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="of the new weights, without suffix")
    parser.add_argument("--shares", nargs="+", type=float, metavar="X", help="how much each counts (all alike)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the mean, and say where."""
    from ecmnet_app.training.averaging import average_weights

    weights = average_weights(args.weights, args.out, args.shares)
    stem = args.out.with_name(weights.name)
    print(f"{stem}.safetensors and {weights.name}.json: the mean of {len(args.weights)} weights")
    return DONE
