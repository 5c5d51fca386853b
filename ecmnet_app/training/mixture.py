"""What a training draws its batches from: several data sets on one device, and the batch of each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ecmnet_app.core.labels import UNLABELLED, LabelSet
from ecmnet_app.errors import ConfigError
from ecmnet_app.training import distributed
from ecmnet_app.training.augment import Group, Views, augment, normalise, paste
from ecmnet_app.training.datasets import Dataset
from ecmnet_app.training.losses import BEHIND
from ecmnet_app.training.recipe import Recipe

__all__ = ["Mixture", "batch", "batches", "step_seed"]


@dataclass
class Mixture:
    """Several data sets on one device, from which every step draws its batch.

    Raises:
        ConfigError: the sets have different classes.
    """

    sets: Sequence[Dataset]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        for dataset in self.sets:
            if dataset.label_set != self.label_set:
                raise ConfigError(
                    f"{dataset.name} has the classes of {dataset.label_set.name}, {self.sets[0].name} those of "
                    f"{self.label_set.name}: sets of one recipe must have the same classes"
                )

    @property
    def label_set(self) -> LabelSet:
        """The classes that all sets have."""
        return self.sets[0].label_set

    def hiding(self, unnamed: Sequence[Sequence[int]]) -> Mixture:
        """For each set the classes that its labels do not name; its other labels get BEHIND added, see the loss.

        Raises:
            ConfigError: there are too many classes for that.
        """
        sets = list(self.sets)
        for i, (dataset, ids) in enumerate(zip(self.sets, unnamed, strict=True)):
            if not ids:
                continue
            if len(dataset.label_set) > BEHIND:
                raise ConfigError(f"{dataset.name}: unnamed works with up to {BEHIND} classes, leave it out")
            stay = torch.tensor((*ids, UNLABELLED), dtype=torch.uint8, device=dataset.labels.device)
            sure = torch.isin(dataset.labels, stay)
            sets[i] = replace(dataset, labels=torch.where(sure, dataset.labels, dataset.labels + BEHIND))
        return Mixture(sets, self.weights)

    @property
    def pictures(self) -> int:
        """Of all sets."""
        return sum(len(dataset.stems) for dataset in self.sets)

    def class_shares(self, num_classes: int) -> Tensor:
        """Share of each class among the labelled pixels that a batch can expect: (K,) float32.

        Raises:
            ConfigError: no set has a labelled pixel.
        """
        expected = torch.zeros(num_classes, dtype=torch.float64)
        for dataset, weight in zip(self.sets, self.weights, strict=True):
            counts = torch.stack([(dataset.labels == k).sum() for k in range(num_classes)]).cpu().double()
            expected += weight * counts / len(dataset.stems)
        if not expected.sum():
            raise ConfigError("no picture of the recipe's data has a labelled pixel: add a data set with labels")
        return (expected / expected.sum()).float()

    def draw(self, count: int, generator: Generator) -> Iterator[Group]:
        """`count` random pictures: a group for each set that got some."""
        # How many of each set is drawn on the CPU: it decides shapes, and a GPU asked for it would have to run dry.
        chooser = Generator().manual_seed(generator.initial_seed() ^ 0x5DEECE66)
        chosen = torch.multinomial(
            torch.tensor(self.weights, dtype=torch.float32), count, replacement=True, generator=chooser
        )
        for i, number in enumerate(torch.bincount(chosen, minlength=len(self.sets)).tolist()):
            dataset = self.sets[i]
            if number:
                index = torch.randint(len(dataset.stems), (number,), generator=generator, device=generator.device)
                answers = None if dataset.answers is None else dataset.answers[index]
                yield Group(dataset.images[index], dataset.labels[index], dataset.sizes[index], answers)


def batch(mixture: Mixture, recipe: Recipe, step: int, device: torch.device) -> Views:
    """The batch of a step: a function of seed and step alone, so that a resumed training sees the same ones.

    Every process draws the whole batch's randomness and keeps its share of the pictures.

    Returns:
        Views of the recipe's crop, whose images are normalised.
    """
    generator = Generator(device).manual_seed(step_seed(recipe, step))
    pictures = list(mixture.draw(recipe.batch_size, generator))
    views = augment(pictures, recipe.crop, recipe.augmentation, generator)
    images, targets, answers = paste(views, recipe.augmentation, generator)
    share = slice(distributed.rank(), None, distributed.world_size())
    return Views(normalise(images[share]), targets[share], None if answers is None else answers[share])


def batches(mixture: Mixture, recipe: Recipe, first: int, device: torch.device) -> Iterator[Views]:
    """The batches from step `first` on; on a GPU each is drawn while the one before is trained on."""
    if device.type != "cuda":
        for step in range(first, recipe.steps):
            yield batch(mixture, recipe, step, device)
        return
    main, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(main)  # for the data
    with torch.cuda.stream(aside):
        drawn = batch(mixture, recipe, first, device)
    for step in range(first, recipe.steps):
        main.wait_stream(aside)
        current = drawn
        for tensor in current:
            if tensor is not None:
                tensor.record_stream(main)
        with torch.cuda.stream(aside):
            drawn = batch(mixture, recipe, step + 1, device)  # the one after the last is drawn for nothing
        yield current


def step_seed(recipe: Recipe, step: int) -> int:
    """Of a step's random numbers."""
    # The CPU's generator takes the low 32 bits of its seed alone, so the recipe's seed must reach them as well.
    return (recipe.seed << 32) + (step + 0x9E3779B1 * recipe.seed) % 2**32
