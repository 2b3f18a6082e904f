"""The same test in two runs, and the difference between what they found.

The interval of a difference is put together from the runs' own intervals, as for independent estimates (Zou and Donner,
*Construction of confidence limits about effect measures*, 2008). Runs that share clips vary together, and their
difference varies less: the interval is then wider than need be.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.text.tcav import INCONCLUSIVE_VERDICTS
from vtcav_jax.runs.tcav_rows import ScoreRow


class ScoreKey(NamedTuple):
    """What makes tests of different runs the same; `stage` names all that stand for each other."""

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str


ScoreTable = Mapping[ScoreKey, ScoreRow]
EstimateWithInterval = tuple[float, float, float]  # a value, and from where to where it may be


@dataclass(frozen=True)
class ScoreDifference:
    """`left` less `right`, of the share of the gradient's length, which is free of each network's own scale."""

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
        """The verdict of a test that could not tell: its number means nothing, and so does the difference."""
        return next((row.verdict for row in (self.left, self.right) if row.verdict in INCONCLUSIVE_VERDICTS), "")

    @property
    def significant(self) -> bool:
        """The interval of this one difference; many are looked at, and no correction is made for that."""
        return self.low * self.high > 0 and not self.inconclusive_verdict


def score_table(run: RunFolder, stages: Mapping[str, str]) -> dict[ScoreKey, ScoreRow]:
    """A run's tests; `stages` are the names under which it is compared, others keep their own."""
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
    """`a` less `b`, of independent estimates with their intervals."""
    value = a[0] - b[0]
    return value, value - math.hypot(a[0] - a[1], b[2] - b[0]), value + math.hypot(a[2] - a[0], b[0] - b[1])
