"""The folded network against the network that it was made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import random_net, with_norms_of_all_signs
from torch import Tensor, nn

from ecmnet_app.core.engines.folded import FoldedECMNet, fold
from ecmnet_app.core.weights import available_weights, load_weights
from ecmnet_app.network import TABLE_1, ECMNet, ECMNetConfig

SMALL = ECMNetConfig(
    stem_width=8, widths=(12, 20, 8), dilations=((2, 1), (1, 4, 2), (1, 2, 8)), decoder_width=8, decoder_dilations=(2,)
)


def half_logits(net: ECMNet, x: Tensor) -> Tensor:
    return net(x, size=((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2))


def assert_equal(net: ECMNet, x: Tensor) -> None:
    with torch.inference_mode():
        found, wanted = fold(net)(x), half_logits(net, x)
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


@pytest.fixture(scope="module")
def small() -> ECMNet:
    return with_norms_of_all_signs(random_net(SMALL))


@given(
    size=st.tuples(st.integers(32, 90), st.integers(32, 90)), batch=st.integers(1, 3), seed=st.integers(0, 2**32 - 1)
)
@settings(deadline=None, max_examples=20)
def test_equal_on_any_size(small: ECMNet, size: tuple[int, int], batch: int, seed: int) -> None:
    assert_equal(small, torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("variant", [*TABLE_1, "another width", "a last stage that grows"])
def test_equal_in_every_variant(variant: str) -> None:
    if variant == "another width":
        config = replace(SMALL, ffm=False, widths=(12, 20, 14))
    elif variant == "a last stage that grows":
        config = replace(SMALL, stem_width=4, widths=(6, 10, 12), decoder_width=12)
    else:
        small = {name: getattr(SMALL, name) for name in ("stem_width", "widths", "dilations", "decoder_width")}
        config = replace(ECMNetConfig.named(variant), **small)
    net = with_norms_of_all_signs(random_net(config))
    assert_equal(net, torch.randn(2, 3, 49, 70, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", available_weights())
def test_equal_on_the_weights_that_ship(name: str) -> None:
    assert_equal(load_weights(name).build(), torch.randn(1, 3, 97, 131, generator=torch.Generator().manual_seed(0)))


def test_nothing_is_left_of_what_was_folded(small: ECMNet) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    folded = fold(small)
    assert isinstance(folded, FoldedECMNet)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
