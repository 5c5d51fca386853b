"""`ecmnet evaluate`: the scores of weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, Commands, add_command, add_data_arguments, add_model_arguments


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "evaluate",
        "Score weights on labelled pictures: IoU of each class, failures, calibration",
        "  ecmnet evaluate data/camvid --split test\n"
        "  ecmnet evaluate data/labelmefacade --split test --beside data/camvid --out docs/accuracy\n"
        "  ecmnet evaluate data/cityscapes --split val --weights runs/city/city.safetensors --json",
    )
    add_data_arguments(parser, split="test")
    parser.add_argument("--classes", metavar="NAMES", help="score these classes alone, comma separated")
    parser.add_argument("--beside", metavar="PATH", help="another data set, to be scored by the same rule")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the same as a page, with plots of calibration and confusions",
    )
    parser.add_argument("--record", action="store_true", help="keep the scores in the weights' JSON as well")
    add_model_arguments(parser, engine="eager")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table of the model card."""
    from ecmnet_app.core.weights import record_metric
    from ecmnet_app.training.evaluate import evaluate
    from ecmnet_app.training.figures import write_report
    from ecmnet_app.training.report import check_drawing

    if args.out is not None:
        check_drawing()
    result = evaluate(
        args.path,
        args.split,
        args.weights,
        args.device,
        args.resolution,
        engine=args.engine,
        threads=args.threads,
        leave_out=args.leave_out,
        only=args.only,
        classes=args.classes.split(",") if args.classes else None,
        beside=args.beside,
    )
    # First, for what cannot be stored would be lost with the time it took.
    print(result.to_json() if args.json else f"{result.table()}\n\n{result.failures()}", flush=True)
    if args.record:
        record_metric(args.weights, result.metric())
    if args.out is not None:
        write_report(result, args.out)
    return DONE
