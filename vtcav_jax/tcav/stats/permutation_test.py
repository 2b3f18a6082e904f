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
from vtcav_jax.tcav.stats.vectors import LOGISTIC, Training, fit, labels

SLACK = 1e-6  # relative; the same choice of clips drawn again must count as equal
TOLERANCE = 1e-3  # of vectors: what is the same function of the labels for every choice need not be exact
PORTION = 256  # vectors: derivatives of all of them at all targets are not held at once

# The derivatives (class, target, vector) for each group of targets, along unit vectors; the second argument is how far
# the concept is from the negatives along each.
Along = Callable[[Float[np.ndarray, "v m"], Float[np.ndarray, " v"]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Test:
    """Of one label vector, for each class. Two-sided: how often is the statistic as far from neutral, or further.

    `smallest` is the least that p could have been. NaN where the vector is 0. `step` is the derivative times the way
    from the mean of the negatives to the mean of the concept along the vector: what that step adds to the score. Its
    permutation p is as valid, and it sees what that of the derivative cannot: where the clips differ by little else
    than the concept, every choice of clips has a vector along the concept, and only the step between its means is
    small.
    """

    kind: Literal["labels", "sets"]
    derivative: Float[np.ndarray, " c"]
    p: Float[np.ndarray, " c"]
    sign_count: Float[np.ndarray, " c"]
    sign_p: Float[np.ndarray, " c"]
    null: Float[np.ndarray, "b c"]  # mean derivatives of the permutations, or of the other sets
    smallest: float
    not_converged: int
    step: Float[np.ndarray, " c"]
    step_p: Float[np.ndarray, " c"]
    step_null: Float[np.ndarray, "b c"]


def label_test(
    gram: Gram,
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    permutations: int = 999,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
    enough: int | None = None,
) -> Test:
    """Permutes which clips are the concept; with `blocks` only among clips of the same block.

    Clips and their own twins are such blocks: for motion evidence a clip and its frozen copy change places, or not.
    """
    return label_tests([gram], signed, training, permutations=permutations, seed=seed, blocks=blocks, enough=enough)[0]


def label_tests(
    grams: Sequence[Gram],
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    permutations: int = 999,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
    enough: int | None = None,
    along: Along | None = None,
) -> list[Test]:
    """The same for several groups of targets, of any sizes, over one K: each vector is trained once for all.

    Besag and Clifford's sequential test: when `enough` permutations have been as far as what was observed, p is
    `enough` over how many that took, which is as valid as going on to the end, and costs a fraction where there is
    nothing. `along` gives derivatives where they are not `scores.derivatives`.
    """
    drawn = permuted(signed, permutations, np.random.default_rng(seed), blocks)
    smallest = smallest_p(signed, permutations, blocks)
    rows, start, size = np.concatenate([signed[None], drawn]), PORTION, PORTION
    joined = _statistics(grams, rows[:start], training, along)
    while start < len(rows):
        if enough is not None and all(_over(each, enough) for each in joined):
            break
        size *= 4
        more = _statistics(grams, rows[start : start + size], training, along)
        joined = [_joined(*each) for each in zip(joined, more)]
        start += size
    return [_test("labels", each, smallest, enough) for each in joined]


def set_test(gram: Gram, sets: Sequence[Int[np.ndarray, " _"]], training: Training = LOGISTIC) -> Test:
    """The first set, against all the others, among each of those against all the rest.

    For random sets that were brought, where clips of a set may be more alike than clips of two sets are: sets are then
    what can be exchanged. Sets should be of one size.
    """
    return set_tests([gram], sets, training)[0]


def set_tests(
    grams: Sequence[Gram],
    sets: Sequence[Int[np.ndarray, " _"]],
    training: Training = LOGISTIC,
    *,
    along: Along | None = None,
) -> list[Test]:
    """The same for several groups of targets over one K."""
    if len(sets) < 2:
        raise ValueError("a test of sets needs at least one set besides the concept")
    m = len(grams[0].kernel)
    signed = np.stack([labels(one, np.concatenate([*sets[:i], *sets[i + 1 :]]), m) for i, one in enumerate(sets)])
    found = _statistics(grams, signed, training, along)
    return [_test("sets", each, 1 / len(sets), None) for each in found]


@dataclass(frozen=True)
class SelfCheck:
    """How often sets that are no concept are found to be one; `rate` should be alpha, and lies in low .. high."""

    p: Float[np.ndarray, "r c"]
    alpha: float
    found: int
    trials: int

    @property
    def rate(self) -> float:
        return self.found / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_ci(self.found, self.trials)


def self_check(
    gram: Gram,
    sets: Sequence[Int[np.ndarray, " _"]],
    training: Training = LOGISTIC,
    *,
    permutations: int = 199,
    alpha: float = 0.05,
    seed: int = 0,
) -> SelfCheck:
    """Each set in turn poses as the concept, the others are the negatives, by the same test as the real concepts.

    Too high a rate says that clips of a set are more alike than clips of two sets, and that label permutations then
    promise too much. Trials of several classes share their vectors, so the interval is a little narrow.
    """
    if len(sets) < 2:
        raise ValueError("a self-check needs at least two sets")
    m = len(gram.kernel)
    tests = [
        label_test(
            gram,
            labels(one, np.concatenate([*sets[:i], *sets[i + 1 :]]), m),
            training,
            permutations=permutations,
            seed=[seed, i],
        )
        for i, one in enumerate(sets)
    ]
    p = np.stack([test.p for test in tests])
    return SelfCheck(p, alpha, int((p <= alpha).sum()), int((~np.isnan(p)).sum()))


def permuted(
    signed: Float[np.ndarray, " m"],
    count: int,
    rng: np.random.Generator,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, "b m"]:
    """Label vectors with the used labels dealt out again, within blocks."""
    used = np.flatnonzero(signed)
    block = np.zeros(len(used), int) if blocks is None else np.unique(blocks[used], return_inverse=True)[1]
    places = np.argsort(block, kind="stable")
    dealt = np.argsort(block + rng.random((count, len(used))), axis=1)
    out = np.zeros((count, len(signed)))
    out[:, used[places]] = signed[used][dealt]
    return out


def smallest_p(
    signed: Float[np.ndarray, " m"], permutations: int, blocks: Int[np.ndarray, " m"] | None = None
) -> float:
    """The least p that a label test can give: by the number of permutations, or of different choices if fewer."""
    used = signed != 0
    block = np.zeros(len(signed), int) if blocks is None else blocks
    choices, balanced = 1, True
    for name in np.unique(block[used]):
        up, down = (int(((block == name) & (sign * signed > 0)).sum()) for sign in (1, -1))
        choices *= math.comb(up + down, up)
        balanced &= up == down
    # The opposite choice has the opposite vector, which is as far from neutral
    return max(1 / (permutations + 1), (2 if balanced else 1) / choices)


def gaps(
    kernel: Float[np.ndarray, "m m"], signed: Float[np.ndarray, "v m"], unit: Float[np.ndarray, "v m"]
) -> Float[np.ndarray, " v"]:
    """How far the mean of the concept is from that of the negatives, along each vector."""
    sides = [np.where(sign * signed > 0, np.abs(signed), 0) for sign in (1, -1)]
    between = np.subtract(*(side / side.sum(1, keepdims=True) for side in sides))
    return np.einsum("vm,vm->v", between @ kernel, unit)


@dataclass(frozen=True)
class _Statistics:
    """Of vectors, the first of which is what was observed, and each class."""

    means: Float[np.ndarray, "v c"]
    counts: Float[np.ndarray, "v c"]
    steps: Float[np.ndarray, "v c"]
    failed: int  # vectors that did not converge


def _statistics(
    grams: Sequence[Gram], signed: Float[np.ndarray, "v m"], training: Training, along: Along | None
) -> list[_Statistics]:
    """For each group of targets; K is that of the first."""
    training = replace(training, tolerance=max(training.tolerance, TOLERANCE))
    used = np.flatnonzero(signed.any(0))
    kernel, some = grams[0].kernel[np.ix_(used, used)], signed[:, used]
    vectors = fit(kernel, some, training)
    gap = gaps(kernel, some, vectors.unit)
    means, counts = [[] for _ in grams], [[] for _ in grams]
    for start in range(0, len(signed), PORTION):
        rows = slice(start, start + PORTION)
        if along is None:
            parts = [gram.products[:, :, used] @ vectors.unit[rows].T for gram in grams]
        else:
            unit = np.zeros((len(vectors.unit[rows]), signed.shape[1]))
            unit[:, used] = vectors.unit[rows]
            parts = along(unit, gap[rows])
        for i, (gram, part) in enumerate(zip(grams, parts)):
            means[i].append(part.mean(1).T)
            counts[i].append(sign_counts(part, gram.lengths).T)
    failed = int((~vectors.converged).sum())
    found = [(np.concatenate(mean), np.concatenate(count)) for mean, count in zip(means, counts)]
    return [_Statistics(mean, count, gap[:, None] * mean, failed) for mean, count in found]


def _joined(some: _Statistics, more: _Statistics) -> _Statistics:
    means, counts, steps = (
        np.concatenate([getattr(some, name), getattr(more, name)]) for name in ("means", "counts", "steps")
    )
    return _Statistics(means, counts, steps, some.failed + more.failed)


def _test(kind, found: _Statistics, smallest: float, enough: int | None) -> Test:
    def p(distance):
        return _p(distance, smallest, enough)

    means, counts, steps = found.means, found.counts, found.steps
    return Test(
        kind,
        means[0],
        p(np.abs(means)),
        counts[0],
        p(np.abs(counts - 0.5)),
        means[1:],
        smallest,
        found.failed,
        steps[0],
        p(np.abs(steps)),
        steps[1:],
    )


def _over(found: _Statistics, enough: int) -> bool:
    """Whether `enough` have been as far, in every respect."""
    distances = np.stack([np.abs(found.means), np.abs(found.counts - 0.5), np.abs(found.steps)])
    return bool((_further(distances).sum(1) >= enough).all())


def _further(distance: Float[np.ndarray, "*s v c"]) -> Bool[np.ndarray, "*s w c"]:
    """What has no value counts as further away."""
    return ~(distance[..., 1:, :] < distance[..., :1, :] * (1 - SLACK))


def _p(distance: Float[np.ndarray, "v c"], smallest: float, enough: int | None) -> Float[np.ndarray, " c"]:
    """What was observed counts as one of the choices."""
    further = _further(distance)
    p = (1 + further.sum(0)) / len(distance)
    if enough is not None:
        so_far = further.cumsum(0)
        p = np.where(so_far[-1] >= enough, enough / (1 + (so_far >= enough).argmax(0)), p)
    return np.where(np.isnan(distance[0]), np.nan, np.maximum(p, smallest))
