"""Measures of labelled predictions: top-k and mean class accuracy, mean average precision, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.console import progress
from vtcav_jax.runs.accuracy_rows import CLASS_MEAN, HEAD_SEPARATOR, MEAN_AP, TOP_1, TOP_5, AccuracyRow
from vtcav_jax.stats.intervals import bounded_mean_ci, clustered_share_ci, unit_indices

TOP_K = 5
RESAMPLES = 500  # for a variance
MIN_RESAMPLES = 100
RESAMPLED_VALUES = 1_000_000_000  # of the average precisions of all classes and resamples; bounds the time
DRAWS_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class LabelledPredictions:
    """Probabilities of one head for videos whose class is one of the network's.

    `is_class` marks every class that a video shows, at least its label; `units` are the source videos.
    """

    head: str
    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, " n"]
    is_class: Bool[np.ndarray, "n k"]
    units: tuple[str, ...]

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        return self.probabilities.argmax(1)

    @property
    def ranks(self) -> Int[np.ndarray, " n"]:
        """Place of each label among the classes by falling probability, from 1; the first of equal ones counts."""
        label_probability = np.take_along_axis(self.probabilities, self.labels[:, None], 1)
        before = np.arange(len(self.classes)) < self.labels[:, None]
        return 1 + (
            (self.probabilities > label_probability) | (before & (self.probabilities == label_probability))
        ).sum(1)


def top_k_accuracy(predictions: LabelledPredictions) -> list[AccuracyRow]:
    """Return the rows of top-1 accuracy and, if there are more than five classes, top-5 accuracy."""
    ranks, units = predictions.ranks, predictions.units
    n_classes = len(np.unique(predictions.labels))
    return [
        AccuracyRow(
            predictions.head, measure, *share_with_ci(ranks <= k, units), len(units), len(set(units)), n_classes
        )
        for measure, k in ((TOP_1, 1), (TOP_5, TOP_K))
        if k == 1 or len(predictions.classes) > k
    ]


def head_accuracy(predictions: LabelledPredictions, *, seed: int = 0) -> list[AccuracyRow]:
    """Return all accuracy rows of one head: top-1, top-5 if there are more classes, mean per class, mAP."""
    rows = top_k_accuracy(predictions)
    class_mean = class_mean_with_ci(predictions.ranks == 1, predictions.labels, predictions.units, seed=seed)
    mean_ap = mean_average_precision_with_ci(predictions, seed=seed)
    counts, n_ap_classes = (rows[0].n_clips, rows[0].n_videos), int(predictions.is_class.any(0).sum())
    return [
        *rows,
        AccuracyRow(predictions.head, CLASS_MEAN, *class_mean, *counts, rows[0].n_classes),
        AccuracyRow(predictions.head, MEAN_AP, *mean_ap, *counts, n_ap_classes),
    ]


def joint_accuracy(heads: Sequence[LabelledPredictions]) -> list[AccuracyRow]:
    """Return how often all heads are right, for heads with the same videos.

    For two heads, such as verb and noun, also the top-5 accuracy of pairs of classes, ranked by the product of their
    probabilities.
    """
    first = heads[0]
    values = {TOP_1: np.all([head.ranks == 1 for head in heads], 0)}
    if len(heads) == 2:
        values[TOP_5] = _pair_ranks(*heads) <= TOP_K
    name = HEAD_SEPARATOR.join(head.head for head in heads)
    n_pairs = len(set(zip(*(head.labels.tolist() for head in heads))))
    return [
        AccuracyRow(name, measure, *share_with_ci(hits, first.units), len(hits), len(set(first.units)), n_pairs)
        for measure, hits in values.items()
    ]


def share_with_ci(hits: Bool[np.ndarray, " n"], units: Sequence[str]) -> tuple[float, float, float]:
    """Return a share of clips and its interval over their source videos."""
    return (float(hits.mean()) if len(hits) else float("nan"), *clustered_share_ci(hits, units))


def class_mean_with_ci(
    hits: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"], units: Sequence[str], *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean over classes of their accuracy, and its interval over source videos.

    Its variance is that of resamples of the source videos, whose means are over the classes that they contain.
    """
    classes, label = np.unique(labels, return_inverse=True)
    unit = unit_indices(units)
    shape = (int(unit.max()) + 1, len(classes))
    counts, n_hits = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    np.add.at(counts, (unit, label), 1)
    np.add.at(n_hits, (unit, label), hits)
    value = float((n_hits.sum(0) / counts.sum(0)).mean())
    if shape[0] < 2:
        return value, float("nan"), float("nan")
    means = []
    for weights in _unit_weights(shape[0], RESAMPLES, seed):
        with np.errstate(invalid="ignore"):
            means.append(np.nanmean((weights @ n_hits) / (weights @ counts), 1))
    return value, *bounded_mean_ci(
        value, _variance(np.concatenate(means), shape[0]), units_of_mean((counts > 0).sum(0))
    )


def mean_average_precision_with_ci(predictions: LabelledPredictions, *, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean over classes of the average precision, and its interval over source videos, by resampling."""
    unit = unit_indices(predictions.units)
    n_units, n = int(unit.max()) + 1, len(unit)
    value = float(np.nanmean(average_precisions(predictions)))
    if n_units < 2:
        return value, float("nan"), float("nan")
    classes = np.flatnonzero(predictions.is_class.any(0))
    n_draws = int(np.clip(RESAMPLED_VALUES // (n * len(classes)), MIN_RESAMPLES, RESAMPLES))
    blocks = [weights[:, unit] for weights in _unit_weights(n_units, n_draws, seed)]
    sums, n_known = np.zeros(n_draws), np.zeros(n_draws)
    for (k,) in progress(([k] for k in classes), len(classes), f"intervals of the mAP of {predictions.head}"):
        order, ends, positive = _precision_steps(predictions.probabilities[:, k], predictions.is_class[:, k])
        resampled = np.concatenate([_weighted_average_precision(block, order, ends, positive) for block in blocks])
        is_known = ~np.isnan(resampled)
        sums += np.where(is_known, resampled, 0)
        n_known += is_known
    units_of_class = [len(np.unique(unit[predictions.is_class[:, k]])) for k in classes]
    return value, *bounded_mean_ci(value, _variance(sums / n_known, n_units), units_of_mean(np.array(units_of_class)))


def units_of_mean(units_of_class: Int[np.ndarray, " k"]) -> float:
    """Return the number of units whose share varies as much as the mean of shares over these numbers of units."""
    return len(units_of_class) ** 2 / float((1 / units_of_class).sum())


def _variance(resampled: Float[np.ndarray, " draws"], n_units: int) -> float:
    """Return the variance of a mean over units from resamples, which vary too little by (n - 1) / n."""
    return float(np.var(resampled.astype(np.float64), ddof=1)) * n_units / (n_units - 1)


def average_precisions(predictions: LabelledPredictions) -> Float[np.ndarray, " k"]:
    """Return the average precision of each class: the mean precision at the places of its videos, by probability.

    Equal probabilities share one place. A class without videos has NaN.
    """
    ones = np.ones((1, len(predictions.labels)), np.float32)
    values = np.full(len(predictions.classes), np.nan)
    for k in np.flatnonzero(predictions.is_class.any(0)):
        steps = _precision_steps(predictions.probabilities[:, k], predictions.is_class[:, k])
        values[k] = _weighted_average_precision(ones, *steps)[0]
    return values


def _precision_steps(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " steps"], Bool[np.ndarray, " n"]]:
    """Return the order by falling score, the starts of its parts that end with a positive's last equal score, and the
    positives in this order."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, sorted_positive = scores[order], positive[order]
    ends = np.searchsorted(-sorted_scores, -np.unique(sorted_scores[sorted_positive])[::-1], side="right")
    return order, np.concatenate([[0], ends]).astype(int), sorted_positive


def _weighted_average_precision(
    weights: Float[np.ndarray, "draws n"],
    order: Int[np.ndarray, " n"],
    edges: Int[np.ndarray, " steps"],
    positive: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, " draws"]:
    """Return the average precision for each row of weights; NaN where the positives have none."""
    ordered = weights[:, order[: edges[-1]]]
    total = np.cumsum(np.add.reduceat(ordered, edges[:-1], axis=1), 1)
    hits = np.add.reduceat(ordered * positive[: edges[-1]], edges[:-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(total > 0, np.cumsum(hits, 1) / total, 0)
        return (precision * hits).sum(1) / hits.sum(1)


def _unit_weights(n_units: int, n_draws: int, seed: int):
    """Yield blocks of rows of how often each unit is drawn in one resample."""
    random = np.random.default_rng(seed)
    for start in range(0, n_draws, DRAWS_AT_ONCE):
        rows = min(DRAWS_AT_ONCE, n_draws - start)
        draws = random.integers(n_units, size=(rows, n_units)) + n_units * np.arange(rows)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * n_units).reshape(rows, n_units).astype(np.float32)


def _pair_ranks(first: LabelledPredictions, second: LabelledPredictions) -> Int[np.ndarray, " n"]:
    """Return the place of each pair of labels among all pairs, by the product of their probabilities."""
    ranks = []
    for a, b, i, j in zip(first.probabilities, second.probabilities, first.labels, second.labels):
        products = np.outer(a, b)
        ranks.append(1 + int((products > products[i, j]).sum()))
    return np.array(ranks, int)
