"""Is there anything behind a vector? Clips it has not seen, and the other half of its clips, must agree with it.

With more features than clips every choice of clips can be told from the rest, so that how well a vector separates the
clips it was trained on says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.tcav.vectors import LOGISTIC, Kernel, Labels, Training, fit, values


@dataclass(frozen=True)
class Quality:
    """`auc`: how often a concept clip scores above a negative, both left out; its p by permuted labels, one-sided.

    `split_half`: mean cosine of vectors from two halves of the clips, and the middle 95 % over `splits`.
    """

    auc: float
    p: float
    smallest: float
    folds: int
    split_half: float
    split_low: float
    split_high: float

    def encoded(self, alpha: float = 0.05) -> bool:
        return self.p <= alpha and self.auc > 0.5


def quality(
    kernel: Kernel,
    signed: Float[np.ndarray, " m"],
    training: Training = LOGISTIC,
    *,
    folds: int = 5,
    permutations: int = 199,
    splits: int = 20,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> Quality:
    """A fold and a label are dealt out together when labels are permuted, so that all folds stay stratified.

    Clips of one of the `blocks` (a clip and its twin) stay together: they share a fold and a half, and labels are
    permuted within blocks.
    """
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(signed)
    kernel, signed = kernel[np.ix_(used, used)], signed[used]
    block = None if blocks is None else np.unique(blocks[used], return_inverse=True)[1]
    fold = stratified(signed, folds, rng, block)
    count = int(fold.max()) + 1
    identity = np.arange(len(signed))
    order = np.arange(len(signed)) if block is None else np.argsort(block, kind="stable")
    keys = np.zeros(len(signed), int) if block is None else block
    places = np.tile(identity, (1 + permutations, 1))
    places[1:, order] = np.argsort(keys + rng.random((permutations, len(signed))), axis=1)
    aucs = _held_out_aucs(kernel, signed, fold, places, training)
    p = (1 + int((aucs[1:] >= aucs[0] - 1e-12).sum())) / (1 + permutations)
    cosine = split_half(kernel, signed, training, splits, rng, block)
    low, high = np.quantile(cosine, [0.025, 0.975])
    return Quality(float(aucs[0]), p, 1 / (1 + permutations), count, float(cosine.mean()), float(low), float(high))


def stratified(
    signed: Float[np.ndarray, " m"],
    folds: int,
    rng: np.random.Generator,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " m"]:
    """A fold for each example, with a share of either side in every one; fewer folds where a side has fewer clips.

    With `blocks`, each of which has clips on both sides, they are dealt out whole.
    """
    if blocks is not None:
        count = int(blocks.max()) + 1
        if min(folds, count) < 2:
            raise ValueError(f"folds need at least 2, and 2 blocks, got {count}")
        return (rng.permutation(count) % min(folds, count))[blocks]
    sides = [np.flatnonzero(sign * signed > 0) for sign in (1, -1)]
    folds = min(folds, *(len(side) for side in sides))
    if folds < 2:
        raise ValueError(f"folds need at least 2, and 2 clips on each side, got {[len(side) for side in sides]} clips")
    out = np.full(len(signed), -1)
    for side in sides:
        out[rng.permutation(side)] = np.arange(len(side)) % folds
    return out


def split_half(
    kernel: Kernel,
    signed: Float[np.ndarray, " m"],
    training: Training,
    splits: int,
    rng: np.random.Generator,
    blocks: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, " s"]:
    halves = np.stack([stratified(signed, 2, rng, blocks) for _ in range(splits)])
    both = [fit(kernel, np.where(halves == half, signed, 0), training) for half in (0, 1)]
    return np.clip(np.einsum("vm,vm->v", both[0].unit @ kernel, both[1].unit), -1, 1)


@dataclass(frozen=True)
class Path:
    """Held-out mean log-loss of each vector at each lambda (relative), and where it is least."""

    lams: Float[np.ndarray, " p"]
    losses: Float[np.ndarray, "v p"]
    best: Float[np.ndarray, " v"]


def lambda_path(
    kernel: Kernel,
    signed: Labels,
    training: Training = LOGISTIC,
    lams: Sequence[float] = (1e-4, 1e-3, 1e-2, 0.1, 1.0),
    *,
    folds: int = 5,
    seed: int | Sequence[int] = 0,
) -> Path:
    """Cross-validation in example space. A lambda that was chosen by the labels must not be kept for permuted ones.

    All folds of all vectors are one batch. The loss is that of `training.estimator`, at the clips left out.
    """
    if training.estimator == "mean_difference":
        raise ValueError("mean_difference has no lambda; choose logistic or ridge")
    rng = np.random.default_rng(seed)
    fold = np.stack([stratified(row, folds, rng) for row in signed])
    count = int(fold.max()) + 1
    rows = np.concatenate([np.where(fold == f, 0, signed) for f in range(count)])
    real = np.flatnonzero((rows > 0).any(1) & (rows < 0).any(1))
    out = np.where(np.tile(signed, (count, 1)) * (rows == 0), np.tile(signed, (count, 1)), 0)[real]
    owner = np.tile(np.arange(len(signed)), count)[real]
    losses = np.zeros((len(signed), len(lams)))
    weight = np.bincount(owner, np.abs(out).sum(1), len(signed))
    for i, lam in enumerate(lams):
        margin = np.sign(out) * values(kernel, fit(kernel, rows[real], training, np.full(len(real), lam)))
        each = np.logaddexp(0, -margin) if training.estimator == "logistic" else (1 - margin) ** 2 / 2
        losses[:, i] = np.bincount(owner, (np.abs(out) * each).sum(1), len(signed)) / weight
    return Path(np.array(lams, float), losses, np.array(lams, float)[losses.argmin(1)])


def _held_out_aucs(
    kernel: Kernel,
    signed: Float[np.ndarray, " m"],
    fold: Int[np.ndarray, " m"],
    places: Int[np.ndarray, "v m"],
    training: Training,
) -> Float[np.ndarray, " v"]:
    """Row v has slot i's label and fold at example places[v, i]. Scores of different folds are not compared."""
    rows = np.arange(len(places))[:, None]
    won, pairs = np.zeros(len(places)), 0
    for f in range(int(fold.max()) + 1):
        train = np.zeros(places.shape)
        train[rows, places] = np.where(fold == f, 0, signed)
        scores = np.take_along_axis(values(kernel, fit(kernel, train, training)), places, 1)
        up, down = (scores[:, (fold == f) & (sign * signed > 0)] for sign in (1, -1))
        won += (np.sign(up[:, :, None] - down[:, None, :]) + 1).sum((1, 2)) / 2
        pairs += up.shape[1] * down.shape[1]
    return won / pairs
