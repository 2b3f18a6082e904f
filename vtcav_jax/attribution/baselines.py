"""Baselines: clips without the content to explain, as a reference for a clip's score.

A `Baseline` is a name in `BASELINES`, an array that broadcasts to the clips, or a function from clips to clips.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.names import unknown_name_message

Video = Float[Array, "b t h w c"]
Baseline = str | ArrayLike | Callable[[Array], Array]


def zero(video: Video) -> Video:
    """Return zeros, which in normalised clips are the mean colour `ClipSpec.mean`."""
    return jnp.zeros_like(video)


def mean_colour(video: Video) -> Video:
    """Return each clip's mean colour in all voxels."""
    return jnp.broadcast_to(video.mean((1, 2, 3), keepdims=True), video.shape)


def temporal_mean(video: Video) -> Video:
    """Return each clip's mean frame, repeated."""
    return jnp.broadcast_to(video.mean(1, keepdims=True), video.shape)


def freeze_middle(video: Video) -> Video:
    """Return each clip's middle frame, repeated."""
    return freeze_frame(video, video.shape[1] // 2)


def blur_frames(video: Video) -> Video:
    """Blur each frame by a Gaussian with a sigma of 1/8 of the shorter side, mirrored at the border."""
    sigma = min(video.shape[2:4]) / 8
    return gaussian_blur_1d(gaussian_blur_1d(video, 2, sigma), 3, sigma)


def gaussian_blur_1d(video: Video, axis: int, sigma: float) -> Video:
    """Blur along one axis by a Gaussian, mirrored at its ends."""
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
    """Return the frame number `frame` of each clip, repeated over the clip's length."""
    frame_slice = jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1)
    return jnp.broadcast_to(frame_slice, video.shape)


def hold_last(video: Video, background: Video, keep: Bool[Array, "b t h w"]) -> Video:
    """Fill with the last kept voxel of this place, else with the first later one, else with the background."""
    frame = jnp.arange(video.shape[1], dtype=jnp.int32)[None, :, None, None]
    last = jax.lax.cummax(jnp.where(keep, frame, -1), axis=1)
    first = jnp.argmax(keep, axis=1)[:, None].astype(jnp.int32)
    visible = jnp.take_along_axis(video, jnp.where(last < 0, first, last)[..., None], axis=1)
    return jnp.where(keep.any(1)[:, None, ..., None], visible, background)


def pixel_bounds(clip_spec: ClipSpec) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Return black and white after normalisation, `-mean / std` and `(1 - mean) / std`; black can be a baseline."""
    mean, std = jnp.asarray(clip_spec.mean), jnp.asarray(clip_spec.std)
    return -mean / std, (1 - mean) / std


def resolve_baseline(video: Video, baseline: Baseline) -> Video:
    """Return the baseline as an array of the clips' shape."""
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(unknown_name_message("baseline", [baseline], BASELINES))
        return BASELINES[baseline](video)
    values: Any = baseline(video) if callable(baseline) else jnp.asarray(baseline, video.dtype)
    if values.ndim > 5 or any(n not in (1, m) for n, m in zip(values.shape[::-1], video.shape[::-1])):
        raise ValueError(f"a baseline must broadcast to the clips, {video.shape}; got {values.shape}")
    return jnp.broadcast_to(values.reshape((1,) * (5 - values.ndim) + values.shape), video.shape)
