"""Videos as a network is asked about them: their clips, of long ones clip after clip, several at once.

Every batch has the same shape, so that nothing is compiled for the last one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.video.clip import Clip, How
from vtcav_jax.video.decode import VideoError
from vtcav_jax.video.reading import Read, stream
from vtcav_jax.video.sources import Source


@dataclass(frozen=True)
class Window:
    """A clip of a video. `last` if none of the video comes after it."""

    read: Read
    clip: Clip
    number: int
    last: bool


@dataclass(frozen=True)
class Batch:
    """Windows, and their pixels, filled up with the last one's to a constant number."""

    windows: tuple[Window, ...]
    video: UInt8[np.ndarray, "b t h w 3"]


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


def batches(found: Iterable[Window], size: int) -> Iterator[Batch]:
    found = iter(found)
    while some := tuple(islice(found, size)):  # itertools.batched came with Python 3.12
        video = np.stack([window.clip.video[0] for window in some])
        yield Batch(some, np.concatenate([video, np.repeat(video[-1:], size - len(some), 0)]))


def new_frames(windows: Iterable[Window]) -> list[np.ndarray]:
    """Of each window the frames that no window before it has shown, as a mask: the last one begins earlier to fit."""
    seen, out = -1, []
    for window in windows:
        frames = window.clip.frames[0]
        # Frames that wrapped around to the beginning are there already, as are those that come twice
        fresh = (frames > seen) & np.r_[True, np.diff(frames) > 0]
        out.append(fresh)
        seen = max(seen, int(frames.max()))
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
