"""Streams of clips from videos, sampled or consecutive, and their computation in batches.

The last batch is padded to the shape of the others, so that it needs no compilation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import Clip, SamplingConfig
from vtcav_jax.data.decode import PastEndError, VideoError
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.data.source import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """A clip of a video; `last` marks the final one of the video."""

    read: ReadResult
    clip: Clip
    clip_index: int
    last: bool


@dataclass(frozen=True)
class VideoResult(Generic[T]):
    """Windows of a video and, for each, the result of its batch and its row there."""

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
    """Yield the clips of each video as `sampling` says, or with `slide_over_video` consecutive clips until its end.

    A `ReadResult` is a video that cannot be decoded, with `slide_over_video` to its end. Workers decode only the first
    of consecutive clips ahead of time.
    """
    sampling = replace(sampling, normalise=False)
    if slide_over_video:
        if clip_spec.sampling == "uniform" or sampling.clips_per_video > 1:
            raise ValueError(
                "--slide_over_video takes consecutive clips: omit --clips_per_video, or omit --slide_over_video (a"
                " network whose frames are spread over the whole video does not need it)"
            )
        sampling = replace(sampling, start=0)
    for read in stream(source, clip_spec, sampling, num_workers=num_workers, positions=indices):
        if read.clip is None:
            yield read
        elif slide_over_video:
            try:
                clips = tuple(_follow_clips(source, read.index, read.clip, clip_spec, sampling))
            except (VideoError, OSError) as error:  # damaged after the first clip
                yield replace(read, clip=None, failure=str(error))
            else:
                yield from _number_windows(read, clips)
        else:
            yield from _number_windows(read, tuple(_split_clips(read.clip)))


def map_windows_in_batches(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    compute: Callable[..., T],
    *,
    batch_size: int,
    multiple_of: int = 1,
    properties: Sequence[Callable[[Window], np.ndarray]] = (),
    slide_over_video: bool = False,
    num_workers: int = 2,
    indices: Iterable[int] | None = None,
    keep: Callable[[Window, T, int], Window] = lambda window, result, row: window,
) -> Iterator[VideoResult[T] | ReadResult]:
    """Apply `compute` to all windows in batches and yield results in order of videos; a `ReadResult` is a failure.

    Batches have `batch_size` windows, or as many as the source has, rounded up to a multiple of `multiple_of`. If
    they slide, the number is known after reading: a first batch with fewer has the next power of two.
    `compute` gets the frames of the windows and, as further arguments, each of their `properties`, stacked likewise.
    `keep` returns what is kept of a window until the end of its video, from the window, the result and its row there.
    """
    failures: list[ReadResult] = []
    if not slide_over_video:  # of the whole source, so that a continued run has the batches of an uninterrupted one
        n_clips = len(source.items) * sampling.clips_per_video
        batch_size = min(batch_size, -(-n_clips // multiple_of) * multiple_of)

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
    is_first = True
    while batch := list(islice(clips, batch_size)):  # itertools.batched came with Python 3.12
        if is_first and slide_over_video:
            batch_size = min(batch_size, 1 << (len(batch) - 1).bit_length())
        is_first = False
        padded = [*range(len(batch)), *[len(batch) - 1] * (batch_size - len(batch))]
        inputs = [[window.clip.video[0] for window in batch], *([f(window) for window in batch] for f in properties)]
        output = compute(*(np.stack(values)[padded] for values in inputs))
        for row, window in enumerate(batch):
            pending.append((keep(window, output, row), (output, row)))
            if window.last:
                yield VideoResult(*zip(*pending))
                pending.clear()
        yield from failures
        failures.clear()
    yield from failures


def unseen_frames(windows: Iterable[Window], last_seen: int = -1) -> list[np.ndarray]:
    """Return, for each window, a mask of the frames in no earlier window; the last window starts early to be full."""
    masks = []
    for window in windows:
        frames = window.clip.frames[0]
        # In a short video, frames wrap around to the beginning or repeat
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
    """Yield `first` and the consecutive clips; the last one starts early enough to be full."""
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
        except PastEndError:
            return
