"""Maps that ask no network anything: what a method must beat before its numbers mean something."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from jaxtyping import ArrayLike, Float

from vtcav_jax.runs.evaluation_rows import TRIVIAL_MAPS

Video = Float[np.ndarray, "b t h w c"]
Maps = Float[np.ndarray, "b t h w"]

N_RANDOM_MAPS = 5  # chance scatters from one random map to the next


def trivial_maps(
    clips: ArrayLike, seed: int, names: Sequence[str] = TRIVIAL_MAPS, *, n_random: int = 1
) -> dict[str, Maps]:
    """The maps `names` at the clips' own resolution, none below 0.

    With several random maps, `n_random`, there are further ones, `random_2` and so on.
    """
    if n_random < 1:
        raise ValueError(f"expected at least one random map, got {n_random}")
    video = _check_clips(clips)
    maps = {name: _MAPS[name](video, seed) for name in names}
    return maps | {f"random_{i + 1}": _random(video, seed, i) for i in range(1, n_random)}


def _check_clips(clips: ArrayLike) -> Video:
    video = np.asarray(clips, np.float32)
    if video.ndim != 5 or not video.size:
        raise ValueError(f"expected clips (b, t, h, w, c), none of these 0, got {video.shape}")
    return video


def clip_seeds(clips: ArrayLike, seed: int, stream: int = 0) -> list[np.random.SeedSequence]:
    """One for each clip, made of what it shows: the same in whatever batch it comes."""
    return [np.random.SeedSequence(seed, spawn_key=(stream, crc32(clip.tobytes()))) for clip in np.asarray(clips)]


def _random(video: Video, seed: int, number: int = 0) -> Maps:
    shape = video.shape[1:4]
    return np.stack([np.random.default_rng(s).random(shape, np.float32) for s in clip_seeds(video, seed, number)])


def _difference_to_mean(video: Video, _: int) -> Maps:
    return np.abs(video - video.mean((1, 2, 3), keepdims=True)).mean(-1)


def _frame_difference(video: Video, _: int) -> Maps:
    """The mean over the frames before and after, where there are any: no frame is left out."""
    change = np.abs(np.diff(video, axis=1)).mean(-1)
    beside = np.pad(change, ((0, 0), (1, 1), (0, 0), (0, 0)))
    neighbours = np.array([min(t, 1) + min(video.shape[1] - 1 - t, 1) for t in range(video.shape[1])])
    return (beside[:, :-1] + beside[:, 1:]) / np.maximum(neighbours, 1).astype(np.float32)[:, None, None]


def _sobel(video: Video, _: int) -> Maps:
    """The length of each frame's gradient, the mean over colours; the border is continued."""
    x = np.pad(video, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = x[:, :, 2:] - x[:, :, :-2]
    along = x[:, :, :, 2:] - x[:, :, :, :-2]
    dy = down[:, :, :, :-2] + 2 * down[:, :, :, 1:-1] + down[:, :, :, 2:]
    dx = along[:, :, :-2] + 2 * along[:, :, 1:-1] + along[:, :, 2:]
    return np.hypot(dy, dx).mean(-1)


_MAPS: dict[str, Callable[[Video, int], Maps]] = dict(
    zip(TRIVIAL_MAPS, (_random, _difference_to_mean, _frame_difference, _sobel), strict=True)
)
