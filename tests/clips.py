"""Videos to test with, encoded on the spot: each frame tells its number, and each is odd in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

HIGHWAY = Path(__file__).parent.parent.parent / "shared" / "clips" / "highway.mp4"

BITS = 8


def numbered(height: int, width: int, index: int) -> NDArray[np.uint8]:
    """A picture of soft colours that shift with the index, over a bar code of it along the top edge."""
    coarse = np.random.default_rng(7).integers(60, 200, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC)[:, (2 * index) % width :][:, :width]
    image = np.ascontiguousarray(image)
    bar = height // 4
    for bit in range(BITS):
        image[:bar, bit * width // BITS : (bit + 1) * width // BITS] = 235 if index >> bit & 1 else 20
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The index in a picture's bar code."""
    height, width = image.shape[:2]
    row = image[height // 8].mean(axis=-1)
    return sum(int(row[(2 * bit + 1) * width // (2 * BITS)] > 128) << bit for bit in range(BITS))


def packets_of(path: Path) -> list[tuple[int, int, bytes]]:
    """Stream, time and bytes of every packet."""
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, bytes(p)) for p in container.demux() if p.size]


def assert_same_pictures(one: Path, other: Path) -> None:
    """Two videos have the same times and key frames, and each picture of the one is nearest to its own in the other.

    Not the same bytes: of the same pictures x264 makes now and then others, by its code for AVX-512. Its code for
    another processor changes small pictures by 5 levels on average, two pictures of `numbered` differ by 8 or more.
    """
    times, pictures = [], []
    for path in (one, other):
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        times.append([(frame.pts, frame.key_frame) for frame in frames])
        pictures.append(np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(np.int16))
    assert times[0] == times[1]
    for index, picture in enumerate(pictures[0]):
        apart = np.abs(pictures[1] - picture).mean(axis=(1, 2, 3))
        assert apart.argmin() == index
        assert apart[index] < 8


def write_video(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = (96, 128),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 10,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    sound: str | None = None,
    start: float = 0.0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    paint: Callable[[int, int, int], NDArray[np.uint8]] = numbered,
) -> Path:
    """Encode `frames` numbered pictures.

    Args:
        size: (height, width) as they are stored.
        pts: of each frame in `time_base`; by default one every 1 / rate.
        rotation: degrees counter-clockwise that a player has to turn them by.
        sound: codec of a second stream, a tone of 440 Hz as long as the pictures.
        start: when everything begins, in seconds.
        options, container: of FFmpeg's encoder and muxer.
    """
    base = time_base or Fraction(1, rate)
    with av.open(str(path), "w", options=container or {}) as output:
        video = output.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = base
        if rotation:
            video.set_display_rotation(rotation)
        audio = output.add_stream(sound, rate=48000) if sound else None
        times = [int(Fraction(start) / base) + (pts[i] if pts else i) for i in range(frames)]
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(paint(*size, index), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, base
            output.mux(video.encode(frame))
        output.mux(video.encode())
        if audio is not None:
            seconds = float(frames / Fraction(rate))
            for block in tone(seconds, start):
                output.mux(audio.encode(block))
            output.mux(audio.encode())
    return path


def tone(seconds: float, start: float = 0.0) -> Iterator[av.AudioFrame]:
    """A sine of 440 Hz, in blocks of 960 samples at 48 kHz."""
    count = round(seconds * 48000)
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(count) / 48000)).astype(np.int16)
    for first in range(0, count - count % 960, 960):
        block = av.AudioFrame.from_ndarray(wave[None, first : first + 960], "s16", "mono")
        block.sample_rate, block.time_base = 48000, Fraction(1, 48000)
        block.pts = round(start * 48000) + first
        yield block


def cut(path: Path, share: float, name: str) -> Path:
    """The first part of a file, as a copy that broke off leaves it."""
    data = path.read_bytes()
    short = path.with_name(name)
    short.write_bytes(data[: int(len(data) * share)])
    return short
