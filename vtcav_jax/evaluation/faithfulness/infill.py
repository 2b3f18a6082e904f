"""What is shown in the place of what was removed.

No way is innocent: a constant colour is like no clip that a network has seen, a blur lets colour and slow motion
through, holding a frame makes stillness, and what is filled from around favours maps of large patches. So metrics are
told for several.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vtcav_jax.attribution.baselines import gaussian_blur_1d, mean_colour, zero
from vtcav_jax.evaluation.trivial_maps import clip_seeds
from vtcav_jax.names import unknown_name_message

DIFFUSION_SWEEPS = 30  # of the in-fill: so many voxels far what is left is felt
INFILL_NOISE_SD = 0.1  # of the in-fill, in standard deviations of the clip: a smooth hole would tell what was removed
INFILL_NOISE_STREAM = 1 << 16  # of the seeds

Video = Float[Array, "b t h w c"]
KeepMask = Bool[Array, "b t h w"]


@dataclass(frozen=True)
class Infill:
    """`start` makes, once for each clip, the clip without anything; `left` what is seen if some voxels are kept."""

    name: str
    make_background: Callable[[Video, int], Video]
    compose: Callable[[Video, Video, KeepMask], Video]


def substitute(video: Video, background: Video, keep: KeepMask) -> Video:
    return jnp.where(keep[..., None], video, background)


def hold_last(video: Video, background: Video, keep: KeepMask) -> Video:
    """What was kept last in this place, or else first; where nothing ever was, `start`."""
    frame = jnp.arange(video.shape[1], dtype=jnp.int32)[None, :, None, None]
    last = jax.lax.cummax(jnp.where(keep, frame, -1), axis=1)
    first = jnp.argmax(keep, axis=1)[:, None].astype(jnp.int32)
    visible = jnp.take_along_axis(video, jnp.where(last < 0, first, last)[..., None], axis=1)
    return jnp.where(keep.any(1)[:, None, ..., None], visible, background)


def diffuse(video: Video, background: Video, keep: KeepMask, sweeps: int = DIFFUSION_SWEEPS) -> Video:
    """Each removed voxel the weighted mean of its 26 neighbours, from Jacobi sweeps, and noise over it.

    As in ROAD (Rong et al., 2022), with time as a further direction. `start` is the mean colour with the noise on it.
    """
    noise, keep = background - mean_colour(video), keep[..., None]
    count = keep.sum((1, 2, 3), keepdims=True).astype(video.dtype)
    colour = jnp.where(keep, video, 0).sum((1, 2, 3), keepdims=True) / jnp.maximum(count, 1)
    first = jnp.where(keep, video, jnp.where(count > 0, colour, mean_colour(video)))
    weight = _neighbour_sum(jnp.ones((1, *video.shape[1:4], 1), video.dtype))
    filled = jax.lax.fori_loop(0, sweeps, lambda _, x: jnp.where(keep, video, _neighbour_sum(x) / weight), first)
    return jnp.where(keep, video, filled + noise)


def _neighbour_sum(x: Video) -> Video:
    """The sum over the 26 neighbours, those that share a face four times, an edge twice: 1 2 1 along each axis."""
    total = x
    for axis in (1, 2, 3):
        widths = [(1, 1) if a == axis else (0, 0) for a in range(5)]
        padded, n = jnp.pad(total, widths), x.shape[axis]
        before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
        total = before + 2 * total + after
    return total - 8 * x


@jax.jit
def blur(video: Video) -> Video:
    """In time as well as in space, each by an eighth of the clip's extent."""
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
        Infill(
            "grey", lambda video, seed: zero(video), substitute
        ),  # the mean colour that the network was trained with
        Infill("hold", lambda video, seed: mean_colour(video), hold_last),
        Infill("linear", _noisy_mean, diffuse),
    )
}


def get_infill(name: str) -> Infill:
    if name not in INFILLS:
        raise ValueError(unknown_name_message("fill", [name], INFILLS))
    return INFILLS[name]
