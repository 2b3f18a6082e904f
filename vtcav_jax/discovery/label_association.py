"""Labels of videos that go with a concept: suggested names, with the strength of the association."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.stats.intervals import unit_indices, widened_percentiles
from vtcav_jax.stats.roc import area_under_roc

MIN_VIDEOS_PER_SIDE = 5  # with and without a label, in each half of the videos
RESAMPLES = 500


@dataclass(frozen=True)
class LabelAssociation:
    """Label of the videos in which a concept is strongest, with the AUROC of the concept's score for it.

    The label is selected in one half of the videos, and the AUROC and its 95 % interval are those of the other half.
    """

    label: str
    auc: float
    low: float
    high: float


def suggest_label(
    scores: Float[np.ndarray, " n"],
    labels: Mapping[str, Int[np.ndarray, " n"]],
    heads: Mapping[str, Sequence[str]],
    videos: Sequence[str],
    seed: int,
) -> LabelAssociation:
    """Return the label that best goes with the scores, an empty one if no label has enough videos.

    `labels` are class indices by head, -1 where unknown.
    """
    unit = unit_indices(videos)
    in_first = np.random.default_rng(seed).permutation(unit.max() + 1)[unit] % 2 == 0
    candidates: list[tuple[float, str, np.ndarray, np.ndarray]] = []
    for head, names in heads.items():
        known = labels[head] >= 0
        for index, name in enumerate(names):
            positive = labels[head] == index
            sides = [known & positive & half for half in (in_first, ~in_first)]
            sides += [known & ~positive & half for half in (in_first, ~in_first)]
            if min(len(set(unit[side])) for side in sides) >= MIN_VIDEOS_PER_SIDE:
                first = known & in_first
                text = name if len(heads) == 1 else f"{head}:{name}"
                candidates.append((area_under_roc(scores[first], positive[first]), text, positive, known))
    if not candidates:
        return LabelAssociation("", *[float("nan")] * 3)
    _, text, positive, known = max(candidates, key=lambda candidate: candidate[:2])
    second = np.flatnonzero(known & ~in_first)
    auc = area_under_roc(scores[second], positive[second])
    rows_of = [second[unit[second] == u] for u in np.unique(unit[second])]
    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[i] for i in random.integers(len(rows_of), size=len(rows_of))])
        resampled.append(area_under_roc(scores[rows], positive[rows]))
    low, high = widened_percentiles(auc, np.array(resampled), len(rows_of))
    return LabelAssociation(text, auc, max(low, 0.0), min(high, 1.0))
