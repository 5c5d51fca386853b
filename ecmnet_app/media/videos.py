"""Video files as streams of frames: read with their exact times, written in parts that are joined at the end.

Memory does not grow with the length of a video, and neither does what an interruption costs: a part is a whole file
or none (`PartWriter`), and `join_parts` makes of them, without encoding anything again, the two files that people get.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from ecmnet_app.media.images import MAX_PIXELS

__all__ = ["VIDEO_SUFFIXES", "ClipWriter", "Frame", "PartWriter", "VideoReader", "join_parts"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv")
"""Names by which a file is taken for a video."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,h264,hevc,obu,ivf,m4v,mxf,dv,nut"
)
"""What is opened, by FFmpeg's names. It knows more; among them are playlists, which name other files and hosts."""

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

_KINDS = "video: MP4, MOV, MKV, WebM, AVI, MPEG or TS"


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame, and when it is shown."""

    image: NDArray[np.uint8]
    """RGB, turned as the file says. Shape: (H, W, 3)."""
    pts: int
    """When it is shown, in units of the reader's `time_base`; the file starts at 0, and every frame is later than the
    one before it."""
    duration: int
    """How long the file says it is shown, in the same units; 0 where it does not say."""


class VideoReader:
    """Reads the first video stream of a file, as a context.

    What is damaged is passed over and said in `problem`; what can be read is. Frames are given at the size of the
    first, whatever the stream turns to later.

    Args:
        path: of the file.
        name: of the file in messages; its path by default.

    Raises:
        VideoError: the file is missing, no video, has no stream of frames, or none that can be decoded; or its frames
            are larger than 50 megapixels.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self._name = name or os.fspath(path)
        self._container = _open(os.fspath(path), self._name)
        try:
            self._stream = _video_stream(self._container, self._name)
            self._stream.thread_type = "AUTO"  # frames beside each other as well as slices
            self.time_base: Fraction = self._stream.time_base or Fraction(1, 1000)
            """Seconds of one unit of `Frame.pts`."""
            self.problem: str | None = None
            """What could not be read, once all frames were asked for; None where all could."""
            self._damaged = 0
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise VideoError(f"no frame of {self._name} can be decoded; copy or export the video again")
            turned = self._first.rotation % 180 == 90
            sides = (self._first.width, self._first.height)
            self.width, self.height = sides[::-1] if turned else sides
            """Of the frames as they are given."""
            shape = self._stream.sample_aspect_ratio or Fraction(1)
            self.pixel_shape: Fraction = 1 / shape if turned else shape
            """Width of a pixel in terms of its height."""
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average or as a guess."""
        return self._stream.average_rate or self._stream.guessed_rate or Fraction(25)

    @property
    def seconds(self) -> float | None:
        """Length of the pictures as the file states it; None where it does not."""
        return _stated_seconds(self._container, self._stream)

    @property
    def expected_frames(self) -> int | None:
        """How many frames there should be; None where the file does not let one tell."""
        if self._stream.frames:
            return self._stream.frames
        return None if self.seconds is None else max(1, round(self.seconds * self.rate))

    @property
    def has_sound(self) -> bool:
        """Whether there is sound beside the pictures."""
        return bool(self._container.streams.audio)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """All frames but the first `skip`, once. Those skipped are decoded, for frames build on those before them."""
        origin = _origin(self._container, self._stream)
        step = max(1, round(1 / (self.rate * self.time_base)))
        pts, end = -1, Fraction(0)
        for index, frame in enumerate(self._all_decoded()):
            stated = frame.pts if frame.pts is not None else frame.dts
            # Files without times are shown at their rate; times that stand still are moved on, as no player shows two.
            pts = max(pts + 1, pts + step if stated is None else stated - int(origin // self.time_base))
            if stated is None and index == 0:
                pts = 0
            duration = frame.duration or 0
            end = (pts + (duration or step)) * self.time_base
            if index >= skip:
                yield Frame(self._to_rgb(frame), pts, duration)
        self.problem = self._what_is_missing(end)

    def _all_decoded(self) -> Iterator[VideoFrame]:
        if self._first is None:
            raise ValueError("the frames of a VideoReader can be asked for once")
        first, self._first = self._first, None
        yield first
        yield from self._decoded

    def _decode(self) -> Iterator[VideoFrame]:
        """Every frame that can be decoded, up to where the file cannot be read on."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self._damaged += 1
                return
            try:
                for frame in packet.decode():
                    self._check_size(frame.width, frame.height)
                    self._damaged += frame.is_corrupt
                    yield frame
            except av.FFmpegError:
                self._damaged += 1

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"the frames of {self._name} are {width}x{height}, larger than the {MAX_PIXELS / 1e6:g} megapixels "
                "allowed; make them smaller"
            )

    def _to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        turns = round(frame.rotation / 90) % 4  # to the left
        width, height = (self.height, self.width) if turns % 2 else (self.width, self.height)
        image = frame.to_ndarray(
            format="rgb24", width=width, height=height, src_colorspace=_colorspace(frame), threads=1
        )
        return np.ascontiguousarray(np.rot90(image, turns), np.uint8)

    def _what_is_missing(self, end: Fraction) -> str | None:
        """A sentence's part, where frames are damaged or the file ends before the length that it states."""
        problems = []
        stated = self.seconds
        if stated is not None and stated - float(end) > max(0.5, 0.02 * stated):
            problems.append(f"ends after {float(end):.1f} of {stated:.1f} seconds, as a file does that was cut off")
        if self._damaged:
            problems.append(f"has damage in {self._damaged} place{'s' if self._damaged > 1 else ''}")
        return f"{' and '.join(problems)}; all that could be read was done" if problems else None


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
        self._container = av.open(_url(self._passing), "w", format="nut")
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
        """
        picture = _overlay_frame(overlay)
        with _writing(self._path):
            for stream, frame in ((self._overlay, picture), (self._masks, VideoFrame.from_ndarray(labels, "gray"))):
                frame.pts, frame.time_base = pts, self._time_base
                self._container.mux(stream.encode(frame))

    def finish(self) -> None:
        """Complete the file and give it its name."""
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
            self._container = av.open(_url(self._passing), "w", format="mp4", options={"movflags": "+faststart"})
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
        passing = path.with_name(f".{path.name}.passing")
        # The scale is that of the moment at which a track begins, which would be in whole milliseconds without.
        options = {"movflags": "+faststart", "movie_timescale": str(time_base.denominator)} if index == 0 else {}
        with _open(os.fspath(source), os.fspath(source)) as input_:
            try:
                with (
                    _writing(path),
                    av.open(_url(passing), "w", format="mp4" if index == 0 else "matroska", options=options) as output,
                ):
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
    with av.open(_url(parts[0])) as first:
        stream: Stream = output.add_stream_from_template(first.streams.video[index])
    stream.time_base = time_base
    return _relabelled(parts, index, times, time_base, stream)


def _relabelled(
    parts: Sequence[Path], index: int, times: Sequence[int], time_base: Fraction, stream: Stream
) -> Iterator[Packet[Any]]:
    intervals = pairwise(times)
    for part in parts:
        with av.open(_url(part)) as container:
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
    shift = _origin(input_, source) // (source.time_base or Fraction(1))
    packets: Iterator[Packet[Any]] = input_.demux(source)
    last = None
    try:
        for packet in packets:
            if packet.dts is None or (last is not None and packet.dts < last):
                continue
            last = packet.dts
            packet.stream = target
            packet.dts -= int(shift)
            packet.pts = packet.dts
            yield packet
    except av.FFmpegError:
        problems.append("has sound that breaks off")


def _transcoded(
    input_: InputContainer, source: AudioStream, target: AudioStream, problems: list[str]
) -> Iterator[Packet[Any]]:
    origin = _origin(input_, source)
    packets = input_.demux(source)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= int(origin // frame.time_base)
                yield from target.encode(frame)
        except av.FFmpegError:
            if not problems:
                problems.append("has damaged sound")
    yield from target.encode()


def _url(path: str | Path) -> str:
    """For FFmpeg: a file, whatever protocol its name looks like."""
    return f"file:{path}"


def _open(path: str, name: str) -> InputContainer:
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise VideoError(f"{name} is an empty file; send a {_KINDS}")
        # Without any other file or host that it may name.
        return av.open(_url(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
    except av.FFmpegError as error:  # some of which are OSErrors
        raise VideoError(
            f"{name} is not a video that can be read, or was cut off before its end, where its index is; "
            f"copy it again, or send another {_KINDS}"
        ) from error
    except OSError as error:
        raise VideoError(f"cannot read {name}: {error.strerror or error}") from error


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    # A picture on the cover of a song is a stream as well.
    streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not streams:
        raise VideoError(f"{name} has no video in it, only {_contents(container)}; send a {_KINDS}")
    if streams[0].codec_context is None:
        raise VideoError(f"{name} is coded in a way that is not known here; export it as H.264 in an MP4")
    return streams[0]


_ATTACHED_PICTURE = 0x400


def _contents(container: InputContainer) -> str:
    kinds = sorted({{"audio": "sound"}.get(stream.type, stream.type) for stream in container.streams})
    return " and ".join(kinds) or "nothing that is known"


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    with suppress(KeyError, ValueError):  # Matroska states it for each stream as "00:00:09.040000000"
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if container.duration and not container.streams.audio:
        return container.duration / av.time_base
    return None


def _origin(container: InputContainer, stream: Stream) -> Fraction:
    """When the file starts: at the first of its pictures and sounds, or of this stream if no other says. In seconds."""
    tracks: list[Any] = [*container.streams.video[:1], *container.streams.audio[:1]]
    starts = [s.start_time * s.time_base for s in tracks if s.start_time is not None and s.time_base]
    return Fraction(min(starts, default=0))


def _colorspace(frame: VideoFrame) -> int | None:
    """Where the frame does not say its own, what is meant then: BT.709 from 720 lines on, BT.601 below."""
    if frame.colorspace != _UNSPECIFIED:
        return None
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


_UNSPECIFIED = 2  # of FFmpeg's colour spaces
