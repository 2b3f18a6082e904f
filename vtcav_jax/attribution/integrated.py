"""Gradients along a path from a clip without what is to be explained to the clip: maps that add up to a difference.

Integrated gradients (Sundararajan et al., 2017) with Gauss-Legendre nodes; along random straight paths from many clips
(expected gradients, Erion et al., 2021); and in two legs, from nothing to a clip that stands still and on to the clip
that moves, so that what is seen and what changes are told apart with a conservation law.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, missing, still
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import Several, on_host, scores_of, several
from vtcav_jax.attribution.targets import Target
from vtcav_jax.stats.intervals import ratio_of_means
from vtcav_jax.stats.quadrature import gauss_legendre
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
    return integrated_for(model, clips, [target], baseline=baseline, nodes=nodes)[0]


def integrated_for(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    baseline: Baseline | tuple[str, ...] = "zero",
    nodes: int = NODES,
) -> list[Attribution]:
    """Of several targets, which share their forward passes."""
    asked, video = several(model, clips, targets)
    baselines = baseline if isinstance(baseline, tuple) else (baseline,)
    if not baselines:
        raise ValueError("name at least one baseline, got none")
    line = gauss_legendre(nodes)
    starts = [missing(video, one) for one in baselines]
    found = np.mean([_integrals(asked, start, video, *line) for start in starts], 0)
    rises = scores_of(asked, video) - np.mean([scores_of(asked, start) for start in starts], 0)
    cost = 1 + len(starts) * (3 * nodes + 1)
    return [
        Attribution(values, VIDEO, True, cost, "integrated_gradients", rise - values.sum((1, 2, 3)))
        for values, rise in zip(found, rises)
    ]


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
    return expected_for(model, clips, [target], references=references, samples=samples, seed=seed)[0]


def expected_for(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    references: ArrayLike,
    samples: int = 64,
    seed: int = 0,
) -> list[Attribution]:
    """Of several targets, which share their forward passes and what is drawn."""
    asked, video = several(model, clips, targets)
    others = jnp.asarray(references, video.dtype)
    if others.ndim != 5 or others.shape[1:] != video.shape[1:] or not len(others) or samples < 1:
        raise ValueError(
            f"expected at least one sample, and references of clips {video.shape[1:]}; got {samples} and "
            f"references of shape {others.shape}"
        )
    total, key = jnp.zeros((len(targets), *video.shape[:4]), video.dtype), jax.random.key(seed)
    for i in range(samples):
        total = _with_drawn(asked, total, video, others, key, i, samples)
    found = on_host(total / samples)
    each = [on_host(_in_place(asked, one[None], len(video))) for one in others]
    rises = scores_of(asked, video) - np.mean(each, 0)
    cost = 3 * samples + len(others) + 1
    return [
        Attribution(values, VIDEO, True, cost, "expected_gradients", rise - values.sum((1, 2, 3)))
        for values, rise in zip(found, rises)
    ]


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
    return legs_for(model, clips, [target], baseline=baseline, frames=frames, nodes=nodes)[0]


def legs_for(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    baseline: Baseline = "zero",
    frames: int = 4,
    nodes: int = NODES,
) -> list[Legs]:
    """Of several targets, which share their forward passes."""
    asked, video = several(model, clips, targets)
    t = video.shape[1]
    if not 1 <= frames <= t:
        raise ValueError(f"expected 1 to {t} frames to freeze, as the clip has them, got {frames}")
    start, line = missing(video, baseline), gauss_legendre(nodes)
    stills = [still(video, int((i + 0.5) * t / frames)) for i in range(frames)]
    firsts = np.mean([_integrals(asked, start, middle, *line) for middle in stills], 0)
    seconds = np.mean([_integrals(asked, middle, video, *line) for middle in stills], 0)
    befores, afters = scores_of(asked, start), scores_of(asked, video)
    betweens = np.mean([scores_of(asked, middle) for middle in stills], 0)

    def leg(values: np.ndarray, start: np.ndarray, end: np.ndarray, name: str) -> Attribution:
        residual = end - start - values.sum((1, 2, 3))
        return Attribution(values, VIDEO, True, frames * (3 * nodes + 1) + 1, name, residual)

    return [
        Legs(leg(first, low, middle, "static_leg"), leg(second, middle, high, "dynamic_leg"), low, middle, high)
        for first, second, low, middle, high in zip(firsts, seconds, befores, betweens, afters)
    ]


def _integrals(asked: Several, start: Array, end: Array, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each target's gradient along the straight line, times the line."""
    total = jnp.zeros((len(asked.targets), *start.shape), start.dtype)
    for place, weight in zip(places, weights):
        total = _with_node(asked, total, start, end, *(jnp.asarray(x, start.dtype) for x in (place, weight)))
    return on_host(((end - start)[None] * total).sum(-1))


@jax.jit
def _with_node(asked: Several, total: Array, start: Array, end: Array, place: Array, weight: Array) -> Array:
    return total + weight * asked.gradients(start + place * (end - start))


@partial(jax.jit, static_argnames="clips")
def _in_place(asked: Several, other: Array, clips: int) -> Array:
    return asked.scores_in_place(other, clips)


@partial(jax.jit, static_argnames="samples")
def _with_drawn(
    asked: Several, total: Array, video: Array, others: Array, key: Array, i: ArrayLike, samples: int
) -> Array:
    which, where = jax.random.split(jax.random.fold_in(key, i))
    # One place in each of `samples` equal parts of the path: less scatter than free ones
    place = (jnp.asarray(i, video.dtype) + jax.random.uniform(where, (), video.dtype)) / samples
    start = others[jax.random.randint(which, (), 0, len(others))][None]
    path = video - start
    # As (path[None] * gradients).sum(-1) it is wrong from the third target on: a fault of XLA's CPU compiler (0.10.2)
    gradients = asked.gradients(start + place * path)
    return total + jnp.einsum("bthwc,kbthwc->kbthw", path, gradients, precision="highest")
