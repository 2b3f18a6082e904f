"""Bootstrap intervals over concept clips, negatives and target clips, separately and together.

Target clips are resampled with replacement. Concept clips and negatives are not: a vector trained on a resample has
37 % fewer distinct clips, which in many dimensions makes it so noisy that the percentiles of a strong concept all lie
below its estimate. Instead, a vector is trained without each clip in turn, the change of each target clip's derivative
is that clip's influence, and a resample sums the influences of its clips. This needs one vector per clip instead of one
per resample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.scores import derivatives, sign_counts
from vtcav_jax.tcav.stats.vectors import LOGISTIC, FitConfig, fit

UncertaintySource = Literal["concept", "negatives", "targets", "all"]
UNCERTAINTY_SOURCES: tuple[UncertaintySource, ...] = ("concept", "negatives", "targets", "all")
MAX_LEFT_OUT_GROUPS = 50  # a side with more clips is divided into this many groups, which are left out in turn


@dataclass(frozen=True)
class PercentileInterval:
    """Percentiles over the draws for each class."""

    low: Float[np.ndarray, " c"]
    high: Float[np.ndarray, " c"]


@dataclass(frozen=True)
class ScoreIntervals:
    sign_count: PercentileInterval
    derivative: PercentileInterval
    relative_derivative: PercentileInterval


def bootstrap(
    grams: Sequence[Gram],
    labels: Float[np.ndarray, " m"],
    fit_config: FitConfig = LOGISTIC,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
    sources: Sequence[UncertaintySource] = UNCERTAINTY_SOURCES,
    observed_derivatives: Sequence[Float[np.ndarray, "c n"]] | None = None,
) -> list[dict[UncertaintySource, ScoreIntervals]]:
    """Compute intervals over `draws` resamples of each source of uncertainty, for each of `grams`.

    The grams are groups of target clips that share the first one's kernel, so that each vector is trained once.
    `observed_derivatives` replace the grams' derivatives as the centre of the intervals (finite steps); the influences
    of the clips still come from the grams.
    """
    sides = [np.flatnonzero(sign * labels > 0) for sign in (1, -1)]
    problems = []
    if draws < 2 or not 0 < level < 1:
        problems.append(f"expected at least 2 draws and a level between 0 and 1, got {draws} and {level}")
    if min(len(side) for side in sides) < 2:
        problems.append(f"resampling needs at least 2 clips on each side, got {[len(side) for side in sides]}")
    if problems:
        raise ValueError("; ".join(problems))
    clip_seed, target_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(clip_seed)
    # Drawn for every source, so that no interval depends on which others are requested
    leave_out_rows, counts = zip(*(_leave_out_labels(labels, side, draws, rng) for side in sides))
    rows = np.concatenate([labels[None], *leave_out_rows])
    unit = fit(grams[0].kernel, rows, fit_config).unit
    ends = np.cumsum([1, *map(len, leave_out_rows)])
    intervals = []
    for i, gram in enumerate(grams):
        target_derivatives = derivatives(gram, unit)
        estimate = target_derivatives[:, :, :1]
        clip_changes = [
            (len(count[0]) - 1) / len(count[0]) * (estimate - target_derivatives[:, :, start:stop]) @ (count - 1.0).T
            for start, stop, count in zip(ends, ends[1:], counts)
        ]
        centre = estimate if observed_derivatives is None else observed_derivatives[i][:, :, None]
        changes: dict[UncertaintySource, Any] = {
            "concept": clip_changes[0],
            "negatives": clip_changes[1],
            "targets": 0.0,
            "all": clip_changes[0] + clip_changes[1],
        }
        intervals.append(
            _score_intervals(gram, centre, changes, draws, level, np.random.default_rng(target_seed), sources)
        )
    return intervals


def _leave_out_labels(
    labels: Float[np.ndarray, " m"], side: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "g m"], Int[np.ndarray, "b g"]]:
    """Return the labels without each group of one side's clips in turn, and each group's count in each draw."""
    groups = min(len(side), MAX_LEFT_OUT_GROUPS)
    rows = np.tile(labels, (groups, 1))
    rows[np.arange(len(side)) % groups, rng.permutation(side)] = 0
    return rows, rng.multinomial(groups, np.full(groups, 1 / groups), draws)


def _score_intervals(
    gram: Gram,
    centre: Float[np.ndarray, "c n 1"],
    changes: dict[UncertaintySource, Any],
    draws: int,
    level: float,
    rng: np.random.Generator,
    sources: Sequence[UncertaintySource],
) -> dict[UncertaintySource, ScoreIntervals]:
    n = gram.cross.shape[1]
    target_weights = rng.multinomial(n, np.full(n, 1 / n), draws) / n
    equal_weights = np.full((1, n), 1 / n)
    intervals: dict[UncertaintySource, ScoreIntervals] = {}
    for source in sources:
        draw_derivatives = np.broadcast_to(centre + changes[source], (*centre.shape[:2], draws))
        clip_weights = np.broadcast_to(target_weights if source in ("targets", "all") else equal_weights, (draws, n))
        mean = np.einsum("vn,cnv->cv", clip_weights, draw_derivatives)
        mean_norms = gram.gradient_norms @ clip_weights.T
        relative_derivative = np.clip(mean / np.where(mean_norms > 0, mean_norms, np.nan), -1, 1)
        counts = sign_counts(draw_derivatives, gram.gradient_norms, clip_weights)
        intervals[source] = ScoreIntervals(
            _percentile_interval(counts, level),
            _percentile_interval(mean, level),
            _percentile_interval(relative_derivative, level),
        )
    return intervals


def _percentile_interval(values: Float[np.ndarray, "c b"], level: float) -> PercentileInterval:
    is_known = ~np.isnan(values).all(1)
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if is_known.any():
        low[is_known], high[is_known] = np.nanquantile(values[is_known], [(1 - level) / 2, (1 + level) / 2], axis=1)
    return PercentileInterval(low, high)
