"""Gradients along a path from a clip without what is to be explained to the clip: maps that add up to a difference.

Integrated gradients (Sundararajan et al., 2017) with Gauss-Legendre nodes; along random straight paths from many clips
(expected gradients, Erion et al., 2021); and in two legs, from nothing to a clip that stands still and on to the clip
that moves, so that what is seen and what changes are told apart with a conservation law.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, missing, still
from vtcav_jax.attribution.passes import Scored, explained, on_host
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.intervals import ratio_of_means
from vtcav_jax.tap import Model


def integrated_gradients(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline | tuple[str, ...] = "zero",
    nodes: int = 16,
) -> Attribution:
    """The score's rise from `baseline` to the clip, place by place; of a tuple of baselines the mean.

    `residual` is what the nodes missed of the rise; with more `nodes` it goes to 0.
    """
    what = explained(model, clips, target)
    several = baseline if isinstance(baseline, tuple) else (baseline,)
    if not several:
        raise ValueError("name at least one baseline, got none")
    starts = jnp.stack([missing(what.video, one) for one in several])
    values, rise = _integrated_from(what.scored, starts, what.video, *_gauss_legendre(nodes))
    residual = on_host(rise) - on_host(values).sum((1, 2, 3))
    cost = 1 + len(several) * (3 * nodes + 1)
    return Attribution(on_host(values), VIDEO, True, cost, "integrated_gradients", residual)


def expected_gradients(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    references: ArrayLike,
    samples: int = 64,
    seed: int = 0,
) -> Attribution:
    """Integrated gradients from every clip of `references`, `(n, t, h, w, c)`: places and references are drawn.

    `residual` is against the score's rise over the mean score of all references; it falls with the root of `samples`.
    """
    what = explained(model, clips, target)
    others = jnp.asarray(references, what.video.dtype)
    if others.ndim != 5 or others.shape[1:] != what.video.shape[1:] or not len(others) or samples < 1:
        raise ValueError(
            f"expected at least one sample, and references of clips {what.video.shape[1:]}; got {samples} and "
            f"references of shape {others.shape}"
        )
    values, rise = _expected(what.scored, what.video, others, jax.random.key(seed), samples)
    residual = on_host(rise) - on_host(values).sum((1, 2, 3))
    return Attribution(on_host(values), VIDEO, True, 3 * samples + len(others) + 1, "expected_gradients", residual)


@dataclass(frozen=True, eq=False)
class Legs:
    """What is seen, and what changes: `static` and `dynamic` with the scores that they lead from, over and to.

    Scores `(b,)` are those of the baseline, of the clip standing still (the mean over its frames), and of the clip.
    """

    static: Attribution
    dynamic: Attribution
    baseline_score: Float[np.ndarray, " b"]
    still_score: Float[np.ndarray, " b"]
    score: Float[np.ndarray, " b"]

    @property
    def temporal_share(self) -> tuple[float, float, float]:
        """Of the score's rise, how much needs change over time: a ratio of means over clips, with its interval."""
        return ratio_of_means(self.score - self.still_score, self.score - self.baseline_score)


def static_and_dynamic(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline = "zero",
    frames: int = 4,
    nodes: int = 16,
) -> Legs:
    """Integrated gradients from `baseline` to the clip frozen at one of its frames, and from there to the clip.

    The mean over `frames` frames, spread over the clip. Each leg has its own residual.
    """
    what = explained(model, clips, target)
    t = what.video.shape[1]
    if not 1 <= frames <= t:
        raise ValueError(f"expected 1 to {t} frames to freeze, as the clip has them, got {frames}")
    chosen = jnp.asarray((np.arange(frames) + 0.5) * t / frames, jnp.int32)
    got = _two_legs(what.scored, missing(what.video, baseline), what.video, chosen, *_gauss_legendre(nodes))
    before, between, score = on_host(got.baseline), on_host(got.still), on_host(got.score)

    def leg(values: np.ndarray, start: np.ndarray, end: np.ndarray, name: str) -> Attribution:
        residual = end - start - values.sum((1, 2, 3))
        return Attribution(values, VIDEO, True, frames * (3 * nodes + 1) + 1, name, residual)

    static = leg(on_host(got.static), before, between, "static_leg")
    return Legs(static, leg(on_host(got.dynamic), between, score, "dynamic_leg"), before, between, score)


def _gauss_legendre(nodes: int) -> tuple[Array, Array]:
    """Places between 0 and 1 and weights that integrate polynomials up to degree `2 nodes - 1` exactly."""
    if nodes < 1:
        raise ValueError(f"expected at least one node, got {nodes}")
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return jnp.asarray((places + 1) / 2), jnp.asarray(weights / 2)


def _integral(scored: Scored, start: Array, end: Array, places: Array, weights: Array) -> Array:
    """Of the gradient along the straight line, times the line."""

    def step(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
        place, weight = (a.astype(start.dtype) for a in node)
        return total + weight * scored.gradient(start + place * (end - start)), None

    total = jax.lax.scan(step, jnp.zeros_like(start), (places, weights))[0]
    return ((end - start) * total).sum(-1)


@jax.jit
def _integrated_from(scored: Scored, starts: Array, video: Array, places: Array, weights: Array):
    def one(start: Array) -> tuple[Array, Array]:
        return _integral(scored, start, video, places, weights), scored.score(start)

    values, scores = jax.lax.map(one, starts)
    return values.mean(0), scored.score(video) - scores.mean(0)


@partial(jax.jit, static_argnames="samples")
def _expected(scored: Scored, video: Array, others: Array, key: Array, samples: int) -> tuple[Array, Array]:
    def step(total: Array, i: Array) -> tuple[Array, None]:
        which, where = jax.random.split(jax.random.fold_in(key, i))
        # One place in each of `samples` equal parts of the path: less scatter than free ones
        place = (i.astype(video.dtype) + jax.random.uniform(where, (), video.dtype)) / samples
        start = others[jax.random.randint(which, (), 0, len(others))][None]
        path = video - start
        return total + (path * scored.gradient(start + place * path)).sum(-1), None

    def reference_score(one: Array) -> Array:  # for each clip, as each has its own target
        return scored.score(jnp.broadcast_to(one[None], video.shape))

    total = jax.lax.scan(step, jnp.zeros_like(video[..., 0]), jnp.arange(samples))[0]
    return total / samples, scored.score(video) - jax.lax.map(reference_score, others).mean(0)


class _TwoLegs(NamedTuple):
    static: Array
    dynamic: Array
    baseline: Array
    still: Array
    score: Array


@jax.jit
def _two_legs(scored: Scored, start: Array, video: Array, chosen: Array, places: Array, weights: Array) -> _TwoLegs:
    def one(frame: Array) -> tuple[Array, Array, Array]:
        middle = still(video, frame)
        first = _integral(scored, start, middle, places, weights)
        return first, _integral(scored, middle, video, places, weights), scored.score(middle)

    static, dynamic, between = jax.lax.map(one, chosen)
    return _TwoLegs(static.mean(0), dynamic.mean(0), scored.score(start), between.mean(0), scored.score(video))
