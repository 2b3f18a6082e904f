"""What maps say and what speaks against them, in words, out of the tables of `--task=explain`."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vtcav_jax.attribution.sanity_checks import LimitRow
from vtcav_jax.attribution.videos.map_store import Row
from vtcav_jax.attribution.videos.temporal_profile import Course
from vtcav_jax.evaluation.published_scores import trust
from vtcav_jax.report.effect_sizes import number, percent, signed, span
from vtcav_jax.report.figures.motion import share
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.stats import intervals

EVEN = 0.45  # of the clip's time holds half of a map that is spread almost evenly
FLAT = 0.4  # of a frame holds half of a map in which one sees no place
MUCH = 0.1  # of the score may be missing from a map's sum
ALIKE, FAINT = 0.5, 0.25  # rank correlations, and what is called hardly any

Key = tuple[str, str, str]


def key(row: Row | Course | LimitRow) -> Key:
    return row.target, row.method, row.stage


def answered(rows: Sequence[Row]) -> tuple[str, str]:
    """What the network says of the clips, and how clearly: of one question."""
    clips = {(row.clip, row.window): row for row in rows}.values()
    counts = Counter(row.answer for row in clips).most_common()
    score, low, high = intervals.mean(np.array([row.score for row in clips]))
    told = f" ({span(low, high)})" if len(clips) > 1 else ""
    said = ", ".join(f"{answer} {n} times" if n > 1 else f"{answer} once" for answer, n in counts)
    target = rows[0].target
    asked = target if [answer for answer, _ in counts] == [target] else f"{target} is answered with {said}"
    return f"{len(clips)} clip{'s' if len(clips) > 1 else ''}:", f"{asked}; score {signed(score, 3)}{told} on average."


def half(rows: Sequence[Row]) -> tuple[float, float, float]:
    """The part of the time that holds half of a map: the mean of the clips and its interval."""
    return intervals.mean(np.array([row.half for row in rows]))


def places(rows: Sequence[Row]) -> tuple[float, float, float]:
    """The part of a frame that holds half of what a map has there."""
    return intervals.mean(np.array([row.places for row in rows]))


def missed(rows: Sequence[Row]) -> tuple[float, float]:
    """What a map's sum misses of what its method owes, as a share of the score: the median of the clips and the
    largest; NaN of a method whose sums are no part of a score."""
    shares = [
        abs(row.residual / row.score) for row in rows if row.signed and row.score and row.residual == row.residual
    ]
    return (float(np.median(shares)), max(shares)) if shares else (math.nan, math.nan)


def told(run: RunFolder, of: Key) -> str:
    """One method's maps, in sentences."""
    rows = [row for row in run.maps if key(row) == of]
    parts = [_where(rows), _when(rows, [one for one in run.courses if key(one) == of]), sums(rows)]
    measures = {one.measure: one for one in run.limits if key(one) == of and one.clips}
    record = run.record("explain")
    if record and of[2] in record.asked.get("mixed", ()):
        parts.append("Each token of this stage has seen the whole frame: the map need not lie where the cause is.")
    return " ".join(part for part in (*parts, *faults(measures), trust(of[1], of[2])) if part)


def _where(rows: Sequence[Row]) -> str:
    part, low, high = places(rows)
    if math.isnan(part):
        return ""
    much = f"half of its map lies in {share(part, low, high)} of the frame"
    if part >= FLAT:
        return f"It hardly tells one place from another: {much}; spread evenly it would be 50 %."
    return f"It picks places: {much}."


def _when(rows: Sequence[Row], steps: Sequence[Course]) -> str:
    if all(math.isnan(row.half) for row in rows):
        return "Its maps are 0 everywhere."
    part, low, high = half(rows)
    if len(steps) < 2:
        return "It has one step in time, so it cannot say when."
    much = f"half of its map lies in {share(part, low, high)} of the time"
    if part >= EVEN:
        return f"It hardly tells one moment from another: {much}; spread evenly it would be 50 %."
    best = max(steps, key=lambda one: one.share if not math.isnan(one.share) else -1)
    where = f"at {percent((best.step + 0.5) / best.steps)} of the clip ({percent(best.share)} of the map)"
    common = (
        f"over all clips most lies {where}"
        if best.low > 1 / best.steps
        else "which moments these are differs from clip to clip"
    )
    return f"It picks moments: {much}, where an even spread needs 50 %; {common}."


def sums(rows: Sequence[Row]) -> str:
    """Whether they account for the score."""
    median, most = missed(rows)
    if math.isnan(median):
        return ""
    more = "; more --nodes miss less" if most > MUCH and rows[0].method == "integrated_gradients" else ""
    if median <= MUCH:
        return f"Its sums account for the score to within {percent(median)} ({percent(most)} at worst){more}."
    return (
        f"Its sums miss {percent(median)} of the score ({percent(most)} at worst): read where it lies, not how much of"
        f" the score that is{more}."
    )


def faults(measures: dict[str, LimitRow]) -> list[str]:
    """What `--limits` has measured of one method, as far as it settles anything."""
    out = []
    inside, volume = measures.get("background"), measures.get("elsewhere")
    if inside and volume:
        verdict = "as if it knew nothing of the thing"
        if inside.high < volume.low:
            verdict = "it lies on the thing more than chance"
        elif inside.low > volume.high:
            verdict = "it lies elsewhere, more than chance"
        out.append(
            f"{percent(inside.mean)} of it lies outside of what the question is about, which is {percent(volume.mean)}"
            f" of the volume: {verdict}."
        )
    if (one := measures.get("direction")) and one.high < FAINT:
        out.append("It is almost the same when the clip runs backwards, so it cannot show which way things go.")
    if (one := measures.get("randomised")) and one.low > ALIKE:
        out.append(
            f"It looks much the same for a network with shuffled weights (rank correlation {number(one.mean, 2)}): it"
            " does not show what was learnt."
        )
    if (one := measures.get("still_flicker")) and one.low > FAINT:
        out.append(
            f"Of a frozen clip it still changes by {percent(one.mean)} from step to step: what flickers is no motion."
        )
    return out
