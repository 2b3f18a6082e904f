"""Stability of maps under irrelevant changes, and their simplicity."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.sanity_checks import pearson
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.evaluation.trivial_maps import clip_seeds
from vtcav_jax.tap import Model

NOISE_RADIUS, NOISE_DRAWS = 0.02, 10
DRAW_STREAM, ORDER_STREAM = range(1 << 18, (1 << 18) + 2)  # seed streams
COMPLEXITY_MASS = 0.9

Explainer = Callable[[Model, ArrayLike, Target], Attribution]
Video = Float[np.ndarray, "b t h w c"]
Maps = Float[np.ndarray, "b t h w"]
RobustnessPerClip = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Change of the map under imperceptible noise, relative to its norm: maximum (Yeh et al., 2019) and mean of draws.

    NaN for a map that is 0 everywhere.
    """

    max_change: RobustnessPerClip
    mean_change: RobustnessPerClip


def max_sensitivity(
    explainer: Explainer,
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    original_maps: Maps | None = None,
    radius: float = NOISE_RADIUS,
    draws: int = NOISE_DRAWS,
    seed: int = 0,
) -> Sensitivity:
    """Compute the sensitivity to uniform noise of `radius` times the clip's range of values, equal for all explainers.

    `original_maps` are the maps of the unchanged clips, if they are available.
    """
    video = np.asarray(prepare_explanation(model, clips, target).video)
    if draws < 1 or radius <= 0:
        raise ValueError(f"expected at least one draw and a radius above 0, got {draws} and {radius}")
    before = explainer(model, video, target).map if original_maps is None else original_maps
    change_norms = [_map_norm(explainer(model, d, target).map - before) for d in add_noise(video, radius, draws, seed)]
    size = _map_norm(before)
    change = np.where(size > 0, np.stack(change_norms) / np.where(size > 0, size, 1), np.nan)
    return Sensitivity(change.max(0).astype(np.float32), change.mean(0).astype(np.float32))


def add_noise(video: Video, radius: float, draws: int, seed: int) -> list[Video]:
    amplitude = radius * np.ptp(video, axis=(1, 2, 3, 4), keepdims=True)
    randoms = [np.random.default_rng(s) for s in clip_seeds(video, seed, DRAW_STREAM)]
    shape = video.shape[1:]
    return [video + amplitude * np.stack([2 * r.random(shape, np.float32) - 1 for r in randoms]) for _ in range(draws)]


def time_shift_correlation(
    explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, frames: int = 1
) -> RobustnessPerClip:
    """Return the correlation of the map with that of the clip `frames` later, after alignment.

    The last frame is repeated; only frames in both clips are compared.
    """
    return _shift_correlation(explainer, model, clips, target, 1, frames)


def translation_correlation(
    explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, pixels: int = 1
) -> RobustnessPerClip:
    """Return the correlation of the map with that of the clip moved left by `pixels`, after alignment."""
    return _shift_correlation(explainer, model, clips, target, 3, pixels)


def frame_shuffle_correlation(
    explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, seed: int = 0
) -> RobustnessPerClip:
    """Return the correlation of the map with that of the clip with shuffled frames, put back in order.

    It should be low if the network relies on motion, and high if it relies on appearance. For maps with fewer steps
    than frames, one step of the shuffled clip mixes frames that are not neighbours in the clip.
    """
    video = np.asarray(prepare_explanation(model, clips, target).video)
    t = video.shape[1]
    orders = np.stack([np.random.default_rng(s).permutation(t) for s in clip_seeds(video, seed, ORDER_STREAM)])
    shuffled = np.take_along_axis(video, orders[:, :, None, None, None], 1)
    before, after = (_resize_frames(explainer(model, x, target).map, t) for x in (video, shuffled))
    back = np.empty_like(after)
    np.put_along_axis(back, orders[:, :, None, None], after, 1)
    return pearson(before, back).astype(np.float32)


def gini(maps: Maps) -> RobustnessPerClip:
    """Return the Gini index of absolute values (sparseness): 0 for a constant map, near 1 for a single peak."""
    size = np.sort(np.abs(maps).reshape(len(maps), -1).astype(np.float64), -1)
    n, total = size.shape[1], size.sum(-1)
    place = 2 * np.arange(1, n + 1) - n - 1
    return np.where(total > 0, size @ place / (n * np.where(total > 0, total, 1)), np.nan).astype(np.float32)


def entropy(maps: Maps) -> RobustnessPerClip:
    """Return the entropy of absolute values over its maximum: 1 for a constant map."""
    shares = _shares(maps)
    logs = np.log(np.where(shares > 0, shares, 1))
    return (-(shares * logs).sum(-1) / np.log(max(shares.shape[1], 2))).astype(np.float32)


def effective_complexity(maps: Maps, mass: float = COMPLEXITY_MASS) -> RobustnessPerClip:
    """Return the smallest share of places that holds `mass` of the absolute map."""
    largest = np.sort(_shares(maps), -1)[:, ::-1].cumsum(-1)
    reached = (largest >= mass - 1e-12).argmax(-1) + 1
    return np.where(np.isnan(largest[:, 0]), np.nan, reached / largest.shape[1]).astype(np.float32)


def _shares(maps: Maps) -> Float[np.ndarray, "b n"]:
    size = np.abs(maps).reshape(len(maps), -1).astype(np.float64)
    total = size.sum(-1, keepdims=True)
    return np.where(total > 0, size / np.where(total > 0, total, 1), np.nan)


def _shift_correlation(
    explainer: Explainer, model: Model, clips: ArrayLike, target: Target, axis: int, offset: int
) -> RobustnessPerClip:
    video = prepare_explanation(model, clips, target).video
    _, t, h, w, _ = video.shape
    n = video.shape[axis]
    if not 1 <= offset < n - 1:
        raise ValueError(f"expected a shift of 1 to {n - 2} of {n}, so that at least two are compared, got {offset}")
    later = jnp.take(video, jnp.minimum(jnp.arange(n) + offset, n - 1), axis=axis)
    before, after = (area_resize(explainer(model, x, target).map, (t, h, w)) for x in (video, later))
    overlaps = [np.take(maps, range(first, first + n - offset), axis) for maps, first in ((before, offset), (after, 0))]
    return pearson(*overlaps).astype(np.float32)


def _resize_frames(maps: Maps, frames: int) -> Maps:
    return area_resize(maps, (frames, *maps.shape[2:]))


def _map_norm(maps: Maps) -> RobustnessPerClip:
    return np.sqrt((maps.astype(np.float64) ** 2).sum((1, 2, 3)))
