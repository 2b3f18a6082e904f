"""Clips in which something is missing: what a clip is compared with.

A name, an array that broadcasts to the clips, or a function from clips to clips.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.names import unknown_name_message

Video = Float[Array, "b t h w c"]
Baseline = str | ArrayLike | Callable[[Array], Array]


def zero(video: Video) -> Video:
    """0 of the normalised clip: the mean colour that the network was trained with."""
    return jnp.zeros_like(video)


def mean_colour(video: Video) -> Video:
    """Each clip's mean colour, everywhere."""
    return jnp.broadcast_to(video.mean((1, 2, 3), keepdims=True), video.shape)


def temporal_mean(video: Video) -> Video:
    """The mean frame, standing still."""
    return jnp.broadcast_to(video.mean(1, keepdims=True), video.shape)


def freeze_middle(video: Video) -> Video:
    """The middle frame, standing still."""
    return freeze_frame(video, video.shape[1] // 2)


def blur_frames(video: Video) -> Video:
    """Each frame out of focus: a Gaussian of an eighth of the shorter side, frames mirrored at the border."""
    sigma = min(video.shape[2:4]) / 8
    return gaussian_blur_1d(gaussian_blur_1d(video, 2, sigma), 3, sigma)


def gaussian_blur_1d(video: Video, axis: int, sigma: float) -> Video:
    """By a Gaussian along one axis, mirrored at its ends."""
    n = video.shape[axis]
    reach = min(int(3 * sigma + 1), n - 1)
    weights = jnp.exp(-((jnp.arange(-reach, reach + 1, dtype=video.dtype) / sigma) ** 2) / 2)
    widths = [(reach, reach) if a == axis else (0, 0) for a in range(5)]
    padded = jnp.pad(video, widths, mode="reflect")
    parts = [w * jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i, w in enumerate(weights / weights.sum())]
    return jnp.stack(parts).sum(0)


BASELINES: dict[str, Callable[[Array], Array]] = {
    "zero": zero,
    "mean": mean_colour,
    "temporal_mean": temporal_mean,
    "frozen": freeze_middle,
    "blurred": blur_frames,
}


def freeze_frame(video: Video, frame: ArrayLike) -> Video:
    """One frame of each clip, for as long as the clip lasts."""
    frame_slice = jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1)
    return jnp.broadcast_to(frame_slice, video.shape)


def pixel_bounds(clip_spec: ClipSpec) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """What black and white become when a clip is normalised; black is a baseline as well."""
    mean, std = jnp.asarray(clip_spec.mean), jnp.asarray(clip_spec.std)
    return -mean / std, (1 - mean) / std


def resolve_baseline(video: Video, baseline: Baseline) -> Video:
    """`baseline` for these clips."""
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(unknown_name_message("baseline", [baseline], BASELINES))
        return BASELINES[baseline](video)
    values: Any = baseline(video) if callable(baseline) else jnp.asarray(baseline, video.dtype)
    if values.ndim > 5 or any(n not in (1, m) for n, m in zip(values.shape[::-1], video.shape[::-1])):
        raise ValueError(f"a baseline must broadcast to the clips, {video.shape}; got {values.shape}")
    return jnp.broadcast_to(values.reshape((1,) * (5 - values.ndim) + values.shape), video.shape)
