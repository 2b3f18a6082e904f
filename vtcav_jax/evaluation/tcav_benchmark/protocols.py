"""Concept tests of other packages, reimplemented in example space so that all judge the same clips.

Each trains one linear classifier per random set that a concept is compared with, and computes the share of a class's
clips whose score rises along its vector (the sign count). They differ in the test on these shares:

- tensorflow/tcav: t-test of the concept's sign counts against those of random sets in place of the concept.
- captum has no test. Its tutorial compares the concept's sign counts with those of the random sets of the same
  classifiers; with two sets these are 1 minus the former, so that every run counts twice.
- Saha et al.: the concept is compared with the rest of a group of concepts and a random set; t-test of the sign counts
  against 1/2, with Bonferroni correction.

tensorflow/tcav and captum train scikit-learn's `SGDClassifier(alpha=0.01)` on two thirds of the clips. Its objective is
solved exactly here; the originals stop early, which adds noise. All use gradients of the logit.

The runs of one concept share its clips, so these tests become more certain with more random sets even without an
effect.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.saha2024 import published_t_test, t_test_against_half
from vtcav_jax.tcav.stats.multiple_testing import adjust_p
from vtcav_jax.tcav.stats.permutation_test import PERMUTED_VECTOR_TOLERANCE
from vtcav_jax.tcav.stats.scores import sign_counts
from vtcav_jax.tcav.stats.vectors import LOGISTIC, fit, label_vector, norms

HINGE_ALPHA = 0.01  # regularisation of tensorflow/tcav and captum
VERDICT_LEVEL = 0.05
HELD_OUT_SHARE = 0.33  # share of clips that measure a classifier's accuracy
CLASSIFIERS_PER_BLOCK = 512
IPM_TOLERANCE, IPM_MAX_STEPS = 1e-11, 100  # relative duality gap, and maximum number of iterations


@dataclass(frozen=True)
class BenchmarkCase:
    """Concepts and classes at one stage; all sets have the same size and come from one pool of m clips."""

    kernel: Float[np.ndarray, "m m"]
    slopes: Sequence[Float[np.ndarray, "_ m"]]  # per class: products of the gradients at its targets with the clips
    gradient_norms: Sequence[Float[np.ndarray, " _"]]
    concepts: Int[np.ndarray, "k e"]
    random_sets: Int[np.ndarray, "k r e"]  # sets that each concept is compared with: all other clips
    pseudo_concepts: Int[np.ndarray, "r e"]  # random sets in place of a concept, compared with each other
    groups: Sequence[Sequence[int]]  # concepts that share no clip and are compared with each other

    def sign_counts(self, a: Float[np.ndarray, "v m"]) -> Float[np.ndarray, "v c"]:
        size = norms(self.kernel, a)
        unit = a / np.where(size > 0, size, np.nan)[:, None]
        counts = [
            sign_counts((slopes @ unit.T)[None], lengths[None])[0]
            for slopes, lengths in zip(self.slopes, self.gradient_norms)
        ]
        return np.stack(counts, 1)


@dataclass(frozen=True)
class ProtocolVerdicts:
    """Score and verdicts for each concept and class, without and with correction for the family.

    A family are the concepts of one clip type, tested for one class at one stage. `raises_score` is the sign.
    """

    score: Float[np.ndarray, "k c"]
    significant: Bool[np.ndarray, "k c"]
    significant_corrected: Bool[np.ndarray, "k c"] | None
    raises_score: Bool[np.ndarray, "k c"]


def tensorflow_tcav(case: BenchmarkCase, seed: Sequence[int]) -> ProtocolVerdicts:
    rng = np.random.default_rng(seed)
    concept_counts = _concept_sign_counts(case, rng, stratified=True)
    pairs = [(i, j) for i in range(len(case.pseudo_concepts)) for j in range(len(case.pseudo_concepts)) if i != j]
    first, second = (case.pseudo_concepts[list(side)] for side in zip(*pairs))
    null = case.sign_counts(_train_classifiers(case.kernel, first, second, rng, stratified=True))
    t, p = zip(*(_certain_where_constant(*_t_test(null, runs), runs.mean(0) - null.mean(0)) for runs in concept_counts))
    return ProtocolVerdicts(np.abs(t), np.array(p) < VERDICT_LEVEL, None, concept_counts.mean(1) > null.mean(0))


def captum(case: BenchmarkCase, seed: Sequence[int]) -> ProtocolVerdicts:
    concept_counts = _concept_sign_counts(case, np.random.default_rng(seed), stratified=False)
    tests = (_certain_where_constant(*published_t_test(runs), runs.mean(0) - 0.5) for runs in concept_counts)
    p = np.array([p for _, p in tests])
    mean = concept_counts.mean(1)
    return ProtocolVerdicts(np.abs(mean - 0.5), p < VERDICT_LEVEL, None, mean > 0.5)


def saha(case: BenchmarkCase, seed: Sequence[int]) -> ProtocolVerdicts:
    """Judge a case by Saha et al.; `seed` draws each group's random sets from clips of none of its concepts."""
    rng = np.random.default_rng(seed)
    count, (k, sets, size) = len(case.kernel), case.random_sets.shape
    signed, owner = [], []
    for members in case.groups:
        rest = np.setdiff1d(np.arange(count), case.concepts[list(members)])
        for _ in range(sets):
            group = [*case.concepts[list(members)], rng.choice(rest, size, replace=False)]
            for i, member in enumerate(members):
                others = np.concatenate([*group[:i], *group[i + 1 :]])
                signed.append(label_vector(group[i], others, count, balanced=True))
                owner.append(member)
    counts = case.sign_counts(
        fit(case.kernel, np.stack(signed), replace(LOGISTIC, tolerance=PERMUTED_VECTOR_TOLERANCE)).a
    )
    runs = np.stack([counts[np.array(owner) == i] for i in range(k)])
    tests = (_certain_where_constant(*t_test_against_half(shares), shares.mean(0) - 0.5) for shares in runs)
    p = np.array([p for _, p in tests])
    mean = runs.mean(1)
    significant_corrected = np.stack([adjust_p(column, "bonferroni") for column in p.T], 1) < VERDICT_LEVEL
    return ProtocolVerdicts(np.abs(mean - 0.5), p < VERDICT_LEVEL, significant_corrected, mean > 0.5)


def _t_test(a: Float[np.ndarray, "n ..."], b: Float[np.ndarray, "k ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Return t and p of Student's two-sample t-test; NaN where neither sample varies."""
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # samples that do not vary
        t, p = np.array(ttest_ind(a, b), float)
    constant = (a == a[:1]).all(0) & (b == b[:1]).all(0)
    return np.where(constant, np.nan, t), np.where(constant, np.nan, p)


def _certain_where_constant(t: np.ndarray, p: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace undefined t and p of constant samples: p is 0 if there is a difference, else 1."""
    undefined, differs = np.isnan(t), difference != 0
    return (
        np.where(undefined, np.where(differs, np.inf, 0.0), t),
        np.where(undefined, np.where(differs, 0.0, 1.0), p),
    )


def _concept_sign_counts(
    case: BenchmarkCase, rng: np.random.Generator, *, stratified: bool
) -> Float[np.ndarray, "k r c"]:
    """Return the sign counts of each concept against each of its random sets."""
    k, sets, size = case.random_sets.shape
    positive = np.repeat(case.concepts, sets, 0)
    a = _train_classifiers(case.kernel, positive, case.random_sets.reshape(-1, size), rng, stratified=stratified)
    return case.sign_counts(a).reshape(k, sets, -1)


def _train_classifiers(
    kernel: Float[np.ndarray, "m m"],
    positive: Int[np.ndarray, "v e"],
    negative: Int[np.ndarray, "v e"],
    rng: np.random.Generator,
    *,
    stratified: bool,
) -> Float[np.ndarray, "v m"]:
    """Train one classifier per row, after holding out a third of each side, or (not `stratified`) of both together."""
    count, size = positive.shape
    if stratified:
        n_train = size - math.ceil(HELD_OUT_SHARE * 2 * size) // 2
        index = np.concatenate([rng.permuted(side, axis=1)[:, :n_train] for side in (positive, negative)], 1)
        signs = np.repeat([[1.0, -1.0]], n_train, 1).reshape(1, -1).repeat(count, 0)
    else:
        n_train = 2 * size - int(HELD_OUT_SHARE * 2 * size)
        order = rng.permuted(np.tile(np.arange(2 * size), (count, 1)), axis=1)[:, :n_train]
        index = np.take_along_axis(np.concatenate([positive, negative], 1), order, 1)
        signs = np.where(order < size, 1.0, -1.0)
    out = np.zeros((count, len(kernel)))
    for start in range(0, count, CLASSIFIERS_PER_BLOCK):
        rows = index[start : start + CLASSIFIERS_PER_BLOCK]
        a = fit_hinge(kernel[rows[:, :, None], rows[:, None, :]], signs[start : start + CLASSIFIERS_PER_BLOCK])
        np.put_along_axis(out[start : start + CLASSIFIERS_PER_BLOCK], rows, a, 1)
    return out


def fit_hinge(
    kernels: Float[np.ndarray, "v s s"], signs: Float[np.ndarray, "v s"], alpha: float = HINGE_ALPHA
) -> Float[np.ndarray, "v s"]:
    """Return coefficients a of w = X'a that minimise the mean hinge loss + alpha/2 |w|^2 with a free intercept.

    An interior-point method solves the dual: shares of the examples between 0 and 1, with equal sums on both sides,
    that minimise share' Q share / 2 - sum(share). Raises if it does not converge.
    """
    size = signs.shape[1]
    if not ((signs > 0).any(1) & (signs < 0).any(1)).all():
        raise ValueError("each classifier needs examples on both sides; make the sets larger")
    row = kernels.mean(1, keepdims=True)
    kernels = kernels - row - row.swapaxes(1, 2) + row.mean(2, keepdims=True)  # the free intercept absorbs the means
    q = signs[:, :, None] * kernels * signs[:, None, :] / (alpha * size)
    up, down = ((sign * signs > 0).sum(1, keepdims=True) for sign in (1, -1))
    share = 0.5 * np.where(signs > 0, np.minimum(1, down / up), np.minimum(1, up / down))
    room = 1 - share  # updated separately: it can be far smaller than the rounding error of 1 - share
    low, high = np.ones_like(share), np.ones_like(share)  # multipliers of share >= 0 and room >= 0
    offset, step_sizes, converged = np.zeros((len(signs), 1)), np.ones(len(signs)), np.zeros(len(signs), bool)
    for _ in range(IPM_MAX_STEPS):
        pull = (q @ share[:, :, None])[:, :, 0]
        dual_residual = pull - 1 - low + high + offset * signs
        gap = (low * share + high * room).sum(1)
        value = share.sum(1) - (share * pull).sum(1) / 2
        converged = (gap <= IPM_TOLERANCE * np.abs(value)) & (np.abs(dual_residual).max(1) <= 1e-6)
        if converged.all():
            return signs * share / (alpha * size)
        aim = (np.where(step_sizes > 0.9, 0.05, 0.4) * gap / (2 * size))[:, None]
        above, below = aim / share - low, aim / room - high
        matrix = q + (low / share + high / room)[:, :, None] * np.eye(size)
        both = np.linalg.solve(matrix, np.stack([above - below - dual_residual, signs], 2))
        free, tied = both[:, :, 0], both[:, :, 1]
        turn = (signs * free).sum(1, keepdims=True) / (signs * tied).sum(1, keepdims=True)
        move = free - turn * tied
        rise, fall = above - low / share * move, below + high / room * move
        edges = [(share, move), (room, -move), (low, rise), (high, fall)]
        step_sizes = np.minimum(1, 0.99 * np.stack([_reach(x, d) for x, d in edges]).min(0))
        step = np.where(converged, 0.0, step_sizes)[:, None]
        share, room, low, high = (x + step * d for x, d in edges)
        offset = offset + step * turn
    raise ValueError(
        f"{(~converged).sum()} of {len(signs)} classifiers did not converge in {IPM_MAX_STEPS} steps; look for clips"
        " that overflow the network"
    )


def _reach(x: Float[np.ndarray, "v s"], d: Float[np.ndarray, "v s"]) -> Float[np.ndarray, " v"]:
    """Return the largest number of steps d that keeps x at least 0."""
    return np.where(d < 0, -x / np.where(d < 0, d, -1.0), np.inf).min(1)
