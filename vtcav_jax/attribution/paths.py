"""Gradients along a path from a clip without what is to be explained to the clip: maps that add up to a difference.

Integrated gradients (Sundararajan et al., 2017) with Gauss-Legendre nodes; along random straight paths from many clips
(expected gradients, Erion et al., 2021); and in two legs, from nothing to a clip that stands still and on to the clip
that moves, so that what is seen and what changes are told apart with a conservation law.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, missing, still
from vtcav_jax.attribution.passes import Scored, explained, on_host, scores
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.intervals import ratio_of_means
from vtcav_jax.quadrature import gauss_legendre
from vtcav_jax.tap import Model

NODES = 64  # a trained Swin's gradient turns often on the way from grey: 16 missed up to 67 % of a score, 64 up to 4 %


def integrated_gradients(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    baseline: Baseline | tuple[str, ...] = "zero",
    nodes: int = NODES,
) -> Attribution:
    """The score's rise from `baseline` to the clip, place by place; of a tuple of baselines the mean.

    `residual` is what the nodes missed of the rise; with more `nodes` it goes to 0.
    """
    what = explained(model, clips, target)
    several = baseline if isinstance(baseline, tuple) else (baseline,)
    if not several:
        raise ValueError("name at least one baseline, got none")
    line = gauss_legendre(nodes)
    starts = [missing(what.video, one) for one in several]
    values = np.mean([_integral(what.scored, start, what.video, *line) for start in starts], 0)
    rise = scores(what.scored, what.video) - np.mean([scores(what.scored, start) for start in starts], 0)
    cost = 1 + len(several) * (3 * nodes + 1)
    return Attribution(values, VIDEO, True, cost, "integrated_gradients", rise - values.sum((1, 2, 3)))


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
    total, key = jnp.zeros_like(what.video[..., 0]), jax.random.key(seed)
    for i in range(samples):
        total = _with_drawn(what.scored, total, what.video, others, key, i, samples)
    values = on_host(total / samples)
    each = [scores(what.scored, jnp.broadcast_to(one[None], what.video.shape)) for one in others]
    residual = scores(what.scored, what.video) - np.mean(each, 0) - values.sum((1, 2, 3))
    return Attribution(values, VIDEO, True, 3 * samples + len(others) + 1, "expected_gradients", residual)


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
    nodes: int = NODES,
) -> Legs:
    """Integrated gradients from `baseline` to the clip frozen at one of its frames, and from there to the clip.

    The mean over `frames` frames, spread over the clip. Each leg has its own residual.
    """
    what = explained(model, clips, target)
    t = what.video.shape[1]
    if not 1 <= frames <= t:
        raise ValueError(f"expected 1 to {t} frames to freeze, as the clip has them, got {frames}")
    start, line = missing(what.video, baseline), gauss_legendre(nodes)
    stills = [still(what.video, int((i + 0.5) * t / frames)) for i in range(frames)]
    first = np.mean([_integral(what.scored, start, middle, *line) for middle in stills], 0)
    second = np.mean([_integral(what.scored, middle, what.video, *line) for middle in stills], 0)
    before, score = scores(what.scored, start), scores(what.scored, what.video)
    between = np.mean([scores(what.scored, middle) for middle in stills], 0)

    def leg(values: np.ndarray, start: np.ndarray, end: np.ndarray, name: str) -> Attribution:
        residual = end - start - values.sum((1, 2, 3))
        return Attribution(values, VIDEO, True, frames * (3 * nodes + 1) + 1, name, residual)

    static = leg(first, before, between, "static_leg")
    return Legs(static, leg(second, between, score, "dynamic_leg"), before, between, score)


def _integral(scored: Scored, start: Array, end: Array, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of the gradient along the straight line, times the line."""
    total = jnp.zeros_like(start)
    for place, weight in zip(places, weights):
        total = _with_node(scored, total, start, end, *(jnp.asarray(x, start.dtype) for x in (place, weight)))
    return on_host(((end - start) * total).sum(-1))


@jax.jit
def _with_node(scored: Scored, total: Array, start: Array, end: Array, place: Array, weight: Array) -> Array:
    return total + weight * scored.gradient(start + place * (end - start))


@partial(jax.jit, static_argnames="samples")
def _with_drawn(
    scored: Scored, total: Array, video: Array, others: Array, key: Array, i: ArrayLike, samples: int
) -> Array:
    which, where = jax.random.split(jax.random.fold_in(key, i))
    # One place in each of `samples` equal parts of the path: less scatter than free ones
    place = (jnp.asarray(i, video.dtype) + jax.random.uniform(where, (), video.dtype)) / samples
    start = others[jax.random.randint(which, (), 0, len(others))][None]
    path = video - start
    return total + (path * scored.gradient(start + place * path)).sum(-1)
