"""Both layouts on generated trees, the errors people meet, and the real CamVid against another decoder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from trees import random_pair, write_camvid, write_cityscapes, write_png

from ecmnet_app.core.labels import CAMVID, CITYSCAPES
from ecmnet_app.errors import DataError, ImageError
from ecmnet_app.training.datasets import drive_of, find_samples, load_dataset


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five pictures of three drives and two splits, two of them smaller than the rest."""
    for seed, (split, stem, height, width) in enumerate(
        [
            ("train", "A1_001", 40, 48),
            ("train", "A1_002", 33, 48),
            ("train", "B2_001", 40, 35),
            ("val", "C3_001", 40, 48),
            ("val", "C3_002", 40, 48),
        ]
    ):
        write_camvid(tmp_path, split, stem, *random_pair(seed, height, width, [*range(12), 255]))
    return tmp_path


def test_pixels_labels_and_padding(tree: Path) -> None:
    data = load_dataset(tree, "train")
    assert (data.name, data.label_set, len(data)) == (tree.name, CAMVID, 3)
    assert data.stems == ("A1_001", "A1_002", "B2_001")
    assert data.images.shape == (3, 3, 40, 48)
    assert data.labels.shape == (3, 40, 48)
    assert (data.images.dtype, data.labels.dtype, data.sizes.dtype) == (torch.uint8, torch.uint8, torch.int32)
    assert data.sizes.tolist() == [[40, 48], [33, 48], [40, 35]]
    for index, (height, width) in enumerate(data.sizes.tolist()):
        image, labels = random_pair(index, height, width, [*range(12), 255])
        labels[labels == 11] = 255
        expected_image = np.zeros((40, 48, 3), dtype=np.uint8)
        expected_labels = np.full((40, 48), 255, dtype=np.uint8)
        expected_image[:height, :width] = image
        expected_labels[:height, :width] = labels
        assert np.array_equal(data.images[index].permute(1, 2, 0).numpy(), expected_image)
        assert np.array_equal(data.labels[index].numpy(), expected_labels)


def test_splits_join_and_drives_select(tree: Path) -> None:
    def stems(split: str, **choice: str) -> tuple[str, ...]:
        return load_dataset(tree, split, **choice).stems

    assert stems("train+val") == ("A1_001", "A1_002", "B2_001", "C3_001", "C3_002")
    assert stems("val+train") == ("C3_001", "C3_002", "A1_001", "A1_002", "B2_001")
    assert stems("train+val", leave_out="A1") == ("B2_001", "C3_001", "C3_002")
    assert stems("train+val", only="A1,C3_002") == ("A1_001", "A1_002", "C3_002")
    assert stems("train+val", only="A1", leave_out="A1_002") == ("A1_001",)


def test_palette_labels_are_read_as_ids(tmp_path: Path) -> None:
    image, labels = random_pair(0, 32, 32, list(range(11)))
    write_png(tmp_path / "train" / "x.png", image)
    (tmp_path / "trainannot").mkdir()
    picture = Image.fromarray(labels)
    picture.putpalette(CAMVID.colors.tobytes())
    picture.save(tmp_path / "trainannot" / "x.png")
    assert np.array_equal(load_dataset(tmp_path, "train").labels[0].numpy(), labels)


def test_jpg_and_webp_pictures_are_found(tmp_path: Path) -> None:
    image, labels = random_pair(0, 32, 32, [3])
    for stem, suffix in [("a", "jpg"), ("b", "webp"), ("c", "PNG"), ("d", "txt")]:
        write_camvid(tmp_path, "train", stem, image, labels)
        (tmp_path / "train" / f"{stem}.png").unlink()
        if suffix == "txt":
            (tmp_path / "train" / "d.txt").write_text("a note")
        else:
            Image.fromarray(image).save(tmp_path / "train" / f"{stem}.{suffix}")
    assert load_dataset(tmp_path, "train").stems == ("a", "b", "c")


def test_max_side_shrinks_pictures_by_area_and_labels_by_nearest(tmp_path: Path) -> None:
    image, labels = random_pair(0, 64, 96, list(range(11)), block=2)
    write_camvid(tmp_path, "train", "large", image, labels)
    write_camvid(tmp_path, "train", "small", *random_pair(1, 32, 48, [0]))
    data = load_dataset(tmp_path, "train", max_side=48)
    assert data.sizes.tolist() == [[32, 48], [32, 48]]
    means = image.reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(data.images[0].permute(1, 2, 0).numpy() - means).max() <= 0.5
    assert np.array_equal(data.labels[0].numpy(), labels[::2, ::2])
    assert np.array_equal(data.images[1].permute(1, 2, 0).numpy(), random_pair(1, 32, 48, [0])[0])


def test_short_side_shrinks_what_is_larger(tmp_path: Path) -> None:
    image, labels = random_pair(0, 64, 96, list(range(11)), block=2)
    write_camvid(tmp_path, "train", "large", image, labels)
    write_camvid(tmp_path, "train", "long", *random_pair(1, 33, 200, [0]))
    write_camvid(tmp_path, "train", "small", *random_pair(1, 32, 48, [0]))
    data = load_dataset(tmp_path, "train", short_side=32)
    assert data.sizes.tolist() == [[32, 48], [32, 194], [32, 48]]
    means = image.reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(data.images[0, :, :, :48].permute(1, 2, 0).numpy() - means).max() <= 0.5
    assert np.array_equal(data.labels[0, :, :48].numpy(), labels[::2, ::2])
    assert load_dataset(tmp_path, "train", short_side=40, max_side=194).sizes.tolist() == [
        [40, 60],
        [32, 194],
        [32, 48],
    ]


# Written out from the table of cityscapesScripts (name, id, train id) rather than from our constant.
OFFICIAL_TRAIN_IDS = {
    **dict.fromkeys([0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255], 255),
    7: 0,  # road
    8: 1,  # sidewalk
    11: 2,  # building
    12: 3,  # wall
    13: 4,  # fence
    17: 5,  # pole
    19: 6,  # traffic light
    20: 7,  # traffic sign
    21: 8,  # vegetation
    22: 9,  # terrain
    23: 10,  # sky
    24: 11,  # person
    25: 12,  # rider
    26: 13,  # car
    27: 14,  # truck
    28: 15,  # bus
    31: 16,  # train
    32: 17,  # motorcycle
    33: 18,  # bicycle
}


def test_cityscapes(tmp_path: Path) -> None:
    values = sorted(OFFICIAL_TRAIN_IDS)
    names = [("aachen", "000000_000019"), ("aachen", "000001_000019"), ("bochum", "000000_000313")]
    for seed, (city, stem) in enumerate(names):
        write_cityscapes(tmp_path, "train", city, stem, *random_pair(seed, 40, 64, values))
    write_cityscapes(tmp_path, "val", "lindau", "000000_000019", *random_pair(3, 40, 64, values))
    data = load_dataset(tmp_path, "train+val")
    assert data.label_set == CITYSCAPES
    assert data.stems == (*(f"{city}_{stem}" for city, stem in names), "lindau_000000_000019")
    for index in range(4):
        image, label_ids = random_pair(index, 40, 64, values)
        assert np.array_equal(data.images[index].permute(1, 2, 0).numpy(), image)
        assert np.array_equal(data.labels[index].numpy(), np.vectorize(OFFICIAL_TRAIN_IDS.get)(label_ids))
    assert len(load_dataset(tmp_path, "train", leave_out="aachen")) == 1
    with pytest.raises(DataError, match="no split 'test'; choose from train, val"):
        load_dataset(tmp_path, "test")


def test_drive() -> None:
    assert drive_of("0001TP_006690") == "0001TP"
    assert drive_of("plain") == "plain"


def test_what_is_missing_is_named(tree: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_dataset(tree / "nowhere", "train")
    with pytest.raises(DataError, match="no layout that is known: expected <split>/ beside"):
        load_dataset(tree / "train", "train")
    with pytest.raises(DataError, match="no split 'test'; choose from train, val"):
        load_dataset(tree, "train+test")
    with pytest.raises(DataError, match="only: no picture's name starts with 'D4'; names start with A1, B2"):
        load_dataset(tree, "train", only="A1,D4")
    with pytest.raises(DataError, match="leave_out: no picture's name starts with ''"):
        load_dataset(tree, "train", leave_out="A1,")
    with pytest.raises(DataError, match="leave no picture"):
        load_dataset(tree, "val", leave_out="C3")


def test_pictures_without_labels(tree: Path, tmp_path: Path) -> None:
    """Of a labelled set, and of folders that have no labels at all; never a label of theirs."""
    labelled = load_dataset(tree, "train+val")
    pictures = load_dataset(tree, "train+val", labels=False)
    assert torch.equal(pictures.images, labelled.images)
    assert torch.equal(pictures.sizes, labelled.sizes)
    assert (pictures.labels == 255).all()

    folder = tmp_path / "collected"
    image, _ = random_pair(7, 33, 50, [0])
    write_png(folder / "here" / "a.png", image)
    turned = Image.fromarray(image)
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright: to be turned right by 90 degrees
    turned.save(folder / "here" / "b.png", exif=exif)
    write_png(folder / "there" / "c.png", np.full((70, 200, 3), 9, np.uint8))
    data = load_dataset(folder, "here+there", labels=False, max_side=100)
    assert data.stems == ("a", "b", "c")
    assert data.sizes.tolist() == [[33, 50], [50, 33], [35, 100]]
    assert np.array_equal(data.images[0, :, :33, :50].permute(1, 2, 0).numpy(), image)
    assert np.array_equal(data.images[1, :, :50, :33].permute(1, 2, 0).numpy(), np.rot90(image, -1))
    assert (data.images[2, :, :35, :100] == 9).all()
    assert (data.labels == 255).all()
    with pytest.raises(DataError, match="no split 'nowhere'; choose from here, there"):
        load_dataset(folder, "nowhere", labels=False)
    with pytest.raises(DataError, match="no layout that is known"):
        load_dataset(folder, "here")


def test_empty_split(tree: Path) -> None:
    (tree / "test").mkdir()
    (tree / "testannot").mkdir()
    with pytest.raises(DataError, match=r"split 'test' of .* is empty; put its pictures there"):
        load_dataset(tree, "train+test")


def test_picture_without_labels(tree: Path) -> None:
    (tree / "trainannot" / "A1_002.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures .*A1_002\.png needs .*trainannot.A1_002\.png"):
        find_samples(tree, "train")


def test_labels_of_another_size(tree: Path) -> None:
    write_png(tree / "trainannot" / "A1_001.png", np.zeros((40, 47), dtype=np.uint8))
    with pytest.raises(DataError, match=r"is 48x40 but its labels .* are 47x40"):
        load_dataset(tree, "train")


def test_the_orientation_of_a_label_file_counts_nowhere(tree: Path) -> None:
    """Labels are read as they are stored, so that the sizes in memory must be those as well."""
    before = load_dataset(tree, "train")
    path = tree / "trainannot" / "A1_001.png"
    with Image.open(path) as labels:
        exif = labels.getexif()
        exif[0x0112] = 6
        labels.copy().save(path, exif=exif)
    after = load_dataset(tree, "train")
    assert torch.equal(after.sizes, before.sizes)
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.labels, before.labels)


def test_a_picture_too_small_for_the_network_is_named(tree: Path) -> None:
    write_camvid(tree, "train", "B2_002", *random_pair(0, 40, 31, [0]))
    with pytest.raises(DataError, match=r"train.B2_002\.png has 31x40 pixels .* fewer than the 32x32"):
        load_dataset(tree, "train")


def test_foreign_ids(tree: Path) -> None:
    labels = np.zeros((40, 48), dtype=np.uint8)
    labels[0, :3] = 12, 254, 13
    write_png(tree / "trainannot" / "A1_001.png", labels)
    with pytest.raises(DataError, match=r"A1_001\.png holds 12, 13, 254, .*no ids of CamVid \(0 to 10, 255 = ignore\)"):
        load_dataset(tree, "train")


def test_labels_in_colour(tree: Path) -> None:
    write_png(tree / "trainannot" / "A1_001.png", np.zeros((40, 48, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="pixel format RGB; labels must be one channel"):
        load_dataset(tree, "train")


def test_damaged_files(tree: Path) -> None:
    whole = (tree / "trainannot" / "A1_001.png").read_bytes()
    (tree / "trainannot" / "A1_001.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"trainannot.A1_001\.png cannot be read"):
        load_dataset(tree, "train")
    (tree / "trainannot" / "A1_001.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"trainannot.A1_001\.png cannot be read"):
        load_dataset(tree, "train")
    (tree / "trainannot" / "A1_001.png").write_bytes(whole)
    (tree / "train" / "A1_001.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"train.A1_001\.png"):
        load_dataset(tree, "train")


def test_real_camvid_counts_and_drives(camvid: Path) -> None:
    def count(split: str, **choice: str) -> int:
        return len(find_samples(camvid, split, **choice).samples)

    assert [count(split) for split in ("train", "val", "test", "train+val")] == [367, 101, 233, 468]
    drives = {drive: count("train", only=drive) for drive in ("0001TP", "0006R0", "0016E5")}
    assert drives == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert count("train", leave_out="0006R0") == 266
    assert (count("test", only="Seq05VD"), count("test", only="0001TP")) == (171, 62)


def test_real_camvid_pixels_equal_another_decoder(camvid: Path) -> None:
    # Test pictures are lossless WebP, so every decoder must agree to the last bit.
    data = load_dataset(camvid, "test", only="0001TP_0088,Seq05VD_f00")
    assert len(data) >= 8
    assert data.images.shape[1:] == (3, 360, 480)
    for index, stem in enumerate(data.stems):
        bgr = cv2.imread(str(camvid / "test" / f"{stem}.webp"), cv2.IMREAD_COLOR)
        labels = cv2.imread(str(camvid / "testannot" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        labels[labels == 11] = 255
        assert np.array_equal(data.images[index].permute(1, 2, 0).numpy(), bgr[..., ::-1])
        assert np.array_equal(data.labels[index].numpy(), labels)
    assert set(data.labels.unique().tolist()) == {*range(11), 255}
