"""Is the class more sensitive to the concept than to any other choice of the same number of clips?

The primary test permutes labels: all clips of a vector are pooled, and which of them are "the concept" is drawn again
and again. Under the null hypothesis that concept and negatives are clips of one kind every choice is as likely as the
one that was made, and so the p-value is right whatever the network, the stage and the estimator. Its statistic is the
mean derivative along the vector of length 1; lengths differ between permutations for reasons of their own.
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
from vtcav_jax.tcav.stats.vectors import LOGISTIC, FitConfig, fit, label_vector

SLACK = 1e-6  # relative; the same choice of clips drawn again must count as equal
PERMUTED_VECTOR_TOLERANCE = (
    1e-3  # of vectors: what is the same function of the labels for every choice need not be exact
)
VECTORS_PER_BLOCK = 256  # vectors: derivatives of all of them at all targets are not held at once

# The derivatives (class, target, vector) for each group of targets, along unit vectors; the second argument is how far
# the concept is from the negatives along each.
DerivativeFn = Callable[[Float[np.ndarray, "v m"], Float[np.ndarray, " v"]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class TestResult:
    """Of one label vector, for each class. Two-sided: how often is the statistic as far from neutral, or further.

    `smallest` is the least that p could have been. NaN where the vector is 0. `step` is the derivative times the way
    from the mean of the negatives to the mean of the concept along the vector: what that step adds to the score. Its
    permutation p is as valid, and it sees what that of the derivative cannot: where the clips differ by little else
    than the concept, every choice of clips has a vector along the concept, and only the step between its means is
    small.
    """

    permute: Literal["clips", "sets"]
    derivative: Float[np.ndarray, " c"]
    p: Float[np.ndarray, " c"]
    sign_count: Float[np.ndarray, " c"]
    p_sign_count: Float[np.ndarray, " c"]
    null_derivatives: Float[np.ndarray, "b c"]  # mean derivatives of the permutations, or of the other sets
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
    max_exceedances: int | None = None,
    derivative_fn: DerivativeFn | None = None,
) -> list[TestResult]:
    """Permutes which clips are the concept; with `blocks` only among clips of the same block.

    Clips and their own twins are such blocks: for motion evidence a clip and its frozen copy change places, or not.
    There is a result for each of `grams`: groups of targets, of any sizes, over the first one's kernel, for which each
    vector is trained once.

    Besag and Clifford's sequential test: when `max_exceedances` permutations have been as far as what was observed, p
    is `max_exceedances` over how many that took, which is as valid as going on to the end, and costs a fraction where
    there is nothing. `derivative_fn` gives derivatives where they are not `scores.derivatives`.
    """
    permuted_labels = permute_labels(labels, permutations, np.random.default_rng(seed), blocks)
    p_min_attainable = min_attainable_p(labels, permutations, blocks)
    rows, start, size = np.concatenate([labels[None], permuted_labels]), VECTORS_PER_BLOCK, VECTORS_PER_BLOCK
    statistics = _statistics(grams, rows[:start], fit_config, derivative_fn)
    while start < len(rows):
        if max_exceedances is not None and all(_can_stop_early(each, max_exceedances) for each in statistics):
            break
        size *= 4
        more_statistics = _statistics(grams, rows[start : start + size], fit_config, derivative_fn)
        statistics = [_concatenate(*each) for each in zip(statistics, more_statistics)]
        start += size
    return [_test_result("clips", each, p_min_attainable, max_exceedances) for each in statistics]


def set_permutation_tests(
    grams: Sequence[Gram],
    sets: Sequence[Int[np.ndarray, " _"]],
    fit_config: FitConfig = LOGISTIC,
    *,
    derivative_fn: DerivativeFn | None = None,
) -> list[TestResult]:
    """The first set, against all the others, among each of those against all the rest; a result for each of `grams`.

    For random sets that were brought, where clips of a set may be more alike than clips of two sets are: sets are then
    what can be exchanged. Sets should be of one size.
    """
    if len(sets) < 2:
        raise ValueError("a test of sets needs at least one set besides the concept")
    m = len(grams[0].kernel)
    labels = np.stack([label_vector(one, np.concatenate([*sets[:i], *sets[i + 1 :]]), m) for i, one in enumerate(sets)])
    statistics = _statistics(grams, labels, fit_config, derivative_fn)
    return [_test_result("sets", each, 1 / len(sets), None) for each in statistics]


@dataclass(frozen=True)
class Calibration:
    """How often sets that are no concept are found to be one; `rate` should be alpha, and lies in low .. high."""

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
    """Each set in turn poses as the concept, the others are the negatives, by the same test as the real concepts.

    Too high a rate says that clips of a set are more alike than clips of two sets, and that label permutations then
    promise too much. Trials of several classes share their vectors, so the interval is a little narrow.
    """
    if len(sets) < 2:
        raise ValueError("a self-check needs at least two sets")
    m = len(gram.kernel)
    tests = [
        permutation_tests(
            [gram],
            label_vector(one, np.concatenate([*sets[:i], *sets[i + 1 :]]), m),
            fit_config,
            permutations=permutations,
            seed=[seed, i],
        )[0]
        for i, one in enumerate(sets)
    ]
    p = np.stack([test.p for test in tests])
    return Calibration(p, alpha, int((p <= alpha).sum()), int((~np.isnan(p)).sum()))


def permute_labels(
    labels: Float[np.ndarray, " m"],
    count: int,
    rng: np.random.Generator,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, "b m"]:
    """Label vectors with the used labels dealt out again, within blocks."""
    used = np.flatnonzero(labels)
    block = np.zeros(len(used), int) if blocks is None else np.unique(blocks[used], return_inverse=True)[1]
    positions = np.argsort(block, kind="stable")
    shuffled = np.argsort(block + rng.random((count, len(used))), axis=1)
    out = np.zeros((count, len(labels)))
    out[:, used[positions]] = labels[used][shuffled]
    return out


def min_attainable_p(
    labels: Float[np.ndarray, " m"], permutations: int, blocks: Int[np.ndarray, " m"] | None = None
) -> float:
    """The least p that a label test can give: by the number of permutations, or of different choices if fewer."""
    used = labels != 0
    block = np.zeros(len(labels), int) if blocks is None else blocks
    choices, balanced = 1, True
    for name in np.unique(block[used]):
        up, down = (int(((block == name) & (sign * labels > 0)).sum()) for sign in (1, -1))
        choices *= math.comb(up + down, up)
        balanced &= up == down
    # The opposite choice has the opposite vector, which is as far from neutral
    return max(1 / (permutations + 1), (2 if balanced else 1) / choices)


def mean_gaps(
    kernel: Float[np.ndarray, "m m"], labels: Float[np.ndarray, "v m"], unit: Float[np.ndarray, "v m"]
) -> Float[np.ndarray, " v"]:
    """How far the mean of the concept is from that of the negatives, along each vector."""
    sides = [np.where(sign * labels > 0, np.abs(labels), 0) for sign in (1, -1)]
    mean_difference = np.subtract(*(side / side.sum(1, keepdims=True) for side in sides))
    return np.einsum("vm,vm->v", mean_difference @ kernel, unit)


@dataclass(frozen=True)
class _Statistics:
    """Of vectors, the first of which is what was observed, and each class."""

    means: Float[np.ndarray, "v c"]
    counts: Float[np.ndarray, "v c"]
    steps: Float[np.ndarray, "v c"]
    n_not_converged: int  # vectors that did not converge


def _statistics(
    grams: Sequence[Gram], labels: Float[np.ndarray, "v m"], fit_config: FitConfig, derivative_fn: DerivativeFn | None
) -> list[_Statistics]:
    """For each group of targets; K is that of the first."""
    fit_config = replace(fit_config, tolerance=max(fit_config.tolerance, PERMUTED_VECTOR_TOLERANCE))
    used = np.flatnonzero(labels.any(0))
    kernel, used_labels = grams[0].kernel[np.ix_(used, used)], labels[:, used]
    vectors = fit(kernel, used_labels, fit_config)
    gap = mean_gaps(kernel, used_labels, vectors.unit)
    means, counts = [[] for _ in grams], [[] for _ in grams]
    for start in range(0, len(labels), VECTORS_PER_BLOCK):
        rows = slice(start, start + VECTORS_PER_BLOCK)
        if derivative_fn is None:
            parts = [gram.cross[:, :, used] @ vectors.unit[rows].T for gram in grams]
        else:
            unit = np.zeros((len(vectors.unit[rows]), labels.shape[1]))
            unit[:, used] = vectors.unit[rows]
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
    """Whether `max_exceedances` have been as far, in every respect."""
    distances = np.stack([np.abs(statistics.means), np.abs(statistics.counts - 0.5), np.abs(statistics.steps)])
    return bool((_is_as_extreme(distances).sum(1) >= max_exceedances).all())


def _is_as_extreme(distance: Float[np.ndarray, "*s v c"]) -> Bool[np.ndarray, "*s w c"]:
    """What has no value counts as further away."""
    return ~(distance[..., 1:, :] < distance[..., :1, :] * (1 - SLACK))


def _p_values(
    distance: Float[np.ndarray, "v c"], p_min_attainable: float, max_exceedances: int | None
) -> Float[np.ndarray, " c"]:
    """What was observed counts as one of the choices."""
    is_as_extreme = _is_as_extreme(distance)
    p = (1 + is_as_extreme.sum(0)) / len(distance)
    if max_exceedances is not None:
        exceedances = is_as_extreme.cumsum(0)
        p = np.where(
            exceedances[-1] >= max_exceedances, max_exceedances / (1 + (exceedances >= max_exceedances).argmax(0)), p
        )
    return np.where(np.isnan(distance[0]), np.nan, np.maximum(p, p_min_attainable))
