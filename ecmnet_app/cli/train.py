"""`ecmnet train`: a training by a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, Commands, add_command


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "train",
        "Train a network by a recipe",
        "  ecmnet train --recipe camvid-scratch --data camvid=data/camvid --out runs/scratch\n"
        "  ecmnet train --recipe camvid-scratch --data camvid=data/camvid --out runs/scratch --resume\n"
        "  ecmnet train --recipe teacher-camvid --data camvid=data/camvid --out runs/teacher\n"
        "  ecmnet train --recipe mine.toml --teacher runs/teacher/teacher-camvid.safetensors --data ... --out runs/b\n"
        "  torchrun --nproc-per-node 2 -m ecmnet_app train --recipe mine.toml --data camvid=data/camvid --out runs/a",
    )
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="one of the package's, or a TOML file")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        type=_named_folder,
        metavar="NAME=DIR",
        help="folder of a data set that the recipe names; once for each",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the checkpoint, log.csv, curves.png, predictions.png and the weights",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="a trained teacher, or weights, for recipes that learn from one; once for each of several",
    )
    parser.add_argument("--initial", metavar="NAME|PATH", help="weights to start from, in place of random ones")
    parser.add_argument("--steps", type=int, metavar="N", help="steps instead of the recipe's")
    parser.add_argument("--seed", type=int, metavar="N", help="seed instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.set_defaults(run=run)


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"write NAME=DIR, such as camvid=data/camvid, not {text!r}")
    return name, Path(folder)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    from ecmnet_app.training.recipe import load_recipe
    from ecmnet_app.training.train import train

    overrides = {name: value for name in ("steps", "seed") if (value := getattr(args, name)) is not None}
    recipe = load_recipe(args.recipe, **overrides)
    weights = train(
        recipe,
        dict(args.data),
        args.out,
        args.device,
        resume=args.resume,
        teachers=args.teacher,
        initial=args.initial,
    )
    if weights is not None:
        card = f" and {weights.name}.json" if recipe.network == "ecmnet" else ""
        print(f"weights: {weights}.safetensors{card}")
    return DONE
