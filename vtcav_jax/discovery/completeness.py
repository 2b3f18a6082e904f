"""Completeness: how many of a network's predictions the scores of its concepts determine together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.runs.discovery_rows import CompletenessRow
from vtcav_jax.stats.intervals import mean_ci, unit_indices

MIN_VIDEOS_PER_CLASS = 5  # in each half of the videos; rarer classes are left out
READOUT_PENALTY = 1e-2  # on the squared weights of standardised features
READOUT_STEPS = 60


def prediction_share(
    scores: Float[np.ndarray, "n k"],
    predictions: Int[np.ndarray, " n"],
    videos: Sequence[str],
    *,
    stage: str,
    head: str,
    seed: int,
) -> CompletenessRow | None:
    """Return the share of predictions above chance that a linear readout of the scores reproduces; None if undefined.

    The readout is fitted to the predicted classes of one half of the videos and tested on the other. Chance is the
    share of the most frequent class there.
    """
    unit = unit_indices(videos)
    in_first = np.random.default_rng(seed).permutation(unit.max() + 1)[unit] % 2 == 0
    classes = [
        c
        for c in np.unique(predictions)
        if min(len(set(unit[(predictions == c) & half])) for half in (in_first, ~in_first)) >= MIN_VIDEOS_PER_CLASS
    ]
    if len(classes) < 2:
        return None
    known = np.isin(predictions, classes)
    fit, test = known & in_first, known & ~in_first
    hits = reproduced(scores, predictions, fit, test)
    test_videos = [video for video, tested in zip(videos, test, strict=True) if tested]
    interval = mean_ci(hits.astype(float), units=test_videos)
    share, low, high = (above_chance(value, predictions[test]) for value in interval)
    return CompletenessRow(stage, head, share, low, high, chance_of(predictions[test]), len(set(test_videos)))


def reproduced(
    scores: Float[np.ndarray, "n k"],
    predictions: Int[np.ndarray, " n"],
    fit: Bool[np.ndarray, " n"],
    test: Bool[np.ndarray, " n"],
) -> Bool[np.ndarray, " tested"]:
    """Return which predictions of the tested clips a readout reproduces that is fitted to those of other clips."""
    classes, labels = np.unique(predictions[fit], return_inverse=True)
    slopes, intercepts = fit_readout(scores[fit], labels, len(classes))
    return classes[(scores[test] @ slopes + intercepts).argmax(1)] == predictions[test]


def above_chance(share: Any, predictions: Int[np.ndarray, " n"]) -> Any:
    """Return a share of hits relative to that of the most frequent prediction: 0 if equal, 1 if all are hits."""
    chance = chance_of(predictions)
    return (share - chance) / (1 - chance)


def chance_of(predictions: Int[np.ndarray, " n"]) -> float:
    """Return the share of the most frequent prediction."""
    return float(np.unique(predictions, return_counts=True)[1].max() / len(predictions))


def fit_readout(
    x: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], n_classes: int, min_scale: float = 0.0
) -> tuple[Float[np.ndarray, "c classes"], Float[np.ndarray, " classes"]]:
    """Return weights and intercepts of multinomial logistic regression with an L2 penalty.

    Features are divided by their standard deviation, or by `min_scale` if it is larger.
    """
    from scipy.optimize import minimize

    mean, scale = x.mean(0), np.maximum(x.std(0), min_scale) + 1e-9
    z, targets = (x - mean) / scale, np.eye(n_classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, n_classes)
        logits = z @ weights[:-1] + weights[-1]
        logits = logits - logits.max(1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
        error = (np.exp(logits - log_sum) - targets) / len(z)
        value = (log_sum[:, 0] - (logits * targets).sum(1)).mean() + READOUT_PENALTY / 2 * (weights[:-1] ** 2).sum()
        gradient = np.concatenate([z.T @ error + READOUT_PENALTY * weights[:-1], error.sum(0)[None]])
        return float(value), gradient.ravel()

    start = np.zeros((x.shape[1] + 1) * n_classes)
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": READOUT_STEPS})
    weights = result.x.reshape(-1, n_classes)
    slopes = weights[:-1] / scale[:, None]
    return slopes, weights[-1] - mean @ slopes
