"""How much of a decision is motion, over the clips of each class: shares with intervals, and what they mean in words.

A network has its favourites among clips that it never saw the like of: frozen, every clip may look like "down" to it,
and then nothing seems to go of that class. So where clips of several classes are there, a class's score is how much
higher its margin is on its own clips than on the others, before and after: what is the same for all clips cancels.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.motion.reliance import TIME_EDITS, MotionEvidence
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES, mean_ci

MIN_MOTION_SHARE, MAX_STATIC_SHARE = (
    0.5,
    0.25,
)  # shares from which on a decision is called motion, and up to which it is not
MIN_CLIPS_COMPARED = 2  # clips of a class, and of the others, that are compared

ShareInterval = tuple[float, float, float]
UNKNOWN_SHARE: ShareInterval = (math.nan, math.nan, math.nan)


def summarise_by_class(evidence: Sequence[MotionEvidence], seed: int = 0) -> list[ClassMotionRow]:
    """First all clips of each question, then each answer."""
    class_rows = []
    for target in dict.fromkeys(clip_evidence.row.target for clip_evidence in evidence):
        subset = [clip_evidence for clip_evidence in evidence if clip_evidence.row.target == target]
        clip_answers = [clip_evidence.row.answer for clip_evidence in subset]
        answers = sorted({answer for answer in clip_answers if answer != target})
        usable = [
            a
            for a in answers
            if min(clip_answers.count(a), len(subset) - clip_answers.count(a)) >= MIN_CLIPS_COMPARED
            and subset[0].margins
        ]
        draws = np.random.default_rng(seed).multinomial(
            len(subset), [1 / len(subset)] * len(subset), BOOTSTRAP_RESAMPLES
        )
        weights = np.concatenate([np.ones((1, len(subset))), draws])
        for answer in ("", *answers):
            in_class = np.array([answer in ("", t) for t in clip_answers])
            compared = [a for a in usable if answer in ("", a)]
            if compared:
                scores = [
                    np.sum([_margin_contrast(subset, name, a, weights) for a in compared], 0)
                    for name in ("score", *TIME_EDITS)
                ]
            else:
                scores = [_mean_rise(subset, name, in_class, weights) for name in ("score", *TIME_EDITS)]
            shares = [_lost_share(scores[0], changed, int(in_class.sum())) for changed in scores[1:]]
            rows = [clip_evidence.row for clip_evidence, included in zip(subset, in_class) if included]
            reference = "other clips" if compared else "no preference"
            interval_values = [
                value
                for share in (
                    *shares,
                    _mean_interval(rows, "changing_mass"),
                    _mean_interval(rows, "changing_mass_excess"),
                )
                for value in share
            ]
            class_rows.append(ClassMotionRow(target, answer, len(rows), reference, *interval_values))
    return class_rows


def _margin_contrast(
    subset: Sequence[MotionEvidence], name: str, answer: str, weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    """The margin of a class on its clips less that on the others, times the share of its clips."""
    column = subset[0].classes.index(answer)
    margin = np.array([clip_evidence.margins[name][column] for clip_evidence in subset])
    in_class = np.array([clip_evidence.row.answer == answer for clip_evidence in subset])
    with np.errstate(invalid="ignore"):  # a draw may have no clip of the class
        inside, outside = (weights @ (margin * side) / (weights @ side) for side in (in_class * 1.0, ~in_class * 1.0))
    return (inside - outside) * (weights @ in_class) / weights.sum(1)


def _mean_rise(
    subset: Sequence[MotionEvidence], name: str, in_class: np.ndarray, weights: np.ndarray
) -> Float[np.ndarray, " draws"]:
    """The mean score over what nothing has."""
    values = np.array(
        [
            getattr(clip_evidence.row, name if name == "score" else f"score_{name}") - clip_evidence.row.score_baseline
            for clip_evidence in subset
        ]
    )
    with np.errstate(invalid="ignore"):
        return weights @ (values * in_class) / (weights @ (in_class * 1.0))


def _lost_share(
    scores: Float[np.ndarray, " draws"], edited_scores: Float[np.ndarray, " draws"], n_clips: int
) -> ShareInterval:
    """The first entry is of all clips once, the others are draws."""
    if not scores[0] > 0:  # nothing speaks for the class: there is nothing to have a share of
        return UNKNOWN_SHARE
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = 1 - edited_scores / scores
    if n_clips < 2:
        return float(shares[0]), math.nan, math.nan
    low, high = np.nanquantile(shares[1:], (0.025, 0.975))
    return float(shares[0]), float(low), float(high)


def _mean_interval(rows: Sequence[ClipMotionRow], name: str) -> ShareInterval:
    return mean_ci(np.array([getattr(row, name) for row in rows], np.float64))


def motion_sentences(rows: Sequence[ClassMotionRow]) -> list[str]:
    """What can be said of each question, and of each answer to it."""
    return [" ".join(motion_verdict(row)) for row in rows]


def motion_verdict(row: ClassMotionRow) -> tuple[str, str]:
    """What it is called, and the numbers that this stands on."""
    name = row.answer or row.target
    clips_text = f"{row.n_clips} clip{'s' if row.n_clips > 1 else ''}"
    if math.isnan(row.drop_shuffled):
        return f"{name}: nothing can be said;", f"on the whole these {clips_text} do not speak for it."
    shuffled_text = _share_text(
        (row.drop_shuffled, row.drop_shuffled_low, row.drop_shuffled_high), "needs the order of the frames", "shuffled"
    )
    frozen_text = _share_text(
        (row.drop_frozen, row.drop_frozen_low, row.drop_frozen_high), "more than a still clip", "frozen"
    )
    return f"{name}: {_verdict_text(row)};", f"of its score over {clips_text}, {shuffled_text} and {frozen_text}."


def _share_text(share: ShareInterval, needs: str, changed: str) -> str:
    """A share below 0 is none, and a score that rises."""
    rises = share[0] < 0 and not share[2] >= 0
    value, low, high = (-share[0], -share[2], -share[1]) if rises else share
    text = f"{round(100 * value)} %"
    text += "" if math.isnan(low) else f" ({round(100 * low)} to {round(100 * high)} %)"
    return f"none {needs} (it is higher by {text} when {changed})" if rises else f"{text} {needs}"


def _verdict_text(row: ClassMotionRow) -> str:
    if math.isnan(row.drop_shuffled_low):
        return "one clip is too few for a verdict"
    if row.drop_shuffled_low >= MIN_MOTION_SHARE:
        return "motion"
    if row.drop_shuffled_high > MAX_STATIC_SHARE:
        return "partly motion" if row.drop_shuffled_low > MAX_STATIC_SHARE else "not settled, the interval is too wide"
    if row.drop_frozen_high <= MAX_STATIC_SHARE:
        return "look, not motion"
    if row.drop_frozen_low >= MIN_MOTION_SHARE:
        return "not motion, but what several moments show, in whatever order"
    return "not motion"
