"""Is there anything behind a vector? Clips it has not seen, and the other half of its clips, must agree with it.

With more features than clips every choice of clips can be told from the rest, so that how well a vector separates the
clips it was trained on says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.stats.vectors import LOGISTIC, Kernel, Labels, Training, fit, values


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
    groups: Int[np.ndarray, " m"] | None = None,
) -> Quality:
    """A fold and a label are dealt out together when labels are permuted, so that all folds stay stratified.

    Clips of one of the `blocks` (a clip and its twin) stay together: they share a fold and a half, and labels are
    permuted within blocks. So do clips of one of the `groups`, those cut out of one video, or a vector would be
    praised for knowing the video again; folds are then made anew for each permutation.
    """
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(signed)
    kernel, signed = kernel[np.ix_(used, used)], signed[used]
    block, group = (
        None if some is None else np.unique(some[used], return_inverse=True)[1] for some in (blocks, groups)
    )
    together = _together(block, group)
    fold = stratified(signed, folds, rng, together)
    count = int(fold.max()) + 1
    order = np.arange(len(signed)) if block is None else np.argsort(block, kind="stable")
    keys = np.zeros(len(signed), int) if block is None else block
    places = np.tile(np.arange(len(signed)), (1 + permutations, 1))
    places[1:, order] = np.argsort(keys + rng.random((permutations, len(signed))), axis=1)
    dealt = np.empty((1 + permutations, len(signed)))
    np.put_along_axis(dealt, places, np.broadcast_to(signed, dealt.shape), 1)
    fold_of = np.empty(dealt.shape, int)
    if together is None:
        np.put_along_axis(fold_of, places, np.broadcast_to(fold, dealt.shape), 1)
    else:
        fold_of[0] = fold
        for row, some in zip(fold_of[1:], dealt[1:]):
            row[:] = _dealt_whole(some, count, rng, together)
    aucs = _held_out_aucs(kernel, dealt, fold_of, training)
    p = (1 + int((~(aucs[1:] < aucs[0] - 1e-12)).sum())) / (1 + permutations)
    cosine = split_half(kernel, signed, training, splits, rng, together)
    low, high = np.quantile(cosine, [0.025, 0.975])
    return Quality(float(aucs[0]), p, 1 / (1 + permutations), count, float(cosine.mean()), float(low), float(high))


def _together(block: np.ndarray | None, group: np.ndarray | None) -> Int[np.ndarray, " m"] | None:
    """What must share a fold: clips that a block, a group or a chain of them links. None where all are alone."""
    parts = [part for part in (block, group) if part is not None and len(np.unique(part)) < len(part)]
    if not parts:
        return None
    label = np.arange(len(parts[0]))
    while True:
        before = label.copy()
        for part in parts:
            least = np.full(int(part.max()) + 1, len(label))
            np.minimum.at(least, part, label)
            label = least[part]
        if (label == before).all():
            return np.unique(label, return_inverse=True)[1]


def stratified(
    signed: Float[np.ndarray, " m"],
    folds: int,
    rng: np.random.Generator,
    together: Int[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " m"]:
    """A fold for each example, with a share of either side in every one; fewer folds where a side has fewer clips.

    Clips that stay `together` are dealt out whole, the largest lots first, each to the fold that has least of them.
    """
    sides = [np.flatnonzero(sign * signed > 0) for sign in (1, -1)]
    if together is None:
        folds = min(folds, *(len(side) for side in sides))
        if folds < 2:
            raise ValueError(
                f"folds need at least 2, and 2 clips on each side, got {[len(side) for side in sides]} clips"
            )
        out = np.full(len(signed), -1)
        for side in sides:
            out[rng.permutation(side)] = np.arange(len(side)) % folds
        return out
    folds = min(folds, *(len(np.unique(together[side])) for side in sides))
    if folds < 2:
        told = [len(np.unique(together[side])) for side in sides]
        raise ValueError(f"folds need at least 2, and clips out of 2 videos (or pairs) on each side, got {told}")
    return _dealt_whole(signed, folds, rng, together)


def _dealt_whole(
    signed: Float[np.ndarray, " m"], folds: int, rng: np.random.Generator, together: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    lots = np.stack([np.bincount(together, sign * signed > 0) for sign in (1, -1)], 1)
    share, full = lots / lots.sum(0), np.zeros((folds, 2))
    fold_of = np.empty(len(lots), int)
    shuffled = rng.permutation(len(lots))
    for lot in shuffled[np.argsort(-share[shuffled].max(1), kind="stable")]:
        room = full @ share[lot]  # how much of the sides that this lot has is there already
        fold = int(np.lexsort((full.sum(1), room))[0])
        fold_of[lot], full[fold] = fold, full[fold] + share[lot]
    return fold_of[together]


def split_half(
    kernel: Kernel,
    signed: Float[np.ndarray, " m"],
    training: Training,
    splits: int,
    rng: np.random.Generator,
    together: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, " s"]:
    halves = np.stack([stratified(signed, 2, rng, together) for _ in range(splits)])
    unit = fit(kernel, np.concatenate([np.where(halves == half, signed, 0) for half in (0, 1)]), training).unit
    return np.clip(np.einsum("vm,vm->v", unit[:splits] @ kernel, unit[splits:]), -1, 1)


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
    kernel: Kernel, signed: Float[np.ndarray, "v m"], fold: Int[np.ndarray, "v m"], training: Training
) -> Float[np.ndarray, " v"]:
    """Each row has its own labels and folds. Scores of different folds are not compared."""
    count = int(fold.max()) + 1
    train = np.concatenate([np.where(fold == f, 0, signed) for f in range(count)])
    # A fold that has one side only, or leaves one side only, has no pairs
    real = (train > 0).any(1) & (train < 0).any(1)
    scores = np.zeros(train.shape)
    scores[real] = values(kernel, fit(kernel, train[real], training))
    won, pairs = np.zeros(len(signed)), np.zeros(len(signed))
    for f, (part, there) in enumerate(zip(np.split(scores, count), np.split(real, count))):
        held = (fold == f) & there[:, None]
        up, down = (_picked(part, held & (sign * signed > 0)) for sign in (1, -1))
        above = (up[:, :, None] > down[:, None]) + 0.5 * (up[:, :, None] == down[:, None])
        won += above.sum((1, 2))
        pairs += (~np.isnan(up)).sum(1) * (~np.isnan(down)).sum(1)
    return won / np.where(pairs > 0, pairs, np.nan)


def _picked(scores: Float[np.ndarray, "v m"], which: Bool[np.ndarray, "v m"]) -> Float[np.ndarray, "v k"]:
    """The chosen ones of each row, and NaN where a row has fewer than another."""
    order = np.argsort(~which, axis=1, kind="stable")[:, : int(which.sum(1).max())]
    return np.where(np.take_along_axis(which, order, 1), np.take_along_axis(scores, order, 1), np.nan)
