"""Masks of another size, the calibration that goes with them, and labelled points, against projections by hand."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmnet.cloud import POINT, depth_metres, labelled_points
from ecmnet.sizes import confidence_bytes, resize_labels, scale_camera_info
from ecmnet_app.errors import ImageError


def camera_info(height: int = 480, width: int = 640, binning: int = 0, roi: tuple[int, ...] = (0, 0, 0, 0)) -> Any:
    """A calibration; `roi` is x_offset, y_offset, width, height."""
    return SimpleNamespace(
        header="old", height=height, width=width, binning_x=binning, binning_y=binning,
        distortion_model="plumb_bob", d=[0.1, -0.2, 0.0, 0.0, 0.0],
        k=[500.0, 0.0, 321.5, 0.0, 510.0, 238.25, 0.0, 0.0, 1.0], r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        p=[500.0, 0.0, 321.5, -60.0, 0.0, 510.0, 238.25, 0.0, 0.0, 0.0, 1.0, 0.0],
        roi=SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3], do_rectify=any(roi)),
    )  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), target=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_resized_labels_are_those_of_the_nearest_pixel(size: tuple[int, int], target: tuple[int, int]) -> None:
    for axis in (0, 1):
        place = np.indices(size, np.uint8)[axis]  # each pixel's label is where it is
        found = np.moveaxis(resize_labels(place, target), axis, 0)
        assert found.shape[0] == target[axis]
        centre = (np.arange(target[axis]) + 0.5) * size[axis] / target[axis] - 0.5
        distance = np.abs(found - centre.reshape(-1, 1))
        assert distance.max() <= 0.5 + 1e-3


def test_halved_labels_are_every_other_pixel_of_a_block() -> None:
    labels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((2, 2), np.uint8))
    assert (resize_labels(labels, (3, 4)) == np.arange(12).reshape(3, 4)).all()
    assert resize_labels(labels, labels.shape) is labels


def test_confidence_goes_to_the_nearest_byte() -> None:
    steps = np.array([[0.0, 1.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 254.4 / 255, 254.6 / 255]], np.float32)
    assert confidence_bytes(steps).tolist() == [[0, 255, 0, 1, 254, 255]]


@pytest.mark.parametrize("size", [(240, 320), (360, 480), (960, 1280), (480, 640), (100, 640)])
def test_a_scaled_calibration_projects_to_the_scaled_place(size: tuple[int, int]) -> None:
    info = camera_info()
    scaled = scale_camera_info(info, "new", size)
    point = np.array([0.3, -0.2, 2.0])
    u, v, w = np.array(info.k).reshape(3, 3) @ point
    su, sv, sw = np.array(scaled.k).reshape(3, 3) @ point
    assert ((u / w) + 0.5) * size[1] / 640 == pytest.approx(su / sw + 0.5)  # distances from the picture's own corner
    assert ((v / w) + 0.5) * size[0] / 480 == pytest.approx(sv / sw + 0.5)
    projected = np.array(scaled.p).reshape(3, 4) @ np.append(point, 1.0)
    original = np.array(info.p).reshape(3, 4) @ np.append(point, 1.0)
    assert (original[0] / original[2] + 0.5) * size[1] / 640 == pytest.approx(projected[0] / projected[2] + 0.5)
    assert (scaled.height, scaled.width, scaled.header) == (*size, "new")
    assert (scaled.d, scaled.r) == (info.d, info.r)


@pytest.mark.parametrize(
    ("info", "size", "k", "translation"),
    [
        # The sensor's own pictures.
        (camera_info(roi=(0, 0, 640, 480), binning=1), (480, 640), (500, 321.5, 510, 238.25), -60),
        # Binned by 2: half of all.
        (camera_info(binning=2), (240, 320), (250, 160.75, 255, 119.125), -30),
        # From (64, 48) on: the principal point is nearer by that.
        (camera_info(roi=(64, 48, 320, 240)), (240, 320), (500, 257.5, 510, 190.25), -60),
        # The same region, binned by 2: 160 x 120.
        (camera_info(binning=2, roi=(64, 48, 320, 240)), (120, 160), (250, 128.75, 255, 95.125), -30),
        # That at half the size: by pixel centres, 128.75 is 129.25 from the left edge, and at last 64.625 from it.
        (camera_info(binning=2, roi=(64, 48, 320, 240)), (60, 80), (125, 64.125, 127.5, 47.3125), -15),
        # The middle of a larger sensor: a crop, and no scaling.
        (camera_info(960, 1280, roi=(320, 240, 640, 480)), (480, 640), (500, 1.5, 510, -1.75), -60),
    ],
)
def test_a_regions_and_a_binned_pictures_calibration_is_their_own(
    info: Any, size: tuple[int, int], k: tuple[float, ...], translation: float
) -> None:
    scaled = scale_camera_info(info, "new", size)
    fx, cx, fy, cy = k
    assert scaled.k == pytest.approx([fx, 0, cx, 0, fy, cy, 0, 0, 1])
    assert scaled.p == pytest.approx([fx, 0, cx, translation, 0, fy, cy, 0, 0, 0, 1, 0])
    assert (scaled.height, scaled.width, scaled.binning_x, scaled.binning_y) == (*size, 0, 0)
    assert not any(vars(scaled.roi).values())


def test_the_first_point_of_a_region_lies_where_the_sensor_sees_it() -> None:
    info = camera_info(960, 1280, binning=2, roi=(320, 240, 640, 480))
    ones = np.ones((240, 320), np.uint8)
    image = np.zeros((240, 320, 3), np.uint8)
    depth = np.full((240, 320), 2, np.float32)
    points = labelled_points(depth, image, ones, ones, scale_camera_info(info, "new", depth.shape))
    # Pixel (100, 50) of the picture is pixel (320 + 200, 240 + 100) of the sensor, 2 m away.
    assert points["x"][50, 100] == pytest.approx((520 - 321.5) / 500 * 2)
    assert points["y"][50, 100] == pytest.approx((340 - 238.25) / 510 * 2)


def test_the_cameras_own_calibration_is_left_alone() -> None:
    info = camera_info(roi=(64, 48, 320, 240))
    before = (list(info.k), list(info.p), info.header, info.roi.width)
    scale_camera_info(info, "new", (240, 320))
    assert (info.k, info.p, info.header, info.roi.width) == before
    unknown = scale_camera_info(camera_info(0, 0), "new", (240, 320))
    assert unknown.k == camera_info().k


def depth_message(depth: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Any:
    rows = np.frombuffer(depth.astype(depth.dtype.newbyteorder(">" if big else "<")).tobytes(), np.uint8)
    padded = np.pad(rows.reshape(len(depth), -1), ((0, 0), (0, padding)), constant_values=9)
    return SimpleNamespace(
        header=None, height=depth.shape[0], width=depth.shape[1], encoding=encoding, is_bigendian=int(big),
        step=padded.shape[1], data=array.array("B", padded.tobytes()),
    )  # fmt: skip


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("big", [False, True])
def test_depth_is_in_metres_and_nan_where_there_is_none(padding: int, big: bool) -> None:
    millimetres = np.array([[0, 1, 1500], [65535, 2, 3]], np.uint16)
    metres = depth_metres(depth_message(millimetres, "16UC1", padding, big))
    np.testing.assert_allclose(metres, [[np.nan, 0.001, 1.5], [65.535, 0.002, 0.003]], rtol=1e-6)
    floats = np.array([[0, np.nan, np.inf], [-1, 2.5, 1e-3]], np.float32)
    metres = depth_metres(depth_message(floats, "32FC1", padding, big))
    np.testing.assert_allclose(metres, [[np.nan, np.nan, np.nan], [np.nan, 2.5, 1e-3]])


def test_what_is_not_depth_is_refused() -> None:
    good = depth_message(np.ones((2, 3), np.uint16), "16UC1")
    for change in ({"encoding": "bgr8"}, {"step": 5}, {"height": 3}):
        with pytest.raises(ImageError):
            depth_metres(SimpleNamespace(**{**vars(good), **change}))


def test_points_project_back_onto_the_pixels_they_come_from() -> None:
    random = np.random.default_rng(0)
    depth = random.uniform(0.5, 20, (48, 64)).astype(np.float32)
    depth[3, 5] = np.nan
    image = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    labels, confidence = random.integers(0, 11, (2, 48, 64)).astype(np.uint8)
    info = camera_info(48, 64)
    info.p[:7] = [400.0, 0.0, 300.0, 0.0, 0.0, 410.0, 220.0]  # of the rectified picture, which has other ones than K
    points = labelled_points(depth, image, labels, confidence, info)
    assert points.dtype.itemsize == POINT.itemsize == 20
    assert points.shape == (48, 64)
    assert all(np.isnan(points[3, 5][axis]) for axis in "xyz")
    seen = ~np.isnan(depth)
    xyz = np.stack([points[axis][seen] for axis in "xyz"], axis=-1).astype(float)
    pixels, _ = cv2.projectPoints(xyz, np.zeros(3), np.zeros(3), np.array(info.p).reshape(3, 4)[:, :3], None)
    v, u = np.nonzero(seen)
    np.testing.assert_allclose(pixels[:, 0], np.stack([u, v], axis=-1), atol=1e-2)
    assert (points["label"] == labels).all()
    assert (points["confidence"] == confidence).all()
    packed = points["rgb"].copy().view(np.uint8).reshape(48, 64, 4)  # little-endian: blue, green, red, nothing
    assert (packed[..., 2::-1] == image).all()
    assert (packed[..., 3] == 0).all()


def test_a_picture_of_another_size_is_sampled_to_depths() -> None:
    labels = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((10, 10), np.uint8))
    image = np.repeat(labels[..., None], 3, axis=2)
    points = labelled_points(np.ones((2, 2), np.float32), image, labels, labels, camera_info(2, 2))
    assert points["label"].tolist() == [[0, 1], [2, 3]]
    assert points["rgb"].tolist() == [[0, 0x010101], [0x020202, 0x030303]]


def test_a_camera_that_is_not_calibrated_has_no_points() -> None:
    info = camera_info(2, 2)
    info.p = [0.0] * 12
    pixels = np.zeros((2, 2), np.uint8)
    with pytest.raises(ImageError, match="no focal length in P; calibrate the camera"):
        labelled_points(np.ones((2, 2), np.float32), np.zeros((2, 2, 3), np.uint8), pixels, pixels, info)
