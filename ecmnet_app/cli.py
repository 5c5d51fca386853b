"""`ecmnet`: arguments only. The work is in the packages that each command imports when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ecmnet_app.errors import ConfigError, DeviceError, EcmnetError, ImageError, VideoError

__all__ = ["main"]

DONE, FILES_FAILED, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all went well; some files failed or are damaged and the rest are done; nothing could be done; Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
        return code
    except EcmnetError as error:
        print(f"ecmnet: {error}", file=sys.stderr)
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
    add_segment_parser(commands)
    add_bag_parser(commands)
    add_train_parser(commands)
    add_evaluate_parser(commands)
    add_calibrate_parser(commands)
    add_average_parser(commands)
    add_benchmark_parser(commands)
    add_export_parser(commands)
    add_info_parser(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ecmnet_app

        print(f"ecmnet {ecmnet_app.__version__}")
        parser.exit()


def _add_command(
    commands: Commands[argparse.ArgumentParser], name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=f"{summary}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_model_arguments(parser: argparse.ArgumentParser, engine: str = "auto") -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    group.add_argument(
        "--engine", default=engine, help=f"auto, the fastest here, or one that `ecmnet info` lists ({engine})"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    group.add_argument(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="short side to resize larger pictures to; the weights' by default",
    )


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="folder of the data set, in CamVid's or Cityscapes' layout")
    parser.add_argument("--split", default="test", help="test, val, train, or several joined by + (test)")
    parser.add_argument("--only", metavar="PREFIXES", help="take only pictures whose names start so, comma separated")
    parser.add_argument("--leave-out", metavar="PREFIXES", help="leave out pictures whose names start so")


def add_segment_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet segment`."""
    parser = _add_command(
        commands,
        "segment",
        "Segment pictures and videos: an overlay, masks and a JSON record for each",
        "  ecmnet segment street.jpg\n"
        "  ecmnet segment photos/ --out answers --device cuda\n"
        "  ecmnet segment 'drives/**/*.png' --out answers --threshold 0.5\n"
        "  ecmnet segment drive.mp4 --out answers --smooth",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE|DIR|GLOB", help="pictures and videos; folders are taken with theirs"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("segmented"),
        metavar="DIR",
        help="folder (./segmented) for NAME_overlay.jpg, NAME_mask.png (pixel values are class ids, 255 unlabelled) "
        "and NAME.json; of a video NAME_overlay.mp4, NAME_masks.mkv (lossless, of the same values), NAME_areas.csv and "
        "NAME.json; files from several folders get folders of their own",
    )
    parser.add_argument("--smooth", action="store_true", help="of videos: average along motion, for calm labels")
    parser.add_argument("--tile", action="store_true", help="keep full resolution, by overlapping tiles")
    parser.add_argument("--threshold", type=float, metavar="0..1", help="leave pixels of less confidence unlabelled")
    parser.add_argument("--opacity", type=float, default=0.5, metavar="0..1", help="of the overlay's colours (0.5)")
    _add_model_arguments(parser)
    parser.set_defaults(run=run_segment)


def run_segment(args: argparse.Namespace) -> int:
    """Segment every picture and video that can be; report the others."""
    import warnings

    from PIL.Image import DecompressionBombWarning
    from tqdm import tqdm

    from ecmnet_app.core import Segmenter
    from ecmnet_app.segment_files import Settings, find_jobs, segment_picture_file, segment_video_file

    warnings.simplefilter("ignore", DecompressionBombWarning)  # read_image refuses such pictures itself
    jobs, problems = find_jobs(args.inputs, args.out)
    for problem in problems:
        print(f"ecmnet: {problem}", file=sys.stderr)
    failed = len(problems)
    damaged = 0
    if jobs:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder --out {args.out}: {error.strerror or error}") from error
        settings = Settings(args.resolution, args.tile, args.threshold)
        segmenter = Segmenter.from_pretrained(args.weights, args.device, args.engine, args.threads)
        for job in tqdm(jobs, unit="file", disable=None):
            try:
                if not job.is_video:
                    segment_picture_file(segmenter, job, settings, args.opacity)
                    continue
                with tqdm(unit="frame", desc=job.source.name, disable=None, leave=False) as bar:
                    for progress in segment_video_file(segmenter, job, settings, args.opacity, args.smooth):
                        if bar.total is None:
                            bar.initial = progress.done  # of an earlier run
                        bar.total = progress.expected
                        bar.update(progress.done - bar.n)
                if progress.problem:
                    damaged += 1
                    tqdm.write(f"ecmnet: {job.source} {progress.problem}", file=sys.stderr)
            except (ImageError, VideoError, DeviceError) as error:  # a device can be out of memory for one picture only
                failed += 1
                tqdm.write(f"ecmnet: {_named(error, job.source)}", file=sys.stderr)
    print(f"{len(jobs) + len(problems) - failed} segmented to {args.out}" + (f", {failed} failed" if failed else ""))
    return FILES_FAILED if failed or damaged else DONE


def add_bag_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet bag`."""
    parser = _add_command(
        commands,
        "bag",
        "Segment every picture in recordings of ROS, without ROS: a bag of masks for each",
        "  ecmnet bag drive.mcap --out masks --report\n"
        "  ecmnet bag drive.mcap --list\n"
        "  ecmnet bag drive/ --out masks --topic /front/image_raw --merge --confidence\n"
        "  ecmnet bag 'drives/*.mcap' --out masks --report --video --jobs 4\n"
        "  ecmnet bag 'drives/*.mcap' --out masks --report --ray auto",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="bags of ROS 2 (.mcap, .db3, or their folder) and ROS 1 (.bag); of other folders, all bags in them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("masks"),
        metavar="DIR",
        help="folder (./masks) for NAME/NAME.mcap, a bag of the masks and what belongs to them, with metadata.yaml; "
        "NAME/frames.csv, a row for each picture; and NAME/summary.json",
    )
    parser.add_argument("--list", action="store_true", help="say what topics the bags have, and segment nothing")
    parser.add_argument("--topic", action="append", default=[], metavar="NAME", help="an image topic; all by default")
    parser.add_argument("--confidence", action="store_true", help="write each picture's confidence too")
    parser.add_argument("--merge", action="store_true", help="write the bag's own messages beside the answers")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run has left")
    parser.add_argument("--threshold", type=float, metavar="0..1", help="leave pixels of less confidence unlabelled")
    group = parser.add_argument_group("to look at")
    group.add_argument("--report", action="store_true", help="write DIR/report.html, one page of all bags")
    group.add_argument("--video", action="store_true", help="write NAME/TOPIC_overlay.mp4 of each topic")
    group.add_argument("--opacity", type=float, default=0.5, metavar="0..1", help="of the videos' colours (0.5)")
    group = parser.add_argument_group("many bags")
    group.add_argument("--jobs", type=int, default=1, metavar="N", help="processes on this machine (1)")
    group.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster instead: auto, or HOST:PORT of its head")
    _add_model_arguments(parser)
    parser.set_defaults(run=run_bag)


def run_bag(args: argparse.Namespace) -> int:
    """Segment every bag that can be; report the others."""
    from tqdm import tqdm

    from ecmnet_app.bags import BagSettings, find_bags
    from ecmnet_app.bags.report import FailedBag, most_thumbnails, write_report
    from ecmnet_app.bags.spread import Work, choose_workers, segment_bags
    from ecmnet_app.bags.workers import Network
    from ecmnet_app.core.weights import load_weights

    jobs, problems = find_bags(args.inputs, args.out)
    for problem in problems:
        print(f"ecmnet: {problem}", file=sys.stderr)
    if args.list:
        listed = [_list_bag(job.source) for job in jobs]
        return DONE if all(listed) and not problems else FILES_FAILED
    weights = load_weights(args.weights)
    settings = BagSettings(tuple(args.topic), args.resolution, args.threshold, args.confidence, args.merge)
    network = Network(args.weights, args.device, args.engine, args.threads)
    thumbnails = most_thumbnails(len(jobs)) if args.report else 0
    work = Work(network, settings, args.resume, args.video, args.opacity, thumbnails)
    chosen = choose_workers(args.jobs, args.ray, args.device, args.threads)
    with chosen as workers, tqdm(unit="frame", disable=None) as bar:

        def show(done: int, expected: int | None) -> None:
            bar.total = expected
            bar.update(done - bar.n)

        results = segment_bags(jobs, work, workers, show)
    for result in results:
        for sentence in [result.problem] if result.summary is None else result.summary.problems:
            print(f"ecmnet: {sentence}", file=sys.stderr)
    if args.report and jobs:
        bags = [result.digest or FailedBag(str(result.job.source), str(result.problem)) for result in results]
        write_report(args.out / "report.html", bags, weights.label_set, weights.name)
    done = [result.summary for result in results if result.summary is not None]
    failed = len(jobs) + len(problems) - len(done)
    frames = sum(summary.frames for summary in done)
    print(f"{len(done)} segmented to {args.out}, {frames:,} frames" + (f"; {failed} failed" if failed else ""))
    return FILES_FAILED if failed or any(summary.problems for summary in done) else DONE


def _list_bag(path: Path) -> bool:
    """Print what is in a bag; whether it is whole."""
    from ecmnet_app.bags.listing import list_topics
    from ecmnet_app.bags.reader import open_bag

    try:
        with open_bag(path) as bag:
            print(f"{path}: {list_topics(bag)}")
            problems = bag.problems
    except EcmnetError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"ecmnet: {problem}", file=sys.stderr)
    return not problems


def add_train_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet train`."""
    parser = _add_command(
        commands,
        "train",
        "Train a network by a recipe",
        "  ecmnet train --recipe camvid --data camvid=data/camvid --out runs/camvid\n"
        "  ecmnet train --recipe camvid --data camvid=data/camvid --out runs/camvid --resume\n"
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
        type=Path,
        metavar="FILE",
        help="a trained teacher, for recipes that learn from one; once for each of several",
    )
    parser.add_argument("--initial", metavar="NAME|PATH", help="weights to start from, in place of random ones")
    parser.add_argument("--steps", type=int, metavar="N", help="steps instead of the recipe's")
    parser.add_argument("--seed", type=int, metavar="N", help="seed instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.set_defaults(run=run_train)


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"write NAME=DIR, such as camvid=data/camvid, not {text!r}")
    return name, Path(folder)


def run_train(args: argparse.Namespace) -> int:
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


def add_evaluate_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet evaluate`."""
    parser = _add_command(
        commands,
        "evaluate",
        "Score weights on labelled pictures: IoU of each class, failures, calibration",
        "  ecmnet evaluate data/camvid --split test\n"
        "  ecmnet evaluate data/labelmefacade --split test --beside data/camvid --out docs/accuracy\n"
        "  ecmnet evaluate data/cityscapes --split val --weights runs/city/city.safetensors --json",
    )
    _add_data_arguments(parser)
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
    _add_model_arguments(parser, engine="eager")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
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
    if args.record:
        record_metric(args.weights, result.metric())
    if args.out is not None:
        write_report(result, args.out)
    print(result.to_json() if args.json else f"{result.table()}\n\n{result.failures()}")
    return DONE


def add_calibrate_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet calibrate`."""
    parser = _add_command(
        commands,
        "calibrate",
        "Fit the temperature that makes confidence mean something, on pictures that the weights never saw",
        "  ecmnet calibrate data/camvid --split train --only 0006R0 --weights runs/a/leave-out.safetensors\n"
        "  ecmnet calibrate data/camvid --split train --only 0006R0 --weights runs/a/leave-out.safetensors \\\n"
        "    --into camvid",
    )
    _add_data_arguments(parser)
    parser.add_argument(
        "--into",
        metavar="NAME|PATH",
        help="keep the temperature in the JSON of these weights: the ones that were trained alike on all pictures",
    )
    _add_model_arguments(parser, engine="eager")
    parser.set_defaults(run=run_calibrate)


def run_calibrate(args: argparse.Namespace) -> int:
    """Print the temperature, and keep it where asked to."""
    from ecmnet_app.core.weights import load_weights, record_temperature
    from ecmnet_app.training.calibration import calibrate

    if args.into is not None:
        load_weights(args.into)  # said before the work, not after
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
    if args.into is not None:
        record_temperature(args.into, result.temperature)
    print(result.table())
    return DONE


def add_average_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Arguments of `ecmnet average`."""
    parser = _add_command(
        commands,
        "average",
        "The mean of weights that were trained from the same ones, as one network",
        "  ecmnet average camvid runs/street/street.safetensors --out runs/mean/street\n"
        "  ecmnet average camvid runs/street/street.safetensors --shares 1 3 --out runs/mean/street",
    )
    parser.add_argument("weights", nargs="+", metavar="NAME|PATH", help="two weights or more")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="of the new weights, without suffix")
    parser.add_argument("--shares", nargs="+", type=float, metavar="X", help="how much each counts (all alike)")
    parser.set_defaults(run=run_average)


def run_average(args: argparse.Namespace) -> int:
    """Write the mean, and say where."""
    from ecmnet_app.training.averaging import average_weights

    weights = average_weights(args.weights, args.out, args.shares)
    print(f"{args.out}.safetensors and {weights.name}.json: the mean of {len(args.weights)} weights")
    return 0


def add_benchmark_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet benchmark`."""
    parser = _add_command(
        commands,
        "benchmark",
        "Time the engines on this machine, beside what its memory and arithmetic allow",
        "  ecmnet benchmark\n"
        "  ecmnet benchmark --size 360x480 1080x1920 --batch 1 16 --device cuda\n"
        "  ecmnet benchmark --engine eager --threads 2 --json",
    )
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    parser.add_argument(
        "--size",
        type=_height_and_width,
        nargs="+",
        default=[(360, 480), (512, 1024), (1024, 1024)],
        metavar="HxW",
        help="of the pictures, pixels (360x480 512x1024 1024x1024)",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="pictures at a time (1)")
    parser.add_argument("--engine", nargs="+", default=[], metavar="NAME", help="engines; all that run here by default")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="for each row, at least ten runs (3)")
    parser.add_argument("--json", action="store_true", help="print JSON, with the roofline of every layer group")
    parser.set_defaults(run=run_benchmark)


def _height_and_width(text: str) -> tuple[int, int]:
    height, x, width = text.partition("x")
    if not (x and text.isascii() and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"write HEIGHTxWIDTH in pixels, such as 360x480, not {text!r}")
    return int(height), int(width)


def run_benchmark(args: argparse.Namespace) -> int:
    """Print one table for this machine."""
    from tqdm import tqdm

    from ecmnet_app.benchmark import Report, plan, run

    cases = plan(args.weights, args.device, args.engine, args.size, args.batch, args.threads, args.seconds)
    with tqdm(total=len(cases), unit="row", disable=None) as bar:
        rows = []
        for row in run(cases):
            rows.append(row)
            bar.update()
    report = Report(rows)
    print(report.to_json() if args.json else report.table())
    return DONE


def add_export_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet export`."""
    parser = _add_command(
        commands,
        "export",
        "Write weights as an ONNX file for other runtimes, from picture to labels and confidence",
        "  ecmnet export --out camvid.onnx                    # pictures of every size\n"
        "  ecmnet export --out camvid.onnx --size 360x480     # one size: for a Jetson, a phone, a browser",
    )
    parser.add_argument("--weights", default="default", help="name, or path of a .safetensors file with its .json")
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="of the file (onnx)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--size",
        type=_picture_size,
        metavar="HxW",
        help="height and width of the pictures that it will take, or dynamic, for any (dynamic)",
    )
    parser.set_defaults(run=run_export)


def _picture_size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    try:
        return _height_and_width(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"write HEIGHTxWIDTH, such as 360x480, or dynamic, not {text!r}") from None


def run_export(args: argparse.Namespace) -> int:
    """Write the file, and say what it takes."""
    from ecmnet_app.core.export import export_onnx
    from ecmnet_app.core.weights import load_weights

    weights = load_weights(args.weights)
    export_onnx(weights, args.out, args.size)
    sizes = "any size" if args.size is None else "{} rows of {} pixels".format(*args.size)
    print(f"{args.out}: {weights.name}, uint8 RGB pictures of {sizes} to labels and confidence")
    return DONE


def add_info_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """`ecmnet info`."""
    parser = _add_command(
        commands,
        "info",
        "Print versions, devices, engines and weights",
        "  ecmnet info\n  ecmnet info --audit    # parameters and arithmetic beside the paper's",
    )
    parser.add_argument("--audit", action="store_true", help="count every row of the paper's Table 1 instead")
    parser.set_defaults(run=run_info)


def run_info(args: argparse.Namespace) -> int:
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
            print(
                f"        {miou} mIoU on {metric['dataset']} {metric['split']}, "
                f"{metric['pictures']} pictures at {width}x{height} ({metric['date']})"
            )
    return code


def _named(error: EcmnetError, path: Path) -> str:
    """The message, with the file's name before it where it does not say it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


if __name__ == "__main__":
    sys.exit(main())
