"""Reading of clips from video files (`read_clip`) and from frames of other origin (`clip_from_frames`)."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from vtcav_jax.checksums import shared_file_sha256
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.decode import MissingFramesError, VideoFile, VideoIndex, decode_frames, probe
from vtcav_jax.data.frame_sampling import select_frames
from vtcav_jax.data.remote.stored_video import ResolvedVideo, StoredVideo
from vtcav_jax.data.resize import Views, square_views
from vtcav_jax.settings import check_settings, setting


@dataclass(frozen=True)
class Clip:
    """Network input made from one video: n clips with one or three adjacent views each."""

    video: Float32[np.ndarray, "views t h w 3"] | UInt8[np.ndarray, "views t h w 3"]
    frames: Int[np.ndarray, "n t"]  # frame numbers in the video, from 0
    times: Float[np.ndarray, "n t"]  # seconds from the first frame of the video
    padded: bool  # True if frames repeat because the video is too short
    identity: str  # SHA-256 of the content, the frame numbers and the preprocessing, without the file name
    content: str = ""  # SHA-256 of the file's bytes or of all frames, or a checksum that a store vouches for


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of clip sampling and preprocessing in addition to those of `ClipSpec`.

    Without a start, clips are spaced evenly; ten clips with three views are the usual test protocol. With
    `random_start` (a seed), starts are random, as in training. `interval_seconds` replaces the interval in frames of
    `ClipSpec`. `normalise=False` returns uint8. `consecutive` takes clips one after the other, as many as fit.
    """

    clips_per_video: int = setting(1, "evenly spaced clips per video", minimum=1, maximum=1000)
    views: Views = setting("center_crop", "spatial crops of each clip")
    normalise: bool = True
    interval_seconds: float | None = setting(
        None, "seconds between frames [default: the network's interval in frames]", above=0
    )
    antialias: bool = False
    start: int | None = None
    start_seconds: float | None = None
    random_start: int | None = None
    consecutive: bool = False

    def __post_init__(self):
        negative = [("random_start", f"expected a seed of at least 0, got {self.random_start}")]
        check_settings(self, *(negative if self.random_start is not None and self.random_start < 0 else []))

    def with_random_start(self, *spawn_key: int) -> "SamplingConfig":
        """Return the settings with a seed for this video or epoch, which makes starts independent of reading order."""
        if self.random_start is None:
            return self
        seed = np.random.SeedSequence(self.random_start, spawn_key=spawn_key)
        return replace(self, random_start=int(seed.generate_state(1)[0]))


DEFAULT_SAMPLING = SamplingConfig()
# Part of the identity of clips, from which seeds of shuffled controls are derived: keep when views are renamed.
VIEW_KEYS = {"center_crop": "centre", "three_crop": "three"}


def read_clip(
    path: str | Path | StoredVideo,
    clip_spec: ClipSpec,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    *,
    time_range: tuple[float, float] | None = None,
    **overrides: Any,
) -> Clip:
    """Read the clips of a video with the sampling and preprocessing that the network was trained with.

    `overrides` are fields of `SamplingConfig`. `time_range` (begin and end in seconds) treats that part as the whole
    video: starts count from its beginning, and clips that extend beyond its end continue from its beginning. Raises
    `VideoError` if the file cannot be read, and OSError if an object cannot be reached.

    ```python
    clip = read_clip("tennis.mp4", model.clip_spec, clips_per_video=10, views="three_crop")
    ```
    """
    sampling = replace(sampling, **overrides)
    file = path.resolve() if isinstance(path, StoredVideo) else Path(path)
    stamp = _file_stamp(file) if isinstance(file, Path) else None

    def read(by_decoding: bool) -> Clip:
        index, content = _index_and_content(file, stamp, by_decoding)
        return clip_from_frames(
            index.times,
            index.duration,
            lambda indices: decode_frames(index, indices),
            content,
            clip_spec,
            sampling,
            time_range,
        )

    try:
        clip = read(by_decoding=False)
    except MissingFramesError:
        clip = read(by_decoding=True)
    if isinstance(file, ResolvedVideo):
        file.check_unchanged()
    return clip


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file's content; None without a file, which `probe` reports."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=2)
def _index_and_content(
    file: VideoFile, stamp: tuple[int, int, int] | None, by_decoding: bool
) -> tuple[VideoIndex, str]:
    """Return the index and the content of a file; consecutive clips of a long video share them."""
    del stamp  # part of the key
    index = probe(file, by_decoding=by_decoding)
    return index, file.content() if isinstance(file, ResolvedVideo) else shared_file_sha256(file)


def clip_from_frames(
    times: Float[np.ndarray, " frames"],
    duration: float,
    read_frames: Callable[[list[int]], Iterable[tuple[int, np.ndarray]]],
    content: str,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    time_range: tuple[float, float] | None = None,
) -> Clip:
    """Make clips like `read_clip` from frames at `times`; `read_frames` yields the frames of the given numbers."""
    selection = select_frames(
        times,
        duration,
        clip_spec,
        n_clips=sampling.clips_per_video,
        consecutive=sampling.consecutive,
        start=sampling.start,
        start_seconds=sampling.start_seconds,
        interval_seconds=sampling.interval_seconds,
        random=None if sampling.random_start is None else np.random.default_rng(sampling.random_start),
        time_range=time_range,
    )
    # Resize each frame as soon as it is decoded, so that only small squares are in memory together.
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
    """Normalise cropped frames if required, and compute the identity of the clip.

    The identity contains the frame numbers, not the sampling: the same start in seconds or in frames gives the same
    clip.
    """
    used_fields = ("size", "resize", "mean", "std") if sampling.normalise else ("size", "resize")
    if sampling.views == "three_crop":
        used_fields = tuple(name for name in used_fields if name != "resize")  # three crops do not use it
    elif not clip_spec.keep_aspect:
        used_fields += ("keep_aspect",)
    preprocessing = {name: value for name, value in asdict(clip_spec).items() if name in used_fields}
    preprocessing |= {"views": VIEW_KEYS[sampling.views], "antialias": sampling.antialias}
    description = json.dumps([content, frames.tolist(), preprocessing], sort_keys=True)
    identity = hashlib.sha256(description.encode()).hexdigest()
    return Clip(clip_spec.normalise(video) if sampling.normalise else video, frames, times, padded, identity, content)
