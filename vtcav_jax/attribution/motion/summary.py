"""Motion reliance over the clips of each class: shares with intervals, and verdicts.

A network is biased on unfamiliar clips: if every frozen clip looks like "down" to it, that class seems to lose nothing.
So with clips of several classes, a class's score is its margin on its own clips minus that on the other clips, before
and after the edit: a bias common to all clips cancels. Intervals resample whole source videos, as clips of one video
are not independent.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution.motion.reliance import TIME_EDITS, MotionEvidence
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow
from vtcav_jax.stats.intervals import bootstrap_samples, mean_ci, sample_counts, unit_indices, widened_percentiles

MIN_MOTION_SHARE, MAX_STATIC_SHARE = 0.5, 0.25  # shares of at least / at most this are called motion / not motion
MIN_VERDICT_VIDEOS = 5  # source videos, for a conclusion about others
MIN_VIDEOS_COMPARED = 2  # required source videos with clips of a class, and with clips of the others

ShareInterval = tuple[float, float, float]
UNKNOWN_SHARE: ShareInterval = (math.nan, math.nan, math.nan)


def summarise_by_class(evidence: Sequence[MotionEvidence], seed: int = 0) -> list[ClassMotionRow]:
    """Return a row for all clips of each target, then one for each predicted class."""
    class_rows = []
    for target in dict.fromkeys(clip_evidence.row.target for clip_evidence in evidence):
        subset = [clip_evidence for clip_evidence in evidence if clip_evidence.row.target == target]
        clip_answers = [clip_evidence.row.answer for clip_evidence in subset]
        answers = sorted({answer for answer in clip_answers if answer != target})
        videos = unit_indices([clip_evidence.row.source_video for clip_evidence in subset])
        names = ("score", *TIME_EDITS)
        is_answer = {a: np.array([a == t for t in clip_answers]) for a in answers}
        smaller_side = {a: min(len(set(videos[side])) for side in (mask, ~mask)) for a, mask in is_answer.items()}
        usable = [a for a in answers if smaller_side[a] >= MIN_VIDEOS_COMPARED and subset[0].margins]
        for answer in ("", *answers):
            in_class = is_answer.get(answer, np.ones(len(subset), bool))
            compared = [a for a in usable if answer in ("", a)]
            blocks = []
            for weights in _clip_weights(videos, seed):
                if compared:
                    contrasts = [[_margin_contrast(subset, name, a, weights) for a in compared] for name in names]
                    blocks.append(np.sum(contrasts, 1))
                else:
                    blocks.append(np.stack([_mean_rise(subset, name, in_class, weights) for name in names]))
            scores = np.concatenate(blocks, 1)
            rows = [clip_evidence.row for clip_evidence, included in zip(subset, in_class) if included]
            n_class_videos = len(set(videos[in_class]))
            n_resampled = smaller_side[answer] if compared and answer else n_class_videos
            shares = [_lost_share(scores[0], changed, n_resampled) for changed in scores[1:]]
            reference = "other clips" if compared else "no preference"
            interval_values = [
                value
                for share in (
                    *shares,
                    mean_over_videos(rows, "changing_mass"),
                    mean_over_videos(rows, "changing_mass_excess", minimum=-1.0),
                )
                for value in share
            ]
            class_rows.append(ClassMotionRow(target, answer, len(rows), n_class_videos, reference, *interval_values))
    return class_rows


def _clip_weights(videos: Int[np.ndarray, " n"], seed: int) -> Iterator[Float[np.ndarray, "draws n"]]:
    """Yield weights of clips: all 1, then how often the video of each is in samples of the videos, in blocks."""
    yield np.ones((1, len(videos)))
    for samples in bootstrap_samples(int(videos.max()) + 1, seed):
        yield sample_counts(samples)[:, videos].astype(np.float64)


def _margin_contrast(
    subset: Sequence[MotionEvidence], name: str, answer: str, weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    """Return each draw's margin of a class on its clips minus that on the others, times the share of its clips."""
    column = subset[0].classes.index(answer)
    margin = np.array([clip_evidence.margins[name][column] for clip_evidence in subset])
    in_class = np.array([clip_evidence.row.answer == answer for clip_evidence in subset])
    with np.errstate(invalid="ignore"):  # a draw may have no clips of the class
        inside, outside = (weights @ (margin * side) / (weights @ side) for side in (in_class * 1.0, ~in_class * 1.0))
    return (inside - outside) * (weights @ in_class) / weights.sum(1)


def _mean_rise(
    subset: Sequence[MotionEvidence], name: str, in_class: np.ndarray, weights: np.ndarray
) -> Float[np.ndarray, " draws"]:
    """Return the mean score of each draw, minus the baseline's."""
    values = np.array(
        [
            getattr(clip_evidence.row, name if name == "score" else f"score_{name}") - clip_evidence.row.score_baseline
            for clip_evidence in subset
        ]
    )
    with np.errstate(invalid="ignore"):
        return weights @ (values * in_class) / (weights @ (in_class * 1.0))


def _lost_share(
    scores: Float[np.ndarray, " draws"], edited_scores: Float[np.ndarray, " draws"], n_videos: int
) -> ShareInterval:
    """Return 1 - edited / original score with its 95 % interval; entry 0 is the estimate, the others are draws."""
    if not scores[0] > 0:  # no evidence for the class, of which a share could be lost
        return UNKNOWN_SHARE
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = 1 - edited_scores / scores
    interval = (math.nan, math.nan) if n_videos < 2 else widened_percentiles(shares[0], shares[1:], n_videos)
    return float(shares[0]), *interval


def mean_over_videos(rows: Sequence[ClipMotionRow], name: str, *, minimum: float = 0.0) -> ShareInterval:
    """Return the mean of a column, which is between `minimum` and 1, and its interval over source videos."""
    values = np.array([getattr(row, name) for row in rows], np.float64)
    mean, low, high = mean_ci(values, units=[row.source_video for row in rows])
    return mean, float(np.maximum(low, minimum)), float(np.minimum(high, 1.0))


def interleave_classes(rows: Sequence[ClipMotionRow]) -> list[ClipMotionRow]:
    """Order rows so that each predicted class appears once before any appears twice."""
    by_prediction: dict[str, list[ClipMotionRow]] = {}
    for row in rows:
        by_prediction.setdefault(row.prediction or row.answer, []).append(row)
    return [row for rank in zip_longest(*by_prediction.values()) for row in rank if row]


def motion_sentences(rows: Sequence[ClassMotionRow]) -> list[str]:
    """Return one sentence per row: the verdict and the shares lost."""
    return [" ".join(motion_verdict(row)) for row in rows]


def motion_verdict(row: ClassMotionRow) -> tuple[str, str]:
    """Return the verdict, and the numbers that support it."""
    name = row.answer or row.target
    clips_text = format_clips(row)
    if math.isnan(row.drop_shuffled):
        return f"{name}: no verdict;", f"over {clips_text}, its score is not above the reference ({row.reference})."
    shuffled_text = _change_text((row.drop_shuffled, row.drop_shuffled_low, row.drop_shuffled_high), "95 % CI ")
    frozen_text = _change_text((row.drop_frozen, row.drop_frozen_low, row.drop_frozen_high))
    numbers = f"its score {shuffled_text} with shuffled frames and {frozen_text} with a frozen frame."
    return f"{name}: {_verdict_text(row)};", f"over {clips_text}, {numbers}"


def format_clips(row: ClassMotionRow) -> str:
    """Return the numbers of clips and of source videos of a row."""
    clips, videos = ("" if n == 1 else "s" for n in (row.n_clips, row.n_videos))
    return f"{row.n_clips} clip{clips} of {row.n_videos} source video{videos}"


def _change_text(lost: ShareInterval, interval: str = "") -> str:
    """Describe a lost share; a negative one is a rise."""
    rises = round(100 * lost[0]) < 0
    value, low, high = (-lost[0], -lost[2], -lost[1]) if rises else lost
    text = f"{'rises' if rises else 'falls'} by {round(100 * value)} %"
    return text if math.isnan(low) else f"{text} ({interval}{round(100 * low)} to {round(100 * high)} %)"


def _verdict_text(row: ClassMotionRow) -> str:
    if row.n_videos < MIN_VERDICT_VIDEOS or math.isnan(row.drop_shuffled_low):
        return "too few source videos for a conclusion about other videos"
    if row.drop_shuffled_low >= MIN_MOTION_SHARE:
        return "motion"
    if row.drop_shuffled_high > MAX_STATIC_SHARE:
        return "partly motion" if row.drop_shuffled_low > MAX_STATIC_SHARE else "undecided, the interval is too wide"
    if row.drop_frozen_high <= MAX_STATIC_SHARE:
        return "appearance, not motion"
    if row.drop_frozen_low >= MIN_MOTION_SHARE:
        return "not motion, but several moments in any order"
    return "not motion"
