"""evaluate against known answers and against counts that share no code with it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trees import random_pair, write_camvid, write_cityscapes

from ecmnet_app.core import CAMVID, CITYSCAPES, Segmenter, engines, load_weights, save_weights
from ecmnet_app.core.engines.eager import EagerEngine
from ecmnet_app.core.weights import available_weights
from ecmnet_app.errors import ConfigError, DataError, ImageError
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.training.calibration import calibrate
from ecmnet_app.training.evaluate import Evaluation, Scores, evaluate
from ecmnet_app.training.labelmefacade import NAME, city_of


def plain_scores(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> tuple[list[float], float]:
    """IoU of each class and pixel accuracy by comparing whole maps, class by class."""
    valid = [target != 255 for _, target in pairs]
    ious = []
    for k in range(classes):
        both = sum(int(((a == k) & (t == k)).sum()) for a, t in pairs)
        either = sum(int((((a == k) | (t == k)) & v).sum()) for (a, t), v in zip(pairs, valid, strict=True))
        ious.append(both / either if either else float("nan"))
    right = sum(int((a == t).sum()) for a, t in pairs)
    return ious, right / sum(int(v.sum()) for v in valid)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two places and of three sizes, with random labels."""
    root = tmp_path_factory.mktemp("tree")
    for seed, (stem, height, width) in enumerate([("A_1", 48, 64), ("A_2", 40, 64), ("B_1", 96, 128)]):
        write_camvid(root, "test", stem, *random_pair(seed, height, width, [*range(12)], block=8))
    return root


@pytest.fixture(scope="module")
def result(tree: Path, tiny_weights: Path) -> Evaluation:
    return evaluate(tree, "test", tiny_weights, "cpu")


def test_agrees_with_an_independent_count(tree: Path, tiny_weights: Path, result: Evaluation) -> None:
    segmenter = Segmenter.from_pretrained(tiny_weights, "cpu", "eager")
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"A": [], "B": []}
    for file in sorted((tree / "test").iterdir()):
        target = cv2.imread(str(tree / "testannot" / file.name), cv2.IMREAD_UNCHANGED)
        target[target == 11] = 255
        answer = segmenter.predict(np.ascontiguousarray(cv2.imread(str(file))[..., ::-1]))
        pairs[file.name[0]].append((answer.labels, target))
    for scores, group in [
        (result.scores, pairs["A"] + pairs["B"]),
        (result.places["A"], pairs["A"]),
        (result.places["B"], pairs["B"]),
    ]:
        ious, accuracy = plain_scores(group, 11)
        assert scores.pictures == len(group)
        assert list(scores.per_class) == list(CAMVID.names)
        assert list(scores.per_class.values()) == pytest.approx(ious)
        assert scores.miou == pytest.approx(np.nanmean(ious))
        assert scores.pixel_accuracy == pytest.approx(accuracy)


def test_labels_that_are_the_answers_score_one(tmp_path: Path, tiny_weights: Path) -> None:
    segmenter = Segmenter.from_pretrained(tiny_weights, "cpu", "eager")
    image, _ = random_pair(0, 64, 96, [0])
    answer = segmenter.predict(image).labels
    write_camvid(tmp_path, "test", "x", image, answer)
    scores = evaluate(tmp_path, "test", tiny_weights, "cpu").scores
    assert (scores.miou, scores.pixel_accuracy) == (1, 1)
    present = {CAMVID.names[k] for k in np.unique(answer)}
    assert {name for name, iou in scores.per_class.items() if iou == 1} == present
    assert {name for name, iou in scores.per_class.items() if iou is None} == set(CAMVID.names) - present


def test_says_what_it_scored(tree: Path, tiny_weights: Path, result: Evaluation) -> None:
    assert (result.dataset, result.split, result.weights) == (tree.name, "test", "tiny")
    assert result.sha256 == load_weights(tiny_weights).sha256
    assert (result.resolution, result.mixed_sizes) == ((96, 128), True)
    assert (result.device, result.engine, result.date) == ("cpu", "eager", date.today().isoformat())
    assert result.command == f"ecmnet evaluate PATH/{tree.name} --split test --weights tiny"


def test_the_command_names_another_engine(tree: Path, tiny_weights: Path) -> None:
    compiled = evaluate(tree, "test", tiny_weights, "cpu", engine="openvino", only="B")
    assert compiled.command.endswith("--weights tiny --only B --engine openvino")


def test_resolution_is_passed_on(tree: Path, tiny_weights: Path) -> None:
    smaller = evaluate(tree, "test", tiny_weights, "cpu", resolution=32, only="B")
    assert (smaller.resolution, smaller.mixed_sizes) == ((32, 43), False)
    assert smaller.command.endswith("--weights tiny --resolution 32 --only B")
    answer = Segmenter.from_pretrained(tiny_weights, "cpu", "eager").predict(
        random_pair(2, 96, 128, [0])[0], resolution=32
    )
    _, target = random_pair(2, 96, 128, [*range(12)], block=8)
    target[target == 11] = 255
    assert smaller.scores.pixel_accuracy == pytest.approx(plain_scores([(answer.labels, target)], 11)[1])
    assert smaller.places == {}


def test_same_bytes_twice(tree: Path, tiny_weights: Path, result: Evaluation) -> None:
    again = evaluate(tree, "test", tiny_weights, "cpu")
    assert again.table() == result.table()
    assert again.to_json() == result.to_json()


def test_stdout_is_left_to_the_caller(tree: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(tree, "test", tiny_weights, "cpu", only="A_2")
    assert capsys.readouterr().out == ""


def test_weights_of_other_classes_are_refused(tmp_path: Path, tiny_weights: Path) -> None:
    write_cityscapes(tmp_path, "val", "lindau", "000000_000019", *random_pair(0, 64, 96, [7, 8]))
    with pytest.raises(ConfigError, match=r"tiny name the classes of CamVid .* labelled with those of Cityscapes"):
        evaluate(tmp_path, "val", tiny_weights, "cpu")


def test_cityscapes_weights(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "val", "lindau", "000000_000019", *random_pair(0, 64, 96, [7, 8, 33]))
    torch.manual_seed(0)
    save_weights(tmp_path / "city", ECMNet(ECMNetConfig.named("baseline", 19)), CITYSCAPES, working_short_side=512)
    scores = evaluate(tmp_path, "val", tmp_path / "city.safetensors", "cpu").scores
    assert list(scores.per_class) == list(CITYSCAPES.names)
    assert scores.per_class["Road"] is not None


SIX = ["Sky", "Building", "Road", "Pavement", "Tree", "Car"]
SIX_IDS = [0, 1, 3, 4, 5, 8]


def test_labelmefacade_is_scored_by_its_protocol(tmp_path: Path, tiny_weights: Path) -> None:
    root = tmp_path / "labelmefacade"
    stems = ["static_boston_street__a", "static_outdoor_urban_city_london_uk__b", "static_boston_street__c"]
    for seed, stem in enumerate(stems):
        write_camvid(root, "test", stem, *random_pair(seed, 64, 96, [*SIX_IDS, 255], block=8))
    result = evaluate(root, "test", tiny_weights, "cpu")

    segmenter = Segmenter.from_pretrained(tiny_weights, "cpu", "eager")
    limited, free = [], []
    for seed in range(len(stems)):
        image, target = random_pair(seed, 64, 96, [*SIX_IDS, 255], block=8)
        # The likeliest of the six, from the scores of all eleven.
        logits = F.interpolate(segmenter.engine.logits(image[None]), image.shape[:2], mode="bilinear")
        limited.append((np.array(SIX_IDS)[logits[0, SIX_IDS].argmax(0).numpy()], target))
        free.append((segmenter.predict(image).labels, target))
    assert not np.array_equal(limited[0][0], free[0][0])
    for scores, pairs in [
        (result.scores, limited),
        (result.free, free),
        (result.places["Boston"], limited[::2]),
        (result.places["London"], limited[1:2]),
    ]:
        assert scores is not None
        ious, accuracy = plain_scores(pairs, 11)
        assert list(scores.per_class) == SIX
        assert scores.pictures == len(pairs)
        # Rounding may turn the odd pixel whose two likeliest classes are level.
        assert list(scores.per_class.values()) == pytest.approx([ious[k] for k in SIX_IDS], abs=1e-3)
        assert scores.miou == pytest.approx(np.mean([ious[k] for k in SIX_IDS]), abs=1e-3)
        assert scores.pixel_accuracy == pytest.approx(accuracy, abs=1e-3)
    assert set(result.places) == {"Boston", "London"}
    assert "classes" not in result.command
    assert result.free.pixel_accuracy is not None
    assert result.confusion["Road"]["Road"] == pytest.approx(
        np.mean(np.concatenate([(a == 3)[t == 3] for a, t in free])), abs=1e-3
    )


def test_another_set_is_scored_beside_by_the_same_rule(tmp_path: Path, tiny_weights: Path) -> None:
    for root, values in ((tmp_path / "labelmefacade", [*SIX_IDS, 255]), (tmp_path / "camvid", [*range(12)])):
        write_camvid(root, "test", "static_boston__a", *random_pair(1, 64, 96, values, block=8))
    both = evaluate(tmp_path / "labelmefacade", "test", tiny_weights, "cpu", beside=tmp_path / "camvid")
    alone = evaluate(tmp_path / "camvid", "test", tiny_weights, "cpu", classes=SIX)
    assert both.beside is not None
    assert (both.beside.scores, both.beside.free) == (alone.scores, alone.free)
    assert both.command.endswith("--weights tiny --beside PATH/camvid")
    head = both.table().split("\n\n")[2].splitlines()[0]
    columns = ["IoU %", "boundary IoU %", "free IoU %", "camvid IoU %", "camvid free IoU %"]
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["class", *columns]
    assert json.loads(both.to_json())["beside"]["dataset"] == "camvid"


def test_labelmefacade_beside_another_set_limits_both(tmp_path: Path, tiny_weights: Path) -> None:
    for root, values in ((tmp_path / "labelmefacade", [*SIX_IDS, 255]), (tmp_path / "camvid", [*range(12)])):
        write_camvid(root, "test", "static_boston__a", *random_pair(1, 64, 96, values, block=8))
    both = evaluate(tmp_path / "camvid", "test", tiny_weights, "cpu", beside=tmp_path / "labelmefacade")
    one, other = (evaluate(tmp_path / name, "test", tiny_weights, "cpu", classes=SIX) for name in ("camvid", NAME))
    assert both.beside is not None
    assert (both.scores, both.free) == (one.scores, one.free)
    assert (both.beside.scores, both.beside.free) == (other.scores, other.free)
    assert both.command.endswith(f"--weights tiny --classes {','.join(SIX)} --beside PATH/labelmefacade")
    assert "labelmefacade IoU %" in both.table()


def test_what_is_beside_is_looked_up_before_the_work(
    tree: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "EagerEngine", CountingEngine)
    CountingEngine.runs = 0
    write_camvid(tmp_path / "other", "val", "x", *random_pair(0, 64, 96, [0]))
    with pytest.raises(DataError, match="no split 'test'; choose from val"):
        evaluate(tree, "test", tiny_weights, "cpu", beside=tmp_path / "other")
    write_cityscapes(tmp_path / "city", "test", "lindau", "000000_000019", *random_pair(0, 64, 96, [7, 8]))
    with pytest.raises(ConfigError, match=r"tiny name the classes of CamVid .*city is labelled with those of City"):
        evaluate(tree, "test", tiny_weights, "cpu", beside=tmp_path / "city")
    assert CountingEngine.runs == 0


@pytest.mark.parametrize("size", [(24, 60), (40, 80_000)])
def test_a_picture_of_no_use_is_named_before_the_work(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(engines, "EagerEngine", CountingEngine)
    CountingEngine.runs = 0
    for stem, shape in (("a", (64, 96)), ("b", size)):
        write_camvid(tmp_path, "test", stem, *random_pair(0, *shape, [0]))
    for judge in (evaluate, calibrate):
        with pytest.raises(ImageError, match=r"test.b\.png (is 60x24, too small|would run at 80000x40, more)"):
            judge(tmp_path, "test", tiny_weights, "cpu")
    assert CountingEngine.runs == 0


class CountingEngine(EagerEngine):
    """Counts the runs of the network."""

    runs = 0

    def logits(self, pictures: np.ndarray) -> torch.Tensor:
        CountingEngine.runs += 1
        return super().logits(pictures)


def test_one_run_of_the_network_gives_both_answers(
    tree: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "EagerEngine", CountingEngine)
    CountingEngine.runs = 0
    assert evaluate(tree, "test", tiny_weights, "cpu", classes=["Road", "Car"]).free is not None
    assert CountingEngine.runs == 3


def test_confusion_precision_boundaries_and_calibration_agree_with_plain_counts(
    tree: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    weights = load_weights(tiny_weights)
    save_weights(tmp_path / "warm", weights.build(), CAMVID, working_short_side=360, temperature=2.0)
    warm = evaluate(tree, "test", tmp_path / "warm.safetensors", "cpu")
    assert warm.scores == evaluate(tree, "test", tiny_weights, "cpu").scores  # a temperature changes no label
    segmenter = Segmenter.from_pretrained(tmp_path / "warm.safetensors", "cpu", "eager")
    answers = []
    for seed, (height, width) in enumerate([(48, 64), (40, 64), (96, 128)]):
        image, target = random_pair(seed, height, width, [*range(12)], block=8)
        answer = segmenter.predict(image)
        answers.append((answer.labels.ravel(), answer.confidence.ravel(), target.ravel()))
    labels, confidence, target = map(np.concatenate, zip(*answers, strict=True))
    for k, name in enumerate(CAMVID.names):
        assert list(warm.confusion[name].values()) == pytest.approx(
            [np.mean(labels[target == k] == j) for j in range(11)]
        )
        called = (labels == k) & (target != 11)
        assert warm.precision[name] == (pytest.approx(np.mean(target[called] == k)) if called.any() else None)
    confidence, right = confidence[target != 11], (labels == target)[target != 11]
    ece = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert warm.reliability["ece"] == pytest.approx(ece, abs=1e-4)
    assert sum(warm.reliability["pixels"]) == len(confidence)
    assert warm.uncalibrated["ece"] != pytest.approx(ece, abs=1e-3)


def test_any_set_can_be_scored_on_some_classes(tree: Path, tiny_weights: Path) -> None:
    some = evaluate(tree, "test", tiny_weights, "cpu", classes=["Car", "Road"])
    assert list(some.scores.per_class) == ["Road", "Car"]
    assert some.command.endswith("--weights tiny --classes Car,Road")
    assert some.free is not None
    assert "limited" in some.table()
    assert "| free IoU % |" in some.table()
    with pytest.raises(ConfigError, match="have no class 'Lorry'; choose from Sky, Building"):
        evaluate(tree, "test", tiny_weights, "cpu", classes=["Road", "Lorry"])


def test_all_classes_are_the_free_answer(tree: Path, tiny_weights: Path, result: Evaluation) -> None:
    everything = evaluate(tree, "test", tiny_weights, "cpu", classes=CAMVID.names)
    assert everything.scores == everything.free == result.scores


@pytest.mark.parametrize(
    ("stem", "city"),
    [
        ("05june05_static_street_boston__p1010736", "Boston"),
        ("static_outdoor_street_city_cambridge_uk__img_1", "Cambridge, UK"),
        ("static_street_statacenter_cambridge_outdoor_2005__img_1", "Cambridge, US"),
        ("static_street_outdoor_palma_mallorca_spain__img_1", "Palma"),
        ("static_coast_palafrugel_outdoor_spain__img_1", "other or unknown"),
        ("static_outdoor_mallorca_spain__boston", "Mallorca"),
    ],
)
def test_city_of_a_labelmefacade_picture(stem: str, city: str) -> None:
    assert city_of(stem) == city


KNOWN = Evaluation(
    dataset="camvid",
    split="test",
    weights="tiny",
    sha256="0123456789abcdef",
    resolution=(360, 480),
    mixed_sizes=False,
    device="cpu",
    engine="eager",
    date="2025-01-31",
    command="ecmnet evaluate PATH/camvid --split test --weights tiny",
    scores=Scores(3, 0.5, 0.875, {"Sky": 0.75, "Road": 0.25, "Traffic light": None}),
    places={
        "A": Scores(1, 1.0, 1.0, {"Sky": 1.0, "Road": None, "Traffic light": None}),
        "B": Scores(2, 0.125, 0.8, {"Sky": 0.25, "Road": 0.0, "Traffic light": None}),
    },
    boundary_iou={"Sky": 0.5, "Road": 0.125, "Traffic light": None},
    confusion={
        "Sky": {"Sky": 0.9, "Road": 0.095, "Traffic light": 0.005},
        "Road": {"Sky": 0.0, "Road": 1.0, "Traffic light": 0.0},
    },
    precision={"Sky": 1.0, "Road": 0.96, "Traffic light": None},
    temperature=1.5,
    reliability={"ece": 0.0125},
    uncalibrated={"ece": 0.0625},
)


def test_table() -> None:
    assert (
        KNOWN.table()
        == """\
`ecmnet evaluate PATH/camvid --split test --weights tiny`

camvid test, 3 pictures, 480x360, single scale, no flip; weights tiny (sha256 0123456789ab), eager on cpu, 2025-01-31; \
boundaries 0.5 % of the diagonal wide

| class          |     IoU % | boundary IoU % |
| -------------- | --------: | -------------: |
| Sky            |     75.00 |          50.00 |
| Road           |     25.00 |          12.50 |
| Traffic light  |         - |              - |
| **mIoU**       | **50.00** |      **31.25** |
| pixel accuracy |     87.50 |              - |

Calibration: ECE 1.25 % at the weights' temperature 1.500, 6.25 % at temperature 1

| place | pictures | mIoU % | accuracy % |    Sky | Road | Traffic light |
| ----- | -------: | -----: | ---------: | -----: | ---: | ------------: |
| A     |        1 | 100.00 |     100.00 | 100.00 |    - |             - |
| B     |        2 |  12.50 |      80.00 |  25.00 | 0.00 |             - |"""
    )


def test_table_of_weights_without_a_temperature() -> None:
    uncalibrated = replace(KNOWN, temperature=1.0, reliability=KNOWN.uncalibrated)
    assert "\n\nCalibration: ECE 6.25 %, uncalibrated (temperature 1)\n\n" in uncalibrated.table()


def test_failures() -> None:
    assert (
        KNOWN.failures()
        == """\
- **Sky**: 90 % found; called 10 % Road. Of what is called Sky, 100 % is.
- **Road**: 100 % found. Of what is called Road, 96 % is."""
    )


def test_json_is_whole_and_plain() -> None:
    values = json.loads(KNOWN.to_json())
    assert values["scores"]["per_class"] == {"Sky": 0.75, "Road": 0.25, "Traffic light": None}
    assert values["places"]["B"]["miou"] == 0.125
    assert values["resolution"] == [360, 480]


def test_metric_is_what_the_weights_keep(tmp_path: Path, tiny_weights: Path, result: Evaluation) -> None:
    weights = load_weights(tiny_weights)
    save_weights(tmp_path / "kept", weights.build(), CAMVID, working_short_side=360, metrics=[result.metric()])
    (kept,) = load_weights(tmp_path / "kept.safetensors").metrics
    assert kept == result.metric()
    assert set(kept) >= {"dataset", "split", "resolution", "pictures", "miou", "per_class", "date", "command"}
    assert kept["boundary_miou"] == result.boundary_miou
    assert kept["ece"] == result.reliability["ece"]


@pytest.mark.long
@pytest.mark.parametrize(("engine", "points"), [("eager", 0.01), ("auto", 0.1)])
@pytest.mark.parametrize("name", available_weights())
def test_shipped_weights_score_what_their_card_says(camvid: Path, name: str, engine: str, points: float) -> None:
    """By a count that shares no code with the project but the Segmenter; the fastest engine may round."""
    segmenter = Segmenter.from_pretrained(name, engine=engine)
    command = f"ecmnet evaluate PATH/camvid --split test --weights {name}"
    cards = [m for m in segmenter.weights.metrics if m["command"] == command]
    assert len(cards) == 1, f"the card lacks its score: {command} --record"
    card = cards[0]
    pairs = []
    for file in sorted((camvid / "test").iterdir()):
        target = cv2.imread(str(camvid / "testannot" / f"{file.stem}.png"), cv2.IMREAD_UNCHANGED)
        target[target == 11] = 255
        image = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        pairs.append((segmenter.predict(image).labels, target))
    ious, _ = plain_scores(pairs, 11)
    assert len(pairs) == card["pictures"] == 233
    assert 100 * np.mean(ious) == pytest.approx(100 * card["miou"], abs=points)
    assert [100 * iou for iou in ious] == pytest.approx([100 * v for v in card["per_class"].values()], abs=5 * points)
