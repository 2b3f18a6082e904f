"""Infills that replace removed voxels.

Each has a bias: a constant colour is unlike the training clips, a blur preserves colour and slow motion, holding a
frame removes motion, and diffusion from neighbours favours maps of large patches. Metrics are therefore computed with
several.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vtcav_jax.attribution.baselines import gaussian_blur_1d, hold_last, mean_colour, zero
from vtcav_jax.evaluation.trivial_maps import clip_seeds
from vtcav_jax.names import unknown_name_message

DIFFUSION_SWEEPS = 30  # the distance in voxels over which `diffuse` propagates values
INFILL_NOISE_SD = 0.1  # in standard deviations of the clip; a smooth hole would reveal the removed shape
INFILL_NOISE_STREAM = 1 << 16  # seed stream

Video = Float[Array, "b t h w c"]
KeepMask = Bool[Array, "b t h w"]


@dataclass(frozen=True)
class Infill:
    """Infill: `make_background` returns the clip with all voxels removed, `compose` the clip with some kept."""

    name: str
    make_background: Callable[[Video, int], Video]
    compose: Callable[[Video, Video, KeepMask], Video]


def substitute(video: Video, background: Video, keep: KeepMask) -> Video:
    return jnp.where(keep[..., None], video, background)


def diffuse(video: Video, background: Video, keep: KeepMask, sweeps: int = DIFFUSION_SWEEPS) -> Video:
    """Fill removed voxels with the weighted mean of their 26 neighbours, by Jacobi sweeps, plus noise.

    As in ROAD (Rong et al., 2022), with time as a third axis. `background` is the mean colour plus the noise.
    """
    noise, keep = background - mean_colour(video), keep[..., None]
    count = keep.sum((1, 2, 3), keepdims=True).astype(video.dtype)
    colour = jnp.where(keep, video, 0).sum((1, 2, 3), keepdims=True) / jnp.maximum(count, 1)
    first = jnp.where(keep, video, jnp.where(count > 0, colour, mean_colour(video)))
    weight = _neighbour_sum(jnp.ones((1, *video.shape[1:4], 1), video.dtype))
    filled = jax.lax.fori_loop(0, sweeps, lambda _, x: jnp.where(keep, video, _neighbour_sum(x) / weight), first)
    return jnp.where(keep, video, filled + noise)


def _neighbour_sum(x: Video) -> Video:
    """Return the sum over the 26 neighbours, weighted 4 for a shared face and 2 for an edge (1 2 1 along each axis)."""
    total = x
    for axis in (1, 2, 3):
        widths = [(1, 1) if a == axis else (0, 0) for a in range(5)]
        padded, n = jnp.pad(total, widths), x.shape[axis]
        before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
        total = before + 2 * total + after
    return total - 8 * x


@jax.jit
def blur(video: Video) -> Video:
    """Blur in time and space, with a standard deviation of 1/8 of the extent (at least 1)."""
    for axis, n in zip((1, 2, 3), video.shape[1:4]):
        video = gaussian_blur_1d(video, axis, max(n / 8, 1.0))
    return video


def _noisy_mean(video: Video, seed: int) -> Video:
    seeds = clip_seeds(np.asarray(video), seed, INFILL_NOISE_STREAM)
    noise = np.stack([np.random.default_rng(s).standard_normal(video.shape[1:], np.float32) for s in seeds])
    return mean_colour(video) + INFILL_NOISE_SD * video.std((1, 2, 3, 4), keepdims=True) * jnp.asarray(
        noise, video.dtype
    )


INFILLS: dict[str, Infill] = {
    infill.name: infill
    for infill in (
        Infill("blur", lambda video, seed: blur(video), substitute),
        Infill("mean", lambda video, seed: mean_colour(video), substitute),
        Infill("grey", lambda video, seed: zero(video), substitute),  # mean colour of the training clips
        Infill("hold", lambda video, seed: mean_colour(video), hold_last),
        Infill("linear", _noisy_mean, diffuse),
    )
}


def get_infill(name: str) -> Infill:
    if name not in INFILLS:
        raise ValueError(unknown_name_message("infill", [name], INFILLS))
    return INFILLS[name]
