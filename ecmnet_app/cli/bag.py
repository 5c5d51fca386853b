"""`ecmnet bag`: recordings of ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, FAILED, FILES_FAILED, Commands, add_command, add_model_arguments
from ecmnet_app.errors import EcmnetError


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
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
    parser.add_argument(
        "--topic", action="append", default=[], metavar="NAME", help="an image topic; all of cameras by default"
    )
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
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
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
    if not jobs:
        return FAILED
    if args.list:
        codes = {_list_bag(job.source) for job in jobs} | ({FAILED} if problems else set())
        return codes.pop() if len(codes) == 1 else FILES_FAILED
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
        summary = result.summary
        for sentence in [result.problem] if summary is None else [*summary.problems, *summary.left_out]:
            print(f"ecmnet: {sentence}", file=sys.stderr)
    done = [result.summary for result in results if result.summary is not None]
    report = args.out / "report.html"
    if args.report and (done or not report.exists()):  # an earlier one is worth more than one of failures alone
        bags = [result.digest or FailedBag(str(result.job.source), str(result.problem)) for result in results]
        write_report(report, bags, weights.label_set, weights.name)
    failed = len(jobs) + len(problems) - len(done)
    frames = sum(summary.frames for summary in done)
    print(f"{len(done)} segmented to {args.out}, {frames:,} frames" + (f"; {failed} failed" if failed else ""))
    if not done:
        return FAILED
    return FILES_FAILED if failed or any(summary.problems for summary in done) else DONE


def _list_bag(path: Path) -> int:
    """Print what is in a bag; the exit code of that."""
    from ecmnet_app.bags.listing import list_topics
    from ecmnet_app.bags.reader import open_bag

    try:
        with open_bag(path) as bag:
            print(f"{path}: {list_topics(bag)}")
            for problem in bag.problems:
                print(f"ecmnet: {problem}", file=sys.stderr)
            return FILES_FAILED if bag.problems else DONE
    except EcmnetError as error:
        print(f"ecmnet: {error}", file=sys.stderr)
        return FAILED
