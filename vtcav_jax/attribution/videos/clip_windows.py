"""Videos as a network is asked about them: their clips, of long ones clip after clip, several at once.

Every batch has the same shape, so that nothing is compiled for the last one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.data.source import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """A clip of a video. `last` if none of the video comes after it."""

    read: ReadResult
    clip: Clip
    clip_index: int
    last: bool


@dataclass(frozen=True)
class VideoResult(Generic[T]):
    """All windows of a video, and for each what came of its batch, and its row there."""

    windows: tuple[Window, ...]
    results: tuple[tuple[T, int], ...]


def stream_windows(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    *,
    slide_over_video: bool = False,
    num_workers: int = 2,
    indices: Iterable[int] | None = None,
) -> Iterator[Window | ReadResult]:
    """Of every video its clips as `how` says; with `whole`, one after the other until its end. A `Read` is a failure.

    Of a whole video the first clip alone is read ahead by workers.
    """
    sampling = replace(sampling, normalise=False)
    if slide_over_video:
        if clip_spec.sampling == "uniform" or sampling.clips_per_video > 1:
            raise ValueError(
                "of a whole video clips follow each other; leave out --clips_per_video, or --slide_over_video (which a"
                " network whose frames are spread over the video does not need)"
            )
        sampling = replace(sampling, start=0)
    for read in stream(source, clip_spec, sampling, num_workers=num_workers, positions=indices):
        if read.clip is None:
            yield read
        elif slide_over_video:
            yield from _number_windows(read, tuple(_follow_clips(source, read.index, read.clip, clip_spec, sampling)))
        else:
            yield from _number_windows(read, tuple(_split_clips(read.clip)))


def map_windows_in_batches(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    compute: Callable[[UInt8[np.ndarray, "b t h w 3"]], T],
    *,
    batch_size: int,
    slide_over_video: bool = False,
    num_workers: int = 2,
    indices: Iterable[int] | None = None,
) -> Iterator[VideoResult[T] | ReadResult]:
    """`ask` of all windows, `batch` at once, and the answers video by video, in order; a `Read` is a failure."""
    failures: list[ReadResult] = []

    def readable() -> Iterator[Window]:
        for item in stream_windows(
            source, clip_spec, sampling, slide_over_video=slide_over_video, num_workers=num_workers, indices=indices
        ):
            if isinstance(item, ReadResult):
                failures.append(item)
            else:
                yield item

    clips = readable()
    pending: list[tuple[Window, tuple[T, int]]] = []
    while batch := list(islice(clips, batch_size)):  # itertools.batched came with Python 3.12
        video = np.stack([window.clip.video[0] for window in batch])
        output = compute(np.concatenate([video, np.repeat(video[-1:], batch_size - len(batch), 0)]))
        for row, window in enumerate(batch):
            pending.append((window, (output, row)))
            if window.last:
                yield VideoResult(*zip(*pending))
                pending.clear()
        yield from failures
        failures.clear()
    yield from failures


def unseen_frames(windows: Iterable[Window]) -> list[np.ndarray]:
    """Of each window the frames that no window before it has shown, as a mask: the last one begins earlier to fit."""
    last_seen, masks = -1, []
    for window in windows:
        frames = window.clip.frames[0]
        # In a short video frames wrap around to the beginning, or come twice
        last = np.maximum.accumulate(np.r_[last_seen, frames])
        masks.append(frames > last[:-1])
        last_seen = int(last[-1])
    return masks


def _number_windows(read: ReadResult, clips: tuple[Clip, ...]) -> Iterator[Window]:
    return (Window(read, clip, i, i == len(clips) - 1) for i, clip in enumerate(clips))


def _split_clips(clip: Clip) -> Iterator[Clip]:
    for i in range(len(clip.frames)):
        row = slice(i, i + 1)
        yield replace(clip, video=clip.video[row], frames=clip.frames[row], times=clip.times[row])


def _follow_clips(source: Source, i: int, first: Clip, clip_spec: ClipSpec, sampling: SamplingConfig) -> Iterator[Clip]:
    """`first` and the clips after it; the last one begins early enough to be full."""
    clip = first
    while True:
        frames = clip.frames[0]
        step = max(int(np.median(np.diff(frames))), 1) if len(frames) > 1 else 1
        if clip.padded and clip is not first:
            full = frames[: int(frames.argmax()) + 1]
            yield source.read(i, clip_spec, replace(sampling, start=int(full[-1]) - step * (len(frames) - 1)))
            return
        yield clip
        if clip.padded:
            return
        try:
            clip = source.read(i, clip_spec, replace(sampling, start=int(frames[-1]) + step))
        except VideoError:  # the video has ended
            return
