"""Differences between the results of one test in two runs.

The interval of a difference combines the runs' intervals as for independent estimates (Zou and Donner, *Construction of
confidence limits about effect measures*, 2008). If runs share clips, their results are correlated and the interval is
too wide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.text.tcav_verdicts import INCONCLUSIVE_VERDICTS
from vtcav_jax.runs.tcav_rows import ScoreRow


class ScoreKey(NamedTuple):
    """Identity of a test across runs; `stage` joins the names of matched stages."""

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str


ScoreTable = Mapping[ScoreKey, ScoreRow]
EstimateWithInterval = tuple[float, float, float]  # value, lower and upper end of its 95 % interval


@dataclass(frozen=True)
class ScoreDifference:
    """Share of gradient of `left` minus that of `right`; the share does not depend on the scale of the activations."""

    key: ScoreKey
    left_name: str
    right_name: str
    left: ScoreRow
    right: ScoreRow
    value: float
    low: float
    high: float

    @property
    def inconclusive_verdict(self) -> str:
        """Verdict of an inconclusive test of the pair, which makes the difference meaningless; else empty."""
        return next((row.verdict for row in (self.left, self.right) if row.verdict in INCONCLUSIVE_VERDICTS), "")

    @property
    def significant(self) -> bool:
        """True if the interval, which is not corrected for the number of differences, excludes 0."""
        return self.low * self.high > 0 and not self.inconclusive_verdict


def score_table(run: RunFolder, stages: Mapping[str, str]) -> dict[ScoreKey, ScoreRow]:
    """Return the tests of a run by key; `stages` maps the names of matched stages to their joint names."""
    return {
        ScoreKey(r.target, stages.get(r.stage, r.stage), r.concept, r.clip_type, r.negatives): r for r in run.score_rows
    }


def score_difference(key: ScoreKey, names: tuple[str, str], a: ScoreRow, b: ScoreRow) -> ScoreDifference:
    return ScoreDifference(
        key,
        *names,
        a,
        b,
        *difference_ci(
            *((r.relative_derivative, r.relative_derivative_low, r.relative_derivative_high) for r in (a, b))
        ),
    )


def difference_ci(a: EstimateWithInterval, b: EstimateWithInterval) -> EstimateWithInterval:
    """Return `a` minus `b` for independent estimates with intervals."""
    value = a[0] - b[0]
    return value, value - math.hypot(a[0] - a[1], b[2] - b[0]), value + math.hypot(a[2] - a[0], b[0] - b[1])
