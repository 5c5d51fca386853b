from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmnet_app.core.labels import CAMVID, CITYSCAPES, UNLABELLED, UNLABELLED_NAME, Label, LabelSet
from ecmnet_app.errors import ConfigError

COLORS = st.tuples(*[st.integers(0, 255)] * 3)


@given(
    st.lists(st.text(min_size=1).filter(lambda name: name != UNLABELLED_NAME), min_size=1, max_size=40, unique=True),
    st.data(),
)
def test_a_trip_through_json_changes_nothing(names: list[str], data: st.DataObject) -> None:
    labels = tuple(Label(i, name, data.draw(COLORS)) for i, name in enumerate(names))
    label_set = LabelSet("any", labels)
    assert LabelSet.from_dict(json.loads(json.dumps(label_set.to_dict()))) == label_set


def test_camvid_has_the_classes_and_colours_of_segnet() -> None:
    assert len(CAMVID) == 11
    assert CAMVID.names[:4] == ("Sky", "Building", "Pole", "Road")
    assert CAMVID.colors[4].tolist() == [60, 40, 222]
    assert CAMVID.colors[10].tolist() == [0, 128, 192]


def test_cityscapes_has_the_19_train_ids_in_order() -> None:
    assert len(CITYSCAPES) == 19
    assert [CITYSCAPES.names[i] for i in (0, 10, 13, 18)] == ["Road", "Sky", "Car", "Bicycle"]


@pytest.mark.parametrize("label_set", [CAMVID, CITYSCAPES], ids=lambda s: s.name)
def test_colours_tell_classes_apart_from_each_other_and_from_unlabelled(label_set: LabelSet) -> None:
    palette = label_set.palette
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert np.array_equal(palette[: len(label_set)], label_set.colors)
    *labels, last = label_set.with_unlabelled
    assert tuple(labels) == label_set.labels
    assert (last.id, last.name, last.color) == (UNLABELLED, "Unlabelled", tuple(palette[UNLABELLED]))
    used = [tuple(palette[i]) for i in [*range(len(label_set)), UNLABELLED]]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "1 to 255 labels, not 0"),
        ([{"id": 1, "name": "Road", "color": [0, 0, 0]}], "in order"),
        ([{"id": 0, "name": "", "color": [0, 0, 0]}], "empty or taken"),
        ([{"id": 0, "name": "Unlabelled", "color": [0, 0, 0]}], "empty or taken"),
        ([{"id": 0, "name": "Road", "color": [0, 0, 256]}], "0 to 255"),
        ([{"id": 0, "name": "Road", "color": [0, 0]}], "three"),
        ([{"id": 0, "name": "Road", "color": [0.0, 0, 0]}], "0 to 255"),
        ([{"id": 0, "name": "Road"}], "color"),
        ([{"id": i, "name": "Road", "color": [0, 0, i]} for i in range(2)], "'Road', which is empty or taken"),
        ("Road", "label set is"),
        (None, "label set is"),
    ],
)
def test_what_cannot_be_a_label_set_is_refused_with_the_reason(labels: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LabelSet.from_dict({"name": "broken", "labels": labels})
