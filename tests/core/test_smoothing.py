from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmnet_app.core import Segmenter
from ecmnet_app.core.engines import answer_from_logits
from ecmnet_app.core.smoothing import Smoother
from ecmnet_app.errors import ConfigError


def random_logits(seed: int, height: int = 48, width: int = 64, frames: int = 1) -> torch.Tensor:
    return 3 * torch.randn((frames, 5, height, width), generator=torch.Generator().manual_seed(seed))


def pictures(make_picture, frames: int = 1, seed: int = 0) -> np.ndarray:
    return np.stack([make_picture(96, 128, seed)] * frames)


def test_the_first_frame_and_a_full_weight_change_nothing(make_picture) -> None:
    """No answer either: neither labels nor confidence, though the logits are other ones."""
    for smoother in (Smoother(1.3), Smoother(1.3, newest=1.0)):
        for seed in range(1 if smoother._newest < 1 else 3):
            logits = random_logits(seed)
            smoothed = smoother.smooth(logits, pictures(make_picture))
            labels, confidence = answer_from_logits(smoothed, (96, 128), 1.3)
            expected_labels, expected_confidence = answer_from_logits(logits, (96, 128), 1.3)
            assert (labels != expected_labels).mean() < 1e-3  # of rounding, where two classes are level
            np.testing.assert_allclose(confidence, expected_confidence, atol=0.02)


def test_without_motion_it_is_the_exponential_average_of_probabilities(make_picture) -> None:
    smoother = Smoother(2.0, newest=0.25)
    logits = random_logits(0, frames=4)
    smoothed = torch.softmax(smoother.smooth(logits, pictures(make_picture, 4)) / 2.0, dim=1)
    expected = torch.softmax(logits[0] / 2.0, dim=0)
    for index in range(4):
        if index:
            expected = 0.25 * torch.softmax(logits[index] / 2.0, dim=0) + 0.75 * expected
        torch.testing.assert_close(smoothed[index], expected, atol=1e-4, rtol=1e-3)


def test_batches_are_streams(make_picture) -> None:
    """Frames one by one, or together, or by another smoother that was given the state: the same."""
    logits = random_logits(1, frames=6)
    frames = np.stack([np.roll(make_picture(96, 128), 2 * i, axis=1) for i in range(6)])
    together = Smoother(1.0).smooth(logits, frames)
    one, other = Smoother(1.0), Smoother(1.0)
    first = [one.smooth(logits[i : i + 1], frames[i : i + 1]) for i in range(3)]
    other.state = {key: value.copy() for key, value in one.state.items()}
    one.smooth(random_logits(9), frames[5:])  # what comes later changes no state that was taken
    rest = other.smooth(logits[3:], frames[3:])
    torch.testing.assert_close(torch.cat([*first, rest]), together, atol=0, rtol=0)


def test_the_past_moves_with_the_picture(make_picture) -> None:
    """A street that slides by 6 pixels a frame, and a network that is sure of it in the first frame and silent after:
    the labels slide along. An average that stands still would be wrong at every edge."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (24, 60, 3), dtype=np.uint8)
    wide = np.asarray(cv2.resize(coarse, (480, 192), interpolation=cv2.INTER_CUBIC), np.uint8)
    truth = (np.arange(240) // 16 % 2)[None].repeat(96, axis=0)  # stripes, at half resolution
    smoother = Smoother(1.0, newest=0.2)
    for index in range(5):
        shift = 6 * index
        picture = np.ascontiguousarray(wide[:, shift : shift + 256])
        now = truth[:, shift // 2 : shift // 2 + 128]
        sure = torch.from_numpy(np.stack([now == 0, now == 1]).astype(np.float32)) * 6
        smoothed = smoother.smooth(sure[None] if index == 0 else torch.zeros((1, 2, 96, 128)), picture[None])
        labels = smoothed[0].argmax(dim=0).numpy()
        inner = np.s_[8:-8, 8:-16]  # what slides in at the right was never seen
        assert (labels == now)[inner].mean() > 0.9


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (400, 16), (31, 64), (32, 32), (17, 19)])
def test_any_size_that_the_network_takes(size: tuple[int, int], make_picture) -> None:
    """OpenCV's flow is known to crash on small pictures."""
    smoother = Smoother(1.0)
    for seed in range(2):
        frame = make_picture(2 * size[0], 2 * size[1], seed)[None]
        assert smoother.smooth(random_logits(seed, *size), frame).isfinite().all()


def test_where_the_past_does_not_fit_it_does_not_count(make_picture) -> None:
    """A cut to another scene: the answer is the new frame's, at once."""
    smoother = Smoother(1.0, newest=0.1)
    smoother.smooth(random_logits(0), np.full((1, 96, 128, 3), 30, np.uint8))
    logits = random_logits(1)
    smoothed = smoother.smooth(logits, np.full((1, 96, 128, 3), 220, np.uint8))
    torch.testing.assert_close(torch.softmax(smoothed, dim=1), torch.softmax(logits, dim=1), atol=1e-4, rtol=1e-3)


def test_another_size_starts_anew(make_picture) -> None:
    smoother = Smoother(1.0)
    smoother.smooth(random_logits(0, 40, 40), make_picture(80, 80)[None])
    logits = random_logits(1)
    expected = torch.softmax(logits, dim=1)
    torch.testing.assert_close(torch.softmax(smoother.smooth(logits, pictures(make_picture)), dim=1), expected)


@settings(max_examples=20, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_however_sure_the_network_is_the_answer_is_finite(scale: float, newest: float, seed: int) -> None:
    smoother = Smoother(1.0, newest)
    frame = np.zeros((1, 80, 80, 3), np.uint8)
    for i in range(3):
        smoothed = smoother.smooth(scale * random_logits(seed + i, 40, 40), frame)
        assert smoothed.isfinite().all()
        torch.testing.assert_close(torch.softmax(smoothed, dim=1).sum(dim=1), torch.ones(1, 40, 40))


@pytest.mark.parametrize("newest", [0.0, -0.5, 1.5])
def test_a_weight_that_is_none_is_refused(newest: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        Smoother(1.0, newest)


def test_a_segmenter_smooths_what_it_answers_from(segmenter: Segmenter, make_picture) -> None:
    """Two answers to pictures that differ by noise: the second, smoothed, changes fewer pixels than alone."""
    rng = np.random.default_rng(0)
    clean = make_picture(96, 128).astype(int)
    frames = [np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8) for _ in range(4)]

    def changes(answers) -> float:
        return np.mean([(a.labels != b.labels).mean() for a, b in itertools.pairwise(answers[1:])])

    alone = [segmenter.predict(frame) for frame in frames]
    smoother = Smoother(segmenter.weights.temperature)
    smoothed = [segmenter.predict_batch([frame], smoother=smoother)[0] for frame in frames]
    assert (smoothed[0].labels != alone[0].labels).mean() < 1e-3
    assert changes(smoothed) < 0.75 * changes(alone)
    tiled = segmenter.predict_batch([frames[0]], tile=True, smoother=Smoother(segmenter.weights.temperature))
    np.testing.assert_allclose(tiled[0].confidence, segmenter.predict(frames[0], tile=True).confidence, atol=0.02)
