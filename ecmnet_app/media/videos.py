"""Video files as streams of frames with their exact times. Memory does not grow with the length of a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ecmnet_app.errors import VideoError
from ecmnet_app.media.images import MAX_PIXELS

__all__ = ["VIDEO_SUFFIXES", "Frame", "VideoReader", "file_url", "open_video", "start_of"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv")
"""Names by which a file is taken for a video."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,h264,hevc,obu,ivf,m4v,mxf,dv,nut"
)
"""What is opened, by FFmpeg's names. It knows more; among them are playlists, which name other files and hosts."""

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
        self._container = open_video(os.fspath(path), self._name)
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
            # Read here, not when asked for: FFmpeg's stream is gone once the file is closed, and reads as rubbish.
            self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            """Frames a second, on average or as a guess."""
            self.seconds = _stated_seconds(self._container, self._stream)
            """Length of the pictures as the file states it; None where it does not."""
            self.expected_frames: int | None = self._stream.frames or None
            """How many frames there should be; None where the file does not let one tell."""
            if self.expected_frames is None and self.seconds is not None:
                self.expected_frames = max(1, round(self.seconds * self.rate))
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

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """All frames but the first `skip`, once. Those skipped are decoded, for frames build on those before them."""
        origin = start_of(self._container, self._stream)
        step = max(1, round(1 / (self.rate * self.time_base)))
        onward = Onward(self.time_base)
        pts, end = -1, Fraction(0)
        for index, frame in enumerate(self._all_decoded()):
            stated = frame.pts if frame.pts is not None else frame.dts
            duration = frame.duration or 0
            time = None if stated is None else onward(stated - int(origin // self.time_base), duration or step)
            # Files without times are shown at their rate; times that stand still are moved on, as no player shows two.
            pts = max(pts + 1, pts + step if time is None else time)
            if stated is None and index == 0:
                pts = 0
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


class Onward:
    """Times of a track that go on where the file's begin anew, as in recordings that were put one behind the other.

    Args:
        time_base: seconds of one unit of the times.
    """

    def __init__(self, time_base: Fraction) -> None:
        self.time_base = time_base
        self._shift, self._end = 0, 0

    def __call__(self, time: int, duration: int) -> int:
        """The time at which what the file has at `time` is to be shown, or heard."""
        time += self._shift
        if time * self.time_base < self._end * self.time_base - 1:  # those out of order are nearer than a second
            self._shift += self._end - time
            time = self._end
        self._end = time + duration
        return time


def file_url(path: str | Path) -> str:
    """For FFmpeg: a file, whatever protocol its name looks like."""
    return f"file:{path}"


def open_video(path: str, name: str) -> InputContainer:
    """Open a file of one of `FORMATS`; it is called by its name in messages.

    Raises:
        VideoError: it cannot be read, or is no such file.
    """
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise VideoError(f"{name} is an empty file; send a {_KINDS}")
        # Without any other file or host that it may name.
        return av.open(file_url(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
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


def start_of(container: InputContainer, stream: Stream) -> Fraction:
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
