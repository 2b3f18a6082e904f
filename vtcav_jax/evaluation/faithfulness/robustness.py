"""Does a map stay when nothing that matters changes, and is it simple?"""

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

RADIUS, DRAWS = 0.02, 10
DRAW_STREAM, ORDER_STREAM = range(1 << 18, (1 << 18) + 2)  # of the seeds
MASS = 0.9

Explainer = Callable[[Model, ArrayLike, Target], Attribution]
Video = Float[np.ndarray, "b t h w c"]
Maps = Float[np.ndarray, "b t h w"]
Each = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How far the map moves, in units of its length, when the clip is changed by noise that no one sees.

    The largest over all draws (Yeh et al., 2019), and the mean. NaN for a map of nothing but 0.
    """

    largest: Each
    mean: Each


def max_sensitivity(
    explainer: Explainer,
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    own: Maps | None = None,
    radius: float = RADIUS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Sensitivity:
    """Noise is uniform within `radius` times the range of the clip's values, the same draws for every explainer.

    `own` is the map of the clips as they are, where it has been made.
    """
    video = np.asarray(prepare_explanation(model, clips, target).video)
    if draws < 1 or radius <= 0:
        raise ValueError(f"expected at least one draw and a radius above 0, got {draws} and {radius}")
    before = explainer(model, video, target).map if own is None else own
    moved = [_length(explainer(model, d, target).map - before) for d in disturbed(video, radius, draws, seed)]
    size = _length(before)
    change = np.where(size > 0, np.stack(moved) / np.where(size > 0, size, 1), np.nan)
    return Sensitivity(change.max(0).astype(np.float32), change.mean(0).astype(np.float32))


def disturbed(video: Video, radius: float, draws: int, seed: int) -> list[Video]:
    reach = radius * np.ptp(video, axis=(1, 2, 3, 4), keepdims=True)
    randoms = [np.random.default_rng(s) for s in clip_seeds(video, seed, DRAW_STREAM)]
    shape = video.shape[1:]
    return [video + reach * np.stack([2 * r.random(shape, np.float32) - 1 for r in randoms]) for _ in range(draws)]


def jitter(explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, frames: int = 1) -> Each:
    """The clip begins `frames` later: the correlation of its map, moved back, with the map before.

    The last frame is repeated; only what is in both clips is compared.
    """
    return _moved(explainer, model, clips, target, 1, frames)


def translation(explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, pixels: int = 1) -> Each:
    """The same of a clip moved to the left by `pixels`."""
    return _moved(explainer, model, clips, target, 3, pixels)


def time_shuffled(explainer: Explainer, model: Model, clips: ArrayLike, target: Target, *, seed: int = 0) -> Each:
    """Frames in another order, the map's brought back into theirs: the correlation with the map before.

    Low is right where the network goes by motion, high where it goes by what is seen. Maps coarser than frames have
    steps that belong to frames which were apart.
    """
    video = np.asarray(prepare_explanation(model, clips, target).video)
    t = video.shape[1]
    orders = np.stack([np.random.default_rng(s).permutation(t) for s in clip_seeds(video, seed, ORDER_STREAM)])
    shuffled = np.take_along_axis(video, orders[:, :, None, None, None], 1)
    before, after = (_of_frames(explainer(model, x, target).map, t) for x in (video, shuffled))
    back = np.empty_like(after)
    np.put_along_axis(back, orders[:, :, None, None], after, 1)
    return pearson(before, back).astype(np.float32)


def gini(maps: Maps) -> Each:
    """Of absolute values: 0 of a map that is the same everywhere, near 1 of a single peak (sparseness)."""
    size = np.sort(np.abs(maps).reshape(len(maps), -1).astype(np.float64), -1)
    n, total = size.shape[1], size.sum(-1)
    place = 2 * np.arange(1, n + 1) - n - 1
    return np.where(total > 0, size @ place / (n * np.where(total > 0, total, 1)), np.nan).astype(np.float32)


def entropy(maps: Maps) -> Each:
    """Of the shares of absolute values, as a part of the largest possible: 1 of a map that is the same everywhere."""
    shares = _shares(maps)
    logs = np.log(np.where(shares > 0, shares, 1))
    return (-(shares * logs).sum(-1) / np.log(max(shares.shape[1], 2))).astype(np.float32)


def effective_complexity(maps: Maps, mass: float = MASS) -> Each:
    """The smallest share of the places that holds `mass` of the absolute map."""
    largest = np.sort(_shares(maps), -1)[:, ::-1].cumsum(-1)
    reached = (largest >= mass - 1e-12).argmax(-1) + 1
    return np.where(np.isnan(largest[:, 0]), np.nan, reached / largest.shape[1]).astype(np.float32)


def _shares(maps: Maps) -> Float[np.ndarray, "b n"]:
    size = np.abs(maps).reshape(len(maps), -1).astype(np.float64)
    total = size.sum(-1, keepdims=True)
    return np.where(total > 0, size / np.where(total > 0, total, 1), np.nan)


def _moved(explainer: Explainer, model: Model, clips: ArrayLike, target: Target, axis: int, by: int) -> Each:
    video = prepare_explanation(model, clips, target).video
    _, t, h, w, _ = video.shape
    n = video.shape[axis]
    if not 1 <= by < n - 1:
        raise ValueError(f"expected to move by 1 to {n - 2}, as {n} are there and two are compared at least, got {by}")
    later = jnp.take(video, jnp.minimum(jnp.arange(n) + by, n - 1), axis=axis)
    before, after = (area_resize(explainer(model, x, target).map, (t, h, w)) for x in (video, later))
    kept = [np.take(maps, range(first, first + n - by), axis) for maps, first in ((before, by), (after, 0))]
    return pearson(*kept).astype(np.float32)


def _of_frames(maps: Maps, frames: int) -> Maps:
    return area_resize(maps, (frames, *maps.shape[2:]))


def _length(maps: Maps) -> Each:
    return np.sqrt((maps.astype(np.float64) ** 2).sum((1, 2, 3)))
