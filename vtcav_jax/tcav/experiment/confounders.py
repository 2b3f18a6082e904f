"""Check of findings against labels and other concepts that are correlated with the concept in these clips.

A concept vector contains everything that differs between the concept clips and the negatives. If most of the clips of
"ring" also move left, the vector of "ring" raises a score that depends on moving left.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.console import progress
from vtcav_jax.runs.tcav_rows import ConfounderRow, ScoreRow
from vtcav_jax.tcav.experiment.comparisons import Comparison, fit_comparisons
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_comparison import primary_p
from vtcav_jax.tcav.experiment.stage_grams import StageGrams
from vtcav_jax.tcav.experiment.stage_results import restricted_comparison, split_by_class
from vtcav_jax.tcav.experiment.strata import compare_within, known_labels, stratum_values, value_shares
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.vectors import cosines

MIN_KNOWN_SHARE = 0.9  # of the clips, for a label to be checked
MIN_SHARE_DIFFERENCE, MIN_STANDARD_ERRORS = 0.15, 3.0  # of a label's shares in concept clips and negatives
MIN_REMAINING_SHARE = 0.5  # of an effect, within labels, for a finding that the label does not explain
MIN_COSINE, MIN_EXPLAINED_SHARE = 0.3, 0.5  # of another concept
CORRELATED_COMPARISONS = ("absolute", "motion")  # where vectors of two concepts do not exclude each other by definition


def check_confounders(stage_grams: StageGrams, rows: Sequence[ScoreRow]) -> list[ConfounderRow]:
    """Return the confounders of the strongest finding of each class, concept and comparison."""
    findings = strongest_findings(rows)
    out = []
    for row in progress(findings, len(findings), "findings checked for confounders", size=lambda _: 1):
        stage_gram = stage_grams.cached_gram(row.stage)
        comparison = _comparison_of(row, stage_grams.plan)
        out += _confounding_labels(row, comparison, split_by_class(stage_gram, stage_grams.plan), stage_grams.plan)
        out += _confounding_concepts(row, comparison, rows, stage_gram, stage_grams.plan)
    return out


def strongest_findings(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return the finding with the smallest p, then the largest effect, of each class, concept and comparison."""
    best: dict[tuple[str, ...], ScoreRow] = {}
    for row in sorted(filter(is_finding, rows), key=lambda row: (row.p_adjusted, -abs(row.relative_derivative))):
        best.setdefault((row.target, row.concept, row.clip_type, row.negatives), row)
    return list(best.values())


def _confounder_row(row: ScoreRow, **values: Any) -> ConfounderRow:
    """Return the row of a confounder of a finding; numbers that do not apply to its kind are NaN."""
    numbers = ("share_concept", "share_negatives", "effect", "effect_low", "effect_high")
    numbers += ("p", "cosine", "explained_share")
    columns: dict[str, Any] = {"value": ""} | dict.fromkeys(numbers, math.nan)
    columns |= {name: getattr(row, name) for name in ("target", "stage", "concept", "clip_type", "negatives")}
    return ConfounderRow(**columns | values)


def _comparison_of(row: ScoreRow, plan: Plan) -> Comparison:
    name = f"{row.concept}/{row.clip_type}/{row.negatives}"
    return next(comparison for comparison in plan.comparisons.entries if comparison.name == name)


def _confounding_labels(
    row: ScoreRow, comparison: Comparison, grams: Sequence[Gram], plan: Plan
) -> Iterator[ConfounderRow]:
    clips, s = plan.clips.concept_clips, plan.config
    for label in known_labels(clips, columns=False):
        strata = stratum_values(clips, label)
        difference = largest_difference(comparison, strata, plan.clips.video_ids)
        if difference is None or s.within.partition(":")[0] == label:
            continue
        value, share_concept, share_negatives = difference
        if _defines(value, label, [clips[i] for i in comparison.positive_clips]):
            continue
        effect, low, high, p = _effect_within(row.target, comparison, strata, grams, plan)
        yield _confounder_row(
            row,
            kind="label",
            name=label,
            value=value,
            share_concept=share_concept,
            share_negatives=share_negatives,
            effect=effect,
            effect_low=low,
            effect_high=high,
            p=p,
            explains=explains_finding(row, effect, low, high, p, s),
        )


def explains_finding(row: ScoreRow, effect: float, low: float, high: float, p: float, config: ExperimentConfig) -> bool:
    """Return whether the effect within labels is no finding, has the other sign, or is less than half as large."""
    original = row.step_effect if config.statistic == "step_effect" else row.derivative
    remains = p <= config.alpha and low * high > 0 and effect / original >= MIN_REMAINING_SHARE
    return not remains


def largest_difference(
    comparison: Comparison, strata: Sequence[str], video_ids: np.ndarray
) -> tuple[str, float, float] | None:
    """Return the value whose shares in concept clips and negatives differ most, and the shares; None if by chance.

    The standard error counts source videos.
    """
    sides = [[strata[i] for i in rows] for rows in (comparison.positive_clips, comparison.negative_clips)]
    if min(sum(map(bool, side)) / len(side) for side in sides) < MIN_KNOWN_SHARE:
        return None
    n_videos = [len(np.unique(video_ids[list(r)])) for r in (comparison.positive_clips, comparison.negative_clips)]
    concept, negatives = map(value_shares, sides)
    value = max(concept, key=lambda value: concept[value] - negatives.get(value, 0.0))
    shares = concept[value], negatives.get(value, 0.0)
    pooled = np.average(shares, weights=n_videos)
    standard_error = math.sqrt(pooled * (1 - pooled) * sum(1 / n for n in n_videos))
    if shares[0] - shares[1] < max(MIN_SHARE_DIFFERENCE, MIN_STANDARD_ERRORS * standard_error):
        return None
    return value, *shares


def _defines(value: str, label: str, clips: Sequence[ConceptClip]) -> bool:
    """Return whether all clips have this value because the concept is defined by it."""
    return all(
        clip.labels.get(label) == value and (clip.label in (value, f"{label}:{value}") or clip.concept == value)
        for clip in clips
    )


def _effect_within(
    target: str, comparison: Comparison, strata: Sequence[str], grams: Sequence[Gram], plan: Plan
) -> tuple[float, float, float, float]:
    """Return the tested effect within strata, its interval and p; NaN if the strata leave too few clips."""
    conditioned = compare_within(comparison, strata)
    if conditioned is None or min(len(conditioned.positive_clips), len(conditioned.negative_clips)) < 2:
        return math.nan, math.nan, math.nan, math.nan
    class_index = next(c for c, candidate in enumerate(plan.clips.classes) if candidate.name == target)
    stage_comparison = restricted_comparison(conditioned, grams, plan)
    test = stage_comparison.tests()[class_index]
    observed = stage_comparison.derivatives(stage_comparison.vector.unit, stage_comparison.labels[None])
    intervals = stage_comparison.intervals(observed)[class_index]
    if plan.config.statistic == "step_effect":
        effect, (low, high) = intervals.step_effect, intervals.step_interval
    else:
        effect, (low, high) = float(observed[class_index].mean()), intervals.derivative["all"]
    return effect, low, high, primary_p(test, plan.config)


def _confounding_concepts(
    row: ScoreRow, comparison: Comparison, rows: Sequence[ScoreRow], stage_gram: Gram, plan: Plan
) -> Iterator[ConfounderRow]:
    if row.comparison not in CORRELATED_COMPARISONS:
        return
    others = [
        other
        for other in rows
        if (other.target, other.stage, other.clip_type, other.negatives)
        == (row.target, row.stage, row.clip_type, row.negatives)
        and other.concept != row.concept
        and is_finding(other)
        and abs(other.derivative) > abs(row.derivative)
    ]
    if not others:
        return
    comparisons = [comparison, *(_comparison_of(other, plan) for other in others)]
    cosine = cosines(stage_gram.kernel, fit_comparisons(stage_gram.kernel, comparisons, plan.config))[0, 1:]
    for other, value in zip(others, cosine.tolist()):
        share = value * other.derivative / row.derivative
        if value >= MIN_COSINE and share >= MIN_EXPLAINED_SHARE:
            yield _confounder_row(
                row,
                kind="concept",
                name=other.concept,
                cosine=value,
                explained_share=share,
                explains=True,
            )
