"""The rendered clip: what a browser plays, with labels that lie on its frames and move as they do."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from ecmnet_app.core import CAMVID
from ecmnet_app.media.videos import VideoReader

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "ecmnet_app" / "examples" / "street.mp4"
LABELS = ROOT / "assets" / "labels" / "street"
COUNT, RATE = 100, 10

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    with VideoReader(CLIP) as clip:
        return [frame.image for frame in clip.frames()]


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(LABELS.glob("*.png"))]


def test_ten_seconds_that_browsers_play() -> None:
    assert CLIP.stat().st_size <= 8_000_000
    with av.open(str(CLIP)) as clip:
        assert clip.format.name.startswith("mov,mp4")
        assert not clip.streams.audio
        video = clip.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height) == (640, 480)
        assert (video.frames, video.average_rate) == (COUNT, RATE)
        assert float(video.duration * video.time_base) == COUNT / RATE
    head = CLIP.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat"), "a browser would have to load all of it before it plays"


def test_every_frame_has_labels_of_its_own_size(frames: list[np.ndarray], masks: list[np.ndarray]) -> None:
    assert [path.name for path in sorted(LABELS.iterdir())] == [f"{index:03d}.png" for index in range(COUNT)]
    assert len(frames) == COUNT
    assert {frame.shape for frame in frames} == {(480, 640, 3)}
    assert {(mask.shape, str(mask.dtype)) for mask in masks} == {((480, 640), "uint8")}
    assert max(int(mask.max()) for mask in masks) < len(CAMVID)


def test_a_street_with_traffic(masks: list[np.ndarray]) -> None:
    share = np.stack([np.bincount(mask.ravel(), minlength=len(CAMVID)) for mask in masks]) / masks[0].size
    assert (share[:, [ROAD, SKY, BUILDING, TREE]] > [0.2, 0.05, 0.05, 0.03]).all()
    assert (share[:, CAR] > 0.01).all()
    assert (share[:, BICYCLIST] > 0.001).mean() > 0.3
    assert share[:, PEDESTRIAN].max() > 0.002
    assert (share.max(0) > 0).all(), "a class is never there"


def test_labels_lie_on_their_own_frames(frames: list[np.ndarray], masks: list[np.ndarray]) -> None:
    """Brightness steps where a mask's sky ends; less so where the mask is moved, or is that of a frame nearby."""
    grey = [frame.astype(np.float32).mean(-1) for frame in frames]

    def step(frame: np.ndarray, sky: np.ndarray) -> float:
        inner = np.s_[8:-8, 8:-8]
        across = [abs(np.diff(frame, axis=k))[inner][np.diff(sky, axis=k)[inner]] for k in (0, 1)]
        return float(np.concatenate(across).mean())

    for index in range(0, COUNT - 3, 8):
        sky = masks[index] == SKY
        here = step(grey[index], sky)
        beside = [np.roll(sky, by, (0, 1)) for by in ((2, 0), (-2, 0), (0, 2), (0, -2))]
        assert all(step(grey[index], other) < 0.85 * here for other in beside)
        assert step(grey[index], masks[index + 3] == SKY) < 0.85 * here


def test_it_moves_smoothly_and_everywhere_that_it_should(frames: list[np.ndarray]) -> None:
    """No frame twice, none left out, none out of order: the change from frame to frame has no peak and no gap."""
    small = [cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA).astype(np.float32) for frame in frames]
    change = np.array([abs(a - b).mean() for a, b in pairwise(small)])
    assert change.min() > 1
    assert change.max() < 3 * np.median(change)
    assert all(abs(small[i] - small[i + 1]).mean() < abs(small[i] - small[i + 3]).mean() for i in range(COUNT - 3))


def test_what_stands_still_in_it_keeps_its_light(frames: list[np.ndarray]) -> None:
    """The sky, which is far away, does not flicker."""
    corner = np.stack([frame[4:24, 340:370].astype(float).mean((0, 1)) for frame in frames])
    assert abs(np.diff(corner, axis=0)).max() < 3


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"assets_{name}", ROOT / "assets" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_the_shipped_weights_name_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["score.py", "--clip", "--every", "5"])
    load("score").main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[1:]] == [str(second) for second in range(10)] + ["all"]
    assert float(lines[-1][-1]) >= 60
