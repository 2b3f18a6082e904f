"""Adjusted p-values and verdicts of an experiment's tests."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.stats.multiple_testing import adjust_p

CONTRADICTED = "contradicted by steering"
MAX_VIDEOS_NEEDED = 1000  # more are reported as unattainable
MIN_VIDEOS = 5  # source videos of each side and of the targets; fewer say nothing about other videos


def with_verdicts(rows: Sequence[ScoreRow], config: ExperimentConfig) -> list[ScoreRow]:
    """Return the rows with p-values corrected for the whole family and with verdicts."""
    corrected = adjust_p(np.array([row.p for row in rows], float), config.correction)
    family_size = sum(not math.isnan(row.p) for row in rows)
    adjusted_rows = (replace(row, p_adjusted=float(p)) for row, p in zip(rows, corrected))
    return [replace(row, verdict=tcav_verdict(row, config, family_size)) for row in adjusted_rows]


def tcav_verdict(row: ScoreRow, config: ExperimentConfig, family_size: int) -> str:
    """Return the first applicable verdict; earlier ones invalidate later ones."""
    alpha = config.alpha
    if row.zero_gradient:
        return "no gradient"
    if math.isnan(row.p):
        return "no vector"
    if row.n_ties == row.n_clips:
        return "no derivative"  # all derivatives are rounding errors, which can still give a small p
    if min(row.n_videos, row.n_target_videos) < MIN_VIDEOS:
        return "too few videos"
    if config.correction != "bh" and row.p_min_attainable * family_size > alpha and row.p_adjusted > alpha:
        return "underpowered"
    if row.auc_p > alpha or row.auc <= 0.5:
        return "not encoded"
    if row.p_adjusted > alpha:
        return "not significant"
    if config.statistic == "step_effect":
        low, high = row.step_effect_low, row.step_effect_high
    else:
        low, high = row.derivative_low, row.derivative_high
    if not low * high > 0:
        return "sign uncertain"  # significant for these clips, but the sign could differ for other videos
    if row.comparison == "freezing":
        return "differs from control"  # true of almost any network and concept: no finding about this one
    if row.comparison == "motion":
        return "motion_supports" if row.derivative > 0 else "motion_opposes"
    return "supports" if row.derivative > 0 else "opposes"


def videos_needed(n_negative_videos: int, p_max: float) -> int | None:
    """Return how many concept videos allow a p of at most `p_max` against so many videos; None if no number does."""
    for n in range(MIN_VIDEOS, MAX_VIDEOS_NEEDED):
        if (2 if n == n_negative_videos else 1) / math.comb(n + n_negative_videos, n) <= p_max:
            return n
    return None


def is_finding(row: ScoreRow) -> bool:
    return row.verdict in ("supports", "opposes", "motion_supports", "motion_opposes")
