"""Sentences about the trend of motion effects over depth, one for each class and concept whose test supports it."""

from collections.abc import Sequence

from vtcav_jax.report.effect_sizes import Effect, format_effect, format_p
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.text.tcav_confounders import SCORE_UNITS
from vtcav_jax.report.text.tcav_verdicts import ORDER_CONTROLS
from vtcav_jax.runs.tcav_depth_rows import DepthTrendRow
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding


def depth_trend_texts(run: RunFolder) -> list[tuple[str, str]]:
    """Return (headline, details) for each class and concept whose motion effect changes significantly with depth.

    The motion effect must itself be a finding, of one sign only. Controls with the same frames go before frozen copies,
    which alone are no evidence of motion.
    """
    alpha = run.content.get("family", {}).get("alpha", 0.05)
    motion = [row for row in run.depth_trend_rows if row.comparison == "motion" and row.p_adjusted <= alpha]
    texts = []
    for target, concept in unique_in_order([(row.target, row.concept) for row in motion]):
        candidates = [row for row in motion if (row.target, row.concept) == (target, concept)]
        signs = {row.negatives: _finding_signs(row, run.score_rows) for row in candidates}
        usable = [row for row in candidates if len(signs[row.negatives]) == 1]
        if usable:
            row = min(usable, key=lambda row: (row.negatives not in ORDER_CONTROLS, row.p))
            texts.append(_trend_text(row, signs[row.negatives].pop() * row.slope > 0, run))
    return texts


def _finding_signs(trend: DepthTrendRow, rows: Sequence[ScoreRow]) -> set[int]:
    """Return the signs of the findings of a comparison at any stage."""
    key = trend.target, trend.concept, trend.clip_type, trend.negatives
    return {
        1 if row.derivative > 0 else -1
        for row in rows
        if (row.target, row.concept, row.clip_type, row.negatives) == key and is_finding(row)
    }


def _trend_text(row: DepthTrendRow, increases: bool, run: RunFolder) -> tuple[str, str]:
    score_fn = run.score_rows[0].score_fn
    unit = SCORE_UNITS.get(score_fn, score_fn)
    verb, stages = "increases" if increases else "decreases", row.stages.split()
    compared = f"compared with their {row.negatives} copies"
    headline = (
        f"The sensitivity of {row.target} to motion in {row.concept} {verb} with depth."
        if row.negatives in ORDER_CONTROLS
        else f"The effect of dynamic clips of {row.concept} on {row.target}, {compared}, {verb} with depth."
    )
    value, _, interval = _slope(row).partition(" ")
    details = (
        f"From one stage to the next, from {stages[0]} to {stages[-1]} ({len(stages)} stages), the effect of the"
        f" dynamic clips {compared} changes by {value} {unit} (slope; 95 % CI {interval.strip('()')} over source videos"
        f" of concept, random and target clips; adjusted p {format_p(row.p_adjusted)})."
    )
    if static := [
        f"{other.clip_type} clips {_slope(other)}"
        for other in run.depth_trend_rows
        if other.comparison == "absolute" and (other.target, other.concept) == (row.target, row.concept)
    ]:
        details += f" For comparison, slopes of the effect against random clips: {', '.join(static)}."
    return headline, details


def _slope(row: DepthTrendRow) -> str:
    return format_effect(Effect(row.slope, row.slope_low, row.slope_high, 0.0, 0.0, False))
