"""Validation of concept vectors: do they separate held-out clips, and do vectors from two halves of the clips agree?

With more features than clips any choice of clips can be separated from the rest, so that separation of the training
clips is no evidence for a concept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.stats.permutation_test import permute_labels
from vtcav_jax.tcav.stats.vectors import LOGISTIC, FitConfig, Kernel, classifier_scores, fit


@dataclass(frozen=True)
class VectorValidation:
    """Held-out accuracy and split-half agreement of a concept vector.

    `auc` is the probability that a held-out concept clip scores above a held-out negative; `p` is one-sided, by
    permuted labels. `split_half` is the mean cosine of vectors from two halves of the clips, with the central 95 % over
    random splits.
    """

    auc: float
    p: float
    p_min_attainable: float
    n_folds: int
    split_half: float
    split_half_low: float
    split_half_high: float

    def is_encoded(self, alpha: float = 0.05) -> bool:
        return self.p <= alpha and self.auc > 0.5


def validate_vector(
    kernel: Kernel,
    labels: Float[np.ndarray, " m"],
    fit_config: FitConfig = LOGISTIC,
    *,
    n_folds: int = 5,
    permutations: int = 199,
    splits: int = 20,
    seed: int | Sequence[int] = 0,
    blocks: Int[np.ndarray, " m"] | None = None,
    groups: Int[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " m"] | None = None,
) -> VectorValidation:
    """Validate a vector by cross-validation, label permutations and random splits.

    Permuting a label moves its fold with it, so that folds stay stratified. Clips of the same block (a clip and its
    matched control) share a fold and a half, and labels are permuted within blocks. Clips of the same group (source
    video) also share a fold and a half, since recognising the video must not count as recognising the concept; labels
    are then permuted between whole videos, and folds are redrawn for each permutation. Labels are permuted only
    between clips of the same of `strata`.
    """
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(labels)
    kernel, labels = kernel[np.ix_(used, used)], labels[used]
    block, group, stratum = (
        None if values is None else np.unique(values[used], return_inverse=True)[1]
        for values in (blocks, groups, strata)
    )
    fold_groups = _link_groups(block, group)
    fold = stratified_folds(labels, n_folds, rng, fold_groups)
    count = int(fold.max()) + 1
    if fold_groups is None and stratum is None:
        positions = np.tile(np.arange(len(labels)), (1 + permutations, 1))
        positions[1:] = np.argsort(rng.random((permutations, len(labels))), axis=1)
        permuted_labels, fold_of = np.empty(positions.shape), np.empty(positions.shape, int)
        np.put_along_axis(permuted_labels, positions, np.broadcast_to(labels, positions.shape), 1)
        np.put_along_axis(fold_of, positions, np.broadcast_to(fold, positions.shape), 1)
    else:
        rows = permute_labels(labels, permutations, rng, block, group, stratum)
        permuted_labels = np.concatenate([labels[None], rows])
        folds = [
            stratified_folds(values, count, rng)
            if fold_groups is None
            else _assign_whole_groups(values, count, rng, fold_groups)
            for values in rows
        ]
        fold_of = np.stack([fold, *folds])
    aucs = _held_out_aucs(kernel, permuted_labels, fold_of, fit_config)
    p = (1 + int((~(aucs[1:] < aucs[0] - 1e-12)).sum())) / (1 + permutations)
    cosine = split_half_cosines(kernel, labels, fit_config, splits, rng, fold_groups)
    low, high = np.quantile(cosine, [0.025, 0.975])
    return VectorValidation(
        float(aucs[0]), p, 1 / (1 + permutations), count, float(cosine.mean()), float(low), float(high)
    )


def _link_groups(block: np.ndarray | None, group: np.ndarray | None) -> Int[np.ndarray, " m"] | None:
    """Return a label for each set of clips connected by blocks and groups; None if no two clips are connected."""
    parts = [part for part in (block, group) if part is not None and len(np.unique(part)) < len(part)]
    if not parts:
        return None
    label = np.arange(len(parts[0]))
    while True:
        before = label.copy()
        for part in parts:
            lowest_label = np.full(int(part.max()) + 1, len(label))
            np.minimum.at(lowest_label, part, label)
            label = lowest_label[part]
        if (label == before).all():
            return np.unique(label, return_inverse=True)[1]


def stratified_folds(
    labels: Float[np.ndarray, " m"],
    n_folds: int,
    rng: np.random.Generator,
    fold_groups: Int[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " m"]:
    """Return a fold for each example, with examples of both sides in every fold; fewer folds if a side is smaller.

    Each of `fold_groups` stays in one fold: the largest are assigned first, each to the fold with the smallest share
    of the same sides.
    """
    sides = [np.flatnonzero(sign * labels > 0) for sign in (1, -1)]
    if fold_groups is None:
        n_folds = min(n_folds, *(len(side) for side in sides))
        if n_folds < 2:
            raise ValueError(
                f"expected at least 2 folds and 2 clips on each side, got {[len(side) for side in sides]} clips"
            )
        out = np.full(len(labels), -1)
        for side in sides:
            out[rng.permutation(side)] = np.arange(len(side)) % n_folds
        return out
    n_folds = min(n_folds, *(len(np.unique(fold_groups[side])) for side in sides))
    if n_folds < 2:
        group_counts = [len(np.unique(fold_groups[side])) for side in sides]
        raise ValueError(
            f"expected at least 2 folds and clips from 2 videos (or pairs) on each side, got {group_counts}"
        )
    return _assign_whole_groups(labels, n_folds, rng, fold_groups)


def _assign_whole_groups(
    labels: Float[np.ndarray, " m"], n_folds: int, rng: np.random.Generator, fold_groups: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    lots = np.stack([np.bincount(fold_groups, sign * labels > 0) for sign in (1, -1)], 1)
    fraction, filled = lots / lots.sum(0), np.zeros((n_folds, 2))
    fold_of = np.empty(len(lots), int)
    shuffled = rng.permutation(len(lots))
    for lot in shuffled[np.argsort(-fraction[shuffled].max(1), kind="stable")]:
        overlap = filled @ fraction[lot]  # how much of this group's sides each fold has already
        fold = int(np.lexsort((filled.sum(1), overlap))[0])
        fold_of[lot], filled[fold] = fold, filled[fold] + fraction[lot]
    return fold_of[fold_groups]


def split_half_cosines(
    kernel: Kernel,
    labels: Float[np.ndarray, " m"],
    fit_config: FitConfig,
    splits: int,
    rng: np.random.Generator,
    fold_groups: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, " s"]:
    halves = np.stack([stratified_folds(labels, 2, rng, fold_groups) for _ in range(splits)])
    unit = fit(kernel, np.concatenate([np.where(halves == half, labels, 0) for half in (0, 1)]), fit_config).unit
    return np.clip(np.einsum("vm,vm->v", unit[:splits] @ kernel, unit[splits:]), -1, 1)


def _held_out_aucs(
    kernel: Kernel, labels: Float[np.ndarray, "v m"], fold: Int[np.ndarray, "v m"], fit_config: FitConfig
) -> Float[np.ndarray, " v"]:
    """Return the AUC of each row of labels and folds, over pairs of clips of the same fold."""
    count = int(fold.max()) + 1
    train = np.concatenate([np.where(fold == f, 0, labels) for f in range(count)])
    # A fold whose training clips are all of one side has no vector and no pairs
    real = (train > 0).any(1) & (train < 0).any(1)
    scores = np.zeros(train.shape)
    scores[real] = classifier_scores(kernel, fit(kernel, train[real], fit_config))
    won, pairs = np.zeros(len(labels)), np.zeros(len(labels))
    for f, (part, has_pairs) in enumerate(zip(np.split(scores, count), np.split(real, count))):
        held_out = (fold == f) & has_pairs[:, None]
        up, down = (_take_masked(part, held_out & (sign * labels > 0)) for sign in (1, -1))
        above = (up[:, :, None] > down[:, None]) + 0.5 * (up[:, :, None] == down[:, None])
        won += above.sum((1, 2))
        pairs += (~np.isnan(up)).sum(1) * (~np.isnan(down)).sum(1)
    return won / np.where(pairs > 0, pairs, np.nan)


def _take_masked(scores: Float[np.ndarray, "v m"], mask: Bool[np.ndarray, "v m"]) -> Float[np.ndarray, "v k"]:
    """Return the masked scores of each row, filled up with NaN."""
    order = np.argsort(~mask, axis=1, kind="stable")[:, : int(mask.sum(1).max())]
    return np.where(np.take_along_axis(mask, order, 1), np.take_along_axis(scores, order, 1), np.nan)
