from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecmnet_app.core import Segmenter
from ecmnet_app.core.engines import answer, answer_from_logits, available_devices, available_engines, choose_device


@pytest.fixture(params=["opencv", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers on a CPU, and what does so on other devices, made to run on this one."""
    if request.param == "torch":
        monkeypatch.setattr(answer, "_by_opencv", answer._by_torch)


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(1, 150), st.integers(1, 150))
SHARED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("way")
@given(half=SIZES[0], size=SIZES[1], band_values=st.integers(1, 5000), seed=st.integers(0, 2**32 - 1))
@SHARED
def test_bands_and_threads_leave_no_seam(
    half: tuple[int, int], size: tuple[int, int], band_values: int, seed: int
) -> None:
    logits = 4 * torch.randn(2, 5, *half, generator=torch.Generator().manual_seed(seed))
    whole = F.interpolate(logits.double(), size, mode="bilinear", align_corners=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "BAND_VALUES", band_values)
        labels, confidence = answer_from_logits(logits, size, 1.3)
    shares = F.softmax(whole / 1.3, dim=1)
    np.testing.assert_allclose(confidence, shares.max(dim=1).values.numpy(), atol=1e-4)
    of_label = shares.gather(1, torch.from_numpy(labels).long()[:, None])[:, 0]
    np.testing.assert_allclose(confidence, of_label.numpy(), atol=1e-4)  # or another of equal share


@pytest.mark.usefixtures("way")
@given(half=SIZES[0], size=SIZES[1], batch=st.integers(2, 4), band_values=st.integers(1, 5000), seed=st.integers(0, 99))
@SHARED
def test_an_answer_has_the_same_bits_alone_and_in_a_batch(
    half: tuple[int, int], size: tuple[int, int], batch: int, band_values: int, seed: int
) -> None:
    logits = 4 * torch.randn(batch, 5, *half, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "BAND_VALUES", band_values)
        together = answer_from_logits(logits, size, 1.3)
        alone = [answer_from_logits(one[None], size, 1.3) for one in logits]
    for kind in (0, 1):
        assert together[kind].tobytes() == b"".join(one[kind].tobytes() for one in alone)


@pytest.mark.parametrize(("half", "size"), [((48, 64), (96, 128)), ((49, 66), (97, 131)), ((60, 80), (391, 513))])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.usefixtures("way")
def test_the_answer_is_the_softmax_of_interpolated_logits(
    half: tuple[int, int], size: tuple[int, int], temperature: float
) -> None:
    logits = 3 * torch.randn(2, 7, *half, generator=torch.Generator().manual_seed(1))
    whole = F.interpolate(logits.double(), size, mode="bilinear", align_corners=False)
    top, labels = F.softmax(whole / temperature, dim=1).max(dim=1)
    found_labels, found_confidence = answer_from_logits(logits, size, temperature)
    assert (found_labels == labels.numpy()).mean() > 0.9999
    np.testing.assert_allclose(found_confidence, top.numpy(), atol=1e-4)


@pytest.mark.usefixtures("way")
def test_logits_that_are_certain_give_a_confidence_of_one() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1)
    labels, confidence = answer_from_logits(logits, (4, 4), 0.01)
    assert (labels == 0).all()
    assert (confidence == 1).all()


@pytest.mark.usefixtures("way")
def test_logits_that_are_level_give_the_first_class_and_its_share() -> None:
    labels, confidence = answer_from_logits(torch.zeros(1, 4, 2, 2), (3, 5), 1.0)
    assert (labels == 0).all()
    assert (confidence == 0.25).all()


def test_an_engine_answers_at_half_resolution(
    segmenter: Segmenter, make_picture: Callable[..., NDArray[np.uint8]]
) -> None:
    assert segmenter.engine.logits(make_picture(41, 52)[None]).shape == (1, 11, 21, 26)


def test_every_device_listed_can_be_chosen() -> None:
    for name in available_devices():
        device = choose_device(name)
        assert str(device) == name
        assert available_engines(device)
    assert str(choose_device("auto")) == available_devices()[0]
