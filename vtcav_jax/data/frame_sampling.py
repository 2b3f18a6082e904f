"""Selection of the frames of clips: centred, evenly spaced, from a given start, or spread over the whole video.

The rules are those of the Video Swin code (Liu et al., Video Swin Transformer, 2021, arXiv:2106.13230) at test time. We
add an interval in seconds, which makes clips comparable across constant and variable frame rates.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.decode import PastEndError, VideoError

# Matroska rounds timestamps to milliseconds: the timestamp of a frame at 2/30 s is 67 ms.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class FrameSelection:
    """Frame numbers of each clip, counted from 0 in display order."""

    frames: Int[np.ndarray, "n t"]
    padded: bool  # True if frames repeat because the video is too short


def select_frames(
    times: Float[np.ndarray, " frames"],
    duration: float,
    clip_spec: ClipSpec,
    *,
    n_clips: int = 1,
    consecutive: bool = False,
    start: int | None = None,
    start_seconds: float | None = None,
    interval_seconds: float | None = None,
    random: np.random.Generator | None = None,
    time_range: tuple[float, float] | None = None,
) -> FrameSelection:
    """Select the frames of `n_clips` clips from a video with frames at `times`, in seconds from the first one.

    Without a start, starts are spaced evenly over those at which a clip fits. Clips that extend beyond the end continue
    from the beginning, as in the reference, and `padded` is True. With `interval_seconds`, each moment selects the
    frame displayed then; otherwise frames are counted. If `clip_spec.sampling` is uniform, frames are spread over the
    whole video, start and interval are errors, and further clips take other frames of the same segments. With
    `consecutive`, clips follow each other from the first frame on, as many as fit, at least one. With `random`, starts
    (for uniform sampling: frames within segments) are drawn uniformly. `time_range` (begin and end in seconds) treats
    that part as the whole video.
    """
    if not len(times):
        raise ValueError("expected a video with at least one frame, got none")
    if n_clips < 1:
        raise ValueError(f"expected at least 1 clip, got {n_clips}")
    if interval_seconds is not None and not interval_seconds > 0:
        raise ValueError(f"expected a positive interval_seconds, got {interval_seconds}")
    if time_range is not None:
        begin, end, origin = _frame_range(times, duration, time_range)
        selection = select_frames(
            np.maximum(times[begin:end] - origin, 0),
            min(duration, time_range[1]) - origin,
            clip_spec,
            n_clips=n_clips,
            consecutive=consecutive,
            start=start,
            start_seconds=start_seconds,
            interval_seconds=interval_seconds,
            random=random,
        )
        return FrameSelection(selection.frames + begin, selection.padded)
    if consecutive:
        if (start, start_seconds, random) != (None, None, None) or n_clips > 1 or clip_spec.sampling == "uniform":
            raise ValueError("consecutive clips begin at the first frame; omit start, number of clips and random")
        interval = clip_spec.interval if interval_seconds is None else interval_seconds
        length = len(times) if interval_seconds is None else duration + _ROUNDING
        n_clips = max(1, int(length / (clip_spec.frames * interval)))
        starts = clip_spec.frames * interval * np.arange(n_clips)
        if interval_seconds is None:
            return _clips_by_count(len(times), clip_spec, starts)
        return _clips_by_time(times, duration, clip_spec.frames, interval_seconds, starts)
    first = _first_frame(times, duration, start, start_seconds)
    if first is not None and random is not None:
        raise ValueError("expected one start, got a fixed and a random one; omit one")
    if first is not None and n_clips > 1:
        raise ValueError(f"{n_clips} clips are spread over the video; use 1 clip, or omit the start")
    if clip_spec.sampling == "uniform":
        if first is not None or interval_seconds is not None:
            raise ValueError("this network's frames are spread over the whole video; omit start and interval")
        return FrameSelection(
            _frames_of_segments(len(times), clip_spec.frames, n_clips, random), len(times) < clip_spec.frames
        )
    if interval_seconds is None:
        return _select_by_count(len(times), clip_spec, n_clips, first, random)
    origin = start_seconds if start_seconds is not None else None if first is None else float(times[first])
    return _select_by_time(times, duration, clip_spec.frames, interval_seconds, n_clips, origin, random)


def frame_at(times: Float[np.ndarray, " frames"], moments: Float[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Return the number of the frame displayed at each moment."""
    return np.asarray(np.maximum(np.searchsorted(times, moments + _ROUNDING, side="right") - 1, 0))


def _frame_range(
    times: Float[np.ndarray, " frames"], duration: float, time_range: tuple[float, float]
) -> tuple[int, int, float]:
    """Return the first frame of the time range, the frame after its last, and its begin in seconds."""
    begin, end = time_range
    if not 0 <= begin < end:
        raise ValueError(
            f"expected a time range that begins at 0 s or later and is not empty, got {begin} s to {end} s"
        )
    if begin >= duration:
        raise VideoError(f"the video lasts {duration:.3f} s; it has no frames from {begin} s on")
    first = int(frame_at(times, np.asarray(begin, float)))
    return first, max(int(np.searchsorted(times, end - _ROUNDING)), first + 1), begin


def _first_frame(
    times: Float[np.ndarray, " frames"], duration: float, start: int | None, start_seconds: float | None
) -> int | None:
    if start is not None and start_seconds is not None:
        raise ValueError(f"expected one start, got frame {start} and {start_seconds} s; omit one")
    if start is not None and not 0 <= start < len(times):
        raise PastEndError(f"the video has frames 0 to {len(times) - 1}; it cannot start at frame {start}")
    if start_seconds is None:
        return start
    if not 0 <= start_seconds < duration:
        raise VideoError(f"the video lasts {duration:.3f} s; it cannot start at {start_seconds} s")
    return int(frame_at(times, np.asarray(start_seconds, float)))


def _frames_of_segments(
    total: int, frames: int, n_clips: int, random: np.random.Generator | None
) -> Int[np.ndarray, "n t"]:
    """Return the middle frame of each of `frames` segments; n clips take those at 1/(n + 1), 2/(n + 1), ... of it."""
    edges = np.rint((total - 1) / frames * np.arange(frames + 1)).astype(int)
    if random is not None:
        return edges[:-1] + (random.random((n_clips, frames)) * np.diff(edges)).astype(int)
    part = np.arange(1, n_clips + 1)[:, None]
    return edges[:-1] + np.diff(edges) * part // (n_clips + 1)


def _select_by_count(
    total: int, clip_spec: ClipSpec, n_clips: int, first: int | None, random: np.random.Generator | None
) -> FrameSelection:
    room = total - clip_spec.frames * clip_spec.interval + 1
    if first is not None:
        starts = np.array([first])
    elif room > 0 and random is not None:
        starts = random.integers(0, room, n_clips)
    elif room > 0:
        step = room / n_clips  # added in this order, as in the reference, whose rounding decides between two frames
        starts = (np.arange(n_clips) * step + step / 2).astype(int)
    else:
        starts = np.zeros(n_clips, int)
    return _clips_by_count(total, clip_spec, starts)


def _clips_by_count(total: int, clip_spec: ClipSpec, starts: Int[np.ndarray, " n"]) -> FrameSelection:
    frames = starts[:, None] + clip_spec.interval * np.arange(clip_spec.frames)
    return FrameSelection(frames % total, bool((frames >= total).any()))


def _select_by_time(
    times: Float[np.ndarray, " frames"],
    duration: float,
    frames: int,
    interval: float,
    n_clips: int,
    origin: float | None,
    random: np.random.Generator | None,
) -> FrameSelection:
    room = max(duration - frames * interval, 0.0)
    if origin is not None:
        starts = np.array([origin])
    elif random is not None:
        starts = random.uniform(0, room, n_clips)
    else:
        starts = (np.arange(n_clips) + 0.5) * (room / n_clips)
    return _clips_by_time(times, duration, frames, interval, starts)


def _clips_by_time(
    times: Float[np.ndarray, " frames"],
    duration: float,
    frames: int,
    interval: float,
    starts: Float[np.ndarray, " n"],
) -> FrameSelection:
    moments = starts[:, None] + interval * np.arange(frames)
    beyond = moments + _ROUNDING >= duration
    return FrameSelection(
        frame_at(times, np.where(beyond, np.mod(moments + _ROUNDING, duration), moments)), bool(beyond.any())
    )
