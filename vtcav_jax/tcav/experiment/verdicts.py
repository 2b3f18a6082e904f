"""The rows of an experiment's tables, what they say in one word, and in one sentence."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from vtcav_jax.runs.directory import write_table
from vtcav_jax.tcav.stats.multiple_testing import adjust_p

NAN = math.nan


@dataclass(frozen=True)
class ScoreRow:
    """One test. Positive numbers: the concept raises the class score.

    `score` is the share of targets whose derivative along the vector is positive, `derivative` its mean along the
    vector of length 1, `share` what part of the gradients' length that is; low and high are 95 % intervals over other
    concept clips, negatives and targets at once, `of_concept`, `of_negatives`, `of_targets` over one of them.
    `step` is what the step from the mean of the negatives to that of the concept adds to the score, to first order;
    `p` is `p_step` or `p_unit`, that of the derivative along the unit vector, by the experiment's statistic.
    `sets_low` and `sets_high` are the least and the greatest derivative of a vector against one of the `sets` random
    sets. `turning` is how far the targets' gradients differ in direction: about 0 in a degenerate stage.
    `null_low` and `null_high` hold the middle 95 % of what the experiment's statistic is under exchange.
    """

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    n_clips: int
    tcav_score: float
    tcav_score_low: float
    tcav_score_high: float
    derivative: float
    derivative_low: float
    derivative_high: float
    p: float
    p_adjusted: float
    verdict: str
    comparison: str
    n_concept: int
    n_negatives: int
    relative_derivative: float
    relative_derivative_low: float
    relative_derivative_high: float
    step_effect: float
    p_step: float
    p_unit: float
    p_min_attainable: float
    p_sign_count: float
    p_sets: float
    n_random_sets: int
    single_set_min: float
    single_set_max: float
    derivative_low_concepts: float
    derivative_high_concepts: float
    derivative_low_negatives: float
    derivative_high_negatives: float
    derivative_low_clips: float
    derivative_high_clips: float
    auc: float
    auc_p: float
    n_ties: int
    gradient_diversity: float
    degenerate: bool
    zero_gradient: bool
    score_fn: str
    sensitivity: str
    null_low: float
    null_high: float

    @property
    def name(self) -> str:
        return f"{self.concept} ({self.clip_type}) against {self.negatives}"


@dataclass(frozen=True)
class VectorRow:
    """One concept vector and how far it can be trusted.

    `nearest` is the other concept whose vector, trained for the same test, is most like this one, up to sign;
    `pattern_cosine` is to the difference of the means, which a classifier need not follow. Clips out of one video share
    a fold, unless all clips of a side are out of one: `videos` is how many there are on the side with fewer.
    """

    stage: str
    comparison: str
    concept: str
    clip_type: str
    negatives: str
    n_concept: int
    n_negatives: int
    auc: float
    auc_p: float
    auc_p_min_attainable: float
    folds: int
    n_source_videos: int
    split_half: float
    split_half_low: float
    split_half_high: float
    most_similar: str
    most_similar_cosine: float
    mean_difference_cosine: float
    estimator: str
    l2: float
    vector_norm: float
    intercept: float
    iterations: int
    solver_residual: float
    converged: bool
    n_permutations_not_converged: int  # of the vectors with permuted labels


@dataclass(frozen=True)
class DerivativeRow:
    """The derivative of one class score at one clip along one vector; `length` is that of the gradient."""

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    clip: str
    class_score: float
    derivative: float
    gradient_norm: float


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
        return "degenerate stage"
    if row.n_ties == row.n_clips:
        return "no derivative"  # at no clip more than rounding; a test may well find what rounding prefers
    if correction != "bh" and row.p_min_attainable * family_size > alpha and row.p_adjusted > alpha:
        return "family too small"
    if row.auc_p > alpha or row.auc <= 0.5:
        return "not encoded"
    if row.p_adjusted > alpha:
        return "not significant"
    if not row.derivative_low * row.derivative_high > 0:
        return "sign not certain"  # more than chance makes of these clips, but other clips could turn it round
    if row.comparison == "motion":
        return f"motion: {'+' if row.derivative > 0 else '-'}"
    return "supports" if row.derivative > 0 else "opposes"


def is_finding(row: ScoreRow) -> bool:
    return row.verdict in ("supports", "opposes", "motion: +", "motion: -")


def write_rows(path: Path, row_type: type, rows: Iterable[object]) -> None:
    """Numbers in full precision; what is not known is nan."""
    names = [field.name for field in fields(row_type)]
    write_table(path, names, ([getattr(row, name) for name in names] for row in rows))


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
            effect_text = f"{row.relative_derivative:+.3f} ({row.relative_derivative_low:+.3f} {row.relative_derivative_high:+.3f})"
            lines.append(
                f"  {row.stage:20.20}{row.concept:20.20}{row.clip_type:9.9}{row.negatives:10.10}{row.tcav_score:>6.2f}{effect_text:>24}"
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
                f" {row.derivative:.3g} ({row.derivative_low:.3g} to {row.derivative_high:.3g}), {abs(row.relative_derivative):.0%}"
                f" of the gradient's length, {row.tcav_score:.0%} of {row.n_clips} clips, adjusted p {row.p_adjusted:.2g}"
            )
        if not best:
            lines.append(f"{target}: none of {len(target_rows)} tests is significant after correction")
    return lines
