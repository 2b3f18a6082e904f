"""The rows of an experiment's tables, what they say in one word, and in one sentence."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from vtcav_jax.runs.directory import write_table
from vtcav_jax.tcav.stats.multiple_testing import adjusted

NAN = math.nan


@dataclass(frozen=True)
class Row:
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
    kind: str
    against: str
    n_targets: int
    score: float
    score_low: float
    score_high: float
    derivative: float
    derivative_low: float
    derivative_high: float
    p: float
    p_adjusted: float
    verdict: str
    test: str
    n_concept: int
    n_against: int
    share: float
    share_low: float
    share_high: float
    step: float
    p_step: float
    p_unit: float
    p_smallest: float
    p_sign: float
    p_sets: float
    sets: int
    sets_low: float
    sets_high: float
    low_of_concept: float
    high_of_concept: float
    low_of_negatives: float
    high_of_negatives: float
    low_of_targets: float
    high_of_targets: float
    auc: float
    auc_p: float
    ties: int
    turning: float
    degenerate: bool
    still: bool
    target_fn: str
    sensitivity: str
    null_low: float
    null_high: float

    @property
    def name(self) -> str:
        return f"{self.concept} ({self.kind}) against {self.against}"


@dataclass(frozen=True)
class VectorRow:
    """One concept vector and how far it can be trusted.

    `nearest` is the other concept whose vector, trained for the same test, is most like this one, up to sign;
    `pattern_cosine` is to the difference of the means, which a classifier need not follow. Clips out of one video share
    a fold, unless all clips of a side are out of one: `videos` is how many there are on the side with fewer.
    """

    stage: str
    test: str
    concept: str
    kind: str
    against: str
    n_concept: int
    n_against: int
    auc: float
    auc_p: float
    auc_p_smallest: float
    folds: int
    videos: int
    split_half: float
    split_half_low: float
    split_half_high: float
    nearest: str
    nearest_cosine: float
    pattern_cosine: float
    estimator: str
    lam: float
    norm: float
    intercept: float
    iterations: int
    residual: float
    converged: bool
    not_converged: int  # of the vectors with permuted labels


@dataclass(frozen=True)
class Clip:
    """The derivative of one class score at one clip along one vector; `length` is that of the gradient."""

    target: str
    stage: str
    concept: str
    kind: str
    against: str
    clip: str
    class_score: float
    derivative: float
    length: float


def judged(rows: Sequence[Row], alpha: float, correction: str) -> list[Row]:
    """With p-values that are corrected for the whole family, and verdicts."""
    corrected = adjusted(np.array([row.p for row in rows], float), correction)
    family = sum(not math.isnan(row.p) for row in rows)
    judged = (replace(row, p_adjusted=float(p)) for row, p in zip(rows, corrected))
    return [replace(row, verdict=verdict(row, alpha, correction, family)) for row in judged]


def verdict(row: Row, alpha: float, correction: str, family: int) -> str:
    """What comes first keeps the rest from meaning anything."""
    if row.still:
        return "no gradient"
    if math.isnan(row.p):
        return "no vector"
    if row.degenerate:
        return "degenerate stage"
    if row.ties == row.n_targets:
        return "no derivative"  # at no clip more than rounding; a test may well find what rounding prefers
    if correction != "bh" and row.p_smallest * family > alpha and row.p_adjusted > alpha:
        return "family too small"
    if row.auc_p > alpha or row.auc <= 0.5:
        return "not encoded"
    if row.p_adjusted > alpha:
        return "not significant"
    if not row.derivative_low * row.derivative_high > 0:
        return "sign not certain"  # more than chance makes of these clips, but other clips could turn it round
    if row.test == "motion":
        return f"motion: {'+' if row.derivative > 0 else '-'}"
    return "supports" if row.derivative > 0 else "opposes"


def found(row: Row) -> bool:
    return row.verdict in ("supports", "opposes", "motion: +", "motion: -")


def write_rows(path: Path, kind: type, rows: Iterable[object]) -> None:
    """Numbers in full precision; what is not known is nan."""
    names = [field.name for field in fields(kind)]
    write_table(path, names, ([getattr(row, name) for name in names] for row in rows))


def terminal(rows: Sequence[Row], most: int = 120) -> str:
    """The table for a person, target by target; the file has all of it."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        some = [row for row in rows if row.target == target]
        lines += ["", f"{target}, {some[0].n_targets} clips, {some[0].target_fn}"]
        lines.append(
            f"  {'stage':20}{'concept':20}{'kind':9}{'against':10}{'score':>6}{'share of gradient':>24}{'p':>9}"
            f"{'adjusted':>9}  verdict"
        )
        for row in some[:most]:
            share = f"{row.share:+.3f} ({row.share_low:+.3f} {row.share_high:+.3f})"
            lines.append(
                f"  {row.stage:20.20}{row.concept:20.20}{row.kind:9.9}{row.against:10.10}{row.score:>6.2f}{share:>24}"
                f"{row.p:>9.2g}{row.p_adjusted:>9.2g}  {row.verdict}"
            )
        if len(some) > most:
            lines.append(f"  and {len(some) - most} more in scores.csv")
    return "\n".join(lines[1:])


def sentences(rows: Sequence[Row], most: int = 3) -> list[str]:
    """One for each of the strongest findings of each class, or that there is none."""
    told = []
    for target in dict.fromkeys(row.target for row in rows):
        some = [row for row in rows if row.target == target]
        strong = sorted(filter(found, some), key=lambda row: (row.p_adjusted, -abs(row.share)))
        best: dict[tuple[str, str, str], Row] = {}
        for row in strong:
            best.setdefault((row.concept, row.kind, row.against), row)
        for row in list(best.values())[:most]:
            what = f"the motion in {row.concept}" if row.test == "motion" else f"{row.concept} ({row.kind})"
            does = "raises" if row.derivative > 0 else "lowers"
            told.append(
                f"{target}: {what} {does} the score at {row.stage}, against {row.against}: derivative"
                f" {row.derivative:.3g} ({row.derivative_low:.3g} to {row.derivative_high:.3g}), {abs(row.share):.0%}"
                f" of the gradient's length, {row.score:.0%} of {row.n_targets} clips, adjusted p {row.p_adjusted:.2g}"
            )
        if not best:
            told.append(f"{target}: none of {len(some)} tests is significant after correction")
    return told
