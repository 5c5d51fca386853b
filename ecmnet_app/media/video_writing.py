"""Videos written in parts that are joined at the end, and clips written at once.

Neither memory nor what an interruption costs grows with the length of a video: a part is a whole file or none
(`PartWriter`), and `join_parts` makes of them, without encoding anything again, the two files that people get.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ecmnet_app.errors import VideoError
from ecmnet_app.media.videos import Onward, VideoReader, file_url, open_video, start_of

__all__ = ["ClipWriter", "PartWriter", "join_parts"]

SOUND_IN_MP4 = ("aac", "mp3", "opus", "flac")
"""Sound that an MP4 holds and browsers play, and that is copied as it is; any other becomes AAC."""

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Samples a second that AAC knows; sound of another rate is resampled."""

BT709 = 1
"""Of FFmpeg's colour spaces, primaries and transfer curves: the one that browsers take without asking."""
LIMITED_RANGE = 1

CLIP_UNITS = 90000
"""Of the time in a `ClipWriter`'s file, in a second."""
CLIP_KEY_FRAMES = 60
"""Frames from one that a player can jump to, to the next."""


class PartWriter:
    """Writes one part: the overlay (H.264) and the masks (FFV1, lossless) of some frames, as a whole file or none.

    A part begins with a key frame and no frame waits for a later one (no B frames), so that parts can be joined packet
    by packet whatever the times of their frames. NUT, in which it is kept, knows any time base exactly.

    Args:
        path: of the part; its folder is there.
        reader: whose frames it will hold.
        frames: most that it will hold.
    """

    def __init__(self, path: Path, reader: VideoReader, frames: int) -> None:
        self._path = path
        self._passing = path.with_suffix(".passing")
        self._time_base = reader.time_base
        self._container = av.open(file_url(self._passing), "w", format="nut")
        overlay = _overlay_stream(self._container, reader.width, reader.height, frames)
        overlay.codec_context.sample_aspect_ratio = reader.pixel_shape
        masks = self._container.add_stream("ffv1", options={"level": "3", "slicecrc": "1"})
        masks.pix_fmt, masks.width, masks.height = "gray", reader.width, reader.height
        for stream in (overlay, masks):
            stream.codec_context.time_base = self._time_base
            stream.codec_context.framerate = reader.rate
        self._overlay, self._masks = overlay, masks

    def write(self, overlay: NDArray[np.uint8], labels: NDArray[np.uint8], pts: int) -> None:
        """Add a frame.

        Args:
            overlay: RGB, uint8. Shape: (H, W, 3), as the reader's. Of an odd side, the last row or column is shown
                twice.
            labels: class ids, uint8. Shape: (H, W).
            pts: of the frame.

        Raises:
            VideoError: it cannot be written.
        """
        picture = _overlay_frame(overlay)
        with _writing(self._path):
            for stream, frame in ((self._overlay, picture), (self._masks, VideoFrame.from_ndarray(labels, "gray"))):
                frame.pts, frame.time_base = pts, self._time_base
                self._container.mux(stream.encode(frame))

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            VideoError: it cannot be written.
        """
        with _writing(self._path):
            for stream in (self._overlay, self._masks):
                self._container.mux(stream.encode())
            self._container.close()
            os.replace(self._passing, self._path)

    def discard(self) -> None:
        """Leave nothing."""
        with suppress(OSError, av.FFmpegError):
            self._container.close()
        self._passing.unlink(missing_ok=True)


class ClipWriter:
    """Writes pictures as a silent MP4 that browsers play (H.264), as a context: a whole file, or none on an error.

    Args:
        path: ends in .mp4.
        width, height: of the pictures; those of another size are resized to it.

    Raises:
        VideoError: on leaving too: the file cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path, self._size = path, (width, height)
        self._passing = path.with_name(f".{path.name}.{os.getpid()}")
        self._last, self._step = -1, CLIP_UNITS // 25
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(file_url(self._passing), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = _overlay_stream(self._container, width, height, CLIP_KEY_FRAMES)
            self._stream.codec_context.time_base = Fraction(1, CLIP_UNITS)

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Add a picture, RGB uint8 of shape (H, W, 3), that is shown from `seconds` on."""
        pts = max(self._last + 1, round(seconds * CLIP_UNITS))
        if self._last >= 0:
            self._step = pts - self._last
        self._last = pts
        if image.shape[1::-1] != self._size:
            image = np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        frame = _overlay_frame(image)
        frame.pts, frame.time_base = pts, Fraction(1, CLIP_UNITS)
        self._mux(frame)

    def _mux(self, frame: VideoFrame | None) -> None:
        with _writing(self._path):
            for packet in self._stream.encode(frame):
                packet.duration = self._step  # which counts for the last one alone
                self._container.mux(packet)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._mux(None)
                with _writing(self._path):
                    self._container.close()
                    os.replace(self._passing, self._path)
        finally:
            with suppress(OSError, av.FFmpegError):
                self._container.close()
            self._passing.unlink(missing_ok=True)


def _overlay_stream(container: OutputContainer, width: int, height: int, key_frames: int) -> VideoStream:
    """A stream of what `_overlay_frame` makes of pictures. Sides of yuv420p, which is what browsers play, are even."""
    stream = container.add_stream("libx264", options={"preset": "veryfast", "crf": "20"})
    stream.pix_fmt, stream.width, stream.height = "yuv420p", width + width % 2, height + height % 2
    context = stream.codec_context
    context.max_b_frames, context.gop_size = 0, key_frames
    context.color_primaries = context.color_trc = BT709
    context.colorspace, context.color_range = BT709, LIMITED_RANGE
    return stream


def _overlay_frame(overlay: NDArray[np.uint8]) -> VideoFrame:
    height, width = overlay.shape[:2]
    if height % 2 or width % 2:
        padded = cv2.copyMakeBorder(overlay, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        overlay = np.asarray(padded, np.uint8)
    return VideoFrame.from_ndarray(overlay, "rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range="MPEG", threads=1
    )


def join_parts(
    parts: Sequence[Path],
    source: str | os.PathLike[str],
    times: Sequence[int],
    time_base: Fraction,
    overlay: Path,
    masks: Path,
) -> str | None:
    """Join parts into an MP4 of the overlay with the sound of its source, and an MKV of the masks; nothing is encoded
    again but sound that an MP4 cannot hold. Each is a whole file or none.

    Args:
        parts: of `PartWriter`, in order.
        source: the video that they answer.
        times: pts of every frame of the whole, and when the last one ends.
        time_base: seconds of one unit of them.
        overlay: ends in .mp4; H.264, which browsers begin to play before they have all of it.
        masks: ends in .mkv; FFV1, 8-bit grey whose values are class ids.

    Returns:
        What is wrong with the sound, or None.

    Raises:
        VideoError: a file cannot be written.
    """
    problems: list[str] = []
    for path, index in ((overlay, 0), (masks, 1)):
        passing = parts[0].with_name(f"{index}.passing")  # if this is killed, gone with the parts
        kind = "mp4" if index == 0 else "matroska"
        # The scale is that of the moment at which a track begins, which would be in whole milliseconds without.
        options = {"movflags": "+faststart", "movie_timescale": str(time_base.denominator)} if index == 0 else {}
        with open_video(os.fspath(source), os.fspath(source)) as input_, _writing(path):
            try:
                with av.open(file_url(passing), "w", format=kind, options=options) as output:
                    tracks = [_joined(parts, index, times, time_base, output)]
                    if index == 0:
                        tracks += _sound(input_, output, problems)
                    for packet in heapq.merge(*tracks, key=_when):
                        output.mux(packet)
                os.replace(passing, path)
            finally:
                passing.unlink(missing_ok=True)
    return problems[0] if problems else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"cannot write {path}: {error.strerror or error}") from error


def _when(packet: Packet[Any]) -> Fraction:
    return (packet.dts or 0) * (packet.time_base or Fraction(1))


def _joined(
    parts: Sequence[Path], index: int, times: Sequence[int], time_base: Fraction, output: OutputContainer
) -> Iterator[Packet[Any]]:
    """Packets of one stream of every part, for a stream that is added to `output` at once."""
    with av.open(file_url(parts[0])) as first:
        stream: Stream = output.add_stream_from_template(first.streams.video[index])
    stream.time_base = time_base
    return _relabelled(parts, index, times, time_base, stream)


def _relabelled(
    parts: Sequence[Path], index: int, times: Sequence[int], time_base: Fraction, stream: Stream
) -> Iterator[Packet[Any]]:
    intervals = pairwise(times)
    for part in parts:
        with av.open(file_url(part)) as container:
            packets: Iterator[Packet[Any]] = container.demux(container.streams.video[index])
            for packet in packets:
                if packet.pts is None:  # the one that ends a stream
                    continue
                begin, end = next(intervals)  # NUT's own times are the same in finer units
                packet.stream = stream
                packet.time_base = time_base
                packet.pts = packet.dts = begin
                packet.duration = end - begin
                yield packet


def _sound(input_: InputContainer, output: OutputContainer, problems: list[str]) -> list[Iterator[Packet[Any]]]:
    """The track of sound of a file, none or one, as packets for a stream that is added to `output` at once."""
    source = next(iter(input_.streams.audio), None)
    if source is None:
        return []
    try:
        if source.codec_context.codec.canonical_name in SOUND_IN_MP4:
            return [_copied(input_, source, output.add_stream_from_template(source), problems)]
        rate = source.codec_context.sample_rate
        encoded = output.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
        encoded.layout = "mono" if source.codec_context.channels == 1 else "stereo"
        return [_transcoded(input_, source, encoded, problems)]
    except (av.FFmpegError, ValueError, AttributeError):  # a codec that is not known, or damaged beyond its header
        problems.append("has sound that cannot be read; the overlay is silent")
        return []


def _copied(input_: InputContainer, source: AudioStream, target: Stream, problems: list[str]) -> Iterator[Packet[Any]]:
    time_base = source.time_base or Fraction(1)
    origin = int(start_of(input_, source) // time_base)
    onward, last = Onward(time_base), None
    packets: Iterator[Packet[Any]] = input_.demux(source)
    try:
        for packet in packets:
            if packet.dts is None:
                continue
            time = onward(packet.dts - origin, packet.duration or 1)
            if last is not None and time <= last:
                continue
            last = time
            packet.stream = target
            packet.pts = packet.dts = time
            yield packet
    except av.FFmpegError:
        problems.append("has sound that breaks off")


def _transcoded(
    input_: InputContainer, source: AudioStream, target: AudioStream, problems: list[str]
) -> Iterator[Packet[Any]]:
    origin = start_of(input_, source)
    onward = Onward(Fraction(1, source.codec_context.sample_rate or 1))
    packets = input_.demux(source)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    seconds = frame.pts * frame.time_base - origin
                    frame.time_base = onward.time_base
                    frame.pts = onward(round(seconds / onward.time_base), frame.samples)
                yield from target.encode(frame)
        except av.FFmpegError:
            if not problems:
                problems.append("has damaged sound")
    yield from target.encode()
