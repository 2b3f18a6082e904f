"""Adjusted p-values and verdicts of an experiment's tests."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.stats.multiple_testing import adjust_p


def with_verdicts(rows: Sequence[ScoreRow], alpha: float, correction: str) -> list[ScoreRow]:
    """Return the rows with p-values corrected for the whole family and with verdicts."""
    corrected = adjust_p(np.array([row.p for row in rows], float), correction)
    family_size = sum(not math.isnan(row.p) for row in rows)
    adjusted_rows = (replace(row, p_adjusted=float(p)) for row, p in zip(rows, corrected))
    return [replace(row, verdict=tcav_verdict(row, alpha, correction, family_size)) for row in adjusted_rows]


def tcav_verdict(row: ScoreRow, alpha: float, correction: str, family_size: int) -> str:
    """Return the first applicable verdict; earlier ones invalidate later ones."""
    if row.zero_gradient:
        return "no gradient"
    if math.isnan(row.p):
        return "no vector"
    if row.degenerate:
        return "degenerate layer"
    if row.n_ties == row.n_clips:
        return "no derivative"  # all derivatives are rounding errors, which can still give a small p
    if correction != "bh" and row.p_min_attainable * family_size > alpha and row.p_adjusted > alpha:
        return "underpowered"
    if row.auc_p > alpha or row.auc <= 0.5:
        return "not encoded"
    if row.p_adjusted > alpha:
        return "not significant"
    if not row.derivative_low * row.derivative_high > 0:
        return "sign uncertain"  # significant for these clips, but the sign could differ for other clips
    if row.comparison == "motion":
        return "motion_supports" if row.derivative > 0 else "motion_opposes"
    return "supports" if row.derivative > 0 else "opposes"


def is_finding(row: ScoreRow) -> bool:
    return row.verdict in ("supports", "opposes", "motion_supports", "motion_opposes")
