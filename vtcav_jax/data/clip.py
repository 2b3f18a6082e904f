"""Clips out of video files: `read_clip`, and `clip_of` for frames that come from elsewhere."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.decode import MissingFramesError, decode_frames, probe
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.data.resize import Views, square_views
from vtcav_jax.settings import check_settings, setting


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
class SamplingConfig:
    """Which clips are taken of a video, and what is done to them besides what the network's geometry says.

    Without a start they are spread evenly; ten clips with three views are the usual test protocol. With `random_start`,
    a seed, each starts anywhere, as in training. `interval_seconds` takes the place of the geometry's interval in
    frames. `normalise=False` keeps uint8.
    """

    clips_per_video: int = setting(1, "clips per video, spread over it", minimum=1)
    views: Views = setting("center_crop", "crops per clip")
    normalise: bool = True
    interval_seconds: float | None = setting(
        None, "seconds between frames [default: the network's interval in frames]", above=0
    )
    antialias: bool = False
    start: int | None = None
    start_seconds: float | None = None
    random_start: int | None = None

    def __post_init__(self):
        negative = [("random_start", f"expected a seed of at least 0, got {self.random_start}")]
        check_settings(self, *(negative if self.random_start is not None and self.random_start < 0 else []))

    def with_random_start(self, *spawn_key: int) -> "SamplingConfig":
        """For a video, or an epoch, of this number: each has its own random starts, in whatever order they are read."""
        if self.random_start is None:
            return self
        seed = np.random.SeedSequence(self.random_start, spawn_key=spawn_key)
        return replace(self, random_start=int(seed.generate_state(1)[0]))


DEFAULT_SAMPLING = SamplingConfig()
# In the identity of clips, from which seeds follow (the order of shuffled controls): not to be changed with the names
VIEW_KEYS = {"center_crop": "centre", "three_crop": "three"}


def read_clip(
    path: str | Path,
    clip_spec: ClipSpec,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    *,
    time_range: tuple[float, float] | None = None,
    **overrides: Any,
) -> Clip:
    """The clips of a video as a network with this geometry was trained to see them.

    `overrides` are fields of `SamplingConfig`. `time_range` takes the part between two moments, in seconds, for the
    whole video: starts count from its beginning, and what reaches beyond its end goes on from there. A file that cannot
    be read raises `VideoError`.
    """
    path, sampling = Path(path), replace(sampling, **overrides)

    def read(by_decoding: bool) -> Clip:
        index = probe(path, by_decoding=by_decoding)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return clip_from_frames(
            index.times,
            index.duration,
            lambda wanted: decode_frames(index, wanted),
            content,
            clip_spec,
            sampling,
            time_range,
        )

    try:
        return read(by_decoding=False)
    except MissingFramesError:
        return read(by_decoding=True)


def clip_from_frames(
    times: Float[np.ndarray, " frames"],
    duration: float,
    read_frames: Callable[[list[int]], Iterable[tuple[int, np.ndarray]]],
    content: str,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    time_range: tuple[float, float] | None = None,
) -> Clip:
    """The same of anything whose frames have times; `read_frames` gives those that are wanted, with their numbers."""
    selection = select_frames(
        times,
        duration,
        clip_spec,
        n_clips=sampling.clips_per_video,
        start=sampling.start,
        start_seconds=sampling.start_seconds,
        interval_seconds=sampling.interval_seconds,
        random=None if sampling.random_start is None else np.random.default_rng(sampling.random_start),
        time_range=time_range,
    )
    # Each frame shrinks as soon as it is decoded: only small squares are ever held together.
    numbered_frames = read_frames(np.unique(selection.frames).tolist())
    squares = {
        i: square_views(frame, clip_spec, sampling.views, antialias=sampling.antialias) for i, frame in numbered_frames
    }
    video = np.stack(
        [np.stack([squares[int(i)] for i in clip], axis=1) for clip in selection.frames]
    )  # n views t h w 3
    video = video.reshape(-1, *video.shape[2:])
    return finish_clip(video, selection.frames, times[selection.frames], selection.padded, content, clip_spec, sampling)


def finish_clip(
    video: UInt8[np.ndarray, "views t h w 3"],
    frames: Int[np.ndarray, "n t"],
    times: Float[np.ndarray, "n t"],
    padded: bool,
    content: str,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
) -> Clip:
    """The clip of squares that are there: normalised if that is asked for, and with its identity.

    In the identity the frames stand for how they were chosen: a start in seconds and one in frames give one clip.
    """
    used_fields = ("size", "resize", "mean", "std") if sampling.normalise else ("size", "resize")
    if sampling.views == "three_crop":
        used_fields = tuple(name for name in used_fields if name != "resize")  # which it does not use
    preprocessing = {name: value for name, value in asdict(clip_spec).items() if name in used_fields}
    preprocessing |= {"views": VIEW_KEYS[sampling.views], "antialias": sampling.antialias}
    description = json.dumps([content, frames.tolist(), preprocessing], sort_keys=True)
    identity = hashlib.sha256(description.encode()).hexdigest()
    return Clip(clip_spec.normalise(video) if sampling.normalise else video, frames, times, padded, identity, content)
