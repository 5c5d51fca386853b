"""The layer groups of the roofline: known answers of single groups, and sums that other counters confirm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ecmnet_app.network import ECMNetConfig
from ecmnet_app.network.audit import count
from ecmnet_app.network.traffic import GROUPS, LayerGroup, layer_groups


def by_name(groups: list[LayerGroup]) -> dict[str, LayerGroup]:
    return {group.name: group for group in groups}


@pytest.mark.parametrize("variant", ["C3", "C1", "baseline", "B2"])
def test_groups_add_up_to_the_audit(variant: str) -> None:
    config, size = replace(ECMNetConfig.named(variant), dilations=((2, 2), (2, 4), (2, 8))), (96, 133)
    groups = layer_groups(config, size)
    whole = count(config, size)
    assert sum(group.macs for group in groups) == whole.macs
    assert sum(group.parameters for group in groups) == whole.parameters


def test_what_groups_move_is_what_their_shapes_say() -> None:
    groups = by_name(layer_groups(ECMNetConfig(), (64, 128)))
    assert list(groups) == list(dict.fromkeys(GROUPS.values()))
    full = 64 * 128
    initial = groups["initial block"]
    # 3 bytes in; 32 channels written; read and written; read, and written at 1/2.
    assert (initial.picture_bytes, initial.values) == (3 * full, 4 * 32 * full + 32 * full // 4)
    # Blocks with gates over the map: in twice, out once.
    for name, blocks, channels, positions in (
        ("encoder, 1/4", 3, 64, full // 16),
        ("encoder, 1/8", 12, 128, full // 64),
        ("encoder, 1/16", 12, 16, full // 256),
    ):
        assert groups[name].values == 3 * blocks * channels * positions, name
    down = 32 * full // 4 + 2 * 64 * full // 16 + 2 * 128 * full // 64 + 16 * full // 256
    assert groups["downsampling"].values == down
    # 16 channels at 1/2 in; labels of one byte and confidence of four out.
    assert (groups["classes of pixels"].values, groups["classes of pixels"].picture_bytes) == (16 * full // 4, 5 * full)


def test_a_batch_moves_its_pictures_and_reads_the_parameters_once() -> None:
    group = LayerGroup("some", macs=7, values=100, parameters=30, picture_bytes=5)
    assert group.bytes_moved(2) == 100 * 2 + 30 * 2 + 5
    assert group.bytes_moved(4, batch=3) == 3 * (100 * 4 + 5) + 30 * 4
