"""`ecmnet segment`: pictures and videos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ecmnet_app.cli.arguments import DONE, FAILED, FILES_FAILED, Commands, add_command, add_model_arguments
from ecmnet_app.errors import ConfigError, DeviceError, EcmnetError, ImageError, VideoError


def add_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    parser = add_command(
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
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
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
                        if progress.overlay is None and not progress.finished:
                            bar.initial = progress.done  # of an earlier run
                        bar.total = progress.expected
                        bar.update(progress.done - bar.n)
                if progress.problem:
                    damaged += 1
                    tqdm.write(f"ecmnet: {job.source} {progress.problem}", file=sys.stderr)
            except (ImageError, VideoError, DeviceError) as error:  # a device can be out of memory for one picture only
                failed += 1
                tqdm.write(f"ecmnet: {_named(error, job.source)}", file=sys.stderr)
    done = len(jobs) + len(problems) - failed
    print(f"{done} segmented to {args.out}" + (f", {failed} failed" if failed else ""))
    if not done:
        return FAILED
    return FILES_FAILED if failed or damaged else DONE


def _named(error: EcmnetError, path: Path) -> str:
    """The message, with the file's name before it where it does not say it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"
