"""Frames out of any container that FFmpeg knows, as rgb24, upright, and only those that are wanted.

Frames are counted in the order of display. Which there are is read from the timestamps of the packets, without decoding
and without believing the header; a seek goes to the key frame before. Whatever does not add up (no timestamps, packets
that show nothing, a seek that ends elsewhere) is decoded from the start instead: slower, with the same result.

As the decoders of the reference implementations do, we drop transparency and ignore the shape of pixels.
"""

import datetime
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

# FFmpeg would show a text file as a film of its letters, a picture as one frame, a playlist as the files it names.
_NOT_VIDEO = ("tty", "image2", "hls", "dash", "concat", "concatf")
_HIDDEN_FRAMES = ("vp8",)  # a packet of its own for what is referred to and never shown
_FALLBACK_RATE = 25  # frames per second where neither packets nor header say when a frame is shown


class VideoError(ValueError):
    """A file from which no clip can be read, with the reason in one sentence."""


class FramesMissing(VideoError):
    """The packets promised frames that decoding did not give: an index by decoding knows better."""


@dataclass(frozen=True)
class VideoIndex:
    """What there is in a video file."""

    path: Path
    times: Float[np.ndarray, " frames"]  # seconds from the first frame
    duration: float  # seconds, with the last frame's
    width: int  # upright, as `height`
    height: int
    rotation: int  # degrees counter-clockwise that make a stored frame upright: 0, 90, 180, 270
    timestamps: tuple[int, ...]  # one per frame; empty where frames can only be counted
    keys: tuple[int, ...]  # the timestamps of key frames; empty where seeking is not safe

    @property
    def fps(self) -> float:
        """On average."""
        return len(self.times) / self.duration


def probe(path: str | Path, *, by_decoding: bool = False) -> VideoIndex:
    """Finds every frame and its time; `by_decoding` looks at the frames where packets cannot be relied on."""
    path = Path(path)
    with _open(path) as (_, stream, frames):
        first = next(_checked(path, frames), None)
        if first is None:
            raise VideoError(f"{path.name} has a video stream without a frame; it may have been cut short")
        rotation = round(first.rotation / 90) % 4 * 90
        size = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
        by_decoding = by_decoding or stream.codec_context.name in _HIDDEN_FRAMES
    found = _by_packets(path)  # which also sees whether the file is whole
    times, duration, timestamps, keys = _by_decoding(path) if by_decoding or found is None else found
    return VideoIndex(path, times, duration, *size, rotation, timestamps, keys)


def decoded(index: VideoIndex, wanted: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Each wanted frame once, with its number; in order unless a seek went wrong."""
    from av.video.reformatter import VideoReformatter

    # One for all frames, in this thread: a frame's own `to_ndarray` sets up a converter with threads each time.
    converter = VideoReformatter()
    missing = sorted({int(number) for number in wanted})
    total = len(index.times)
    if missing and not 0 <= missing[0] <= missing[-1] < total:
        raise ValueError(f"{index.path.name} has frames 0 to {total - 1}; asked for {missing[0]} to {missing[-1]}")
    for ways in (_after_seeking, _from_start) if index.keys else (_from_start,):
        for number, frame in ways(index, missing):
            missing.remove(number)
            rgb = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            yield number, np.ascontiguousarray(np.rot90(rgb, index.rotation // 90))
        if not missing:
            return
    raise FramesMissing(
        f"{index.path.name} gave no picture for frame {missing[0]} ({index.times[missing[0]]:.3f} s) of {total}; the "
        "file is damaged there, choose another start or write it anew"
    )


def _after_seeking(index: VideoIndex, wanted: list[int]) -> Iterator[tuple[int, Any]]:
    """Those of the wanted frames that come out after a seek to the key frame before them."""
    from av.error import FFmpegError

    def key_before(number: int) -> int:
        return max(bisect_right(index.keys, index.timestamps[number]) - 1, 0)

    with _open(index.path) as (container, stream, frames):
        for i, group in groupby(tuple(wanted), key_before):
            targets = {index.timestamps[number]: number for number in group}
            last = max(targets)
            if i > 0:
                try:
                    container.seek(index.keys[i], stream=stream)
                except FFmpegError:
                    return
                frames = container.decode(stream)
            # Before the key frame itself has come, frames may refer to what the seek has skipped.
            sound = False
            try:
                for frame in frames:
                    sound = sound or frame.pts == index.keys[i]
                    if sound and not frame.is_corrupt and frame.pts in targets:
                        yield targets.pop(frame.pts), frame
                    if frame.pts is None or frame.pts >= last:
                        break
            except (FFmpegError, IndexError):
                return


def _from_start(index: VideoIndex, wanted: list[int]) -> Iterator[tuple[int, Any]]:
    targets = set(wanted)
    number_of = {timestamp: number for number, timestamp in enumerate(index.timestamps)}
    for count, frame in enumerate(_all_frames(index.path)):
        number = number_of.get(frame.pts) if number_of else count
        if number in targets:
            targets.remove(number)
            yield number, frame
        if not targets:
            return


def _all_frames(path: Path) -> Iterator[Any]:
    with _open(path) as (_, _, frames):
        yield from _checked(path, frames)


def _checked(path: Path, frames: Iterator[Any]) -> Iterator[Any]:
    """The frames, with what FFmpeg says of a damaged one told as ours."""
    from av.error import FFmpegError

    count = 0
    try:
        for frame in frames:
            count += 1
            yield frame
    except (FFmpegError, IndexError) as error:
        raise VideoError(
            f"{path.name} cannot be decoded after {count} frames ({_reason(error)}); it is damaged or was cut short, "
            "copy it again from its source"
        ) from error


def _reason(error: Exception) -> str:
    """In FFmpeg's words; an IndexError is how PyAV meets a stream that begins in the middle of the file."""
    return "a stream begins in its middle" if isinstance(error, IndexError) else getattr(error, "strerror", "") or "?"


class _Packet(NamedTuple):
    """What is kept of a packet: not its data, which would be the whole file."""

    pts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool


def _by_packets(path: Path) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]] | None:
    """Times, duration, timestamps and key frames; None where packets do not tell."""
    from av.error import FFmpegError

    with _open(path) as (container, stream, _):
        try:
            packets = [
                _Packet(p.pts, p.duration, p.is_keyframe, p.is_discard, p.is_corrupt)
                for p in container.demux(stream)
                if p.size
            ]
        except (FFmpegError, IndexError) as error:
            raise VideoError(f"{path.name} is damaged ({_reason(error)}); copy it again from its source") from error
        if not packets:
            return None
        _check_whole(path, container, stream, packets)
        shown = {p.pts: p for p in packets if not p.is_discard}  # an edit list may hide what is before its cut
        if None in shown or not shown or len(shown) < sum(not p.is_discard for p in packets):
            return None
        timestamps = tuple(sorted(pts for pts in shown if pts is not None))
        keys = tuple(pts for pts in timestamps if shown[pts].is_keyframe)
        last = shown[timestamps[-1]]
        return *_clock(timestamps, last.duration, stream), timestamps, keys


def _by_decoding(path: Path) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]]:
    with _open(path) as (_, stream, _):
        seen = [(frame.pts, frame.duration) for frame in _all_frames(path)]
        if not seen:
            raise VideoError(_cut_short(path, "none of its frames can be decoded"))
        timestamps = tuple(pts for pts, _ in seen if pts is not None)
        if len(timestamps) == len(seen) and all(a < b for a, b in zip(timestamps, timestamps[1:])):
            return *_clock(timestamps, seen[-1][1], stream), timestamps, ()
        rate = _rate(stream)
        return np.arange(len(seen)) / rate, len(seen) / rate, (), ()


def _clock(timestamps: tuple[int, ...], last: int | None, stream: Any) -> tuple[np.ndarray, float]:
    """Seconds from the first frame, and until the end of the last one, which may not say how long it is shown."""
    unit = float(stream.time_base)
    times = (np.array(timestamps) - timestamps[0]) * unit
    if last:
        return times, float(times[-1]) + last * unit
    return times, float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1 / _rate(stream)))


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)


def _check_whole(path: Path, container: Any, stream: Any, packets: list[_Packet]) -> None:
    """Refuses a file that ends well before what its header promises; headers are often wrong by a frame or two."""
    if packets[-1].is_corrupt:
        raise VideoError(_cut_short(path, f"it ends within frame {len(packets) - 1}"))
    if stream.frames - len(packets) > max(2, stream.frames // 50):
        raise VideoError(_cut_short(path, f"{len(packets)} of {stream.frames} frames are there"))
    promised = _matroska_seconds(stream.metadata.get("DURATION", ""))
    end = float(max((p.pts or 0) + (p.duration or 0) for p in packets) * stream.time_base)
    if promised and promised - end > max(3 / _rate(stream), promised / 50):
        raise VideoError(_cut_short(path, f"it ends at {end:.2f} s of {promised:.2f} s"))
    if container.format.name == "gif" and not _ends_with_semicolon(path):
        raise VideoError(_cut_short(path, f"its end is missing after frame {len(packets) - 1}"))


def _matroska_seconds(text: str) -> float | None:
    try:
        time = datetime.time.fromisoformat(text[:15])  # nanoseconds are more than Python reads
    except ValueError:
        return None
    return time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6


def _ends_with_semicolon(path: Path) -> bool:
    """A whole gif does, but for what some programs fill it up with."""
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), 2)
        return file.read().rstrip(b"\0").endswith(b";")


def _cut_short(path: Path, how: str) -> str:
    return f"{path.name} was cut short: {how}; copy it again from its source"


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any, Iterator[Any]]]:
    """The container, its video stream and the frames from the start."""
    try:
        import av
        from av.error import FFmpegError
        from av.stream import Disposition
    except ModuleNotFoundError as error:
        raise VideoError("reading videos needs PyAV: pip install av") from error
    if not path.is_file():
        raise VideoError(f"there is no file {path}; expected a video")
    if not path.stat().st_size:
        raise VideoError(f"{path.name} is empty; expected a video")
    try:
        # Without `file:`, a colon in the name would mean a protocol; old tags are often not UTF-8.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except FFmpegError as error:
        raise VideoError(
            f"{path.name} is no video that FFmpeg reads, or was cut short ({error.strerror}); expected one such as mp4"
        ) from error
    with container:
        name = container.format.name
        if name in _NOT_VIDEO or name.endswith("_pipe"):
            raise VideoError(
                f"{path.name} is no video but {container.format.long_name!r}; expected a video such as mp4"
            )
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            if not kinds:
                raise VideoError(_cut_short(path, "nothing in it can be read"))
            raise VideoError(f"{path.name} has {' and '.join(kinds)} but no video stream; expected a video")
        if streams[0].codec_context is None:
            raise VideoError(f"{path.name} needs a decoder that this FFmpeg lacks, or was cut short; convert it first")
        # Clips are read in parallel by processes; threads inside a decoder would only contend with them.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0], container.decode(streams[0])
