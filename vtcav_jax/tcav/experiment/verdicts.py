"""The rows of an experiment's tables, what they say in one word, and in one sentence."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.stats.multiple_testing import adjust_p


def with_verdicts(rows: Sequence[ScoreRow], alpha: float, correction: str) -> list[ScoreRow]:
    """With p-values that are corrected for the whole family, and verdicts."""
    corrected = adjust_p(np.array([row.p for row in rows], float), correction)
    family_size = sum(not math.isnan(row.p) for row in rows)
    adjusted_rows = (replace(row, p_adjusted=float(p)) for row, p in zip(rows, corrected))
    return [replace(row, verdict=tcav_verdict(row, alpha, correction, family_size)) for row in adjusted_rows]


def tcav_verdict(row: ScoreRow, alpha: float, correction: str, family_size: int) -> str:
    """What comes first keeps the rest from meaning anything."""
    if row.zero_gradient:
        return "no gradient"
    if math.isnan(row.p):
        return "no vector"
    if row.degenerate:
        return "degenerate layer"
    if row.n_ties == row.n_clips:
        return "no derivative"  # at no clip more than rounding; a test may well find what rounding prefers
    if correction != "bh" and row.p_min_attainable * family_size > alpha and row.p_adjusted > alpha:
        return "underpowered"
    if row.auc_p > alpha or row.auc <= 0.5:
        return "not encoded"
    if row.p_adjusted > alpha:
        return "not significant"
    if not row.derivative_low * row.derivative_high > 0:
        return "sign uncertain"  # more than chance makes of these clips, but other clips could turn it round
    if row.comparison == "motion":
        return "motion_supports" if row.derivative > 0 else "motion_opposes"
    return "supports" if row.derivative > 0 else "opposes"


def is_finding(row: ScoreRow) -> bool:
    return row.verdict in ("supports", "opposes", "motion_supports", "motion_opposes")


def format_score_table(rows: Sequence[ScoreRow], max_rows: int = 120) -> str:
    """The table for a person, target by target; the file has all of it."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        target_rows = [row for row in rows if row.target == target]
        lines += ["", f"{target}, {target_rows[0].n_clips} clips, {target_rows[0].score_fn}"]
        lines.append(
            f"  {'stage':20}{'concept':20}{'kind':9}{'against':10}{'score':>6}{'share of gradient':>24}{'p':>9}"
            f"{'adjusted':>9}  verdict"
        )
        for row in target_rows[:max_rows]:
            interval = f"{row.relative_derivative_low:+.3f} {row.relative_derivative_high:+.3f}"
            effect_text = f"{row.relative_derivative:+.3f} ({interval})"
            lines.append(
                f" "
                f" {row.stage:20.20}{row.concept:20.20}{row.clip_type:9.9}{row.negatives:10.10}{row.tcav_score:>6.2f}"
                f"{effect_text:>24}"
                f"{row.p:>9.2g}{row.p_adjusted:>9.2g}  {row.verdict}"
            )
        if len(target_rows) > max_rows:
            lines.append(f"  and {len(target_rows) - max_rows} more in scores.csv")
    return "\n".join(lines[1:])


def summarise_findings(rows: Sequence[ScoreRow], max_sentences: int = 3) -> list[str]:
    """One for each of the strongest findings of each class, or that there is none."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        target_rows = [row for row in rows if row.target == target]
        findings = sorted(
            filter(is_finding, target_rows), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative))
        )
        best: dict[tuple[str, str, str], ScoreRow] = {}
        for row in findings:
            best.setdefault((row.concept, row.clip_type, row.negatives), row)
        for row in list(best.values())[:max_sentences]:
            subject = (
                f"the motion in {row.concept}" if row.comparison == "motion" else f"{row.concept} ({row.clip_type})"
            )
            verb = "raises" if row.derivative > 0 else "lowers"
            lines.append(
                f"{target}: {subject} {verb} the score at {row.stage}, against {row.negatives}: derivative"
                f" {row.derivative:.3g} ({row.derivative_low:.3g} to {row.derivative_high:.3g}),"
                f" {abs(row.relative_derivative):.0%}"
                f" of the gradient's length, {row.tcav_score:.0%} of {row.n_clips} clips, adjusted p"
                f" {row.p_adjusted:.2g}"
            )
        if not best:
            lines.append(f"{target}: none of {len(target_rows)} tests is significant after correction")
    return lines
