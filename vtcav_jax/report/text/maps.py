"""Properties and limits of attribution maps in sentences, from the tables of `vtcav attribute`."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vtcav_jax.evaluation.published_scores import trust_sentence
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_range, format_signed
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.runs.attribution_rows import MapRow, ProfileRow, SanityRow
from vtcav_jax.stats import intervals

EVEN_TIME_SHARE = 0.45  # of the clip's time: a map with half of its mass in this much or more is nearly uniform
EVEN_SPACE_SHARE = 0.4  # of a frame
LARGE_COMPLETENESS_GAP = 0.1  # of the score
HIGH_SIMILARITY, LOW_SIMILARITY = 0.5, 0.25  # rank correlations

MapKey = tuple[str, str, str]


def map_key(row: MapRow | ProfileRow | SanityRow) -> MapKey:
    return row.target, row.method, row.stage


def answer_summary(rows: Sequence[MapRow]) -> tuple[str, str]:
    """Return the predictions and the mean score of the clips of one question."""
    clips = {(row.clip, row.clip_index): row for row in rows}.values()
    counts = Counter(row.answer for row in clips).most_common()
    score, low, high = intervals.mean_ci(np.array([row.score for row in clips]))
    ci_text = f" (95 % CI over clips {format_range(low, high)})" if len(clips) > 1 else ""
    target = rows[0].target
    predictions = ", ".join(f"{answer} ({count_noun(n, 'clip')})" for answer, n in counts)
    explained = "" if [answer for answer, _ in counts] == [target] else f"predictions {predictions}; "
    return f"{count_noun(len(clips), 'clip')}:", f"{explained}mean score {format_signed(score, 3)}{ci_text}."


def mean_temporal_half_mass(rows: Sequence[MapRow]) -> tuple[float, float, float]:
    """Return the smallest share of the time that holds half of a map: mean over clips and its interval."""
    return intervals.mean_ci(np.array([row.temporal_half_mass for row in rows]))


def mean_spatial_half_mass(rows: Sequence[MapRow]) -> tuple[float, float, float]:
    """Return the smallest share of a frame that holds half of the map in it: mean over clips and its interval."""
    return intervals.mean_ci(np.array([row.spatial_half_mass for row in rows]))


def relative_completeness_gaps(rows: Sequence[MapRow]) -> tuple[float, float]:
    """Return the median and the maximum over clips of the completeness gap as a share of the score; NaN for methods
    whose maps need not sum to a score."""
    shares = [
        abs(row.completeness_gap / row.score)
        for row in rows
        if row.signed and row.score and row.completeness_gap == row.completeness_gap
    ]
    return (float(np.median(shares)), max(shares)) if shares else (math.nan, math.nan)


def describe_map_method(run: RunFolder, key: MapKey) -> str:
    """Describe where and when the maps of one method lie, and their known limits."""
    rows = [row for row in run.map_rows if map_key(row) == key]
    sentences = [
        _describe_place(rows),
        _describe_time(rows, [step for step in run.profile_rows if map_key(step) == key]),
        completeness_text(rows),
    ]
    by_measure = {row.measure: row for row in run.sanity_rows if map_key(row) == key and row.n_clips}
    record = run.task_record("attribute")
    if record and key[2] in record.config.get("mixed", ()):
        sentences.append(
            "Each token of this stage receives information from the whole frame, so the map may not lie on the cause."
        )
    return " ".join(part for part in (*sentences, *sanity_texts(by_measure), trust_sentence(key[1], key[2])) if part)


def _describe_place(rows: Sequence[MapRow]) -> str:
    half, low, high = mean_spatial_half_mass(rows)
    if math.isnan(half):
        return ""
    text = f"half of the map lies in {format_share(half, low, high)} of the frame (50 % if uniform)"
    return f"{'Nearly uniform in space' if half >= EVEN_SPACE_SHARE else 'Localised in space'}: {text}."


def _describe_time(rows: Sequence[MapRow], steps: Sequence[ProfileRow]) -> str:
    if all(math.isnan(row.temporal_half_mass) for row in rows):
        return "The maps are 0 everywhere."
    half, low, high = mean_temporal_half_mass(rows)
    if len(steps) < 2:
        return "The map has a single time step and cannot be localised in time."
    half_text = f"half of the map lies in {format_share(half, low, high)} of the time (50 % if uniform)"
    if half >= EVEN_TIME_SHARE:
        return f"Nearly uniform in time: {half_text}."
    best = max(steps, key=lambda step: step.mass if not math.isnan(step.mass) else -1)
    position = format_percent((best.time_step + 0.5) / best.n_time_steps)
    typical = (
        f"the time step at {position} of the clip has the largest mean share ({format_percent(best.mass)} of the map)"
        if best.low > 1 / best.n_time_steps
        else "no time step is above a uniform share on average, so the relevant moments differ between clips"
    )
    return f"Localised in time: {half_text}; {typical}."


def completeness_text(rows: Sequence[MapRow]) -> str:
    """Compare the sum of the maps with the score that they should sum to."""
    median, worst = relative_completeness_gaps(rows)
    if math.isnan(median):
        return ""
    text = f"The sum of the map misses {format_percent(median)} of the score in the median clip"
    text += f" ({format_percent(worst)} in the worst)"
    if median > LARGE_COMPLETENESS_GAP:
        text += ", so its values show where contributions lie but not how large they are"
    if worst > LARGE_COMPLETENESS_GAP and rows[0].method == "integrated_gradients":
        text += "; increase --ig_steps to reduce the gap"
    return f"{text}."


def sanity_texts(by_measure: dict[str, SanityRow]) -> list[str]:
    """Describe the sanity checks of one method (--sanity_clips) whose outcome is clear."""
    out = []
    inside, volume = by_measure.get("mass_outside"), by_measure.get("area_outside")
    if inside and volume:
        verdict = "the map is not distinguishable from a uniform map"
        if inside.high < volume.low:
            verdict = "the map lies on the object more than a uniform map"
        elif inside.low > volume.high:
            verdict = "the map lies outside the object more than a uniform map"
        out.append(
            f"{format_percent(inside.mean)} of the map lies outside the object in question; this region is"
            f" {format_percent(volume.mean)} of the volume, so {verdict}."
        )
    if (row := by_measure.get("time_reversal_change")) and row.high < LOW_SIMILARITY:
        out.append(
            f"Insensitive to the direction of time: the correlation with the map of the reversed clip is"
            f" {format_number(1 - row.mean, 2)}."
        )
    if (row := by_measure.get("randomised_weights_similarity")) and row.low > HIGH_SIMILARITY:
        out.append(
            f"Insensitive to the weights: the rank correlation with the map of a network with shuffled weights is"
            f" {format_number(row.mean, 2)}, so the map does not show what the network learnt."
        )
    if (row := by_measure.get("static_flicker")) and row.low > LOW_SIMILARITY:
        out.append(
            f"Flicker: for a frozen clip the map still changes by {format_percent(row.mean)} between time steps, so"
            " changes over time are not evidence of motion."
        )
    return out
