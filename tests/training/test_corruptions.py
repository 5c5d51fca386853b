"""Corruptions: the same every time, worse with every severity, and true to what each of them says it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import ecmnet_app
from ecmnet_app.media.images import read_image
from ecmnet_app.training.corruptions import CORRUPTIONS, SEVERITIES, corrupt

EXAMPLES = Path(ecmnet_app.__file__).parent / "examples"
KINDS = [*CORRUPTIONS, "tilt"]


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """One of the rendered streets, at half of CamVid's size."""
    image = read_image(min(EXAMPLES.glob("*.jpg")))
    return np.asarray(cv2.resize(image, (240, 180), interpolation=cv2.INTER_AREA), np.uint8)


def plain(value: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of one grey, and labels of one class."""
    return np.full((120, 160, 3), value, np.uint8), np.zeros((120, 160), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_every_time_and_worse_with_every_severity(street: np.ndarray, kind: str) -> None:
    labels = np.arange(street[..., 0].size, dtype=np.int64).reshape(street.shape[:2]).astype(np.uint8) % 11
    before = street.copy(), labels.copy()
    losses = []
    for severity in SEVERITIES:
        image, moved = corrupt(street, labels, kind, severity, "street")
        again, moved_again = corrupt(street, labels, kind, severity, "street")
        assert (image.dtype, image.shape, moved.dtype, moved.shape) == (
            np.uint8,
            street.shape,
            np.uint8,
            labels.shape,
        )
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(moved, moved_again)
        if kind != "tilt":
            np.testing.assert_array_equal(moved, labels)
        # How much of the picture is not seen any more, brighter or darker as it may be.
        seen = [
            np.corrcoef(corrupt(street, labels, kind, severity, n)[0].ravel(), street.ravel())[0, 1] for n in "abcd"
        ]
        losses.append(1 - np.mean(seen))
    if kind != "fog":  # thicker, and of other clouds
        assert losses == sorted(losses)
    assert 0.001 < losses[0] < losses[-1] < 1
    np.testing.assert_array_equal(street, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("kind", ["noise", "motion", "fog", "rain", "night"])
def test_no_two_pictures_share_their_noise(street: np.ndarray, kind: str) -> None:
    labels = np.zeros(street.shape[:2], np.uint8)
    one, other = (corrupt(street, labels, kind, 3, name)[0] for name in ("one", "other"))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("severity", "deviation"), zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True))
def test_noise_has_the_deviation_of_imagenet_c(severity: int, deviation: float) -> None:
    image, labels = plain(128)
    values = corrupt(image, labels, "noise", severity)[0] / 255
    # Clipping at black and white keeps 68 % of a Gaussian where it was: its middle is not cut at any severity.
    low, high = np.quantile(values, [0.1587, 0.8413])
    assert (high - low) / 2 == pytest.approx(deviation, rel=0.03)
    assert np.corrcoef(values[..., 0].ravel(), values[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("kind", ["defocus", "motion", "jpeg"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_picture_of_one_grey_has_nothing_to_blur(kind: str, severity: int) -> None:
    image, labels = plain(100)
    np.testing.assert_allclose(corrupt(image, labels, kind, severity)[0], image, atol=3)  # JPEG rounds


@pytest.mark.parametrize(("severity", "radius"), zip(SEVERITIES, (3, 4, 6, 8, 10), strict=True))
def test_defocus_makes_a_disk_of_a_point(severity: int, radius: int) -> None:
    image, labels = plain(0)
    image[58:63, 78:83] = 255
    seen = corrupt(image, labels, "defocus", severity)[0][..., 0] > 0
    rows, columns = np.nonzero(seen)
    reach = radius + 2  # of the point, 5 pixels wide; the soft edge is up to 2 more
    for positions, middle in ((rows, 60), (columns, 80)):
        assert middle - reach - 2 <= positions.min() <= middle - reach
        assert middle + reach <= positions.max() <= middle + reach + 2


@pytest.mark.parametrize(("severity", "radius"), zip(SEVERITIES, (10, 15, 15, 15, 20), strict=True))
def test_motion_makes_a_line_of_a_point(severity: int, radius: int) -> None:
    image, labels = plain(0)
    image[60, 80] = 255
    rows, columns = np.nonzero(corrupt(image, labels, "motion", severity, "a")[0][..., 0])
    assert 0.4 * radius < np.hypot(np.ptp(rows), np.ptp(columns)) <= radius + 3
    narrow, long = np.linalg.eigvalsh(np.cov(rows, columns))
    assert long > 4 * narrow


@pytest.mark.parametrize(("severity", "thickness"), zip(SEVERITIES, (1.5, 2, 2.5, 2.5, 3), strict=True))
def test_fog_leaves_what_contrast_imagenet_c_leaves(severity: int, thickness: float) -> None:
    image, labels = plain(0)
    image[::2] = 255
    seen = corrupt(image, labels, "fog", severity)[0].astype(float)
    steps = seen[::2] - seen[1::2]
    assert np.median(steps) == pytest.approx(255 / (1 + thickness), rel=0.05)
    assert seen.mean() > 127.5 * 0.6
    assert np.ptp(cv2.blur(seen, (9, 9))) > 30, "clouds, no even veil"


def test_night_is_darker_and_rain_duller() -> None:
    image, labels = plain(180)
    dark = [corrupt(image, labels, "night", severity)[0].mean() for severity in SEVERITIES]
    assert dark == sorted(dark, reverse=True)
    assert dark[0] < 180
    blue = corrupt(image, labels, "night", 1)[0].reshape(-1, 3).mean(0)
    assert blue[2] > blue[0]
    streaks = [np.mean(corrupt(plain(60)[0], labels, "rain", severity)[0] > 70) for severity in SEVERITIES]
    assert streaks == sorted(streaks)
    assert 0 < streaks[0] < streaks[-1] < 0.6


@pytest.mark.parametrize(("severity", "degrees"), zip(SEVERITIES, (4, 8, 12, 16, 20), strict=True))
def test_a_tilted_camera_turns_picture_and_labels_alike(severity: int, degrees: int) -> None:
    height, width = 120, 160
    y, x = np.mgrid[:height, :width].astype(float)
    labels = np.where(y < 60, 0, np.where(x < 80, 1, 2)).astype(np.uint8)
    values = np.array([40, 120, 220], np.uint8)
    signs = set()
    for name in "abcdef":
        image, moved = corrupt(np.repeat(values[labels][..., None], 3, axis=2), labels, "tilt", severity, name)
        # Where each pixel comes from, by hand, for both signs.
        fits = []
        for sign in (-1, 1):
            angle = np.deg2rad(sign * degrees)
            dy, dx = y - 59.5, x - 79.5
            from_x = np.cos(angle) * dx - np.sin(angle) * dy + 79.5
            from_y = np.sin(angle) * dx + np.cos(angle) * dy + 59.5
            inside = (from_x >= 1) & (from_x <= width - 2) & (from_y >= 1) & (from_y <= height - 2)
            outside = (from_x < -1) | (from_x > width) | (from_y < -1) | (from_y > height)
            expected = labels[np.rint(from_y).clip(0, 119).astype(int), np.rint(from_x).clip(0, 159).astype(int)]
            fits.append((moved == expected)[inside].mean() > 0.99 and (moved[outside] == 255).all() and outside.any())
        assert sum(fits) == 1
        signs.add(fits.index(True))
        known = moved != 255
        assert (np.abs(image[..., 0].astype(int) - values[moved.clip(0, 2)]) < 20)[known].mean() > 0.95
    assert signs == {0, 1}, "cameras tilt to either side"
