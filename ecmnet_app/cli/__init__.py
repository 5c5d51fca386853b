"""`ecmnet`: a module a command, arguments only. The work is in the packages that each command imports when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ecmnet_app.cli import average, bag, benchmark, calibrate, evaluate, export, info, segment, train
from ecmnet_app.cli.arguments import FAILED, INTERRUPTED
from ecmnet_app.errors import EcmnetError

__all__ = ["main"]

COMMANDS = (segment, bag, train, evaluate, calibrate, average, benchmark, export, info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would flush into it once more
        return FAILED
    except EcmnetError as error:
        print(f"ecmnet: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:  # a name that no file can have, a full disk: the system says it best
        print(f"ecmnet: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ecmnet: interrupted; every file written so far is whole", file=sys.stderr)
        return INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="ecmnet",
        description="Name every pixel of street pictures and videos with ECMNet.",
        epilog="exit codes: 0 done; 1 some files failed or are damaged, the rest is done; 2 nothing could be done",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ecmnet_app

        print(f"ecmnet {ecmnet_app.__version__}")
        parser.exit()
