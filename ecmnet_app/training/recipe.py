"""Recipe: everything that decides a training's result, in one TOML file."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ecmnet_app.errors import ConfigError
from ecmnet_app.network import MIN_SIZE, ECMNetConfig
from ecmnet_app.training.augment import Augmentation
from ecmnet_app.training.fields import check_types
from ecmnet_app.training.losses import BEHIND

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CHECKPOINT", "DataSource", "Recipe", "load_recipe"]

RECIPES = Path(__file__).parent / "recipes"
SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text("utf-8"))
"""What recipes need not say of the data sets of this project, by name."""
CHECKPOINT = "checkpoint"
"""Name, but for the suffix, of the file that a training is resumed from, beside that of its weights."""
NETWORKS = ("ecmnet", "efficientnet-lite2")


@dataclass(frozen=True)
class DataSource:
    """One data set of the mixture."""

    name: str
    """Matched with `--data NAME=PATH`."""
    split: str = "train"
    """Splits joined by "+", as `load_dataset` takes them."""
    weight: float = 1.0
    """Share of the pictures of a batch, relative to the other sets' weights."""
    leave_out: str | None = None
    """Stem prefixes (drives) to leave out, joined by commas."""
    only: str | None = None
    """Stem prefixes (drives) to keep, joined by commas."""
    labels: bool = True
    """False takes the pictures alone, with no label known: for a teacher's answers, where a set's conventions
    differ or it has no labels. Its splits may then be any folders of pictures."""
    short_side: int | None = None
    """Pixels; pictures with a longer short side are shrunk to it as they are loaded, with their labels."""
    unnamed: tuple[int, ...] = ()
    """Classes that this set's labels do not name: such a pixel bears the label of what is behind it, or none.
    So its labels train the other classes among themselves. The same for all sets of a recipe that have any."""
    pseudo_labels: float = 0.0
    """Above 0, of a set without labels: what the teachers answer is its labels where it is at least so likely, 0 to 1;
    see `training.answers`. They are asked once, before the training."""
    terms: str = "not stated"
    """What may be done with the data; kept in the weights' record."""
    source: str = "not stated"

    def __post_init__(self) -> None:
        check_types(self, "data.")


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Raises:
        ConfigError: a value that cannot work; the message names it.
    """

    name: str
    data: tuple[DataSource, ...]
    validation: DataSource | None = None
    """Scored every `validate_every` steps; choose by a drive that is left out of `data`."""
    network: str = "ecmnet"
    """"ecmnet", or "efficientnet-lite2" for a teacher (see `training.teacher`)."""
    variant: str = "ecmnet"
    """Row of Table 1, see `ECMNetConfig.named`."""
    steps: int = 29250
    batch_size: int = 16
    crop: tuple[int, int] = (360, 480)
    """Height and width of the training pictures."""
    learning_rate: float = 2e-3
    warmup_steps: int = 500
    poly_power: float = 0.9
    weight_decay: float = 0.02
    """On the weights of convolutions and linear layers; not on norms, slopes, biases, scan parameters."""
    clip_norm: float = 5.0
    ema_decay: float = 0.9995
    class_weight_offset: float = 1.2
    """Class weights are 1 / ln(offset + share of the class's pixels), as in ENet."""
    boundary_weight: float = 1.0
    """How many times a pixel that has another class beside it counts in the cross entropy."""
    jaccard_weight: float = 0.5
    auxiliary_weights: tuple[float, ...] = (0.3, 0.2)
    """Of 1x1 heads on the 1/8 and 1/16 stages, which are dropped after training; none in a teacher."""
    stochastic_depth: float = 0.0
    """Share of the pictures for which the last EDAB is left out; those before it in proportion, see `drop_blocks`."""
    teacher_weight: float = 0.0
    """Of the distance to the teachers' answers, which is added to the loss."""
    teacher_once: bool = False
    """True: the answers are those for whole pictures at `teacher_scales`, asked before the training, of all teachers
    together. False: those for each view, each teacher for some of a batch's."""
    teacher_scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Magnifications of whole pictures."""
    teacher_temperature: float = 1.0
    licence: str = "not stated"
    """Of the weights, which the data's terms decide."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    log_every: int = 50
    validate_every: int = 2000
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        if self.name == CHECKPOINT:
            raise ConfigError(f"a recipe cannot be called {CHECKPOINT!r}: its weights would replace its checkpoint")
        if not self.data:
            raise ConfigError("the recipe names no data: add a [[data]] table with a name")
        if any(source.weight <= 0 for source in self.data):
            raise ConfigError("the weight of every data set must be positive")
        for source in (*self.data, *([self.validation] if self.validation else [])):
            if source.short_side is not None and source.short_side < MIN_SIZE:
                raise ConfigError(
                    f"{source.name}: short_side must be at least {MIN_SIZE} pixels, not {source.short_side}"
                )
        for source in self.data:
            if source.pseudo_labels and source.labels:
                raise ConfigError(
                    f"{source.name}: pseudo_labels are those of teachers for a set without labels: say labels = false"
                )
            if not 0 <= source.pseudo_labels < 1:
                raise ConfigError(
                    f"{source.name}: pseudo_labels must be 0 to 1 (1 excluded), not {source.pseudo_labels}"
                )
        if len({source.unnamed for source in self.data} - {()}) > 1:
            raise ConfigError("sets with unnamed classes must all have the same ones")
        if self.validation and (self.validation.unnamed or self.validation.pseudo_labels):
            raise ConfigError(
                "validation cannot have unnamed classes or pseudo_labels: a score needs labels that are sure"
            )
        if self.validation and not self.validation.labels:
            raise ConfigError("validation cannot be without labels: leave labels = false out, or the validation")
        if not all(0 <= k < BEHIND for k in self.unnamed):
            raise ConfigError(f"unnamed must be class ids, not {self.unnamed}")
        for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed must be 0 to {2**31 - 1}, not {self.seed}")
        if len(self.crop) != 2 or min(self.crop) < MIN_SIZE:
            raise ConfigError(f"crop must be a height and a width of at least {MIN_SIZE} pixels, not {self.crop}")
        if self.learning_rate <= 0 or self.clip_norm <= 0 or not 0 <= self.ema_decay < 1:
            raise ConfigError("learning_rate and clip_norm must be positive, ema_decay in 0 to 1 (1 excluded)")
        if self.class_weight_offset <= 1:
            raise ConfigError(f"class_weight_offset must be above 1, not {self.class_weight_offset}")
        if self.boundary_weight <= 0 or not 0 <= self.stochastic_depth < 1:
            raise ConfigError("boundary_weight must be positive, stochastic_depth in 0 to 1 (1 excluded)")
        if self.network not in NETWORKS:
            raise ConfigError(f"there is no network {self.network!r}: choose one of {', '.join(NETWORKS)}")
        if self.network == "ecmnet" and len(self.auxiliary_weights) != 2:
            raise ConfigError("auxiliary_weights must be two numbers, of the heads on the 1/8 and 1/16 stages")
        if self.network != "ecmnet" and self.stochastic_depth:
            raise ConfigError(f"{self.network} has no EDABs to leave out: write stochastic_depth = 0")
        if self.network != "ecmnet" and self.auxiliary_weights:
            raise ConfigError(f"{self.network} has no auxiliary heads: write auxiliary_weights = []")
        if self.teacher_weight < 0 or self.teacher_temperature <= 0:
            raise ConfigError("teacher_weight must not be negative, teacher_temperature must be positive")
        if self.teacher_once and not self.teacher_weight:
            raise ConfigError("teacher_once asks for answers that only a teacher_weight makes use of: set one")
        if not self.teacher_scales or min(self.teacher_scales) <= 0:
            raise ConfigError(f"teacher_scales must be magnifications above 0, not {self.teacher_scales}")
        try:
            ECMNetConfig.named(self.variant)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def needs_teachers(self) -> bool:
        """Whether some have to be given: for their answers on the views, or for labels."""
        return self.teacher_weight > 0 or any(source.pseudo_labels for source in self.data)

    @property
    def unnamed(self) -> tuple[int, ...]:
        """The classes that labels of some sets may hide."""
        return max((source.unnamed for source in self.data), key=len)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the weights' record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Build from TOML's or JSON's types.

        Raises:
            ConfigError: an unknown field or a value that cannot work.
        """
        values = dict(values)
        try:
            values["data"] = tuple(_source(source) for source in values.get("data", ()))
            if values.get("validation"):
                values["validation"] = _source(values["validation"])
            values["augmentation"] = Augmentation(**_tuples(values.get("augmentation", {})))
            return cls(**_tuples(values))
        except (TypeError, AttributeError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise ConfigError(f"the recipe does not fit: {error}; its fields are {known}") from error


def _source(values: dict[str, Any]) -> DataSource:
    return DataSource(**_tuples(SOURCES.get(values.get("name", ""), {}) | values))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def load_recipe(name_or_path: str, **overrides: Any) -> Recipe:
    """Read a recipe of the package by name, or any TOML file by path; `overrides` replace its fields.

    A file that says `base = "NAME"` is that recipe of the package but for the fields that it has itself; those of
    [augmentation] count one by one. What a [[data]] does not say of a set that sources.toml names is taken from there.

    Raises:
        ConfigError: no such recipe, or it does not fit.
    """
    path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    return Recipe.from_dict({"name": path.stem} | _read(path) | overrides)


def _read(path: Path) -> dict[str, Any]:
    """The fields that a file and those it is based on have."""
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        name = path.stem if path.parent == RECIPES else str(path)
        raise ConfigError(f"there is no recipe {name!r}: give a TOML file, or one of {known}")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not a TOML file: {error}") from error
    if not isinstance(values.get("augmentation", {}), dict):
        raise ConfigError(f"augmentation must be a table, not {values['augmentation']!r}: write [augmentation]")
    if "base" not in values:
        return values
    base = _read(RECIPES / f"{values.pop('base')}.toml")
    return base | values | {"augmentation": base.get("augmentation", {}) | values.get("augmentation", {})}
