"""Completeness: how many of a network's predictions the scores of its concepts determine together."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.runs.discovery_rows import CompletenessRow
from vtcav_jax.stats.intervals import mean_ci, unit_indices

MIN_VIDEOS_PER_CLASS = 5  # in each half of the videos; rarer classes are left out
RIDGE = 1e-2


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
    x = (scores - scores[fit].mean(0)) / (scores[fit].std(0) + 1e-9)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    answers = (predictions[fit, None] == np.array(classes)).astype(float)
    weights = np.linalg.solve(x[fit].T @ x[fit] + RIDGE * fit.sum() * np.eye(x.shape[1]), x[fit].T @ answers)
    hits = np.array(classes)[(x[test] @ weights).argmax(1)] == predictions[test]
    chance = max(float((predictions[test] == c).mean()) for c in classes)
    test_videos = [video for video, tested in zip(videos, test, strict=True) if tested]
    share, low, high = ((value - chance) / (1 - chance) for value in mean_ci(hits.astype(float), units=test_videos))
    return CompletenessRow(stage, head, share, low, high, chance, len(set(test_videos)))
