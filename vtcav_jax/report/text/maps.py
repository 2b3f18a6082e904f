"""What maps say and what speaks against them, in words, out of the tables of `--task=attribute`."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vtcav_jax.evaluation.published_scores import trust_sentence
from vtcav_jax.report.effect_sizes import format_number, format_percent, format_range, format_signed
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.runs.attribution_rows import MapRow, ProfileRow, SanityRow
from vtcav_jax.stats import intervals

EVEN_TIME_SHARE = 0.45  # of the clip's time holds half of a map that is spread almost evenly
EVEN_SPACE_SHARE = 0.4  # of a frame holds half of a map in which one sees no place
LARGE_COMPLETENESS_GAP = 0.1  # of the score may be missing from a map's sum
HIGH_SIMILARITY, LOW_SIMILARITY = 0.5, 0.25  # rank correlations, and what is called hardly any

MapKey = tuple[str, str, str]


def map_key(row: MapRow | ProfileRow | SanityRow) -> MapKey:
    return row.target, row.method, row.stage


def answer_summary(rows: Sequence[MapRow]) -> tuple[str, str]:
    """What the network says of the clips, and how clearly: of one question."""
    clips = {(row.clip, row.clip_index): row for row in rows}.values()
    counts = Counter(row.answer for row in clips).most_common()
    score, low, high = intervals.mean_ci(np.array([row.score for row in clips]))
    range_text = f" ({format_range(low, high)})" if len(clips) > 1 else ""
    answers_text = ", ".join(f"{answer} {n} times" if n > 1 else f"{answer} once" for answer, n in counts)
    target = rows[0].target
    summary = target if [answer for answer, _ in counts] == [target] else f"{target} is answered with {answers_text}"
    return (
        f"{len(clips)} clip{'s' if len(clips) > 1 else ''}:",
        f"{summary}; score {format_signed(score, 3)}{range_text} on average.",
    )


def mean_temporal_half_mass(rows: Sequence[MapRow]) -> tuple[float, float, float]:
    """The part of the time that holds half of a map: the mean of the clips and its interval."""
    return intervals.mean_ci(np.array([row.temporal_half_mass for row in rows]))


def mean_spatial_half_mass(rows: Sequence[MapRow]) -> tuple[float, float, float]:
    """The part of a frame that holds half of what a map has there."""
    return intervals.mean_ci(np.array([row.spatial_half_mass for row in rows]))


def relative_completeness_gaps(rows: Sequence[MapRow]) -> tuple[float, float]:
    """What a map's sum misses of what its method owes, as a share of the score: the median of the clips and the
    largest; NaN of a method whose sums are no part of a score."""
    shares = [
        abs(row.completeness_gap / row.score)
        for row in rows
        if row.signed and row.score and row.completeness_gap == row.completeness_gap
    ]
    return (float(np.median(shares)), max(shares)) if shares else (math.nan, math.nan)


def describe_map_method(run: RunFolder, key: MapKey) -> str:
    """One method's maps, in sentences."""
    rows = [row for row in run.map_rows if map_key(row) == key]
    sentences = [
        _describe_place(rows),
        _describe_time(rows, [one for one in run.profile_rows if map_key(one) == key]),
        completeness_text(rows),
    ]
    by_measure = {one.measure: one for one in run.sanity_rows if map_key(one) == key and one.n_clips}
    record = run.task_record("attribute")
    if record and key[2] in record.config.get("mixed", ()):
        sentences.append("Each token of this stage has seen the whole frame: the map need not lie where the cause is.")
    return " ".join(part for part in (*sentences, *sanity_texts(by_measure), trust_sentence(key[1], key[2])) if part)


def _describe_place(rows: Sequence[MapRow]) -> str:
    half, low, high = mean_spatial_half_mass(rows)
    if math.isnan(half):
        return ""
    half_text = f"half of its map lies in {format_share(half, low, high)} of the frame"
    if half >= EVEN_SPACE_SHARE:
        return f"It hardly tells one place from another: {half_text}; spread evenly it would be 50 %."
    return f"It picks places: {half_text}."


def _describe_time(rows: Sequence[MapRow], steps: Sequence[ProfileRow]) -> str:
    if all(math.isnan(row.temporal_half_mass) for row in rows):
        return "Its maps are 0 everywhere."
    half, low, high = mean_temporal_half_mass(rows)
    if len(steps) < 2:
        return "It has one step in time, so it cannot say when."
    half_text = f"half of its map lies in {format_share(half, low, high)} of the time"
    if half >= EVEN_TIME_SHARE:
        return f"It hardly tells one moment from another: {half_text}; spread evenly it would be 50 %."
    best = max(steps, key=lambda one: one.mass if not math.isnan(one.mass) else -1)
    position = format_percent((best.time_step + 0.5) / best.n_time_steps)
    where = f"at {position} of the clip ({format_percent(best.mass)} of the map)"
    typical = (
        f"over all clips most lies {where}"
        if best.low > 1 / best.n_time_steps
        else "which moments these are differs from clip to clip"
    )
    return f"It picks moments: {half_text}, where an even spread needs 50 %; {typical}."


def completeness_text(rows: Sequence[MapRow]) -> str:
    """Whether they account for the score."""
    median, worst = relative_completeness_gaps(rows)
    if math.isnan(median):
        return ""
    suffix = (
        "; more --ig_steps miss less"
        if worst > LARGE_COMPLETENESS_GAP and rows[0].method == "integrated_gradients"
        else ""
    )
    if median <= LARGE_COMPLETENESS_GAP:
        bounds = f"{format_percent(median)} ({format_percent(worst)} at worst)"
        return f"Its sums account for the score to within {bounds}{suffix}."
    return (
        f"Its sums miss {format_percent(median)} of the score ({format_percent(worst)} at worst): read where it"
        f" lies, not how much of"
        f" the score that is{suffix}."
    )


def sanity_texts(by_measure: dict[str, SanityRow]) -> list[str]:
    """What `--sanity_clips` has measured of one method, as far as it settles anything."""
    out = []
    inside, volume = by_measure.get("mass_outside"), by_measure.get("area_outside")
    if inside and volume:
        verdict = "as if it knew nothing of the thing"
        if inside.high < volume.low:
            verdict = "it lies on the thing more than chance"
        elif inside.low > volume.high:
            verdict = "it lies elsewhere, more than chance"
        out.append(
            f"{format_percent(inside.mean)} of it lies outside of what the question is about, which is"
            f" {format_percent(volume.mean)}"
            f" of the volume: {verdict}."
        )
    if (row := by_measure.get("time_reversal_change")) and row.high < LOW_SIMILARITY:
        out.append("It is almost the same when the clip runs backwards, so it cannot show which way things go.")
    if (row := by_measure.get("randomised_weights_similarity")) and row.low > HIGH_SIMILARITY:
        out.append(
            f"It looks much the same for a network with shuffled weights (rank correlation"
            f" {format_number(row.mean, 2)}): it"
            " does not show what was learnt."
        )
    if (row := by_measure.get("static_flicker")) and row.low > LOW_SIMILARITY:
        out.append(
            f"Of a frozen clip it still changes by {format_percent(row.mean)} from step to step: what flickers is"
            f" no motion."
        )
    return out
