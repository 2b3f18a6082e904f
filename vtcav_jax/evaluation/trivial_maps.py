"""Maps that do not use the network: baselines that a method must beat."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from jaxtyping import ArrayLike, Float

from vtcav_jax.attribution.motion.flow_agreement import frame_difference
from vtcav_jax.runs.evaluation_rows import TRIVIAL_MAPS

Video = Float[np.ndarray, "b t h w c"]
Maps = Float[np.ndarray, "b t h w"]

N_RANDOM_MAPS = 5  # scores of single random maps vary


def trivial_maps(
    clips: ArrayLike, seed: int, names: Sequence[str] = TRIVIAL_MAPS, *, n_random: int = 1
) -> dict[str, Maps]:
    """Return the maps `names` at the resolution of the clips; all values are at least 0.

    If `n_random` > 1, add further random maps, `random_2` and so on.
    """
    if n_random < 1:
        raise ValueError(f"expected at least one random map, got {n_random}")
    video = _check_clips(clips)
    maps = {name: _MAPS[name](video, seed) for name in names}
    return maps | {f"random_{i + 1}": _random(video, seed, i) for i in range(1, n_random)}


def _check_clips(clips: ArrayLike) -> Video:
    video = np.asarray(clips, np.float32)
    if video.ndim != 5 or not video.size:
        raise ValueError(f"expected non-empty clips (b, t, h, w, c), got {video.shape}")
    return video


def clip_seeds(clips: ArrayLike, seed: int, stream: int = 0) -> list[np.random.SeedSequence]:
    """Return one seed per clip, derived from its content, so that batching does not matter."""
    return [np.random.SeedSequence(seed, spawn_key=(stream, crc32(clip.tobytes()))) for clip in np.asarray(clips)]


def _random(video: Video, seed: int, number: int = 0) -> Maps:
    shape = video.shape[1:4]
    return np.stack([np.random.default_rng(s).random(shape, np.float32) for s in clip_seeds(video, seed, number)])


def _difference_to_mean(video: Video, _: int) -> Maps:
    return np.abs(video - video.mean((1, 2, 3), keepdims=True)).mean(-1)


def _frame_difference(video: Video, _: int) -> Maps:
    return frame_difference(video)


def _sobel(video: Video, _: int) -> Maps:
    """Return the norm of each frame's spatial gradient, averaged over colours; edges are replicated."""
    x = np.pad(video, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = x[:, :, 2:] - x[:, :, :-2]
    along = x[:, :, :, 2:] - x[:, :, :, :-2]
    dy = down[:, :, :, :-2] + 2 * down[:, :, :, 1:-1] + down[:, :, :, 2:]
    dx = along[:, :, :-2] + 2 * along[:, :, 1:-1] + along[:, :, 2:]
    return np.hypot(dy, dx).mean(-1)


_MAPS: dict[str, Callable[[Video, int], Maps]] = dict(
    zip(TRIVIAL_MAPS, (_random, _difference_to_mean, _frame_difference, _sobel), strict=True)
)
