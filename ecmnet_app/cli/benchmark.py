"""`ecmnet benchmark`: the speed of the engines."""

from __future__ import annotations

import argparse

from ecmnet_app.cli.arguments import DONE, WEIGHTS_HELP, Commands, add_command, height_and_width


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "benchmark",
        "Time the engines on this machine, beside what its memory and arithmetic allow",
        "  ecmnet benchmark\n"
        "  ecmnet benchmark --size 360x480 1080x1920 --batch 1 16 --device cuda\n"
        "  ecmnet benchmark --engine eager --threads 2 --json",
    )
    parser.add_argument("--weights", default="default", help=WEIGHTS_HELP)
    parser.add_argument(
        "--size",
        type=height_and_width,
        nargs="+",
        default=[(360, 480), (512, 1024), (1024, 1024)],
        metavar="HxW",
        help="of the pictures, pixels (360x480 512x1024 1024x1024)",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="pictures at a time (1)")
    parser.add_argument("--engine", nargs="+", default=[], metavar="NAME", help="engines; all that run here by default")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="for each row, at least ten runs (3)")
    parser.add_argument("--json", action="store_true", help="print JSON, with the roofline of every layer group")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one table for this machine."""
    from tqdm import tqdm

    from ecmnet_app import benchmark

    cases = benchmark.plan(args.weights, args.device, args.engine, args.size, args.batch, args.threads, args.seconds)
    with tqdm(total=len(cases), unit="row", disable=None) as bar:
        rows = []
        for row in benchmark.run(cases):
            rows.append(row)
            bar.update()
    report = benchmark.Report(rows)
    print(report.to_json() if args.json else report.table())
    return DONE
