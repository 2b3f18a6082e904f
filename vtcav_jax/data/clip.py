"""Clips out of video files: `read_clip`, and `clip_of` for frames that come from elsewhere."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.decode import FramesMissing, decoded, probe
from vtcav_jax.data.frame_sampling import choose
from vtcav_jax.data.resize import Views, square_views


@dataclass(frozen=True)
class Clip:
    """What a network is given of one video: n clips, each one or three views, the views of a clip side by side."""

    video: Float32[np.ndarray, "views t h w 3"] | UInt8[np.ndarray, "views t h w 3"]
    frames: Int[np.ndarray, "n t"]  # their numbers in the video, from 0
    times: Float[np.ndarray, "n t"]  # in seconds from its first frame
    padded: bool  # the video was too short, so that frames come twice
    identity: str  # sha256 of the content, the frames and the preprocessing; the file's name is not in it
    content: str = ""  # sha256 of the file's bytes, or of all frames where there is no file


@dataclass(frozen=True)
class How:
    """Which clips are taken of a video, and what is done to them besides what the network's geometry says.

    Without a start they are spread evenly; ten clips with three views are the usual test protocol. With `random_start`,
    a seed, each starts anywhere, as in training. `interval_seconds` takes the place of the geometry's interval in
    frames. `normalise=False` keeps uint8.
    """

    clips: int = 1
    views: Views = "centre"
    normalise: bool = True
    interval_seconds: float | None = None
    antialias: bool = False
    start: int | None = None
    start_seconds: float | None = None
    random_start: int | None = None

    def __post_init__(self):
        if self.views not in get_args(Views):
            raise ValueError(f"there are no views {self.views!r}; expected one of {', '.join(get_args(Views))}")
        if self.interval_seconds is not None and not self.interval_seconds > 0:
            raise ValueError(f"interval_seconds is {self.interval_seconds:g}; expected more than 0")
        if self.random_start is not None and self.random_start < 0:
            raise ValueError(f"random_start is a seed; expected at least 0, got {self.random_start}")

    def drawn(self, *numbers: int) -> "How":
        """For a video, or an epoch, of this number: each has its own random starts, in whatever order they are read."""
        if self.random_start is None:
            return self
        seed = np.random.SeedSequence(self.random_start, spawn_key=numbers)
        return replace(self, random_start=int(seed.generate_state(1)[0]))


USUAL = How()


def read_clip(
    path: str | Path,
    geometry: ClipSpec,
    how: How = USUAL,
    *,
    within: tuple[float, float] | None = None,
    **given: Any,
) -> Clip:
    """The clips of a video as a network with this geometry was trained to see them.

    `given` are fields of `How`. `within` takes the part between two moments, in seconds, for the whole video: starts
    count from its beginning, and what reaches beyond its end goes on from there. A file that cannot be read raises
    `VideoError`.
    """
    path, how = Path(path), replace(how, **given)

    def read(by_decoding: bool) -> Clip:
        index = probe(path, by_decoding=by_decoding)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return clip_of(
            index.times, index.duration, lambda wanted: decoded(index, wanted), content, geometry, how, within
        )

    try:
        return read(by_decoding=False)
    except FramesMissing:
        return read(by_decoding=True)


def clip_of(
    times: Float[np.ndarray, " frames"],
    duration: float,
    frames: Callable[[list[int]], Iterable[tuple[int, np.ndarray]]],
    content: str,
    geometry: ClipSpec,
    how: How,
    within: tuple[float, float] | None = None,
) -> Clip:
    """The same of anything whose frames have times; `frames` gives those that are wanted, with their numbers."""
    chosen = choose(
        times,
        duration,
        geometry,
        clips=how.clips,
        start=how.start,
        start_seconds=how.start_seconds,
        interval_seconds=how.interval_seconds,
        random=None if how.random_start is None else np.random.default_rng(how.random_start),
        within=within,
    )
    # Each frame shrinks as soon as it is decoded: only small squares are ever held together.
    found = frames(np.unique(chosen.frames).tolist())
    squares = {i: square_views(frame, geometry, how.views, antialias=how.antialias) for i, frame in found}
    video = np.stack([np.stack([squares[int(i)] for i in clip], axis=1) for clip in chosen.frames])  # n views t h w 3
    video = video.reshape(-1, *video.shape[2:])
    return made(video, chosen.frames, times[chosen.frames], chosen.padded, content, geometry, how)


def made(
    video: UInt8[np.ndarray, "views t h w 3"],
    frames: Int[np.ndarray, "n t"],
    times: Float[np.ndarray, "n t"],
    padded: bool,
    content: str,
    geometry: ClipSpec,
    how: How,
) -> Clip:
    """The clip of squares that are there: normalised if that is asked for, and with its identity.

    In the identity the frames stand for how they were chosen: a start in seconds and one in frames give one clip.
    """
    spatial = ("size", "resize", "mean", "std") if how.normalise else ("size", "resize")
    if how.views == "three":
        spatial = tuple(name for name in spatial if name != "resize")  # which it does not use
    preprocessing = {name: value for name, value in asdict(geometry).items() if name in spatial}
    preprocessing |= {"views": how.views, "antialias": how.antialias}
    told = json.dumps([content, frames.tolist(), preprocessing], sort_keys=True)
    identity = hashlib.sha256(told.encode()).hexdigest()
    return Clip(geometry.normalise(video) if how.normalise else video, frames, times, padded, identity, content)
