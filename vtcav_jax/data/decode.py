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
from itertools import groupby, pairwise
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


class MissingFramesError(VideoError):
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
    key_timestamps: tuple[int, ...]  # the timestamps of key frames; empty where seeking is not safe

    @property
    def fps(self) -> float:
        """On average."""
        return len(self.times) / self.duration


def probe(path: str | Path, *, by_decoding: bool = False) -> VideoIndex:
    """Finds every frame and its time; `by_decoding` looks at the frames where packets cannot be relied on."""
    path = Path(path)
    with _open(path) as (_, stream, frames):
        first = next(_explain_decode_errors(path, frames), None)
        if first is None:
            raise VideoError(f"{path.name} has a video stream without a frame; it may have been cut short")
        rotation = round(first.rotation / 90) % 4 * 90
        size = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
        by_decoding = by_decoding or stream.codec_context.name in _HIDDEN_FRAMES
    packet_index = _index_from_packets(path)  # which also sees whether the file is whole
    times, duration, timestamps, keys = (
        _index_from_frames(path) if by_decoding or packet_index is None else packet_index
    )
    return VideoIndex(path, times, duration, *size, rotation, timestamps, keys)


def decode_frames(index: VideoIndex, frame_numbers: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Each wanted frame once, with its number; in order unless a seek went wrong."""
    from av.video.reformatter import VideoReformatter

    # One for all frames, in this thread: a frame's own `to_ndarray` sets up a converter with threads each time.
    converter = VideoReformatter()
    remaining = sorted({int(number) for number in frame_numbers})
    total = len(index.times)
    if remaining and not 0 <= remaining[0] <= remaining[-1] < total:
        raise ValueError(f"{index.path.name} has frames 0 to {total - 1}; asked for {remaining[0]} to {remaining[-1]}")
    for decode_method in (_decode_after_seek, _decode_from_start) if index.key_timestamps else (_decode_from_start,):
        for number, frame in decode_method(index, remaining):
            remaining.remove(number)
            rgb = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            yield number, np.ascontiguousarray(np.rot90(rgb, index.rotation // 90))
        if not remaining:
            return
    raise MissingFramesError(
        f"{index.path.name} gave no picture for frame {remaining[0]} ({index.times[remaining[0]]:.3f} s) of"
        f" {total}; the "
        "file is damaged there, choose another start or write it anew"
    )


def _decode_after_seek(index: VideoIndex, frame_numbers: list[int]) -> Iterator[tuple[int, Any]]:
    """Those of the wanted frames that come out after a seek to the key frame before them."""
    from av.error import FFmpegError

    def key_before(number: int) -> int:
        return max(bisect_right(index.key_timestamps, index.timestamps[number]) - 1, 0)

    with _open(index.path) as (container, stream, frames):
        for i, group in groupby(tuple(frame_numbers), key_before):
            targets = {index.timestamps[number]: number for number in group}
            last_timestamp = max(targets)
            if i > 0:
                try:
                    container.seek(index.key_timestamps[i], stream=stream)
                except FFmpegError:
                    return
                frames = container.decode(stream)
            # Before the key frame itself has come, frames may refer to what the seek has skipped.
            key_frame_seen = False
            try:
                for frame in frames:
                    key_frame_seen = key_frame_seen or frame.pts == index.key_timestamps[i]
                    if key_frame_seen and not frame.is_corrupt and frame.pts in targets:
                        yield targets.pop(frame.pts), frame
                    if frame.pts is None or frame.pts >= last_timestamp:
                        break
            except (FFmpegError, IndexError):
                return


def _decode_from_start(index: VideoIndex, frame_numbers: list[int]) -> Iterator[tuple[int, Any]]:
    targets = set(frame_numbers)
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
        yield from _explain_decode_errors(path, frames)


def _explain_decode_errors(path: Path, frames: Iterator[Any]) -> Iterator[Any]:
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


def _index_from_packets(path: Path) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]] | None:
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
        _check_complete(path, container, stream, packets)
        displayed_packets = {
            p.pts: p for p in packets if not p.is_discard
        }  # an edit list may hide what is before its cut
        if (
            None in displayed_packets
            or not displayed_packets
            or len(displayed_packets) < sum(not p.is_discard for p in packets)
        ):
            return None
        timestamps = tuple(sorted(pts for pts in displayed_packets if pts is not None))
        key_timestamps = tuple(pts for pts in timestamps if displayed_packets[pts].is_keyframe)
        last = displayed_packets[timestamps[-1]]
        return *_frame_times(timestamps, last.duration, stream), timestamps, key_timestamps


def _index_from_frames(path: Path) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]]:
    with _open(path) as (_, stream, _):
        seen = [(frame.pts, frame.duration) for frame in _all_frames(path)]
        if not seen:
            raise VideoError(_truncation_message(path, "none of its frames can be decoded"))
        timestamps = tuple(pts for pts, _ in seen if pts is not None)
        if len(timestamps) == len(seen) and all(a < b for a, b in pairwise(timestamps)):
            return *_frame_times(timestamps, seen[-1][1], stream), timestamps, ()
        rate = _frame_rate(stream)
        return np.arange(len(seen)) / rate, len(seen) / rate, (), ()


def _frame_times(timestamps: tuple[int, ...], last_duration: int | None, stream: Any) -> tuple[np.ndarray, float]:
    """Seconds from the first frame, and until the end of the last one, which may not say how long it is shown."""
    unit = float(stream.time_base)
    times = (np.array(timestamps) - timestamps[0]) * unit
    if last_duration:
        return times, float(times[-1]) + last_duration * unit
    return times, float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1 / _frame_rate(stream)))


def _frame_rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)


def _check_complete(path: Path, container: Any, stream: Any, packets: list[_Packet]) -> None:
    """Refuses a file that ends well before what its header promises; headers are often wrong by a frame or two."""
    if packets[-1].is_corrupt:
        raise VideoError(_truncation_message(path, f"it ends within frame {len(packets) - 1}"))
    if stream.frames - len(packets) > max(2, stream.frames // 50):
        raise VideoError(_truncation_message(path, f"{len(packets)} of {stream.frames} frames are there"))
    promised_seconds = _matroska_seconds(stream.metadata.get("DURATION", ""))
    end = float(max((p.pts or 0) + (p.duration or 0) for p in packets) * stream.time_base)
    if promised_seconds and promised_seconds - end > max(3 / _frame_rate(stream), promised_seconds / 50):
        raise VideoError(_truncation_message(path, f"it ends at {end:.2f} s of {promised_seconds:.2f} s"))
    if container.format.name == "gif" and not _ends_with_semicolon(path):
        raise VideoError(_truncation_message(path, f"its end is missing after frame {len(packets) - 1}"))


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


def _truncation_message(path: Path, reason: str) -> str:
    return f"{path.name} was cut short: {reason}; copy it again from its source"


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
                raise VideoError(_truncation_message(path, "nothing in it can be read"))
            raise VideoError(f"{path.name} has {' and '.join(kinds)} but no video stream; expected a video")
        if streams[0].codec_context is None:
            raise VideoError(f"{path.name} needs a decoder that this FFmpeg lacks, or was cut short; convert it first")
        # Clips are read in parallel by processes; threads inside a decoder would only contend with them.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0], container.decode(streams[0])
