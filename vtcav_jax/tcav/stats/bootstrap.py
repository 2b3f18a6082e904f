"""Bootstrap intervals over the source videos of concept clips, negatives and target clips, separately and together.

Target videos are resampled with replacement. The videos of concept clips and negatives are not: a vector trained on a
resample has 37 % fewer distinct videos, which in many dimensions makes it so noisy that the percentiles of a strong
concept all lie below its estimate. Instead, a vector is trained without each video in turn, the change of the effect is
that video's influence, and a resample sums the influences of its videos. This needs one vector per video instead of one
per resample. With few videos the spread is multiplied by the ratio of Student's t to the normal quantile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.stats.intervals import small_sample_factor
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.scores import derivatives
from vtcav_jax.tcav.stats.step_effect import cross_fitted_steps, step_folds
from vtcav_jax.tcav.stats.vectors import LOGISTIC, FitConfig, fit

UncertaintySource = Literal["concept", "negatives", "targets", "all"]
UNCERTAINTY_SOURCES: tuple[UncertaintySource, ...] = ("concept", "negatives", "targets", "all")
MAX_LEFT_OUT_GROUPS = 20  # more videos are divided into this many groups, which are left out in turn
LEFT_OUT_TOLERANCE = 1e-5  # of vectors without a video, whose change is of the order 1 / number of videos

Interval = tuple[float, float]
UNKNOWN_INTERVAL: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class EffectIntervals:
    """Intervals of one class: the mean derivative by source of uncertainty, and the cross-fitted step effect.

    `step_effect` is NaN where a side has clips of a single video; an interval is NaN where a source has one.
    `step_draws` are the step effects of the resamples, which are the same for equal labels, units and seed, so that
    differences between stages (layers) have a joint distribution.
    """

    derivative: dict[UncertaintySource, Interval]
    step_effect: float
    step_interval: Interval
    step_draws: Float[np.ndarray, " b"] = field(default_factory=lambda: np.zeros(0))  # empty without a vector


def bootstrap(
    grams: Sequence[Gram],
    labels: Float[np.ndarray, " m"],
    fit_config: FitConfig = LOGISTIC,
    *,
    units: Int[np.ndarray, " m"] | None = None,
    target_units: Sequence[Int[np.ndarray, " n"]] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
    observed_derivatives: Sequence[Float[np.ndarray, " n"]] | None = None,
) -> list[EffectIntervals]:
    """Compute intervals over `draws` resamples, for each of `grams`: target clips of one class that share the kernel.

    Args:
        units: source video of each example; by default each is its own. A video with clips on both sides, such as a
            clip with its matched control, is left out with all of them.
        target_units: source video of each target clip, for each of `grams`.
        observed_derivatives: centres of the intervals in place of the grams' derivatives (finite steps); the influences
            still come from the grams.
    """
    units = np.arange(len(labels)) if units is None else units
    target_units = [np.arange(gram.cross.shape[1]) for gram in grams] if target_units is None else target_units
    problems = []
    if draws < 2 or not 0 < level < 1:
        problems.append(f"expected at least 2 draws and a level between 0 and 1, got {draws} and {level}")
    if not ((labels > 0).any() and (labels < 0).any()):
        problems.append("expected examples on both sides")
    if problems:
        raise ValueError("; ".join(problems))
    example_rng, fold_rng, draw_rng, target_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(4))
    parts = _left_out_parts(labels, units, example_rng)
    rows = np.concatenate([labels[None], *(part.labels for part in parts)])
    config = replace(fit_config, tolerance=max(fit_config.tolerance, LEFT_OUT_TOLERANCE))
    unit = fit(grams[0].kernel, rows, config).unit
    folds = step_folds(labels, units, fold_rng)
    steps = None if folds is None else cross_fitted_steps(grams, rows, folds, config)
    counts = [draw_rng.multinomial(part.size, np.full(part.size, 1 / part.size), draws) for part in parts]
    out = []
    for i, gram in enumerate(grams):
        weights = video_weights(target_units[i], draws, target_rng)
        along = derivatives(gram, unit)[0]
        changes = _changes_by_source(along, parts, counts, weights)
        mean = float(along[:, 0].mean())
        observed = mean if observed_derivatives is None else float(observed_derivatives[i].mean())
        derivative: dict[UncertaintySource, Interval] = {
            source: _interval(observed + change, level) for source, change in changes.items()
        }
        if steps is None:
            out.append(EffectIntervals(derivative, float("nan"), UNKNOWN_INTERVAL, np.full(draws, np.nan)))
            continue
        step = steps[i][0]
        ratio = observed / mean if mean else float("nan")  # 1, or what finite steps give instead of gradients
        estimate = float(step[:, 0].mean())
        draws_of_step = ratio * (estimate + _changes_by_source(step, parts, counts, weights)["all"])
        out.append(EffectIntervals(derivative, ratio * estimate, _interval(draws_of_step, level), draws_of_step))
    return out


@dataclass(frozen=True)
class _Part:
    """Label vectors without each group of videos in turn, for the videos of one side or of both.

    Without label vectors there is a single video, so that its influence is unknown.
    """

    sources: tuple[UncertaintySource, ...]
    labels: Float[np.ndarray, "g m"]

    @property
    def size(self) -> int:
        return max(len(self.labels), 1)


def _left_out_parts(
    labels: Float[np.ndarray, " m"], units: Int[np.ndarray, " m"], rng: np.random.Generator
) -> list[_Part]:
    """Return the parts for videos of the concept alone, of the negatives alone, and of both sides, if there are any."""
    positive, negative = (set(units[sign * labels > 0].tolist()) for sign in (1, -1))
    kinds: tuple[tuple[set[int], tuple[UncertaintySource, ...]], ...] = (
        (positive - negative, ("concept", "all")),
        (negative - positive, ("negatives", "all")),
        (positive & negative, ("concept", "negatives", "all")),
    )
    parts = []
    for members, sources in kinds:
        if not members:
            continue
        shuffled = rng.permutation(sorted(members))
        groups = [shuffled[i::MAX_LEFT_OUT_GROUPS] for i in range(min(len(shuffled), MAX_LEFT_OUT_GROUPS))]
        rows = np.stack([np.where(np.isin(units, group), 0.0, labels) for group in groups])
        parts.append(_Part(sources, rows if len(groups) > 1 else rows[:0]))
    return parts


def video_weights(units: Int[np.ndarray, " n"], draws: int, rng: np.random.Generator) -> Float[np.ndarray, "b n"]:
    """Return weights of clips in resamples of their videos (`units`), which sum to 1; NaN for a single video."""
    video = np.unique(units, return_inverse=True)[1]
    n_videos = int(video.max()) + 1
    if n_videos < 2:
        return np.full((draws, len(units)), np.nan)
    weights = rng.multinomial(n_videos, np.full(n_videos, 1 / n_videos), draws)[:, video].astype(float)
    weights /= weights.sum(1, keepdims=True)
    return 1 / len(units) + small_sample_factor(n_videos) * (weights - 1 / len(units))


def _changes_by_source(
    effects: Float[np.ndarray, "n v"],
    parts: Sequence[_Part],
    counts: Sequence[Int[np.ndarray, "b _"]],
    target_weights: Float[np.ndarray, "b n"],
) -> dict[UncertaintySource, Float[np.ndarray, " b"]]:
    """Return how the mean effect changes in each draw; the first column of `effects` is the estimate."""
    means = effects.mean(0)
    changes: dict[UncertaintySource, Float[np.ndarray, " b"]] = {
        source: np.zeros(len(target_weights)) for source in UNCERTAINTY_SOURCES
    }
    changes["targets"] = target_weights @ effects[:, 0] - means[0]
    changes["all"] = changes["targets"].copy()
    start = 1
    for part, count in zip(parts, counts):
        n_groups = len(part.labels)
        if n_groups:
            influences = (n_groups - 1) / n_groups * (means[0] - means[start : start + n_groups])
            change = small_sample_factor(n_groups) * ((count - 1.0) @ influences)
        else:
            change = np.full(len(target_weights), np.nan)
        start += n_groups
        for source in part.sources:
            changes[source] = changes[source] + change
    return changes


def _interval(values: Float[np.ndarray, " b"], level: float) -> Interval:
    if np.isnan(values).any():
        return UNKNOWN_INTERVAL
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
