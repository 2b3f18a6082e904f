"""Gradients integrated along a path from a baseline to the clip: maps that sum to the difference of the two scores.

Integrated gradients use Gauss-Legendre nodes; expected gradients sample straight paths from many clips; two legs, from
a baseline to the frozen clip and on to the clip, separate appearance from change over time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.baselines import Baseline, freeze_frame, resolve_baseline
from vtcav_jax.attribution.jaxprs.affine_prefix import affine_prefix, after_affine_prefix
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import (
    MultiScoreModel,
    clip_scores,
    prepare_multi_score,
    target_gradients,
    to_numpy,
)
from vtcav_jax.attribution.shared_passes import SharedPasses
from vtcav_jax.attribution.targets import Target
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.stats.intervals import ratio_ci
from vtcav_jax.stats.quadrature import gauss_legendre
from vtcav_jax.tap import Model

# A trained Swin's gradient changes often on the path from grey: 16 nodes missed up to 67 % of a score, 64 up to 4 %
IG_STEPS = 64


@SharedPasses
def integrated_gradients(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    baseline: Baseline | tuple[str, ...] = "zero",
    ig_steps: int = IG_STEPS,
) -> list[Attribution]:
    """Compute integrated gradients, `sum_c (x - x0)_c * integral_0^1 dscore/dx_c(x0 + s (x - x0)) ds`, x0 the baseline.

    Several baselines give the mean map. The map sums to score(x) - score(x0); `completeness_gap`, the part that the
    `ig_steps` nodes miss, goes to 0 with more nodes.

    Reference: Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017, arXiv:1703.01365.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    baselines = baseline if isinstance(baseline, tuple) else (baseline,)
    if not baselines:
        raise ValueError("expected at least one baseline, got none")
    quadrature = gauss_legendre(ig_steps)
    starts = [resolve_baseline(video, name) for name in baselines]
    integrals = np.mean([_integrals(scorer, start, video, *quadrature) for start in starts], 0)
    rises = clip_scores(scorer, video) - np.mean([clip_scores(scorer, start) for start in starts], 0)
    forward_passes = 1 + len(starts) * (3 * ig_steps + 1)
    return [
        Attribution(values, VIDEO, True, forward_passes, "integrated_gradients", rise - values.sum((1, 2, 3)))
        for values, rise in zip(integrals, rises)
    ]


@SharedPasses
def expected_gradients(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    references: ArrayLike,
    samples: int = 64,
    seed: int = 0,
) -> list[Attribution]:
    """Estimate the mean of integrated gradients over `references` `(n, t, h, w, c)` from `samples` random path points.

    The map estimates score(x) minus the mean score of the references; `completeness_gap` falls as 1 / sqrt(`samples`).

    Reference: Erion et al., "Improving performance of deep learning models with axiomatic attribution priors and
    expected gradients", 2021, arXiv:1906.10670.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    reference_clips = jnp.asarray(references, video.dtype)
    if (
        reference_clips.ndim != 5
        or reference_clips.shape[1:] != video.shape[1:]
        or not len(reference_clips)
        or samples < 1
    ):
        raise ValueError(
            f"expected at least one sample, and references of clips {video.shape[1:]}; got {samples} and "
            f"references of shape {reference_clips.shape}"
        )
    total, key = jnp.zeros((len(targets), *video.shape[:4]), video.dtype), jax.random.key(seed)
    for i in range(samples):
        total = _add_sampled_gradient(scorer, total, video, reference_clips, key, i, samples)
    integrals = to_numpy(total / samples)
    reference_scores = [
        to_numpy(_reference_scores(scorer, reference[None], len(video))) for reference in reference_clips
    ]
    rises = clip_scores(scorer, video) - np.mean(reference_scores, 0)
    forward_passes = 3 * samples + len(reference_clips) + 1
    return [
        Attribution(values, VIDEO, True, forward_passes, "expected_gradients", rise - values.sum((1, 2, 3)))
        for values, rise in zip(integrals, rises)
    ]


@dataclass(frozen=True, eq=False)
class StaticDynamicAttribution(DisplayedResult):
    """Maps of the two legs of `static_and_dynamic`, with scores `(b,)` of the baseline, the frozen clip and the clip.

    `static` sums to `static_score - baseline_score` and `dynamic` to `score - static_score`, up to their completeness
    gaps; `static_score` is the mean over the frozen frames.
    """

    static: Attribution
    dynamic: Attribution
    baseline_score: Float[np.ndarray, " b"]
    static_score: Float[np.ndarray, " b"]
    score: Float[np.ndarray, " b"]

    def __repr__(self) -> str:
        share, low, high = self.temporal_share
        interval = "" if np.isnan(low) else f" (95 % CI {low:.0%} to {high:.0%})"
        n_clips = f"{len(self.score)} clip{'' if len(self.score) == 1 else 's'}"
        return f"StaticDynamicAttribution({n_clips}; share of the dynamic leg {share:.0%}{interval})"

    @property
    def temporal_share(self) -> tuple[float, float, float]:
        """Ratio of the mean dynamic leg to the mean rise over the baseline, with its 95 % interval over clips."""
        return ratio_ci(self.score - self.static_score, self.score - self.baseline_score)


@SharedPasses
def static_and_dynamic(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    baseline: Baseline = "zero",
    frames: int = 4,
    ig_steps: int = IG_STEPS,
) -> list[StaticDynamicAttribution]:
    """Integrate gradients from `baseline` to the frozen clip (static leg) and on to the clip (dynamic leg).

    Maps are means over `frames` frozen frames, evenly spaced in the clip.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    t = video.shape[1]
    if not 1 <= frames <= t:
        raise ValueError(f"expected 1 to {t} frames to freeze (the clip has {t}), got {frames}")
    start, quadrature = resolve_baseline(video, baseline), gauss_legendre(ig_steps)
    frozen_clips = [freeze_frame(video, int((i + 0.5) * t / frames)) for i in range(frames)]
    static_maps = np.mean([_integrals(scorer, start, middle, *quadrature) for middle in frozen_clips], 0)
    dynamic_maps = np.mean([_integrals(scorer, middle, video, *quadrature) for middle in frozen_clips], 0)
    baseline_scores, full_scores = clip_scores(scorer, start), clip_scores(scorer, video)
    static_scores = np.mean([clip_scores(scorer, middle) for middle in frozen_clips], 0)

    def leg(values: np.ndarray, start: np.ndarray, end: np.ndarray, name: str) -> Attribution:
        completeness_gap = end - start - values.sum((1, 2, 3))
        return Attribution(values, VIDEO, True, frames * (3 * ig_steps + 1) + 1, name, completeness_gap)

    return [
        StaticDynamicAttribution(
            leg(first, low, middle, "static_leg"), leg(second, middle, high, "dynamic_leg"), low, middle, high
        )
        for first, second, low, middle, high in zip(
            static_maps, dynamic_maps, baseline_scores, static_scores, full_scores
        )
    ]


def _integrals(
    scorer: MultiScoreModel, start: Array, end: Array, places: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the path integral of each target's gradient from `start` to `end`, per voxel.

    The layers that are affine in the video run at both ends of the path, and backwards once, instead of at every node.
    """
    starts, ends = _first_layers(scorer, start), _first_layers(scorer, end)
    total = [jnp.zeros((len(scorer.targets), *values.shape), values.dtype) for values in starts]
    for place, weight in zip(places, weights):
        node = (jnp.asarray(x, start.dtype) for x in (place, weight))
        total = _add_node_gradient(scorer, total, start, starts, ends, *node)
    return to_numpy(_voxel_integrals(scorer, total, start, end))


def _score(scorer: MultiScoreModel, video: Array) -> Array:
    return scorer.score(video)


@jax.jit
def _first_layers(scorer: MultiScoreModel, video: Array) -> list[Array]:
    return affine_prefix(_score, scorer, video)


@partial(jax.jit, donate_argnames="total")
def _add_node_gradient(
    scorer: MultiScoreModel,
    total: list[Array],
    video: Array,
    starts: list[Array],
    ends: list[Array],
    place: Array,
    weight: Array,
) -> list[Array]:
    # Equal ends stay as they are: padding for a maximum, and masks, are -inf at both
    values = [jnp.where(a == b, a, a + place.astype(a.dtype) * (b - a)) for a, b in zip(starts, ends)]
    gradients = target_gradients(lambda values: after_affine_prefix(_score, scorer, video, values), values)
    return [a + weight.astype(a.dtype) * b for a, b in zip(total, gradients)]


@jax.jit
def _voxel_integrals(scorer: MultiScoreModel, total: list[Array], start: Array, end: Array) -> Array:
    _, pullback = jax.vjp(lambda video: affine_prefix(_score, scorer, video), end)
    gradients = jnp.stack([pullback([values[i] for values in total])[0] for i in range(len(scorer.targets))])
    return jnp.einsum("bthwc,kbthwc->kbthw", end - start, gradients, precision="highest")


@partial(jax.jit, static_argnames="clips")
def _reference_scores(scorer: MultiScoreModel, reference: Array, clips: int) -> Array:
    return scorer.score_broadcast(reference, clips)


@partial(jax.jit, static_argnames="samples")
def _add_sampled_gradient(
    scorer: MultiScoreModel, total: Array, video: Array, reference_clips: Array, key: Array, i: ArrayLike, samples: int
) -> Array:
    reference_key, place_key = jax.random.split(jax.random.fold_in(key, i))
    # One place in each of `samples` equal parts of the path (stratified), for a lower variance
    place = (jnp.asarray(i, video.dtype) + jax.random.uniform(place_key, (), video.dtype)) / samples
    start = reference_clips[jax.random.randint(reference_key, (), 0, len(reference_clips))][None]
    path = video - start
    # (path[None] * gradients).sum(-1) is wrong from the third target on: a bug in XLA's CPU compiler (jaxlib 0.10.2)
    gradients = scorer.gradients(start + place * path)
    return total + jnp.einsum("bthwc,kbthwc->kbthw", path, gradients, precision="highest")
