"""`ecmnet info`: what is installed here."""

from __future__ import annotations

import argparse
import re

from ecmnet_app.cli.arguments import DONE, FAILED, Commands, add_command
from ecmnet_app.errors import EcmnetError


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
        commands,
        "info",
        "Print versions, devices, engines and weights",
        "  ecmnet info\n  ecmnet info --audit    # parameters and arithmetic beside the paper's",
    )
    parser.add_argument("--audit", action="store_true", help="count every row of the paper's Table 1 instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is here, or the audit."""
    if args.audit:
        from ecmnet_app.network.audit import audit_table

        print(audit_table())
        return DONE

    import platform

    import torch

    import ecmnet_app
    from ecmnet_app.core.engines import available_devices, available_engines
    from ecmnet_app.core.weights import DEFAULT_WEIGHTS, available_weights, load_weights
    from ecmnet_app.network.scan import available_backends

    print(f"ecmnet-app {ecmnet_app.__version__}, Python {platform.python_version()}, torch {torch.__version__}")
    for name in available_devices():
        device = torch.device(name)
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        print(f"device  {name}: {what}")
        print(
            f"        engines {', '.join(available_engines(device))}; scan {', '.join(available_backends(device.type))}"
        )
    code = DONE
    for name in available_weights():
        print(f"weights {name}{' (default)' if name == DEFAULT_WEIGHTS else ''}: ", end="")
        try:
            weights = load_weights(name)
        except EcmnetError as error:
            print(error)
            code = FAILED
            continue
        parameters = sum(p.numel() for p in weights.build().parameters())
        print(
            f"{parameters:,} parameters, {len(weights.label_set)} classes of {weights.label_set.name}, "
            f"short side {weights.working_short_side}"
        )
        print(f"        sha256 {weights.sha256}\n        licence: {weights.licence}")
        for metric in weights.metrics:
            height, width = metric["resolution"]
            miou = "no" if metric["miou"] is None else f"{100 * metric['miou']:.2f}"
            few = len(metric["per_class"]) < len(weights.label_set)
            classes = f" over {len(metric['per_class'])} of {len(weights.label_set)} classes" if few else ""
            print(
                f"        {miou} mIoU{classes} on {metric['dataset']} {metric['split']}, "
                f"{metric['pictures']} pictures at {width}x{height} ({metric['date']}){_options(metric['command'])}"
            )
    return code


def _options(command: str) -> str:
    """What a score's command says after the weights' name: it is of some of the pictures, or of another size."""
    found = re.search(r" --weights (?:'[^']*'|\S+) (.+)", command)
    return f": {found[1]}" if found else ""
