"""Is the class more sensitive to the concept than to any other choice of the same number of clips?

The primary test permutes labels: all clips of a vector are pooled, and which of them are "the concept" is drawn again
and again. Under the null hypothesis that concept and negatives are clips of one kind every choice is as likely as the
one that was made, and so the p-value is right whatever the network, the stage and the estimator. Its statistic is the
mean derivative along the vector of length 1; lengths differ between permutations for reasons of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.intervals import wilson
from vtcav_jax.tcav.gram import Gram
from vtcav_jax.tcav.scores import derivatives, sign_counts
from vtcav_jax.tcav.vectors import LOGISTIC, Training, fit, labels

SLACK = 1e-6  # relative; the same choice of clips drawn again must count as equal
TOLERANCE = 1e-5  # of vectors: what is the same function of the labels for every choice need not be exact


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
) -> Test:
    """Permutes which clips are the concept; with `blocks` only among clips of the same block.

    Clips and their own twins are such blocks: for motion evidence a clip and its frozen copy change places, or not.
    """
    return label_tests([gram], signed, training, permutations=permutations, seed=seed, blocks=blocks)[0]


def label_tests(
    grams: Sequence[Gram],
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    permutations: int = 999,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> list[Test]:
    """The same for several groups of targets, of any sizes, over one K: each vector is trained once for all."""
    drawn = permuted(signed, permutations, np.random.default_rng(seed), blocks)
    smallest = smallest_p(signed, permutations, blocks)
    found = _statistics(grams, np.concatenate([signed[None], drawn]), training)
    return [_test("labels", *each, smallest) for each in found]


def set_test(gram: Gram, sets: Sequence[Int[np.ndarray, " _"]], training: Training = LOGISTIC) -> Test:
    """The first set, against all the others, among each of those against all the rest.

    For random sets that were brought, where clips of a set may be more alike than clips of two sets are: sets are then
    what can be exchanged. Sets should be of one size.
    """
    if len(sets) < 2:
        raise ValueError("a test of sets needs at least one set besides the concept")
    m = len(gram.kernel)
    signed = np.stack([labels(one, np.concatenate([*sets[:i], *sets[i + 1 :]]), m) for i, one in enumerate(sets)])
    return _test("sets", *_statistics([gram], signed, training)[0], 1 / len(sets))


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
        return wilson(self.found, self.trials)


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


def _statistics(
    grams: Sequence[Gram], signed: Float[np.ndarray, "v m"], training: Training
) -> list[tuple[Float[np.ndarray, "v c"], Float[np.ndarray, "v c"], Float[np.ndarray, "v c"], int]]:
    """Mean derivatives, sign counts, steps, and how many vectors did not converge; K is that of the first."""
    training = replace(training, tolerance=max(training.tolerance, TOLERANCE))
    used = np.flatnonzero(signed.any(0))
    kernel = grams[0].kernel[np.ix_(used, used)]
    parts = [Gram(kernel, gram.products[:, :, used], gram.gradients) for gram in grams]
    means, counts, gaps, failed = [[] for _ in grams], [[] for _ in grams], [], 0
    for start in range(0, len(signed), 256):  # derivatives of all of them at all targets are not held at once
        some = signed[start : start + 256, used]
        vectors = fit(kernel, some, training)
        sides = [np.where(sign * some > 0, np.abs(some), 0) for sign in (1, -1)]
        between = np.subtract(*(side / side.sum(1, keepdims=True) for side in sides))
        gaps.append(np.einsum("vm,vm->v", between @ kernel, vectors.unit))
        for i, part in enumerate(parts):
            along = derivatives(part, vectors.unit)
            means[i].append(along.mean(1).T)
            counts[i].append(sign_counts(along, part.lengths).T)
        failed += int((~vectors.converged).sum())
    gap = np.concatenate(gaps)[:, None]
    found = [(np.concatenate(mean), np.concatenate(count)) for mean, count in zip(means, counts)]
    return [(mean, count, gap * mean, failed) for mean, count in found]


def _test(kind, means, counts, steps, failed, smallest) -> Test:
    """The first row is what was observed."""
    return Test(
        kind,
        means[0],
        _p(np.abs(means), smallest),
        counts[0],
        _p(np.abs(counts - 0.5), smallest),
        means[1:],
        smallest,
        failed,
        steps[0],
        _p(np.abs(steps), smallest),
        steps[1:],
    )


def _p(distance: Float[np.ndarray, "v c"], smallest: float) -> Float[np.ndarray, " c"]:
    """What was observed counts as one of the choices; one without a value counts as further away."""
    further = ~(distance[1:] < distance[0] * (1 - SLACK))
    p = np.maximum((1 + further.sum(0)) / len(distance), smallest)
    return np.where(np.isnan(distance[0]), np.nan, p)
