"""`ecmnet calibrate`: the temperature of weights."""

from __future__ import annotations

import argparse

from ecmnet_app.cli.arguments import DONE, Commands, add_command, add_data_arguments, add_model_arguments
from ecmnet_app.errors import ConfigError


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "calibrate",
        "Fit the temperature that makes confidence mean something, on pictures that the weights never saw",
        "  ecmnet calibrate data/camvid --split train --only 0006R0 --weights runs/a/leave-out.safetensors\n"
        "  ecmnet calibrate data/camvid --split train --only 0006R0 --weights runs/a/leave-out.safetensors \\\n"
        "    --into camvid",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--into",
        metavar="NAME|PATH",
        help="keep the temperature in the JSON of these weights: the ones that were trained alike on all pictures",
    )
    add_model_arguments(parser, engine="eager")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the temperature, and keep it where asked to."""
    from ecmnet_app.core.weights import load_weights, record_temperature
    from ecmnet_app.training.calibration import calibrate

    if args.into is not None:  # said before the work, not after
        kept, fitted = load_weights(args.into), load_weights(args.weights)
        if kept.label_set != fitted.label_set:
            raise ConfigError(
                f"{kept.name} name the classes of {kept.label_set.name}, {fitted.name} those of "
                f"{fitted.label_set.name}: a temperature is kept by weights that were trained alike"
            )
    result = calibrate(
        args.path,
        args.split,
        args.weights,
        args.device,
        args.resolution,
        engine=args.engine,
        threads=args.threads,
        leave_out=args.leave_out,
        only=args.only,
    )
    print(result.table(), flush=True)  # first, for what cannot be stored would be lost with the time it took
    if args.into is not None:
        record_temperature(args.into, result.temperature)
    return DONE
