"""Permutation tests: is a class more sensitive to the concept than to other choices of the same number of clips?

The primary test permutes labels: it pools the source videos of the concept clips and of the negatives and repeatedly
draws which of them are "the concept", each video with all its clips. Under the null hypothesis that videos of both
sides are exchangeable, every choice is as likely as the observed one, so that the p-value is valid for every network,
stage (layer) and estimator, however similar the clips of one video are. The statistic is the mean derivative along the
unit vector, since vector lengths also differ between permutations for other reasons, or the step effect.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.scores import sign_counts
from vtcav_jax.tcav.stats.vectors import LOGISTIC, FitConfig, fit, label_vector, side_weights

SLACK = 1e-6  # relative; a redraw of the observed choice must count as equal to it
# Solver tolerance of all vectors of a test, observed and permuted: the test is valid for any function of the labels
PERMUTED_VECTOR_TOLERANCE = 1e-3
VECTORS_PER_BLOCK = 256  # limits the memory for the derivatives at all target clips

# Returns the derivatives (class, target, vector) for each group of target clips, along unit vectors; the second
# argument is the distance between the means of concept and negatives along each vector.
DerivativeFn = Callable[[Float[np.ndarray, "v m"], Float[np.ndarray, " v"]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class TestResult:
    """Two-sided test of one label vector, for each class; NaN where the vector is 0.

    p-values are shares of the choices whose statistic is at least as far from neutral (0, or 0.5 for sign counts), and
    at least `p_min_attainable`. `step_effect` is the derivative times the distance along the vector from the mean of
    the negatives to that of the concept: the score change for that step. Its p-value is equally valid and can detect
    what that of the derivative misses: if clips differ mainly in the concept, the vectors of all choices are parallel
    to it, and only the distance between the means distinguishes the observed choice.
    """

    permute: Literal["clips", "sets"]
    derivative: Float[np.ndarray, " c"]
    p: Float[np.ndarray, " c"]
    sign_count: Float[np.ndarray, " c"]
    p_sign_count: Float[np.ndarray, " c"]
    null_derivatives: Float[np.ndarray, "b c"]  # mean derivatives for the permutations, or for the other sets
    p_min_attainable: float
    n_not_converged: int
    step_effect: Float[np.ndarray, " c"]
    p_step_effect: Float[np.ndarray, " c"]
    null_step_effects: Float[np.ndarray, "b c"]


def permutation_tests(
    grams: Sequence[Gram],
    labels: Float[np.ndarray, " m"],
    fit_config: FitConfig = LOGISTIC,
    *,
    permutations: int = 999,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
    units: Int[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " m"] | None = None,
    max_exceedances: int | None = None,
    derivative_fn: DerivativeFn | None = None,
) -> list[TestResult]:
    """Test by permuting which videos are the concept; see `permute_labels` for `blocks`, `units` and `strata`.

    The result has one entry for each
    of `grams`: groups of target clips of any size that share the first one's kernel, so that each vector is trained
    once. With `max_exceedances` the test is sequential (Besag and Clifford): it stops when that many permutations are
    at least as extreme as the observation, and p is `max_exceedances` divided by the number of permutations until then,
    which is as valid as drawing all of them. `derivative_fn` replaces `scores.derivatives`.
    """
    permuted_labels = permute_labels(labels, permutations, np.random.default_rng(seed), blocks, units, strata)
    p_min_attainable = min_attainable_p(labels, permutations, blocks, units, strata)
    rows, start, size = np.concatenate([labels[None], permuted_labels]), VECTORS_PER_BLOCK, VECTORS_PER_BLOCK
    statistics = _statistics(grams, rows[:start], fit_config, derivative_fn)
    while start < len(rows):
        if max_exceedances is not None and all(_can_stop_early(entry, max_exceedances) for entry in statistics):
            break
        size *= 4
        more_statistics = _statistics(grams, rows[start : start + size], fit_config, derivative_fn)
        statistics = [_concatenate(*pair) for pair in zip(statistics, more_statistics)]
        start += size
    return [_test_result("clips", entry, p_min_attainable, max_exceedances) for entry in statistics]


def set_permutation_tests(
    grams: Sequence[Gram],
    sets: Sequence[Int[np.ndarray, " _"]],
    fit_config: FitConfig = LOGISTIC,
    *,
    derivative_fn: DerivativeFn | None = None,
) -> list[TestResult]:
    """Test the first set against all others by exchanging whole sets: each set in turn against all the rest.

    This is for random sets whose clips resemble each other more than clips of different sets, so that only sets are
    exchangeable. Sets should have the same size. The result has one entry for each of `grams`.
    """
    if len(sets) < 2:
        raise ValueError("a test of sets needs at least one set in addition to the concept")
    m = len(grams[0].kernel)
    labels = np.stack(
        [label_vector(rows, np.concatenate([*sets[:i], *sets[i + 1 :]]), m) for i, rows in enumerate(sets)]
    )
    statistics = _statistics(grams, labels, fit_config, derivative_fn)
    return [_test_result("sets", entry, 1 / len(sets), None) for entry in statistics]


@dataclass(frozen=True)
class Calibration:
    """False-positive rate of the permutation test on random sets; `rate` should be alpha."""

    p: Float[np.ndarray, "r c"]
    alpha: float
    n_rejected: int
    n_trials: int

    @property
    def rate(self) -> float:
        return self.n_rejected / self.n_trials

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_ci(self.n_rejected, self.n_trials)


def calibrate(
    gram: Gram,
    sets: Sequence[Int[np.ndarray, " _"]],
    fit_config: FitConfig = LOGISTIC,
    *,
    permutations: int = 199,
    alpha: float = 0.05,
    seed: int = 0,
) -> Calibration:
    """Test each random set as a concept, with the others as negatives, like a real concept.

    A rate above alpha means that clips of a set resemble each other more than clips of different sets, so that label
    permutations give too many false positives. Trials of several classes share vectors, so the interval is too narrow.
    """
    if len(sets) < 2:
        raise ValueError("a calibration check needs at least two sets")
    m = len(gram.kernel)
    tests = [
        permutation_tests(
            [gram],
            label_vector(rows, np.concatenate([*sets[:i], *sets[i + 1 :]]), m),
            fit_config,
            permutations=permutations,
            seed=[seed, i],
        )[0]
        for i, rows in enumerate(sets)
    ]
    p = np.stack([test.p for test in tests])
    return Calibration(p, alpha, int((p <= alpha).sum()), int((~np.isnan(p)).sum()))


def permute_labels(
    labels: Float[np.ndarray, " m"],
    count: int,
    rng: np.random.Generator,
    blocks: Int[np.ndarray, " m"] | None = None,
    units: Int[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, "b m"]:
    """Return `count` label vectors in which the nonzero labels are permuted.

    Args:
        blocks: pairs of a dynamic clip and its matched control, whose labels are swapped or not.
        units: source video of each clip; by default each clip is its own. Labels move between whole videos; in a video
            with clips on both sides they move between its clips. All blocks of a video are swapped together.
        strata: labels move only between clips of the same stratum.
    """
    used = np.flatnonzero(labels)
    values = labels[used]
    unit, block, stratum = (_codes(part, used) for part in (units, blocks, strata))
    if block is not None:
        unit = np.arange(len(used)) if unit is None else unit
        signs = rng.choice((1.0, -1.0), (count, int(unit.max()) + 1))[:, unit[_first_of(block)][block]]
        permuted = values * signs
    else:
        permuted = np.tile(values, (count, 1))
        for members in _exchangeable_sets(values, unit, stratum):
            order = np.argsort(rng.random((count, len(members))), axis=1)
            member_values = np.array([values[rows[0]] for rows in members])[order]
            for i, rows in enumerate(members):
                permuted[:, rows] = member_values[:, i : i + 1]
    out = np.zeros((count, len(labels)))
    out[:, used] = permuted
    return out


def min_attainable_p(
    labels: Float[np.ndarray, " m"],
    permutations: int,
    blocks: Int[np.ndarray, " m"] | None = None,
    units: Int[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " m"] | None = None,
) -> float:
    """Return the smallest p-value of a label permutation test, given the numbers of permutations and of choices."""
    used = np.flatnonzero(labels)
    values = labels[used]
    unit, block, stratum = (_codes(part, used) for part in (units, blocks, strata))
    choices, balanced = 1, True
    if block is not None:
        choices = 2 ** (len(np.unique(block)) if unit is None else len(np.unique(unit)))
    else:
        for members in _exchangeable_sets(values, unit, stratum):
            up = sum(bool(values[rows[0]] > 0) for rows in members)
            choices *= math.comb(len(members), up)
            balanced &= 2 * up == len(members)
    # With equal sides the opposite choice has the opposite vector, which is as far from neutral
    return max(1 / (permutations + 1), (2 if balanced else 1) / choices)


def _codes(values: Int[np.ndarray, " m"] | None, used: np.ndarray) -> Int[np.ndarray, " u"] | None:
    """Return the values of the used examples as codes from 0."""
    return None if values is None else np.unique(values[used], return_inverse=True)[1]


def _first_of(codes: Int[np.ndarray, " u"]) -> Int[np.ndarray, " k"]:
    """Return the first example of each code."""
    return np.unique(codes, return_index=True)[1]


def _exchangeable_sets(
    values: Float[np.ndarray, " u"], unit: Int[np.ndarray, " u"] | None, stratum: Int[np.ndarray, " u"] | None
) -> list[list[np.ndarray]]:
    """Return sets of exchangeable members; a member is the examples of a whole video, or one of a video on both sides.

    The examples of a member share label and stratum.
    """
    stratum = np.zeros(len(values), int) if stratum is None else stratum
    if unit is None:
        return [[np.array([i]) for i in np.flatnonzero(stratum == s)] for s in np.unique(stratum)]
    whole: dict[int, list[np.ndarray]] = {}
    sets: list[list[np.ndarray]] = []
    for u in np.unique(unit):
        for s in np.unique(stratum[unit == u]):
            rows = np.flatnonzero((unit == u) & (stratum == s))
            if (values[rows] == values[rows[0]]).all():
                whole.setdefault(int(s), []).append(rows)
            else:
                sets.append([np.array([row]) for row in rows])
    return [*whole.values(), *sets]


def mean_gaps(
    kernel: Float[np.ndarray, "m m"], labels: Float[np.ndarray, "v m"], unit: Float[np.ndarray, "v m"]
) -> Float[np.ndarray, " v"]:
    """Return the distance from the mean of the negatives to that of the concept along each vector."""
    return np.einsum("vm,vm->v", np.subtract(*side_weights(labels)) @ kernel, unit)


@dataclass(frozen=True)
class _Statistics:
    """Test statistics of each vector and class; the first vector is the observed one."""

    means: Float[np.ndarray, "v c"]
    counts: Float[np.ndarray, "v c"]
    steps: Float[np.ndarray, "v c"]
    n_not_converged: int  # vectors that did not converge


def _statistics(
    grams: Sequence[Gram], labels: Float[np.ndarray, "v m"], fit_config: FitConfig, derivative_fn: DerivativeFn | None
) -> list[_Statistics]:
    """Return the statistics for each group of target clips, all with the kernel of the first."""
    fit_config = replace(fit_config, tolerance=max(fit_config.tolerance, PERMUTED_VECTOR_TOLERANCE))
    used = np.flatnonzero(labels.any(0))
    kernel, used_labels = grams[0].kernel[np.ix_(used, used)], labels[:, used]
    vectors = fit(kernel, used_labels, fit_config)
    units = vectors.unit
    gap = mean_gaps(kernel, used_labels, units)
    crosses = [gram.cross[:, :, used] for gram in grams]
    means, counts = [[] for _ in grams], [[] for _ in grams]
    for start in range(0, len(labels), VECTORS_PER_BLOCK):
        rows = slice(start, start + VECTORS_PER_BLOCK)
        if derivative_fn is None:
            parts = [cross @ units[rows].T for cross in crosses]
        else:
            unit = np.zeros((len(units[rows]), labels.shape[1]))
            unit[:, used] = units[rows]
            parts = derivative_fn(unit, gap[rows])
        for i, (gram, part) in enumerate(zip(grams, parts)):
            means[i].append(part.mean(1).T)
            counts[i].append(sign_counts(part, gram.gradient_norms).T)
    n_not_converged = int((~vectors.converged).sum())
    results = [(np.concatenate(mean), np.concatenate(count)) for mean, count in zip(means, counts)]
    return [_Statistics(mean, count, gap[:, None] * mean, n_not_converged) for mean, count in results]


def _concatenate(first: _Statistics, second: _Statistics) -> _Statistics:
    means, counts, steps = (
        np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("means", "counts", "steps")
    )
    return _Statistics(means, counts, steps, first.n_not_converged + second.n_not_converged)


def _test_result(permute, statistics: _Statistics, p_min_attainable: float, max_exceedances: int | None) -> TestResult:
    def p_of(distance):
        return _p_values(distance, p_min_attainable, max_exceedances)

    means, counts, steps = statistics.means, statistics.counts, statistics.steps
    return TestResult(
        permute,
        means[0],
        p_of(np.abs(means)),
        counts[0],
        p_of(np.abs(counts - 0.5)),
        means[1:],
        p_min_attainable,
        statistics.n_not_converged,
        steps[0],
        p_of(np.abs(steps)),
        steps[1:],
    )


def _can_stop_early(statistics: _Statistics, max_exceedances: int) -> bool:
    """Return whether, for every statistic and class, `max_exceedances` choices are at least as extreme."""
    distances = np.stack([np.abs(statistics.means), np.abs(statistics.counts - 0.5), np.abs(statistics.steps)])
    return bool((_is_as_extreme(distances).sum(1) >= max_exceedances).all())


def _is_as_extreme(distance: Float[np.ndarray, "*s v c"]) -> Bool[np.ndarray, "*s w c"]:
    """Return which choices are at least as extreme as the first; undefined (NaN) choices count as extreme."""
    return ~(distance[..., 1:, :] < distance[..., :1, :] * (1 - SLACK))


def _p_values(
    distance: Float[np.ndarray, "v c"], p_min_attainable: float, max_exceedances: int | None
) -> Float[np.ndarray, " c"]:
    """Return the p-values; the observation counts as one of the choices."""
    is_as_extreme = _is_as_extreme(distance)
    p = (1 + is_as_extreme.sum(0)) / len(distance)
    if max_exceedances is not None:
        exceedances = is_as_extreme.cumsum(0)
        p = np.where(
            exceedances[-1] >= max_exceedances, max_exceedances / (1 + (exceedances >= max_exceedances).argmax(0)), p
        )
    return np.where(np.isnan(distance[0]), np.nan, np.maximum(p, p_min_attainable))
