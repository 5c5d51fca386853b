"""The whole loop on a data set of six small pictures: what it writes, how it resumes, what it refuses."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import RECIPE, write_blocks
from torch import Generator
from trees import random_pair, write_camvid, write_cityscapes

from ecmnet_app.cli import main
from ecmnet_app.core import load_weights
from ecmnet_app.core.labels import CAMVID, Label, LabelSet
from ecmnet_app.errors import ConfigError, DataError, DeviceError, WeightsError
from ecmnet_app.media import read_image
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.training.augment import Augmentation
from ecmnet_app.training.checkpoint import load_checkpoint, save_checkpoint
from ecmnet_app.training.datasets import Dataset, load_dataset
from ecmnet_app.training.losses import BEHIND
from ecmnet_app.training.mixture import Mixture, batch
from ecmnet_app.training.recipe import DataSource, Recipe, load_recipe
from ecmnet_app.training.train import score, train

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """blocks/ (the data), tiny.toml, and done/: the training of the recipe, never interrupted."""
    root = tmp_path_factory.mktemp("training")
    write_blocks(root / "blocks")
    (root / "tiny.toml").write_text(RECIPE)
    assert run(root, "done") == root / "done" / "tiny"
    return root


def recipe_of(folder: Path) -> Recipe:
    return load_recipe(str(folder / "tiny.toml"))


def run(
    folder: Path,
    out: str,
    resume: bool = False,
    stop_after: float | None = None,
    initial: Path | None = None,
    **changes: object,
) -> Path | None:
    recipe = replace(recipe_of(folder), **changes)  # type: ignore[arg-type]
    paths = {"blocks": folder / "blocks"}
    return train(recipe, paths, folder / out, device="cpu", resume=resume, stop_after=stop_after, initial=initial)


def rows(folder: Path, out: str) -> list[tuple[str, str, str]]:
    """Of log.csv, without the rates."""
    with (folder / out / "log.csv").open(newline="") as file:
        return [(row["step"], row["loss"], row["validation_miou"]) for row in csv.DictReader(file)]


def assert_equals_done(folder: Path, out: str) -> None:
    for name in ("tiny.safetensors", "tiny.json", "checkpoint.safetensors", "predictions.png"):
        assert (folder / out / name).read_bytes() == (folder / "done" / name).read_bytes(), name
    assert rows(folder, out) == rows(folder, "done")


def test_log(folder: Path) -> None:
    with (folder / "done" / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    losses = [row for row in log if row["loss"]]
    assert [row["step"] for row in losses] == [str(i) for i in range(1, 9)]
    assert all(0 < float(row["loss"]) < 10 for row in losses)
    assert all(float(row["pictures_per_second"]) > 0 for row in losses[2:])
    assert [(row["step"], row["loss"]) for row in log if row["validation_miou"]] == [("4", ""), ("8", "")]


def test_pictures(folder: Path) -> None:
    curves = read_image(folder / "done" / "curves.png")
    assert min(curves.shape[:2]) > 200
    assert len(np.unique(curves.reshape(-1, 3), axis=0)) > 10, "something is drawn"
    sheet = read_image(folder / "done" / "predictions.png")
    data = load_dataset(folder / "blocks", "val", short_side=32)
    assert sheet.shape == (2 * 32, 3 * 43, 3)
    for i, row in enumerate(np.split(sheet, 2)):
        image, predicted, truth = np.split(row, 3, axis=1)
        assert np.array_equal(image, data.images[i].permute(1, 2, 0).numpy())
        assert np.array_equal(truth, CAMVID.palette[data.labels[i].numpy()])
        assert {tuple(c) for c in predicted.reshape(-1, 3)} <= {tuple(c) for c in CAMVID.colors}


def test_weights(folder: Path) -> None:
    weights = load_weights(folder / "done" / "tiny.safetensors")
    assert (weights.name, weights.label_set, weights.licence) == ("tiny", CAMVID, "for tests")
    assert weights.working_short_side == 32
    (data,) = weights.training["data"]
    stems = hashlib.sha256(b"train_0\ntrain_1\ntrain_2\ntrain_3").hexdigest()
    assert data == {
        "name": "blocks", "split": "train", "leave_out": None, "only": None, "terms": "made up, free for all",
        "source": "tests", "pictures": 4, "stems": stems,
    }  # fmt: skip
    assert Recipe.from_dict(dict(weights.training["recipe"])) == recipe_of(folder)
    tensors, header = load_checkpoint(folder / "done" / "checkpoint.safetensors")
    assert header["step"] == 8
    for name, value in weights.tensors.items():
        if "running" in name:
            assert torch.equal(value, tensors[f"network.network.{name}"])


def test_interrupted_and_resumed_equals_uninterrupted(folder: Path) -> None:
    assert run(folder, "parts", stop_after=0) is None
    assert load_checkpoint(folder / "parts" / "checkpoint.safetensors")[1]["step"] == 1
    assert not (folder / "parts" / "tiny.safetensors").exists()
    assert run(folder, "parts", resume=True, stop_after=0, log_every=3) is None  # what is reported may change
    torch.manual_seed(99)  # nothing depends on it
    assert run(folder, "parts", resume=True) is not None
    for name in ("tiny.safetensors", "checkpoint.safetensors"):
        done = (folder / "done" / name).read_bytes()
        assert (folder / "parts" / name).read_bytes() == done
    kept = [row for row in rows(folder, "done") if row[0] != "2"]  # which was not reported
    assert rows(folder, "parts") == kept


def test_killed_and_resumed_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "killed"
    arguments = ["train", "--recipe", str(folder / "tiny.toml"), "--data", f"blocks={folder / 'blocks'}"]
    arguments += ["--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ecmnet_app", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not ((out / "log.csv").exists() and len(rows(folder, "killed")) >= 4):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = load_checkpoint(out / "checkpoint.safetensors")[1]["step"]
    assert before in (3, 6)
    assert not (out / "tiny.safetensors").exists()

    assert main([*arguments, "--resume"]) == 0
    assert f"weights: {out / 'tiny'}.safetensors and tiny.json" in capsys.readouterr().out
    assert_equals_done(folder, "killed")


def test_a_checkpoint_from_before_a_setting_was_there_resumes(folder: Path) -> None:
    run(folder, "older", stop_after=0)
    path = folder / "older" / "checkpoint.safetensors"
    tensors, header = load_checkpoint(path)
    for source in (*header["recipe"]["data"], header["recipe"]["validation"]):
        del source["short_side"]
    save_checkpoint(path, tensors, header)
    assert run(folder, "older", resume=True) is not None
    assert (folder / "older" / "tiny.safetensors").read_bytes() == (folder / "done" / "tiny.safetensors").read_bytes()
    del header["recipe"]
    save_checkpoint(path, tensors, header)
    with pytest.raises(ConfigError, match="written by another recipe"):
        run(folder, "older", resume=True)


def test_a_finished_training_resumes_to_the_same_weights(folder: Path) -> None:
    run(folder, "again")
    for name in ("tiny.safetensors", "curves.png", "predictions.png"):
        (folder / "again" / name).unlink()
    assert run(folder, "again", resume=True) == folder / "again" / "tiny"
    assert_equals_done(folder, "again")
    assert (folder / "again" / "curves.png").exists()


def test_stopping_at_the_last_step_finishes(folder: Path) -> None:
    weights = run(folder, "short", stop_after=0, steps=1)
    assert weights is not None
    load_weights(weights.with_suffix(".safetensors"))


def test_another_recipe_does_not_resume(folder: Path) -> None:
    before = (folder / "done" / "checkpoint.safetensors").read_bytes()
    for changes in ({"learning_rate": 1e-3}, {"seed": 1}, {"augmentation": Augmentation(flip=False)}):
        with pytest.raises(ConfigError, match="written by another recipe: use the same, or start in another folder"):
            run(folder, "done", resume=True, **changes)
    assert (folder / "done" / "checkpoint.safetensors").read_bytes() == before
    assert len(rows(folder, "done")) == 10


def test_other_pictures_do_not_resume(folder: Path, tmp_path: Path) -> None:
    run(folder, "stopped", stop_after=0)
    path = folder / "stopped" / "checkpoint.safetensors"
    before = path.read_bytes()
    for split in ("train", "val"):
        shutil.copytree(folder / "blocks", tmp_path / split)
        image, labels = random_pair(0, 40, 56, [0, 1], block=20)
        write_camvid(tmp_path / split, split, f"{split}_new", image, labels)
    (tmp_path / "train" / "train" / "train_0.png").unlink()  # as many as before
    for split, message in (
        ("train", "on 4 pictures of blocks, and these 4 of train"),
        ("val", "on 2 .* these 3 of val"),
    ):
        with pytest.raises(ConfigError, match=f"{message} are not the same by their names: give the same --data, or"):
            train(recipe_of(folder), {"blocks": tmp_path / split}, folder / "stopped", device="cpu", resume=True)
    assert path.read_bytes() == before
    tensors, header = load_checkpoint(path)
    del header["data"]  # as of earlier versions
    save_checkpoint(path, tensors, header)
    assert train(recipe_of(folder), {"blocks": tmp_path / "train"}, folder / "stopped", device="cpu", resume=True)


def test_a_training_is_not_written_over(folder: Path) -> None:
    names = ("checkpoint.safetensors", "log.csv", "tiny.safetensors")
    before = [(folder / "done" / name).read_bytes() for name in names]
    with pytest.raises(ConfigError, match="done holds a training already: continue it with --resume, or choose"):
        run(folder, "done")
    assert [(folder / "done" / name).read_bytes() for name in names] == before


def test_nothing_to_resume(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no checkpoint .*: start without --resume"):
        run(folder, "nothing", resume=True)
    (folder / "nothing" / "checkpoint.safetensors").write_text("no checkpoint")
    with pytest.raises(WeightsError, match="is not a checkpoint"):
        run(folder, "nothing", resume=True)


def test_what_is_missing_is_named_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = recipe_of(folder), folder / "refused"
    with pytest.raises(ConfigError, match="needs the data set 'blocks': say --data blocks=FOLDER"):
        train(recipe, {"block": folder / "blocks"}, out, device="cpu")
    with pytest.raises(DataError, match="nowhere is not a folder"):
        train(recipe, {"blocks": folder / "nowhere"}, out, device="cpu")
    with pytest.raises(DeviceError, match="there is no device 'cuda:99' here; choose one of auto"):
        train(recipe, {}, out, device="cuda:99")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="there is no device 'cuda' here; choose one of auto, cpu"):
            train(recipe, {}, out, device="cuda")
    with pytest.raises(ConfigError, match=r"cannot make the folder .*: File exists; choose another"):
        train(recipe, {}, folder / "tiny.toml", device="cpu")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as Python marks a module that cannot be imported
    with pytest.raises(ConfigError, match=r"matplotlib, which is missing: pip install 'matplotlib<4'"):
        train(recipe, {}, out, device="cpu")


def test_errors_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--recipe", str(folder / "tiny.toml"), "--out", str(folder / "refused")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "ecmnet: the recipe needs the data set 'blocks': say --data blocks=FOLDER\n"
    with pytest.raises(SystemExit):
        main([*arguments, "--data", "blocks"])
    assert "write NAME=DIR, such as camvid=data/camvid, not 'blocks'" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_training(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step \d: start again with a lower learning_rate"):
        run(folder, "diverged", learning_rate=1e30, warmup_steps=0)
    assert not (folder / "diverged" / "tiny.safetensors").exists()


def test_sets_of_different_classes_are_refused(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_cityscapes(tmp_path, split, "aachen", "000000_000019", *random_pair(0, 40, 56, [7, 8]))
    paths = {"blocks": folder / "blocks", "city": tmp_path}
    recipe = replace(recipe_of(folder), data=(DataSource("blocks"), DataSource("city")), validation=None)
    with pytest.raises(ConfigError, match=r"classes of Cityscapes, blocks those of CamVid: .* must have the same"):
        train(recipe, paths, tmp_path / "out", device="cpu")
    recipe = replace(recipe_of(folder), validation=DataSource("city", "val"))
    with pytest.raises(ConfigError, match="validation has the classes of Cityscapes, training those of CamVid"):
        train(recipe, paths, tmp_path / "out", device="cpu")


@pytest.mark.long
def test_a_few_pictures_are_learned_by_heart(folder: Path) -> None:
    still = Augmentation(
        scale=(1, 1), aspect=0, rotation_share=0, brightness=0, contrast=0, saturation=0, channel_gain=0, gamma=0,
        grey_share=0, blur_share=0, noise_share=0,
    )  # fmt: skip
    weights = run(folder, "learned", steps=80, learning_rate=5e-3, ema_decay=0.9, augmentation=still, validation=None)
    assert weights is not None
    losses = [float(loss) for _, loss, _ in rows(folder, "learned") if loss]
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    network = load_weights(weights.with_suffix(".safetensors")).build()
    assert score(network, load_dataset(folder / "blocks", "train")) > 0.5  # 0.04 after eight steps


def constant_set(ids: list[int], name: str, pictures: int = 2, side: int = 32) -> Dataset:
    """Grey pictures of grey level 20 x their class; picture i is labelled ids[i] all over, but for an ignored row."""
    values = torch.tensor(ids, dtype=torch.uint8)
    labels = values[:, None, None].repeat(1, side, side)
    images = (20 * labels)[:, None].repeat(1, 3, 1, 1)
    labels[:, 0] = 255
    sizes = torch.tensor([[side, side]] * len(ids), dtype=torch.int32)
    return Dataset(name, LabelSet("four", CAMVID.labels[:4]), images, labels, sizes, tuple(map(str, ids)))


def test_a_batch_holds_the_sets_as_they_are_weighted() -> None:
    mixture = Mixture([constant_set([0, 1], "a"), constant_set([2, 3, 3, 3], "b", side=48)], [1, 3])
    assert mixture.pictures == 6
    counts = torch.zeros(4)
    for seed in range(100):
        drawn = list(mixture.draw(20, Generator().manual_seed(seed)))
        assert sum(len(group.images) for group in drawn) == 20
        for images, labels, sizes, _ in drawn:
            assert torch.equal(images[:, 0, 1, 1], 20 * labels[:, 1, 1])
            assert (sizes == images.shape[-1]).all()
            counts += torch.bincount(labels[:, 1, 1].long(), minlength=4)
    expected = torch.tensor([1 / 8, 1 / 8, 3 / 16, 9 / 16])
    assert (counts / 2000 - expected).abs().max() < 0.04  # over three standard deviations


def test_class_shares_are_those_a_batch_can_expect() -> None:
    small, large = constant_set([0, 1], "a"), constant_set([2, 3, 3, 3], "b", side=48)
    pixels = torch.tensor([31 * 32 / 2, 31 * 32 / 2, 3 * 47 * 48 / 4, 3 * 47 * 48 * 3 / 4])
    shares = Mixture([small, large], [1.0, 3.0]).class_shares(4)
    assert torch.allclose(shares, pixels / pixels.sum())
    assert torch.allclose(Mixture([small], [5.0]).class_shares(4), torch.tensor([0.5, 0.5, 0, 0]))


def test_pictures_without_labels_weigh_no_class() -> None:
    labelled, other = constant_set([0, 1], "a"), constant_set([2, 3], "b")
    other.labels.fill_(255)
    shares = Mixture([labelled, other], [1.0, 3.0]).class_shares(4)
    assert torch.allclose(shares, torch.tensor([0.5, 0.5, 0, 0]))
    with pytest.raises(ConfigError, match="no picture of the recipe's data has a labelled pixel"):
        Mixture([other], [1.0]).class_shares(4)


def test_labels_that_may_hide_others_are_marked() -> None:
    sure, hiding = constant_set([0, 1], "a"), constant_set([2, 3], "b")
    mixture = Mixture([sure, hiding], [1.0, 1.0]).hiding([(), (3,)])
    assert mixture.sets[0].labels is sure.labels
    marked = mixture.sets[1].labels
    assert marked.dtype == torch.uint8  # which `augment` counts on
    assert marked[0, 1:].unique().tolist() == [2 + BEHIND]
    assert marked[1, 1:].unique().tolist() == [3], "an unnamed class that is labelled all the same is sure"
    assert marked[:, 0].unique().tolist() == [255]
    many = replace(sure, label_set=LabelSet("many", tuple(Label(k, f"c{k}", (0, 0, 0)) for k in range(65))))
    with pytest.raises(ConfigError, match="a: unnamed works with up to 64 classes"):
        Mixture([many], [1.0]).hiding([(3,)])


def test_training_on_labels_that_may_hide_others(folder: Path) -> None:
    plain = run(folder, "named", steps=1)
    weights = run(folder, "unnamed", data=(DataSource("blocks", unnamed=(9, 10)),), steps=1)
    assert plain is not None
    assert weights is not None
    losses = [float(rows(folder, out)[0][1]) for out in ("named", "unnamed")]
    assert 0 < losses[1] < losses[0], "two wrong answers fewer"
    assert load_weights(weights.with_suffix(".safetensors")).training["recipe"]["data"][0]["unnamed"] == [9, 10]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three times the size of the crop, in which each colour fills a block."""
    root = tmp_path_factory.mktemp("large")
    for i, split in enumerate(["train", "train", "val"]):
        coarse = np.random.default_rng(i).integers(0, 11, (4, 6), dtype=np.uint8)
        labels = np.kron(coarse, np.ones((24, 24), np.uint8))
        write_camvid(root, split, f"{split}_{i}", CAMVID.colors[labels], labels)
    return root


def test_validation_sees_pictures_as_predict_does(folder: Path, large: Path, tmp_path: Path) -> None:
    recipe = replace(recipe_of(folder), data=(DataSource("large"),), validation=DataSource("large", "val"), steps=1)
    weights = train(recipe, {"large": large}, tmp_path, device="cpu")
    assert weights is not None
    network = load_weights(weights.with_suffix(".safetensors")).build()
    scores = [score(network, load_dataset(large, "val", short_side=side)) for side in (32, None)]
    assert scores[0] != scores[1]
    with (tmp_path / "log.csv").open(newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["validation_miou"]) == scores[0]


def test_large_pictures_are_drawn_small_and_no_drawing_ends_a_training(
    folder: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "large", "train", "long", *random_pair(0, 96, 8000, [0], block=8))
    write_camvid(tmp_path / "large", "train", "square", *random_pair(0, 96, 96, [0], block=8))
    recipe = replace(recipe_of(folder), data=(DataSource("large"),), validation=None, steps=1)
    train(recipe, {"large": tmp_path / "large"}, tmp_path / "out", device="cpu")
    sheet = read_image(tmp_path / "out" / "predictions.png")  # of the long one, and the square
    assert sheet.shape == (12 + 32, 3 * 1024, 3)
    for name in ("draw_curves", "draw_predictions"):
        with monkeypatch.context() as patch:
            patch.setattr(f"ecmnet_app.training.train.{name}", lambda *_: 1 / 0)
            weights = train(recipe, {"large": tmp_path / "large"}, tmp_path / name, device="cpu")
        assert weights is not None
        load_weights(weights.with_suffix(".safetensors"))
        assert "ecmnet: the weights are written, but not every drawing of them: division by zero" in (
            capsys.readouterr().err
        )


def test_pictures_that_training_sees_larger_than_the_weights_will_are_said(
    folder: Path, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(**changes: object) -> list[str]:
        recipe = replace(recipe_of(folder), steps=1, validation=DataSource("large", "val"), **changes)
        train(recipe, {"large": large}, tmp_path / str(len(list(tmp_path.iterdir()))), device="cpu")
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecmnet: ")]

    (line,) = said(data=(DataSource("large"),))
    assert "large has pictures of 144x96" in line
    assert "say short_side = 32 for it in the recipe" in line
    assert said(data=(DataSource("large", short_side=40),)) == []
    assert said(data=(DataSource("large"),), crop=(64, 64)) == []


def test_ids_of_no_class_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unnamed has 11, which is no class of CamVid: its ids are 0 to 10"):
        run(folder, "refused", data=(DataSource("blocks", unnamed=(9, 11)),))
    with pytest.raises(ConfigError, match=r"augmentation\.paste_classes has 99, which is no class of CamVid"):
        run(folder, "refused", augmentation=Augmentation(paste_share=0.5, paste_classes=(2, 99)))


def test_a_set_gives_its_pictures_without_its_labels(folder: Path) -> None:
    sources = (DataSource("blocks"), DataSource("blocks", labels=False, weight=3))
    assert run(folder, "half", data=sources, steps=3) is not None
    assert all(0 < float(loss) < 10 for _, loss, _ in rows(folder, "half") if loss)
    with pytest.raises(ConfigError, match="has a labelled pixel: add a data set with labels"):
        run(folder, "none", data=sources[1:])


def test_a_training_starts_from_other_weights(folder: Path) -> None:
    first = folder / "done" / "tiny.safetensors"
    weights = run(folder, "again-from", initial=first, steps=1, learning_rate=1e-12)
    assert weights is not None
    before, after = load_weights(first), load_weights(weights.with_suffix(".safetensors"))
    for name, value in before.tensors.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(after.tensors[name], value, atol=1e-6), name
    record = after.training["recipe"]["initial"]
    assert (record["sha256"], record["data"][0]["name"]) == (before.sha256, "blocks")
    with pytest.raises(
        WeightsError, match="tiny have another architecture or other classes than the recipe's baseline"
    ):
        run(folder, "refused", initial=first, variant="baseline")


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    mixture = Mixture([constant_set([0, 1], "a"), constant_set([2, 3], "b", side=48)], [1.0, 1.0])
    recipe = Recipe("x", (DataSource("a"),), batch_size=6, crop=(32, 40), seed=5)
    images, target, _ = batch(mixture, recipe, 7, CPU)
    assert (images.shape, images.dtype) == ((6, 3, 32, 40), torch.float32)
    assert (target.shape, target.dtype) == ((6, 32, 40), torch.int64)
    torch.manual_seed(1)
    again = batch(mixture, recipe, 7, CPU)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], target)
    for other, step in ((recipe, 8), (replace(recipe, seed=6), 7)):
        assert not torch.equal(batch(mixture, other, step, CPU)[0], images)


def test_a_batch_is_normalised_as_the_weights_say() -> None:
    still = Augmentation(
        scale=(1, 1), aspect=0, rotation_share=0, brightness=0, contrast=0, saturation=0, channel_gain=0, gamma=0,
        grey_share=0, blur_share=0, noise_share=0,
    )  # fmt: skip
    recipe = Recipe("x", (DataSource("a"),), batch_size=2, crop=(32, 32), augmentation=still)
    images = batch(Mixture([constant_set([3], "a")], [1.0]), recipe, 0, CPU).images
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        assert torch.allclose(images[:, channel], torch.tensor((60 / 255 - mean) / std), atol=1e-4)


def test_score_of_pictures_of_several_sizes(tmp_path: Path) -> None:
    for i, (height, width) in enumerate([(40, 48), (33, 56), (40, 48), (33, 56), (36, 36)]):
        write_camvid(tmp_path, "val", f"{i}", *random_pair(i, height, width, [0, 1, 2, 255], block=12))
    data = load_dataset(tmp_path, "val")
    torch.manual_seed(0)
    network = ECMNet(ECMNetConfig.named("baseline")).eval()
    intersection, union = np.zeros(11), np.zeros(11)
    for i in range(5):
        with Image.open(tmp_path / "val" / f"{i}.png") as picture:
            x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        with torch.no_grad():
            answer = network(x).argmax(1)[0].numpy()
        with Image.open(tmp_path / "valannot" / f"{i}.png") as picture:
            truth = np.array(picture)
        for k in range(11):
            a, t = (answer == k) & (truth != 255), truth == k
            intersection[k] += (a & t).sum()
            union[k] += (a | t).sum()
    expected = (intersection[union > 0] / union[union > 0]).mean()
    assert score(network, data) == pytest.approx(expected, abs=1e-3)
