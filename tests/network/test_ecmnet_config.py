"""ECMNetConfig: its trip through JSON and the values it refuses."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ecmnet_app.network import TABLE_1, ECMNetConfig


@pytest.mark.parametrize("variant", TABLE_1)
def test_round_trip_through_json(variant: str):
    config = ECMNetConfig.named(variant, num_classes=19)
    again = ECMNetConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again.num_classes == 19


def test_the_default_is_the_papers_full_network():
    assert ECMNetConfig() == ECMNetConfig.named("ecmnet") == ECMNetConfig.named("C3")
    assert len({ECMNetConfig.named(v) for v in TABLE_1}) == len(TABLE_1) - 1


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ECMNetConfig().num_classes = 3  # type: ignore[misc]


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(ValueError, match=r"no variant 'D1'; choose one of baseline, A1, .*, residual"):
        ECMNetConfig.named("D1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes must be 1 to 255, not 0"),
        ({"num_classes": 256}, "num_classes must be 1 to 255, not 256"),
        ({"num_classes": 11.5}, "num_classes must be a whole number, not 11.5"),
        ({"num_classes": "11"}, "num_classes must be a whole number, not '11'"),
        ({"long_connections": 4}, "long_connections must be 0 to 3, not 4"),
        ({"msau": "yes"}, "msau must be true or false, not 'yes'"),
        ({"long_connections": 0}, "msau needs at least one long connection"),
        ({"block": "resnet"}, "block must be one of .*'edab', 'residual'.*, not 'resnet'"),
        ({"state_size": 0}, "state_size must be at least 1, not 0"),
        ({"expand": -1}, "expand must be at least 1, not -1"),
        ({"widths": [64, 128]}, "widths must name three stages, not 2"),
        ({"widths": [64, 127, 16]}, "widths must be even and at least 4, not 127"),
        ({"widths": [64, 128.0, 16]}, "widths must be even and at least 4, not 128.0"),
        ({"widths": [32, 128, 16]}, "widths must grow from the stem to 1/8"),
        ({"widths": 64}, "a field has the wrong type"),
        ({"widths": [64, 128, 32]}, "widths\\[2\\] must equal decoder_width"),
        ({"dilations": [[1], [1]]}, "dilations must name three stages, not 2"),
        ({"dilations": [[1], [], [1]]}, "dilations must be whole, positive and not empty"),
        ({"dilations": [[1], [0], [1]]}, "dilations must be whole, positive and not empty"),
        ({"decoder_dilations": ["2"]}, "dilations must be whole, positive and not empty"),
        ({"depth": 3}, "unknown field 'depth'; the fields are block, "),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"ECMNetConfig: .*{message}"):
        ECMNetConfig.from_dict({**ECMNetConfig().to_dict(), **changes})


def test_a_missing_field_is_named():
    values = ECMNetConfig().to_dict()
    del values["widths"]
    with pytest.raises(ValueError, match="field 'widths' is missing"):
        ECMNetConfig.from_dict(values)
