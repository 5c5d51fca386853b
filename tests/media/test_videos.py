"""Videos of every kind that people have, and every kind that breaks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import HIGHWAY, cut, number_of, numbered, tone, write_video
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmnet_app.errors import VideoError
from ecmnet_app.media.images import write_image
from ecmnet_app.media.video_writing import ClipWriter, PartWriter, join_parts
from ecmnet_app.media.videos import Frame, VideoReader

KINDS = {
    "plain.mp4": {},
    "plain.mkv": {},
    "b_frames.mp4": {"options": {"bf": "3"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "ten_bit.mp4": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "options": {"x265-params": "log-level=none"},
    },
    "av1.mp4": {"codec": "libsvtav1", "size": (128, 160)},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "later.ts": {"start": 5.0, "sound": "aac"},
    "odd.webm": {"codec": "libvpx-vp9", "size": (97, 131)},
    "yuv444.mp4": {"pix_fmt": "yuv444p", "size": (97, 131)},
    "variable.mp4": {"pts": [0, 1, 5, 6, 7, 20, 21, 22, 23, 24, 50, 51], "time_base": Fraction(1, 90)},
    "one.mp4": {"frames": 1},
    "ntsc.mp4": {"time_base": Fraction(1001, 30000), "rate": 30},
}


def read(path: Path) -> tuple[list[Frame], VideoReader]:
    with VideoReader(path) as reader:
        return list(reader.frames()), reader


def times(frames: list[Frame], reader: VideoReader) -> list[Fraction]:
    return [frame.pts * reader.time_base for frame in frames]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_read_once_in_order_at_its_time(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    with ThreadPoolExecutor(1) as thread:  # SVT-AV1 makes the one that opens it real-time for good, if it may
        path = thread.submit(write_video, tmp_path / name, **kind).result()
    frames, reader = read(path)
    count = kind.get("frames", 12)
    assert [number_of(frame.image) for frame in frames] == list(range(count))
    assert frames[0].image.shape == (*kind.get("size", (96, 128)), 3)
    assert (reader.height, reader.width) == frames[0].image.shape[:2]
    assert reader.expected_frames == count
    assert reader.problem is None

    base = kind.get("time_base") or Fraction(1, kind.get("rate", 10))
    expected = [pts * base for pts in kind.get("pts") or range(count)]
    start = times(frames, reader)[0]
    assert 0 <= start < Fraction(1, 20)  # sound may begin before the pictures, by the delay of its codec
    for time, wanted in zip(times(frames, reader), expected, strict=True):
        assert abs(time - start - wanted) <= (0 if name.endswith("mp4") else Fraction(1, 1000))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_phone_that_was_turned_gives_upright_frames(rotation: int, tmp_path: Path) -> None:
    def turned_away(height: int, width: int, index: int) -> np.ndarray:
        upright = (width, height) if rotation % 180 else (height, width)
        return np.ascontiguousarray(np.rot90(numbered(*upright, index), -rotation // 90))

    path = write_video(tmp_path / "phone.mp4", rotation=rotation, paint=turned_away)
    frames, reader = read(path)
    assert (reader.width, reader.height) == ((96, 128) if rotation % 180 else (128, 96))
    assert [number_of(frame.image) for frame in frames] == list(range(12))


def test_colours_survive_whatever_they_are_coded_in(tmp_path: Path) -> None:
    """Of a plain picture in each of the usual ways: what comes out is what went in, to a few levels."""

    def paint(height: int, width: int, index: int) -> np.ndarray:
        return np.full((height, width, 3), (200, 60, 90), np.uint8)

    for height, space in ((96, "ITU601"), (720, "ITU709")):
        path = tmp_path / f"{space}.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 128, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(paint(height, 128, 0), "rgb24").reformat(
                format="yuv420p", dst_colorspace=space
            )
            frame.colorspace = 2  # untagged, as most files are
            frame.pts = 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode())
        frames, _ = read(path)
        assert np.abs(frames[0].image.astype(int) - (200, 60, 90)).max() <= 4


def test_frames_that_are_skipped_are_the_first(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    whole, _ = read(path)
    with VideoReader(path) as reader:
        rest = list(reader.frames(skip=5))
        with pytest.raises(ValueError, match="once"):
            list(reader.frames())
    assert [frame.pts for frame in rest] == [frame.pts for frame in whole[5:]]
    np.testing.assert_array_equal(rest[0].image, whole[5].image)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fast.mp4", {"container": {"movflags": "+faststart"}}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
        ("sound.mkv", {"sound": "aac"}),
    ],
)
def test_a_file_that_was_cut_off_gives_what_it_holds_and_says_so(name: str, kind: dict, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, frames=100, **kind)
    frames, reader = read(cut(path, 0.7, f"cut_{name}"))
    assert 10 < len(frames) < 98
    assert [number_of(frame.image) for frame in frames][:-1] == list(range(len(frames) - 1))
    assert "of 10.0 seconds" in reader.problem


def test_damage_in_the_middle_costs_some_frames_only(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=100, options={"g": "10"}, container={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = os.urandom(400)
    path.write_bytes(data)
    frames, reader = read(path)
    assert len(frames) > 60
    assert number_of(frames[-1].image) == 99
    assert "damage in" in reader.problem


def not_a_video(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "song.m4a":
        with av.open(str(path), "w", format="mp4") as output:
            stream = output.add_stream("aac", rate=48000)
            for block in tone(1):
                output.mux(stream.encode(block))
            output.mux(stream.encode())
    elif name == "cut.mp4":
        return cut(write_video(folder / "whole.mp4"), 0.6, name)
    elif name == "playlist.mp4":
        other = write_video(folder / "other.ts")
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n")
    elif name == "concat.mp4":
        write_video(folder / "other.mp4")
        path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    elif name == "header_only.mkv":
        return cut(write_video(folder / "whole.mkv", frames=3), 0.1, name)
    elif name != "none.mp4":
        path.write_bytes({"empty.mp4": b"", "text.mp4": b"Dear Sir or Madam, " * 99}[name])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "No such file"),
        ("empty.mp4", "is an empty file; send"),
        ("text.mp4", "is not a video that can be read"),
        ("cut.mp4", "was cut off before its end, where its index is; copy it again"),
        ("song.m4a", "has no video in it, only sound"),
        ("playlist.mp4", "is not a video that can be read"),
        ("concat.mp4", "is not a video that can be read"),
        ("header_only.mkv", "not a video that can be read|no frame of .* can be decoded"),
    ],
)
def test_what_is_no_video_gets_one_clear_error(name: str, message: str, tmp_path: Path) -> None:
    path = not_a_video(tmp_path, name)
    with pytest.raises(VideoError, match=message) as error:
        VideoReader(path)
    assert str(path) in str(error.value)
    with pytest.raises(VideoError, match=r"^[^/]*a\.mp4[^/]*$"):  # what the page shows: nothing of the server's folders
        VideoReader(path, name="a.mp4")


def test_a_name_is_a_file_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4").rename(tmp_path / "concat:a|b.mp4")
    assert len(read(Path("concat:a|b.mp4"))[0]) == 12
    with pytest.raises(VideoError, match="No such file"):
        VideoReader("http://127.0.0.1:9/a.mp4")


def test_a_picture_is_a_video_of_no_known_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", numbered(96, 128, 0))
    with pytest.raises(VideoError, match="not a video"):
        VideoReader(tmp_path / "a.png")


def test_a_real_drive() -> None:
    if not HIGHWAY.exists():
        pytest.skip(f"no clip at {HIGHWAY}")
    with VideoReader(HIGHWAY) as reader:
        count = sum(1 for _ in reader.frames())
        assert (count, reader.width, reader.height, reader.rate, reader.problem) == (221, 960, 540, 25, None)


# ---- writing

Times = tuple[list[int], Fraction]


def write_parts(source: Path, folder: Path, lengths: list[int]) -> tuple[list[Path], list[np.ndarray], Times]:
    """The frames of a video as their own overlay, in parts; masks that tell their number; times and their unit."""
    paths = []
    with VideoReader(source) as reader:
        frames = list(reader.frames())
        masks = [np.full(frame.image.shape[:2], i, np.uint8) for i, frame in enumerate(frames)]
        for i, mask in enumerate(masks):
            mask[i % 7 :: 3, i % 5 :: 2] = 255 - i
        start = 0
        for number, length in enumerate(lengths):
            path = folder / f"{number}.nut"
            writer = PartWriter(path, reader, 96)
            for frame, mask in list(zip(frames, masks, strict=True))[start : start + length]:
                writer.write(frame.image, mask, frame.pts)
            assert not path.exists()  # until it is whole
            writer.finish()
            paths.append(path)
            start += length
        assert start == len(frames)
        times = [*(frame.pts for frame in frames), frames[-1].pts + frames[-1].duration]
    return paths, masks, (times, reader.time_base)


@pytest.mark.parametrize("name", ["plain.mp4", "variable.mp4", "odd.webm", "later.ts", "one.mp4", "ntsc.mp4"])
def test_parts_join_to_every_frame_once_at_its_time(name: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / name, **KINDS[name])
    count = KINDS[name].get("frames", 12)
    parts, masks, when = write_parts(source, tmp_path, [1] if count == 1 else [5, 1, 6])
    overlay, mask_video = tmp_path / "out.mp4", tmp_path / "out.mkv"
    assert join_parts(parts, source, *when, overlay, mask_video) is None

    original, reader = read(source)
    shown, shown_reader = read(overlay)
    assert [number_of(frame.image) for frame in shown] == list(range(count))
    height, width = original[0].image.shape[:2]
    assert shown[0].image.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose(shown[0].image[:height, :width].astype(int), original[0].image, atol=60)
    assert np.abs(shown[0].image[:height, :width].astype(int) - original[0].image).mean() < 4
    assert times(shown, shown_reader) == times(original, reader)
    assert shown[-1].duration * shown_reader.time_base == original[-1].duration * reader.time_base

    with av.open(str(mask_video)) as container:
        read_masks = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(read_masks, masks)  # lossless


def test_the_overlay_is_what_browsers_play(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", sound="pcm_s16le")
    parts, _, when = write_parts(source, tmp_path, [12])
    join_parts(parts, source, *when, tmp_path / "o.mp4", tmp_path / "m.mkv")
    data = (tmp_path / "o.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    with av.open(str(tmp_path / "o.mp4")) as container:
        video, audio = container.streams.video[0].codec_context, container.streams.audio[0].codec_context
        assert (video.name, video.pix_fmt, video.colorspace, video.color_range) == ("h264", "yuv420p", 1, 1)
        assert audio.name == "aac"


@pytest.mark.parametrize(
    ("name", "sound", "copied"),
    [
        ("a.mp4", "aac", True),
        ("a.mkv", "libopus", True),
        ("a.mkv", "flac", True),
        ("a.mp4", "libmp3lame", True),
        ("a.ts", "aac", True),
        ("a.mkv", "pcm_s16le", False),
        ("a.mkv", "ac3", False),
        ("a.avi", "mp2", False),
    ],
)
def test_sound_is_kept(name: str, sound: str, copied: bool, tmp_path: Path) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    source = write_video(
        tmp_path / name, frames=20, sound=sound, start=2.0 if name.endswith("ts") else 0.0, codec=codec
    )
    parts, _, when = write_parts(source, tmp_path, [20])
    assert join_parts(parts, source, *when, tmp_path / "o.mp4", tmp_path / "m.mkv") is None
    with av.open(str(source)) as before, av.open(str(tmp_path / "o.mp4")) as after:
        if copied:
            assert after.streams.audio[0].codec_context.name == before.streams.audio[0].codec_context.name
            packets = [
                [bytes(packet)[-100:] for packet in container.demux(audio=0) if packet.size]
                for container in (before, after)
            ]
            assert packets[0] == packets[1]
        else:
            assert after.streams.audio[0].codec_context.name == "aac"
    with av.open(str(tmp_path / "o.mp4")) as container:
        resampler = av.AudioResampler("s16", "mono", 48000)
        samples = np.concatenate(
            [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        )
    assert abs(len(samples) / 48000 - 2) < 0.15
    crossings = np.flatnonzero(np.diff(np.signbit(samples[4800:-9600])))
    assert len(crossings) / 2 / ((len(samples) - 14400) / 48000) == pytest.approx(440, rel=0.02)


def test_pictures_and_sound_stay_together(tmp_path: Path) -> None:
    """A file whose times begin at five seconds: both begin at 0 in the overlay, as far apart as they were."""
    source = write_video(tmp_path / "a.ts", frames=20, sound="aac", start=5.0)
    parts, _, when = write_parts(source, tmp_path, [20])
    join_parts(parts, source, *when, tmp_path / "o.mp4", tmp_path / "m.mkv")

    def gap(path: Path) -> float:
        first = {}
        for kind in ("video", "audio"):
            with av.open(str(path)) as container:
                first[kind] = next(container.decode(**{kind: 0})).time
        return first["video"] - first["audio"]

    assert gap(tmp_path / "o.mp4") == pytest.approx(gap(source), abs=0.025)


@pytest.mark.parametrize(("sound", "seconds"), [("aac", 4.0), ("mp2", 4.0), (None, 0.0)])
def test_recordings_that_were_put_one_behind_the_other(sound: str | None, seconds: float, tmp_path: Path) -> None:
    """Their times begin anew in the middle, and go on here."""
    once = write_video(tmp_path / "once.ts", frames=20, sound=sound, options={"bf": "0"})
    source = tmp_path / "twice.ts"
    source.write_bytes(2 * once.read_bytes())
    frames, reader = read(source)
    assert [number_of(frame.image) for frame in frames] == 2 * list(range(20))
    assert np.diff([float(time) for time in times(frames, reader)]) == pytest.approx(0.1, abs=0.001)
    parts, _, when = write_parts(source, tmp_path, [40])
    assert join_parts(parts, source, *when, tmp_path / "o.mp4", tmp_path / "m.mkv") is None
    with av.open(str(tmp_path / "o.mp4")) as container:
        heard = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0)) if sound else 0.0
    assert heard == pytest.approx(seconds, abs=0.3)


def test_a_part_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4")) as reader:
        writer = PartWriter(tmp_path / "part.nut", reader, 96)
        writer.write(numbered(96, 128, 0), np.zeros((96, 128), np.uint8), 0)
        writer.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4")
    parts, _, when = write_parts(source, tmp_path, [12])
    with pytest.raises(VideoError, match=r"cannot write .*o\.mp4: No such file"):
        join_parts(parts, source, *when, tmp_path / "none" / "o.mp4", tmp_path / "m.mkv")


@settings(max_examples=8, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    cuts=st.sets(st.integers(1, 29)),
    base=st.sampled_from([Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000)]),
)
def test_any_times_in_any_parts_come_out_as_they_went_in(tmp_path_factory, gaps, cuts, base) -> None:
    tmp_path = tmp_path_factory.mktemp("times")
    pts = [0, *np.cumsum(gaps).tolist()]
    source = write_video(
        tmp_path / "v.mp4", frames=len(pts), pts=pts, time_base=base, size=(32, 48), options={"bf": "0"}
    )
    bounds = sorted({0, len(pts), *(c for c in cuts if c < len(pts))})
    parts, _, when = write_parts(source, tmp_path, np.diff(bounds).tolist())
    join_parts(parts, source, *when, tmp_path / "o.mp4", tmp_path / "m.mkv")
    original, shown = read(source), read(tmp_path / "o.mp4")
    assert times(*shown) == times(*original)


def test_a_clip_shows_each_picture_at_its_time(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.25, 3.0, 3.0, 3.1]  # one stands still
    with ClipWriter(tmp_path / "clips" / "a.mp4", 128, 96) as clip:
        for index, seconds in enumerate(times):
            # Of another size from the fourth on, as a camera that is set anew; the clip keeps its own.
            clip.write(numbered(*((96, 128) if index < 3 else (192, 256)), index), seconds)
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["a.mp4"]
    with VideoReader(tmp_path / "clips" / "a.mp4") as reader:
        frames = list(reader.frames())
        assert reader.problem is None
        shown = [float(frame.pts * reader.time_base) for frame in frames]
        assert float(frames[-1].duration * reader.time_base) == pytest.approx(0.1, abs=0.001)
    assert shown == pytest.approx(times, abs=0.0001)
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    assert {frame.image.shape for frame in frames} == {(96, 128, 3)}


def test_a_clip_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    def break_off() -> None:
        with ClipWriter(tmp_path / "a.mp4", 129, 97) as clip:
            clip.write(numbered(97, 129, 0), 0.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="cannot write"):
        ClipWriter(tmp_path / "file" / "a.mp4", 128, 96)
