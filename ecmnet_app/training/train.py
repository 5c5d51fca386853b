"""The training loop: data on the device, checkpoints, log and pictures."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ecmnet_app.core.engines import choose_device
from ecmnet_app.core.labels import LabelSet
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD, load_weights, save_weights
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.training import distributed
from ecmnet_app.training.answers import answered
from ecmnet_app.training.averaging import told_once
from ecmnet_app.training.checkpoint import load_checkpoint, save_checkpoint
from ecmnet_app.training.datasets import Dataset, find_samples, load_dataset
from ecmnet_app.training.losses import class_weights
from ecmnet_app.training.metrics import ConfusionMatrix
from ecmnet_app.training.mixture import Mixture, batches, step_seed
from ecmnet_app.training.recipe import CHECKPOINT, DataSource, Recipe
from ecmnet_app.training.report import check_drawing, draw_curves, draw_predictions, predict
from ecmnet_app.training.step import Trainee, TrainStep
from ecmnet_app.training.teacher import (
    Committee,
    Graduate,
    Teacher,
    TeacherTrainee,
    build_teacher,
    fold_norms,
    load_teacher,
    save_teacher,
    teacher_header,
)

__all__ = ["train"]

LARGE = 1.5
"""How many times the short side of the crop pictures may have before training says something."""


def train(
    recipe: Recipe,
    paths: dict[str, Path],
    out: Path,
    device: str = "auto",
    resume: bool = False,
    stop_after: float | None = None,
    teachers: Sequence[str | Path] = (),
    initial: str | Path | None = None,
    encoder_weights: Path | None = None,
) -> Path | None:
    """Train by a recipe and write the averaged network: weights, or where the recipe says so a teacher.

    Under torchrun every process takes its share of each batch; the first one writes.

    Args:
        recipe: settings.
        paths: the folder of each data set that the recipe names.
        out: folder for checkpoint, log.csv, pictures and weights.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: continue from the checkpoint in `out`, exactly as if never interrupted.
        stop_after: seconds after which to write a checkpoint and return None.
        teachers: files of teachers, or weights of ECMNets by name or path, for a recipe with a `teacher_weight` (see
            `Committee`) or with `pseudo_labels`.
        initial: weights to start from, by name or path; for a teacher the file of another.
        encoder_weights: ImageNet's for a teacher, by default the installed package's; see `build_teacher`.

    Returns:
        The path without suffix, or None where `stop_after` or another process ended it.

    Raises:
        ConfigError: a data set has no path or other classes than the first, the checkpoint is of another
            recipe, teachers, start or data, the recipe and `teachers` do not fit, `out` cannot be made, the loss is no
            longer finite, or matplotlib or the extra `teacher` is missing.
        DataError: a data set cannot be read.
        DeviceError: the device is not there.
        WeightsError: the checkpoint, `teachers`, `initial` or `encoder_weights` cannot be read or is of another
            architecture, or a file cannot be written.
    """
    deadline = time.monotonic() + stop_after if stop_after is not None else float("inf")
    place = choose_device(device)
    check_drawing()
    if recipe.needs_teachers != bool(teachers):
        raise ConfigError(
            "the recipe has a teacher_weight or pseudo_labels and needs a teacher: say --teacher FILE"
            if recipe.needs_teachers
            else "a teacher is given, but the recipe has neither a teacher_weight nor pseudo_labels: "
            "leave --teacher out, or set one"
        )
    origins = _origins(recipe, teachers, initial)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror or error}; choose another") from error
    checkpoint, saved = out / f"{CHECKPOINT}.safetensors", None
    if resume:
        saved, header = load_checkpoint(checkpoint)
        if not _is_of(header, recipe):
            raise ConfigError(
                "the checkpoint was written by another recipe: use the same, or "
                "start in another folder, without --resume"
            )
        if header.get("origins", {}) != origins:
            raise ConfigError(
                "the checkpoint was written with another --teacher or --initial: give the same, or "
                "start in another folder, without --resume"
            )
    elif checkpoint.exists():
        raise ConfigError(f"{out} holds a training already: continue it with --resume, or choose another folder")
    distributed.start(place.type)
    if place.type == "cuda" and distributed.world_size() > 1:
        place = torch.device("cuda", distributed.rank() % torch.cuda.device_count())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    mixture = Mixture([_load(s, paths, recipe).to(place) for s in recipe.data], [s.weight for s in recipe.data])
    label_set = mixture.label_set
    _check_classes(recipe, label_set)
    validation = None
    if recipe.validation:
        # As `Segmenter.predict` sees them: a score at their own size would be of what nobody gets, and take its memory.
        short_side = min(*recipe.crop, recipe.validation.short_side or min(recipe.crop))
        validation = _load(replace(recipe.validation, short_side=short_side), paths, recipe).to(place)
    if validation is not None and validation.label_set != label_set:
        raise ConfigError(
            f"validation has the classes of {validation.label_set.name}, training those of {label_set.name}: "
            "validate on a set with the same classes"
        )
    told = [{"name": d.name} | d.told() for d in (*mixture.sets, *([validation] if validation else []))]
    if saved is not None:
        _check_data(header.get("data", told), told)  # which earlier versions did not keep
    committee = [_any_teacher(source, label_set, place) for source in teachers]
    sets = [
        answered(dataset, committee, recipe.teacher_scales, least=source.pseudo_labels, keep=recipe.teacher_once)
        if source.pseudo_labels or recipe.teacher_once
        else dataset
        for dataset, source in zip(mixture.sets, recipe.data, strict=True)
    ]
    mixture = replace(mixture, sets=sets)
    torch.manual_seed(recipe.seed)
    trainee = _trainee(recipe, label_set, initial, encoder_weights).to(place)
    shares = mixture.class_shares(len(label_set.names))
    step_function = TrainStep(
        trainee,
        recipe,
        class_weights(shares, recipe.class_weight_offset),
        fused=place.type == "cuda",
        teacher=Committee(committee) if recipe.teacher_weight and not recipe.teacher_once else None,
    )
    shown = validation or mixture.sets[0]  # in its own classes, which `hiding` adds to
    mixture = mixture.hiding([source.unnamed for source in recipe.data])

    first = 0
    if saved is not None:
        step_function.load_state(saved)
        first = header["step"]
    log = TrainingLog(out / "log.csv", enabled=distributed.rank() == 0, first=first)

    bar = tqdm(
        range(first, recipe.steps), initial=first, total=recipe.steps, desc=recipe.name, disable=distributed.rank() != 0
    )
    for step, views in zip(bar, batches(mixture, recipe, first, place), strict=False):
        torch.manual_seed(step_seed(recipe, step))  # for what has no generator of its own, as a teacher's dropout
        loss = step_function(views.images, views.targets, step, views.answers)
        done = step + 1
        last = done == recipe.steps
        if done % recipe.log_every == 0 or last:
            value = float(loss)
            if not math.isfinite(value):
                raise ConfigError(
                    f"the loss is {value} at step {done}: start again with a lower learning_rate or clip_norm"
                )
            log.write(step=done, loss=value, pictures_per_second=bar_rate(bar) * recipe.batch_size)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
        if validation is not None and (done % recipe.validate_every == 0 or last):
            miou = score(step_function.averaged_network(), validation)
            log.write(step=done, validation_miou=miou)
            bar.set_postfix(miou=f"{100 * miou:.2f}", refresh=False)
        stopping = _any_process(time.monotonic() > deadline, place) if stop_after is not None else False
        if (done % recipe.checkpoint_every == 0 or last or stopping) and distributed.rank() == 0:
            header = {"step": done, "recipe": _comparable(recipe), "origins": origins, "data": told}
            save_checkpoint(checkpoint, step_function.state(), header)
        if stopping and not last:
            return None
    if distributed.rank() != 0:
        return None
    averaged = step_function.averaged_network()
    training = {
        "data": [
            {name: getattr(source, name) for name in ("name", "split", "leave_out", "only", "terms", "source")}
            | dataset.told()
            for source, dataset in zip(recipe.data, mixture.sets, strict=True)
        ],
        "recipe": recipe.to_dict() | origins,
    }
    if isinstance(averaged, Teacher):
        card = training | {"licence": recipe.licence}
        save_teacher(out / f"{recipe.name}.safetensors", averaged, label_set, card)
    else:
        save_weights(
            out / recipe.name,
            averaged,
            label_set,
            working_short_side=min(recipe.crop),
            training=training,
            licence=recipe.licence,
        )
    try:
        draw_curves(out / "log.csv", out / "curves.png")
        draw_predictions(averaged, shown, out / "predictions.png", min(recipe.crop))
    except Exception as error:  # whatever it is: the weights are there, and a drawing is not worth their training
        print(f"ecmnet: the weights are written, but not every drawing of them: {error}", file=sys.stderr)
    return out / recipe.name


@torch.inference_mode()
def score(network: nn.Module, dataset: Dataset, batch_size: int = 8) -> float:
    """mIoU of an ECMNet or a teacher on a data set's own pictures, those of one size in batches; 0 to 1."""
    matrix = ConfusionMatrix(len(dataset.label_set.names), dataset.images.device)
    for height, width in torch.unique(dataset.sizes, dim=0).tolist():
        of_size = (dataset.sizes == dataset.sizes.new_tensor([height, width])).all(1).nonzero()[:, 0]
        for index in of_size.split(batch_size):
            matrix.update(
                predict(network, dataset.images[index, :, :height, :width]), dataset.labels[index, :height, :width]
            )
    return matrix.miou()


def bar_rate(bar: tqdm) -> float:
    """Steps a second, as the progress bar shows them."""
    return float(bar.format_dict["rate"] or 0.0)


def _any_process(flag: bool, device: torch.device) -> bool:
    """Whether any process says so: clocks differ, but all must leave the loop at one step."""
    votes = torch.tensor(float(flag), device=device)
    distributed.average(votes)
    return bool(votes > 0)


def _load(source: DataSource, paths: dict[str, Path], recipe: Recipe) -> Dataset:
    if source.name not in paths:
        raise ConfigError(f"the recipe needs the data set {source.name!r}: say --data {source.name}=FOLDER")
    if source.labels and source.short_side is None and distributed.rank() == 0:
        _say_if_large(source, paths[source.name], recipe)
    return load_dataset(
        paths[source.name],
        source.split,
        leave_out=source.leave_out,
        only=source.only,
        labels=source.labels,
        # Collected pictures come in any size; labelled sets keep theirs, which their scale was chosen for.
        max_side=None if source.labels else 2 * max(recipe.crop),
        short_side=source.short_side,
    )


def _say_if_large(source: DataSource, path: Path, recipe: Recipe) -> None:
    """Say, before memory is filled with them, that a set's pictures are much larger in training than after it."""
    listing = find_samples(path, source.split, leave_out=source.leave_out, only=source.only)
    height, width = max((listing.size(sample) for sample in listing.samples), key=min)
    working = min(recipe.crop)
    if min(height, width) > LARGE * working:
        print(
            f"ecmnet: {source.name} has pictures of {width}x{height}, which are trained on at that size, while the "
            f"weights will see such pictures shrunk to a short side of {working}: say short_side = {working} for it in "
            "the recipe, or a crop as large",
            file=sys.stderr,
        )


def _check_classes(recipe: Recipe, label_set: LabelSet) -> None:
    """Refuse ids in a recipe that are no class of its data, of which nothing would be pasted or hidden."""
    for name, ids in (("unnamed", recipe.unnamed), ("augmentation.paste_classes", recipe.augmentation.paste_classes)):
        if unknown := [k for k in ids if k >= len(label_set)]:
            raise ConfigError(
                f"{name} has {unknown[0]}, which is no class of {label_set.name}: its ids are 0 to {len(label_set) - 1}"
            )


def _check_data(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to go on with other pictures than a checkpoint was trained on; `Dataset.told` of each set, in order."""
    for old, new in zip(before, now, strict=True):
        if (old["pictures"], old["stems"]) != (new["pictures"], new["stems"]):
            raise ConfigError(
                f"the checkpoint was trained on {old['pictures']} pictures of {old['name']}, and these "
                f"{new['pictures']} of {new['name']} are not the same by their names: give the same --data, or start "
                "in another folder, without --resume"
            )


def _origins(recipe: Recipe, teachers: Sequence[str | Path], initial: str | Path | None) -> dict[str, Any]:
    """What a training takes from others, each by sha256, data and recipe: for its record and for resuming."""
    origins: dict[str, Any] = {}
    if initial is not None:  # first, so that it is told in full: `average_weights` looks for common ancestors there
        origins["initial"] = _told(initial) if recipe.network == "ecmnet" else teacher_header(Path(initial))
    if teachers:
        origins["teachers"] = [_told(t) if _is_ecmnet(t) else teacher_header(Path(t)) for t in teachers]
    return told_once(origins)


def _told(name_or_path: str | Path) -> dict[str, Any]:
    weights = load_weights(name_or_path)
    return {"name": weights.name, "sha256": weights.sha256, **weights.training}


def _is_ecmnet(source: str | Path) -> bool:
    """Whether these are weights of an ECMNet, which have a card beside them, and no file of a teacher."""
    path = Path(source)
    return path.with_suffix(".json").is_file() or not path.suffix


def _trainee(
    recipe: Recipe, label_set: LabelSet, initial: str | Path | None, encoder_weights: Path | None
) -> Trainee | TeacherTrainee:
    """The network that the recipe names, new or as `initial` has it."""
    if recipe.network != "ecmnet":
        if initial is None:
            return TeacherTrainee(build_teacher(len(label_set), encoder_weights))
        return TeacherTrainee(_teacher(Path(initial), label_set, torch.device("cpu")).requires_grad_(True))
    network = ECMNet(ECMNetConfig.named(recipe.variant, len(label_set)))
    if initial is not None:
        weights = load_weights(initial)
        if (weights.architecture, weights.label_set) != (network.config, label_set):
            raise WeightsError(
                f"the weights {weights.name} have another architecture or other classes than the recipe's "
                f"{recipe.variant}: start from others"
            )
        network.load_state_dict(dict(weights.tensors))
    return Trainee(network)


def _any_teacher(source: str | Path, label_set: LabelSet, device: torch.device) -> nn.Module:
    """What answers for pictures, in eval mode and without gradients."""
    if not _is_ecmnet(source):
        return fold_norms(_teacher(Path(source), label_set, device))
    weights = load_weights(source)
    if (weights.label_set, weights.mean, weights.std) != (label_set, IMAGENET_MEAN, IMAGENET_STD):
        raise WeightsError(
            f"the weights {weights.name} have other classes than {label_set.name} or another normalisation: "
            "use others as a teacher"
        )
    return Graduate(weights.build()).eval().requires_grad_(False).to(device)


def _teacher(path: Path, label_set: LabelSet, device: torch.device) -> Teacher:
    if teacher_header(path)["labels"] != label_set.to_dict():
        raise WeightsError(f"the teacher {path} has other classes than {label_set.name}: use one of the same")
    return load_teacher(path, device)


def _comparable(recipe: Recipe) -> dict[str, object]:
    """What must be equal for a resumed training to be the same one, in JSON's types."""
    values = recipe.to_dict()
    for name in ("log_every", "validate_every", "checkpoint_every"):
        del values[name]
    return json.loads(json.dumps(values))


def _is_of(header: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a checkpoint was written by this recipe: fields that are newer than it had their defaults."""
    try:
        return _comparable(Recipe.from_dict(header["recipe"])) == _comparable(recipe)
    except (KeyError, ConfigError):
        return False


class TrainingLog:
    """A CSV file with a row for each report; fields that a report lacks stay empty.

    A resumed training keeps the rows up to its first step: those after it were not part of the checkpoint.
    """

    FIELDS = ("step", "loss", "pictures_per_second", "validation_miou")

    def __init__(self, path: Path, enabled: bool, first: int) -> None:
        self.path = path if enabled else None
        if self.path:
            kept = []
            if first and path.exists():
                with path.open(newline="") as file:
                    kept = [row for row in csv.DictReader(file) if int(row["step"]) <= first]
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.FIELDS)
                writer.writeheader()
                writer.writerows(kept)

    def write(self, **values: float) -> None:
        """Append a row; keywords are from FIELDS."""
        if self.path:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.FIELDS).writerow(values)
