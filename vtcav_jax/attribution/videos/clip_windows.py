"""Videos as a network is asked about them: their clips, of long ones clip after clip, several at once.

Every batch has the same shape, so that nothing is compiled for the last one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.clip_spec import ClipGeometry
from vtcav_jax.data.clip import Clip, How
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.loader import Read, stream
from vtcav_jax.data.open import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """A clip of a video. `last` if none of the video comes after it."""

    read: Read
    clip: Clip
    number: int
    last: bool


@dataclass(frozen=True)
class Answered(Generic[T]):
    """All windows of a video, and for each what came of its batch, and its row there."""

    windows: tuple[Window, ...]
    found: tuple[tuple[T, int], ...]


def windows(
    source: Source,
    geometry: ClipGeometry,
    how: How,
    *,
    whole: bool = False,
    workers: int = 2,
    wanted: Iterable[int] | None = None,
) -> Iterator[Window | Read]:
    """Of every video its clips as `how` says; with `whole`, one after the other until its end. A `Read` is a failure.

    Of a whole video the first clip alone is read ahead by workers.
    """
    how = replace(how, normalise=False)
    if whole:
        if geometry.sampling == "uniform" or how.clips > 1:
            raise ValueError(
                "of a whole video clips follow each other; leave out --num_clips, or --whole_video (which a"
                " network whose frames are spread over the video does not need)"
            )
        how = replace(how, start=0)
    for read in stream(source, geometry, how, workers=workers, wanted=wanted):
        if read.clip is None:
            yield read
        elif whole:
            yield from _numbered(read, tuple(_following(source, read.index, read.clip, geometry, how)))
        else:
            yield from _numbered(read, tuple(_apart(read.clip)))


def asked_in_batches(
    source: Source,
    geometry: ClipGeometry,
    how: How,
    ask: Callable[[UInt8[np.ndarray, "b t h w 3"]], T],
    *,
    batch: int,
    whole: bool = False,
    workers: int = 2,
    wanted: Iterable[int] | None = None,
) -> Iterator[Answered[T] | Read]:
    """`ask` of all windows, `batch` at once, and the answers video by video, in order; a `Read` is a failure."""
    failed: list[Read] = []

    def readable() -> Iterator[Window]:
        for one in windows(source, geometry, how, whole=whole, workers=workers, wanted=wanted):
            if isinstance(one, Read):
                failed.append(one)
            else:
                yield one

    clips = readable()
    waiting: list[tuple[Window, tuple[T, int]]] = []
    while some := list(islice(clips, batch)):  # itertools.batched came with Python 3.12
        video = np.stack([window.clip.video[0] for window in some])
        found = ask(np.concatenate([video, np.repeat(video[-1:], batch - len(some), 0)]))
        for row, window in enumerate(some):
            waiting.append((window, (found, row)))
            if window.last:
                yield Answered(*zip(*waiting))
                waiting.clear()
        yield from failed
        failed.clear()
    yield from failed


def new_frames(windows: Iterable[Window]) -> list[np.ndarray]:
    """Of each window the frames that no window before it has shown, as a mask: the last one begins earlier to fit."""
    seen, out = -1, []
    for window in windows:
        frames = window.clip.frames[0]
        # In a short video frames wrap around to the beginning, or come twice
        last = np.maximum.accumulate(np.r_[seen, frames])
        out.append(frames > last[:-1])
        seen = int(last[-1])
    return out


def _numbered(read: Read, clips: tuple[Clip, ...]) -> Iterator[Window]:
    return (Window(read, clip, i, i == len(clips) - 1) for i, clip in enumerate(clips))


def _apart(clip: Clip) -> Iterator[Clip]:
    for i in range(len(clip.frames)):
        row = slice(i, i + 1)
        yield replace(clip, video=clip.video[row], frames=clip.frames[row], times=clip.times[row])


def _following(source: Source, i: int, first: Clip, geometry: ClipGeometry, how: How) -> Iterator[Clip]:
    """`first` and the clips after it; the last one begins early enough to be full."""
    clip = first
    while True:
        frames = clip.frames[0]
        step = max(int(np.median(np.diff(frames))), 1) if len(frames) > 1 else 1
        if clip.padded and clip is not first:
            full = frames[: int(frames.argmax()) + 1]
            yield source.read(i, geometry, replace(how, start=int(full[-1]) - step * (len(frames) - 1)))
            return
        yield clip
        if clip.padded:
            return
        try:
            clip = source.read(i, geometry, replace(how, start=int(frames[-1]) + step))
        except VideoError:  # the video has ended
            return
