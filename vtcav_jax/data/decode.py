"""Decoding of selected frames, as upright rgb24, from any container that FFmpeg reads.

Frames are counted in display order. The index of frames is built from packet timestamps, without decoding and without
relying on the header; decoding seeks to the preceding key frame. Inconsistent files (no timestamps, packets without a
displayed frame, wrong seeks) are decoded from the start instead: slower, with the same result.

Like the decoders of the reference implementations, we drop transparency and ignore the pixel aspect ratio.
"""

import datetime
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.data.remote.mp4_boxes import media_ranges
from vtcav_jax.data.remote.stored_video import ResolvedVideo

# FFmpeg reads a text file as an animation of its letters, an image as one frame, a playlist as the files it names.
_NOT_VIDEO = ("tty", "image2", "hls", "dash", "concat", "concatf")
# Codecs of which an MP4 file's tables say all that packets do, so that frames of remote files need not be transferred.
_CODECS_WITH_TABLES = ("h264", "hevc", "av1", "mpeg4", "mjpeg")
_HIDDEN_FRAMES = ("vp8",)  # codecs with separate packets for reference frames that are never displayed
_FALLBACK_RATE = 25  # frames per second if neither packets nor header give times


VideoFile = Path | ResolvedVideo


class VideoError(ValueError):
    """Error of a file from which no clip can be read; the message is one sentence with the reason."""


class PastEndError(VideoError):
    """Error of a start after the last frame of a video."""


class MissingFramesError(VideoError):
    """Error of an index that lists frames which decoding does not yield; `probe(by_decoding=True)` avoids it."""


@dataclass(frozen=True)
class VideoIndex:
    """Frames, times and size of a video file."""

    path: VideoFile
    times: Float[np.ndarray, " frames"]  # seconds from the first frame
    duration: float  # seconds, including the last frame
    width: int  # after rotation, like `height`
    height: int
    rotation: int  # degrees counter-clockwise that make a stored frame upright: 0, 90, 180, 270
    timestamps: tuple[int, ...]  # one per frame; empty if frames can only be counted
    key_timestamps: tuple[int, ...]  # timestamps of key frames; empty if seeking is unreliable

    @property
    def fps(self) -> float:
        """Average frame rate."""
        return len(self.times) / self.duration


def probe(path: str | VideoFile, *, by_decoding: bool = False) -> VideoIndex:
    """Build the index of all frames and their times from packets; with `by_decoding`, from decoded frames."""
    path = Path(path) if isinstance(path, str) else path
    with _open(path) as (container, stream, frames):
        first = next(_explain_decode_errors(path, frames), None)
        if first is None:
            raise VideoError(f"{path.name} has a video stream without frames; it may have been truncated")
        rotation = round(first.rotation / 90) % 4 * 90
        size = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
        codec = stream.codec_context.codec.canonical_name
        by_decoding = by_decoding or codec in _HIDDEN_FRAMES
        has_tables = "mp4" in container.format.name.split(",") and codec in _CODECS_WITH_TABLES
    packet_index = _index_from_packets(path, reads_tables=has_tables)  # also checks that the file is complete
    times, duration, timestamps, keys = (
        _index_from_frames(path) if by_decoding or packet_index is None else packet_index
    )
    return VideoIndex(path, times, duration, *size, rotation, timestamps, keys)


def decode_frames(index: VideoIndex, frame_numbers: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yield each requested frame once, with its number; in order unless a seek failed."""
    from av.video.reformatter import VideoReformatter

    # One single-threaded converter for all frames: `frame.to_ndarray` would set up a threaded one for each frame.
    converter = VideoReformatter()
    remaining = sorted({int(number) for number in frame_numbers})
    total = len(index.times)
    if remaining and not 0 <= remaining[0] <= remaining[-1] < total:
        raise ValueError(f"{index.path.name} has frames 0 to {total - 1}; got {remaining[0]} to {remaining[-1]}")
    for decode_method in (_decode_after_seek, _decode_from_start) if index.key_timestamps else (_decode_from_start,):
        for number, frame in decode_method(index, remaining):
            remaining.remove(number)
            rgb = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            yield number, np.ascontiguousarray(np.rot90(rgb, index.rotation // 90))
        if not remaining:
            return
    raise MissingFramesError(
        f"{index.path.name}: frame {remaining[0]} of {total} ({index.times[remaining[0]]:.3f} s) cannot be decoded; the"
        " file is damaged there, choose another start or re-encode it"
    )


def _decode_after_seek(index: VideoIndex, frame_numbers: list[int]) -> Iterator[tuple[int, Any]]:
    """Yield those of the frames that can be decoded after a seek to the key frame before them."""
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
            # Frames before the key frame may refer to frames that the seek has skipped.
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


def _all_frames(path: VideoFile) -> Iterator[Any]:
    with _open(path) as (_, _, frames):
        yield from _explain_decode_errors(path, frames)


def _explain_decode_errors(path: VideoFile, frames: Iterator[Any]) -> Iterator[Any]:
    """Yield the frames; raise FFmpeg's errors as `VideoError`."""
    from av.error import FFmpegError

    count = 0
    try:
        for frame in frames:
            count += 1
            yield frame
    except (FFmpegError, IndexError) as error:
        raise VideoError(
            f"{path.name} cannot be decoded after {count} frames ({_reason(error)}); it is damaged or truncated, copy"
            " it again from its source"
        ) from error


def _reason(error: Exception) -> str:
    """Return FFmpeg's message; PyAV raises IndexError for a stream that begins in the middle of the file."""
    if isinstance(error, IndexError):
        return "a stream begins in the middle of the file"
    return getattr(error, "strerror", "") or "?"


class _Packet(NamedTuple):
    """Metadata of a packet, without its data."""

    pts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool


def _index_from_packets(
    path: VideoFile, *, reads_tables: bool
) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]] | None:
    """Return times, duration, timestamps and key timestamps; None if packets do not determine them.

    With `reads_tables`, the frames of a remote file count as zeros and are not transferred.
    """
    from av.error import FFmpegError

    with _open(path, reads_tables=reads_tables) as (container, stream, _):
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
        # An edit list may discard packets before its start.
        displayed_packets = {p.pts: p for p in packets if not p.is_discard}
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


def _index_from_frames(path: VideoFile) -> tuple[np.ndarray, float, tuple[int, ...], tuple[int, ...]]:
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
    """Return the times in seconds from the first frame, and the duration; the last frame may lack its own duration."""
    unit = float(stream.time_base)
    times = (np.array(timestamps) - timestamps[0]) * unit
    if last_duration:
        return times, float(times[-1]) + last_duration * unit
    return times, float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1 / _frame_rate(stream)))


def _frame_rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)


def _check_complete(path: VideoFile, container: Any, stream: Any, packets: list[_Packet]) -> None:
    """Raise VideoError if a file ends well before its header states; headers are often wrong by one or two frames."""
    if packets[-1].is_corrupt:
        raise VideoError(_truncation_message(path, f"it ends within frame {len(packets) - 1}"))
    if stream.frames - len(packets) > max(2, stream.frames // 50):
        raise VideoError(_truncation_message(path, f"it has {len(packets)} of {stream.frames} frames"))
    promised_seconds = _matroska_seconds(stream.metadata.get("DURATION", ""))
    end = float(max((p.pts or 0) + (p.duration or 0) for p in packets) * stream.time_base)
    if promised_seconds and promised_seconds - end > max(3 / _frame_rate(stream), promised_seconds / 50):
        raise VideoError(_truncation_message(path, f"it ends at {end:.2f} s of {promised_seconds:.2f} s"))
    if container.format.name == "gif" and not _ends_with_semicolon(path):
        raise VideoError(_truncation_message(path, f"its end is missing after frame {len(packets) - 1}"))


def _matroska_seconds(text: str) -> float | None:
    try:
        time = datetime.time.fromisoformat(text[:15])  # Python does not parse nanoseconds
    except ValueError:
        return None
    return time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6


def _ends_with_semicolon(path: VideoFile) -> bool:
    """Return True if the file ends like a complete GIF; some programs append zero bytes."""
    with path.open() if isinstance(path, ResolvedVideo) else path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 64))
        return file.read().rstrip(b"\0").endswith(b";")


def _truncation_message(path: VideoFile, reason: str) -> str:
    return f"{path.name} was truncated: {reason}; copy it again from its source"


@contextmanager
def _open(path: VideoFile, *, reads_tables: bool = False) -> Iterator[tuple[Any, Any, Iterator[Any]]]:
    """Open a file; yield the container, its video stream and an iterator of all frames."""
    try:
        from av.error import FFmpegError
        from av.stream import Disposition
    except ModuleNotFoundError as error:
        raise VideoError("reading videos needs PyAV: pip install av") from error
    with ExitStack() as resources:
        try:
            if isinstance(path, ResolvedVideo):
                container = _open_stored(path, resources.enter_context(path.open()), reads_tables)
            else:
                container = _open_file(path)
        except FFmpegError as error:
            raise VideoError(
                f"{path.name} is not a video that FFmpeg reads, or was truncated ({error.strerror}); expected a video"
                " such as mp4"
            ) from error
        resources.enter_context(container)
        name = container.format.name
        if name in _NOT_VIDEO or name.endswith("_pipe"):
            raise VideoError(
                f"{path.name} is not a video but {container.format.long_name!r}; expected a video such as mp4"
            )
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            if not kinds:
                raise VideoError(_truncation_message(path, "it has no readable stream"))
            raise VideoError(f"{path.name} has {' and '.join(kinds)} but no video stream; expected a video")
        if streams[0].codec_context is None:
            raise VideoError(f"{path.name} needs a decoder that this FFmpeg lacks, or was truncated; convert it first")
        # Worker processes read clips in parallel; threads inside a decoder would only compete with them.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0], container.decode(streams[0])


def _open_file(path: Path) -> Any:
    import av

    if not path.is_file():
        raise VideoError(f"there is no file {path}; expected a video")
    if not path.stat().st_size:
        raise VideoError(f"{path.name} is empty; expected a video")
    # Without `file:`, a colon in the name would mean a protocol; old tags are often not UTF-8.
    return av.open(f"file:{path}", metadata_errors="replace")


def _open_stored(path: ResolvedVideo, file: Any, reads_tables: bool) -> Any:
    import av

    if not file.seek(0, 2):
        raise VideoError(f"{path.name} is empty; expected a video")
    file.seek(0)
    skipped = media_ranges(file) if reads_tables and path.reads_ranges else []
    file.seek(0)
    # The whitelist keeps playlists from opening files and addresses that they name. Parsers would look at the zeros.
    options = {"protocol_whitelist": "none"} | ({"fflags": "noparse+nofillin"} if skipped else {})
    container = av.open(file, metadata_errors="replace", options=options)
    if skipped:
        file.skip_ranges(skipped)
    return container
