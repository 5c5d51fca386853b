"""`python -m ecmnet_app.gradio`: parse the arguments, build the page, serve it."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ecmnet_app.errors import EcmnetError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C. The exit code is 1 where the page cannot be served, and standard error says why."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that `kill` leaves no files behind either
    try:
        _serve(options)
    except EcmnetError as error:
        print(f"ecmnet_app.gradio: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def _serve(options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        # Uploads go to a folder of this process alone, which is gone when it ends: gradio's own default is one folder
        # for all users of a machine. It reads the name when it is imported, hence the imports below.
        os.environ["GRADIO_TEMP_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecmnet-"))
        from ecmnet_app.core.pool import SegmenterPool
        from ecmnet_app.core.stream import StreamWorker
        from ecmnet_app.core.weights import available_weights
        from ecmnet_app.ui import build
        from ecmnet_app.ui.server import create_app, listen, serve

        listener = stack.enter_context(listen(options.host, options.port))  # first: a busy port is said at once
        if not (
            ipaddress.ip_address(listener.getsockname()[0]).is_loopback or (options.auth_file and options.ssl_certfile)
        ):
            print(
                "Anyone who reaches this machine can use the page: think of --auth-file and --ssl-certfile, without "
                "which browsers give it no camera.",
                file=sys.stderr,
            )
        segmenters = SegmenterPool(options.weights or available_weights(), options.device, options.engine)
        worker = stack.enter_context(StreamWorker(segmenters.predict_batch, segmenters.get().engine.best_batch))
        app = create_app(build(segmenters, worker), worker, options.auth_file, options.root_path, options.max_upload_mb)
        serve(app, listener, options.ssl_certfile, options.ssl_keyfile)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ecmnet_app.gradio",
        description="Serve the page in which street pictures are segmented.",
        epilog="Only this machine can reach the page unless --host says otherwise; give it --auth-file and TLS then.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: all of this machine's"
    )
    parser.add_argument("--port", type=int, default=7860, help="port (7860); 0: any that is free")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.add_argument("--engine", default="auto", help="auto, the fastest here, or one that `ecmnet info` lists")
    parser.add_argument(
        "--weights",
        nargs="+",
        metavar="NAME|PATH",
        help="names, or paths of .safetensors files, from which the page offers a choice; all that ship if left out",
    )
    parser.add_argument("--auth-file", type=_logins, metavar="FILE", help="ask for a login: USER:PASSWORD, one a line")
    parser.add_argument("--ssl-certfile", metavar="FILE", help="serve https with this certificate (PEM)")
    parser.add_argument("--ssl-keyfile", metavar="FILE", help="its key, where the certificate's file does not hold it")
    parser.add_argument("--root-path", metavar="PATH", help="where a proxy serves the page, such as /ecmnet")
    parser.add_argument("--max-upload-mb", type=_positive, default=500, metavar="N", help="refuse larger files (500)")
    return parser


def _logins(path: str) -> list[tuple[str, str]]:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from error
    parts = [line.partition(":") for line in lines if line]
    if not parts or not all(user and password for user, _, password in parts):
        raise argparse.ArgumentTypeError(f"{path} must hold USER:PASSWORD on each line, neither of them empty")
    return [(user, password) for user, _, password in parts]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
