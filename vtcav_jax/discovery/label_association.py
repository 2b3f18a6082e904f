"""Labels of videos that go with a concept: suggested names, with the strength of the association."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.concepts.video_scan import BoxTable
from vtcav_jax.data.source import SourceItem
from vtcav_jax.stats.intervals import bootstrap_samples, sample_counts, unit_indices, widened_percentiles
from vtcav_jax.stats.roc import area_under_roc, weighted_area_under_roc

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


NO_LABEL = LabelAssociation("", float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Mark:
    """A label of clips: which have it, and of which that is known."""

    positive: Bool[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]


def class_marks(items: Sequence[SourceItem], heads: Mapping[str, Sequence[str]]) -> dict[str, Mark]:
    """Return the classes of the videos that clips come from."""
    marks = {}
    for head, names in heads.items():
        values = np.array([item.labels.get(head, -1) for item in items])
        for index, name in enumerate(names):
            marks[name if len(heads) == 1 else f"{head}:{name}"] = Mark(values == index, values >= 0)
    return marks


def box_marks(items: Sequence[SourceItem], extents: Sequence[tuple[int, int]], table: BoxTable) -> dict[str, Mark]:
    """Return the labels of boxes in clips, of which `extents` are the first and the last frame.

    A label is unknown in videos without boxes.
    """
    of_clip = [table.boxes_of(item) for item in items]
    known = np.array([bool(video_boxes) for video_boxes in of_clip])
    visible = [
        {box.label for box in video_boxes if first <= box.frame <= last}
        for video_boxes, (first, last) in zip(of_clip, extents, strict=True)
    ]
    labels = sorted({box.label for video_boxes in of_clip for box in video_boxes})
    return {f"{name} (box)": Mark(np.array([name in clip for clip in visible]), known) for name in labels}


def suggest_label(
    scores: Float[np.ndarray, " n"], marks: Mapping[str, Mark], videos: Sequence[str], seed: int
) -> LabelAssociation:
    """Return the label that best goes with the scores.

    It is empty if no label has enough videos, or if the interval of the AUROC is not above 0.5.
    """
    unit = unit_indices(videos)
    in_first = np.random.default_rng(seed).permutation(unit.max() + 1)[unit] % 2 == 0
    candidates: list[tuple[float, str]] = []
    for text, mark in marks.items():
        sides = [mark.known & side & half for side in (mark.positive, ~mark.positive) for half in (in_first, ~in_first)]
        if min(len(set(unit[side])) for side in sides) >= MIN_VIDEOS_PER_SIDE:
            first = mark.known & in_first
            candidates.append((area_under_roc(scores[first], mark.positive[first]), text))
    if not candidates:
        return NO_LABEL
    text = max(candidates)[1]
    second, positive = np.flatnonzero(marks[text].known & ~in_first), marks[text].positive
    auc = area_under_roc(scores[second], positive[second])
    row_unit = np.unique(unit[second], return_inverse=True)[1]
    n_units = int(row_unit.max()) + 1
    resampled = [
        weighted_area_under_roc(
            scores[second], positive[second], ~positive[second], sample_counts(samples)[:, row_unit].astype(float)
        )
        for samples in bootstrap_samples(n_units, seed, RESAMPLES)
    ]
    low, high = widened_percentiles(auc, np.concatenate(resampled), n_units)
    if low <= 0.5:
        return NO_LABEL
    return LabelAssociation(text, auc, max(low, 0.0), min(high, 1.0))
