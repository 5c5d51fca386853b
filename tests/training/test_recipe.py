"""Recipes: those of the package, what TOML says, and values that cannot work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import RECIPE

from ecmnet_app.errors import ConfigError
from ecmnet_app.training.augment import Augmentation
from ecmnet_app.training.recipe import RECIPES, DataSource, Recipe, load_recipe


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_recipes_of_the_package(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert all(source.terms != "not stated" and source.source != "not stated" for source in recipe.data)
    assert "not stated" not in recipe.licence
    assert not any("test" in source.split for source in (*recipe.data, recipe.validation) if source)
    assert recipe.unnamed == next((source.unnamed for source in recipe.data if source.unnamed), ())
    if recipe.validation:  # a drive that is not trained on
        same = [source for source in recipe.data if source.name == recipe.validation.name]
        assert same
        assert all(source.leave_out == recipe.validation.only for source in same)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.replace('name = "tiny"', "") + "[augmentation]\nscale = [1, 2]\n")
    recipe = load_recipe(str(tmp_path / "mine.toml"), steps=5)
    assert recipe == Recipe(
        name="mine",
        data=(DataSource("blocks", terms="made up, free for all", source="tests"),),
        validation=DataSource("blocks", "val"),
        steps=5,
        batch_size=2,
        crop=(32, 48),
        warmup_steps=2,
        log_every=1,
        validate_every=4,
        checkpoint_every=3,
        licence="for tests",
        augmentation=Augmentation(scale=(1, 2)),
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_file_that_changes_a_recipe_of_the_package(tmp_path: Path) -> None:
    base = load_recipe("camvid-leave-out-rendered")  # which has a base itself
    assert (base.validation, base.augmentation.paste_share) == (load_recipe("camvid-leave-out").validation, 0.5)
    (tmp_path / "mine.toml").write_text(
        'base = "camvid-leave-out-rendered"\nsteps = 9\n[augmentation]\npaste_classes = [1]\n'
    )
    recipe = load_recipe(str(tmp_path / "mine.toml"), seed=3)
    changed = replace(base.augmentation, paste_classes=(1,))
    assert recipe == replace(base, name="mine", steps=9, seed=3, augmentation=changed)
    (tmp_path / "mine.toml").write_text('base = "camvit"\n')
    with pytest.raises(ConfigError, match="no recipe 'camvit': give a TOML file, or one of camvid, "):
        load_recipe(str(tmp_path / "mine.toml"))


def test_what_is_known_of_a_set_need_not_be_said(tmp_path: Path) -> None:
    text = '[[data]]\nname = "unlabelled"\nsplit = "mine"\n[[data]]\nname = "mine"\n[[data]]\nname = "camvid"\n'
    (tmp_path / "mine.toml").write_text(text)
    unlabelled, mine, camvid = load_recipe(str(tmp_path / "mine.toml")).data
    assert not unlabelled.labels
    assert unlabelled.split == "mine"
    assert unlabelled.terms.startswith("CC BY-SA 4.0 (Global Streetscapes)")
    assert mine == DataSource("mine")
    assert "Brostow" in camvid.source


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe 'camvit': give a TOML file, or one of camvid, "):
        load_recipe("camvit")
    (tmp_path / "bad.toml").write_text("steps = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml is not a TOML file"):
        load_recipe(str(tmp_path / "bad.toml"))
    (tmp_path / "bad.toml").write_text('base = "camvid"\naugmentation = "x"\n')
    with pytest.raises(ConfigError, match="augmentation must be a table, not 'x'"):
        load_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ()}, "names no data: add a"),
        ({"data": [{"name": "a", "unnamed": [1]}, {"name": "b", "unnamed": [2]}]}, "must all have the same ones"),
        ({"data": [{"name": "a", "unnamed": [64]}]}, r"unnamed must be class ids, not \(64,\)"),
        ({"validation": {"name": "a", "unnamed": [1]}}, "validation cannot have unnamed"),
        ({"validation": {"name": "a", "pseudo_labels": 0.5}}, "validation cannot have .* pseudo_labels"),
        ({"data": [{"name": "a", "pseudo_labels": 0.5}]}, "a: pseudo_labels are .* say labels = false"),
        ({"data": [{"name": "a", "labels": False, "pseudo_labels": 1}]}, "must be 0 to 1 .1 excl"),
        ({"data": [{"name": "a", "short_side": 31}]}, "a: short_side must be at least 32 pixels, not 31"),
        ({"validation": {"name": "v", "short_side": 0}}, "v: short_side must be at least 32 pixels, not 0"),
        ({"teacher_once": True}, "teacher_once .* only a teacher_weight makes use of"),
        ({"teacher_scales": []}, "teacher_scales must be magnifications above 0"),
        ({"teacher_scales": [1.0, 0]}, "teacher_scales must be magnifications above 0"),
        ({"data": [{"split": "train"}]}, "does not fit: .*'name'"),
        ({"data": "camvid"}, "does not fit"),
        ({"data": [{"name": "a", "weight": 0}]}, "weight of every data set must be positive"),
        ({"stepz": 3}, "does not fit: .*'stepz'; its fields are name, data"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"learning_rate": 0}, "learning_rate and clip_norm must be positive"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, not nan"),
        ({"weight_decay": "x"}, "weight_decay must be a number, not 'x'"),
        ({"steps": 3.0}, r"steps must be a whole number, not 3\.0"),
        ({"batch_size": 2.0}, r"batch_size must be a whole number, not 2\.0"),
        ({"seed": 1.5}, r"seed must be a whole number, not 1\.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"crop": [64.0, 96.0]}, r"crop must be a list, each entry a whole number, not \[64\.0, 96\.0\]"),
        ({"crop": 64}, "crop must be a list, each entry a whole number, not 64"),
        ({"name": "checkpoint"}, "a recipe cannot be called 'checkpoint'"),
        ({"validation": {"name": "a", "labels": False}}, "validation cannot be without labels"),
        ({"name": 3}, "name must be a text, not 3"),
        ({"teacher_once": 1}, "teacher_once must be true or false, not 1"),
        ({"auxiliary_weights": ["a", 1]}, r"auxiliary_weights must be a list, each entry a number, not \['a', 1\]"),
        ({"data": [{"name": "a", "split": 3}]}, r"data\.split must be a text, not 3"),
        ({"data": [{"name": "a", "only": 3}]}, r"data\.only must be a text or left out, not 3"),
        ({"data": [{"name": "a", "weight": "a"}]}, r"data\.weight must be a number, not 'a'"),
        ({"validation": 3}, "does not fit"),
        ({"augmentation": {"brightness": "x"}}, r"augmentation\.brightness must be a number, not 'x'"),
        ({"augmentation": {"scale": 2}}, r"augmentation\.scale must be a list, each entry a number, not 2"),
        ({"augmentation": "x"}, "does not fit"),
        ({"clip_norm": 0}, "learning_rate and clip_norm must be positive"),
        ({"ema_decay": 1.0}, "ema_decay in 0 to 1"),
        ({"class_weight_offset": 1.0}, "class_weight_offset must be above 1"),
        ({"auxiliary_weights": [0.3]}, "auxiliary_weights must be two numbers"),
        ({"network": "resnet"}, "no network 'resnet': choose one of ecmnet, efficientnet-lite2"),
        ({"network": "efficientnet-lite2"}, r"has no auxiliary heads: write auxiliary_weights = \[\]"),
        ({"boundary_weight": 0}, "boundary_weight must be positive, stochastic_depth in 0 to 1"),
        ({"stochastic_depth": 1}, "boundary_weight must be positive, stochastic_depth in 0 to 1"),
        (
            {"network": "efficientnet-lite2", "auxiliary_weights": [], "stochastic_depth": 0.1},
            "has no EDABs to leave out",
        ),
        ({"teacher_weight": -1}, "teacher_weight must not be negative"),
        ({"teacher_temperature": 0}, "teacher_temperature must be positive"),
        ({"crop": [31, 48]}, "crop must be a height and a width of at least 32 pixels"),
        ({"crop": [360]}, "crop must be a height and a width"),
        ({"seed": -1}, "seed must be 0 to 2147483647"),
        ({"variant": "ECM"}, "no variant 'ECM'; choose one of baseline"),
        ({"augmentation": {"scale": [2, 1]}}, "augmentation.scale must be"),
        ({"augmentation": {"paste_share": 0.5}}, "paste_share needs paste_classes"),
        ({"augmentation": {"colour": 1}}, "does not fit: .*'colour'"),
    ],
)
def test_values_that_cannot_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict({"name": "x", "data": [{"name": "a"}]} | change)
