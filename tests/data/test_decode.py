"""Sampling, decoding, resizing and errors, on generated videos whose frames show their numbers."""

import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vtcav_jax import data, models
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import clip as clips_of_files
from vtcav_jax.data import decode, resize

SMALL = ClipSpec(frames=4, size=32, interval=3)
KINETICS = models.get_preset("video_swin_t_k400").clip_spec
TOTAL = 60
VARYING = np.cumsum([0] + [20, 60, 40] * 20)[:TOTAL]  # milliseconds


def numbered(number: int, height: int, width: int) -> np.ndarray:
    """Make a frame with its number as eight black or white stripes above a texture that is hard to compress."""
    bits = number >> np.arange(8) & 1
    picture = np.random.default_rng(number).integers(60, 200, (height, width, 1), np.uint8).repeat(3, -1)
    picture[: height // 2] = 255 * bits[np.arange(width) * 8 // width, None]
    return picture


def number_in(picture: np.ndarray) -> int:
    height, width = picture.shape[:2]
    stripes = picture[height // 4, ((np.arange(8) + 0.5) * width / 8).astype(int), 1]
    return int(((stripes > 128) << np.arange(8)).sum())


def write(
    path: Path, codec, total=TOTAL, size=(48, 64), pixels="yuv420p", rate=25, milliseconds=None, **more: Any
) -> Path:
    """Write a video; `more`: numbers (frame -> number drawn), rotation, container (options), options (of the codec)."""
    unit = Fraction(1, rate if milliseconds is None else 1000)
    with av.open(path, "w", options=more.get("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, options=more.get("options", {}))
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = 25
        stream.codec_context.time_base = stream.time_base = unit
        if "rotation" in more:
            stream.set_display_rotation(more["rotation"])
        for i in range(total):
            number = more.get("numbers", lambda i: i)(i)
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = i if milliseconds is None else int(milliseconds[i]), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


FORMATS: dict[str, dict[str, Any]] = {
    "h264.mp4": dict(codec="libx264"),
    "faststart.mp4": dict(codec="libx264", container={"movflags": "faststart"}),
    "h264.mkv": dict(codec="libx264"),
    "b_frames.avi": dict(codec="mpeg4", options={"bf": "2"}),
    "mpeg4.avi": dict(codec="mpeg4"),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": dict(codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    "still_parts.gif": dict(codec="gif", pixels="rgb8"),
    "odd.mkv": dict(codec="ffv1", size=(37, 51), pixels="bgr0"),
    "odd.mp4": dict(codec="libx264", size=(37, 51), pixels="yuv444p"),
    "grey.mkv": dict(codec="ffv1", pixels="gray"),
    "alpha.mkv": dict(codec="ffv1", pixels="bgra"),
    "ten_bits.mkv": dict(codec="ffv1", pixels="yuv420p10le"),
    "varying.mkv": dict(codec="libx264", milliseconds=VARYING),
    "varying.mp4": dict(codec="libx264", milliseconds=VARYING),
    "transport.ts": dict(codec="libx264"),
    "no_times.h264": dict(codec="libx264"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, encoding in FORMATS.items():
        write(folder / name, **encoding)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_index_is_complete_and_seeking_equals_full_decoding(folder, name):
    index = data.probe(folder / name)
    height, width = FORMATS[name].get("size", (48, 64))
    assert (index.height, index.width, index.rotation, len(index.times)) == (height, width, 0, TOTAL)
    everything = dict(data.decode_frames(replace(index, key_timestamps=()), range(TOTAL)))
    assert [number_in(picture) for picture in everything.values()] == list(range(TOTAL))
    assert all(p.shape == (height, width, 3) and p.dtype == np.uint8 for p in everything.values())
    for start in range(0, TOTAL, 1 if name == "h264.mp4" else 7):
        wanted = {start, min(start + 3, TOTAL - 1), TOTAL - 1 - start // 2}
        decoded = dict(data.decode_frames(index, wanted))
        assert set(decoded) == wanted
        for number, picture in decoded.items():
            np.testing.assert_array_equal(picture, everything[number])


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "b_frames.avi", "vp9.webm", "varying.mp4"])
def test_decoding_starts_at_the_preceding_key_frame(folder, name, monkeypatch):
    monkeypatch.setattr(decode, "_decode_from_start", lambda *_: pytest.fail("a seek went wrong"))
    index = data.probe(folder / name)
    assert len(index.key_timestamps) > 1
    for number in range(TOTAL):
        ((decoded_number, picture),) = data.decode_frames(index, [number])
        assert decoded_number == number == number_in(picture)


def test_times_are_those_of_the_packets(folder):
    for name in ("varying.mkv", "varying.mp4"):
        np.testing.assert_allclose(data.probe(folder / name).times, VARYING / 1000, atol=1e-9)
    for name in ("h264.mp4", "b_frames.avi", "transport.ts", "no_times.h264"):  # the first timestamps differ
        index = data.probe(folder / name)
        np.testing.assert_allclose(index.times, np.arange(TOTAL) / 25, atol=2e-5)
        assert index.fps == pytest.approx(25, rel=1e-3) and index.duration == pytest.approx(TOTAL / 25, rel=1e-3)


def test_an_index_with_missing_frames_is_rebuilt_by_decoding(folder, monkeypatch):
    path, calls = folder / "h264.mp4", []

    def optimistic(path, by_decoding=False):
        calls.append(by_decoding)
        index = decode.probe(path, by_decoding=by_decoding)
        return index if by_decoding else replace(index, timestamps=(*index.timestamps[:-1], index.timestamps[-1] + 1))

    monkeypatch.setattr(clips_of_files, "probe", optimistic)
    clip = data.read_clip(path, SMALL, start=TOTAL - 10)
    assert calls == [False, True] and clip.frames.tolist() == [[50, 53, 56, 59]]
    with pytest.raises(decode.MissingFramesError, match="frame 59"):
        list(data.decode_frames(optimistic(path), [59]))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_decoded_upright(folder, tmp_path, rotation):
    path = write(tmp_path / "rotated.mp4", "libx264", total=5, rotation=rotation)
    stored = write(tmp_path / "stored.mp4", "libx264", total=5)
    index = data.probe(path)
    assert (index.height, index.width) == ((48, 64) if rotation == 180 else (64, 48))
    _, upright = next(data.decode_frames(index, [3]))
    _, plain = next(data.decode_frames(data.probe(stored), [3]))
    # By the MP4 standard, the pixel at (x, y) is displayed at (a x + c y, b x + d y), translated into view.
    with av.open(path, "r") as container:
        side_data: Any = next(container.decode(video=0)).side_data  # PyAV's annotation has motion vectors only
        matrix = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32)
    (a, b), (c, d) = matrix[:2] // 65536, matrix[3:5] // 65536
    y, x = np.indices(plain.shape[:2])
    column, row = a * x + c * y, b * x + d * y
    expected = np.empty_like(upright)
    expected[row - row.min(), column - column.min()] = plain
    np.testing.assert_array_equal(upright, expected)


def test_interval_in_seconds_matches_25_and_50_frames_per_second(tmp_path):
    slow = write(tmp_path / "25.mp4", "libx264", total=40)
    fast = write(tmp_path / "50.mp4", "libx264", total=80, rate=50, numbers=lambda i: i // 2)
    samplings: tuple[dict[str, Any], ...] = (dict(start_seconds=0.4), dict(clips_per_video=2))
    for sampling in samplings:
        clips = [data.read_clip(p, SMALL, interval_seconds=0.12, normalise=False, **sampling) for p in (slow, fast)]
        numbers = [[number_in(picture) for picture in clip.video.reshape(-1, 32, 32, 3)] for clip in clips]
        assert numbers[0] == numbers[1] == clips[0].frames.ravel().tolist()


def test_variable_frame_rate_is_sampled_by_time(folder):
    clip = data.read_clip(folder / "varying.mp4", SMALL, start_seconds=0.5, interval_seconds=0.1, normalise=False)
    expected = [int((moment >= VARYING).sum()) - 1 for moment in (500, 600, 700, 800)]
    assert clip.frames.tolist() == [expected]
    assert [number_in(picture) for picture in clip.video[0]] == expected
    np.testing.assert_allclose(clip.times, VARYING[clip.frames] / 1000)


def test_short_videos_repeat_frames_and_are_marked_as_padded(tmp_path):
    path = write(tmp_path / "five.mp4", "libx264", total=5)
    clip = data.read_clip(path, replace(SMALL, frames=6, interval=1), normalise=False)
    assert clip.padded and clip.frames.tolist() == [[0, 1, 2, 3, 4, 0]]
    np.testing.assert_array_equal(clip.video[:, 0], clip.video[:, 5])
    assert not data.read_clip(path, replace(SMALL, interval=1)).padded


def test_a_clip_has_the_shape_and_normalisation_of_its_spec(folder):
    path = folder / "h264.mp4"
    clip = data.read_clip(path, SMALL, clips_per_video=10, views="three_crop", normalise=False)
    assert clip.video.shape == (30, *SMALL.shape) and clip.video.dtype == np.uint8 and clip.frames.shape == (10, 4)
    scaled = data.read_clip(path, SMALL, clips_per_video=10, views="three_crop")
    assert scaled.video.dtype == np.float32
    np.testing.assert_allclose(scaled.video, (clip.video / 255 - SMALL.mean) / SMALL.std, atol=1e-6)
    fifth = data.read_clip(path, SMALL, views="three_crop", normalise=False, start=int(clip.frames[4, 0]))
    np.testing.assert_array_equal(fifth.video, clip.video[12:15])  # a clip's views are adjacent


def test_identity_depends_on_content_and_preprocessing_only(folder, tmp_path):
    path = folder / "h264.mp4"
    copy = shutil.copy(path, tmp_path / "other name.mp4")

    def identity(path=path, geometry=SMALL, **sampling: Any):
        return data.read_clip(path, geometry, **{"start": 6, **sampling}).identity

    same = [identity(), identity(copy), identity(start=None, start_seconds=0.24), identity(interval_seconds=0.12)]
    assert len(set(same)) == 1 and len(same[0]) == 64 and int(same[0], 16)
    wider = replace(SMALL, resize=40)
    others = [
        identity(folder / "faststart.mp4"),
        identity(start=7),
        identity(views="three_crop"),
        identity(antialias=True),
        identity(normalise=False),
        identity(geometry=wider),
        identity(geometry=replace(SMALL, mean=(0.0, 0.0, 0.0))),
    ]
    assert len({same[0], *others}) == 8
    assert identity(geometry=wider, views="three_crop") == identity(views="three_crop")


def audio_only(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for i in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_unreadable_files_give_the_reason(folder, tmp_path):
    bad = {
        "text.mp4": (b"no video at all\n" * 50, "not a video"),
        "text.txt": (b"no video at all\n" * 50, "not a video"),
        "empty.mp4": (b"", "empty"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    audio_only(tmp_path / "audio.mp4")
    picture = av.VideoFrame.from_ndarray(numbered(1, 48, 64), "rgb24")
    picture.save(str(tmp_path / "picture.png"))
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {"audio.mp4": "audio but no video", "missing.mp4": "no file", "picture.png": "not a video"}
    for name, reason in reasons.items():
        with pytest.raises(data.VideoError, match=reason) as caught:
            data.read_clip(tmp_path / name, SMALL)
        assert name in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "faststart.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm", "vp8.webm", "still_parts.gif"]
)
def test_a_truncated_file_is_an_error(folder, tmp_path, name, share):
    content = (folder / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(data.VideoError, match="truncated"):
        data.read_clip(path, SMALL)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_raises_video_error(folder, tmp_path, name):
    random = np.random.default_rng(0)
    content = np.frombuffer((folder / name).read_bytes(), np.uint8)
    path = tmp_path / name
    for count in (3, 3, 30, 30, 300, 300):
        damaged = content.copy()
        damaged[random.integers(0, len(content), count)] = random.integers(0, 256, count)
        path.write_bytes(damaged.tobytes())
        try:
            clip = data.read_clip(path, SMALL, clips_per_video=3)
        except data.VideoError as error:
            message = str(error)
        else:
            message = name
            assert clip.video.shape == (3, *SMALL.shape)
        assert name in message


def test_tags_that_are_not_utf8_are_ignored(folder, tmp_path):
    content = (folder / "mpeg4.avi").read_bytes()
    assert b"Lavf" in content
    (tmp_path / "old.avi").write_bytes(content.replace(b"Lavf", b"L\xe4vf"))
    assert data.read_clip(tmp_path / "old.avi", SMALL).frames.shape == (1, 4)


def test_invalid_arguments_give_the_reason(folder):
    path = folder / "h264.mp4"
    requests: list[tuple[dict[str, Any], str]] = [
        (dict(start=TOTAL), "frames 0 to 59"),
        (dict(start=-1), "frames 0 to 59"),
        (dict(start_seconds=2.5), "lasts 2.400 s"),
        (dict(start=1, start_seconds=1.0), "one start"),
        (dict(start=1, clips_per_video=2), "1 clip"),
        (dict(clips_per_video=0), "clips_per_video: expected at least 1 and at most 1000, got 0"),
        (dict(interval_seconds=0.0), "expected more than 0"),
    ]
    for sampling, reason in requests:
        with pytest.raises(ValueError, match=reason):
            data.read_clip(path, SMALL, **sampling)
    with pytest.raises(ValueError, match="cannot crop"):
        data.read_clip(path, replace(SMALL, resize=16))
    with pytest.raises(ValueError, match="got 3 to 60"):
        list(data.decode_frames(data.probe(path), [3, 60]))


REAL = os.environ.get("VTCAV_REAL_DATA")
REAL_VIDEOS = {
    "arm_wrestling.mp4": 280,
    "flipping_pancake.mkv": 310,
    "baseball_pitch.avi": 107,
    "juggling_soccer_ball.mp4": 247,
    "hitting_baseball.mp4": 300,
    "carving_ice.mp4": 131,
    "five_frames.mp4": 5,
    "horse_riding.gif": 33,
}


@pytest.mark.skipif(not REAL, reason="VTCAV_REAL_DATA does not name the folder of real videos")
@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos(name):
    path = Path(REAL or "") / name
    index = data.probe(path)
    assert len(index.times) == REAL_VIDEOS[name]
    clip = data.read_clip(path, KINETICS, normalise=False)
    assert clip.video.shape == (1, 32, 224, 224, 3) and clip.video.std() > 10
    assert clip.padded == (name in ("five_frames.mp4", "horse_riding.gif"))
    everything = dict(data.decode_frames(replace(index, key_timestamps=()), np.unique(clip.frames).tolist()))
    for picture, number in zip(clip.video[0], clip.frames[0]):
        np.testing.assert_array_equal(picture, resize.square_views(everything[number], KINETICS)[0])
