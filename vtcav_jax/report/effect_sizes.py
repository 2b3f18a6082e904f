"""Effect of a test with its intervals, and the number formats of a report page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.comparisons import OTHERS
from vtcav_jax.tcav.experiment.verdicts import is_finding


@dataclass(frozen=True)
class Effect:
    """Effect of one test: its value, its 95 % CI, and the middle 95 % of the values under permuted labels."""

    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    significant: bool

    @property
    def numbers(self) -> list[float]:
        return [self.value, self.low, self.high, self.null_low, self.null_high]


def effect_size(row: ScoreRow, statistic: str) -> Effect:
    """Return the statistic that the run tests: the step effect, whose CI is that of the derivative scaled to the length
    of the step, or the derivative."""
    if statistic == "step_effect":
        value, low, high = row.step_effect, row.step_effect_low, row.step_effect_high
    else:
        value, low, high = row.derivative, row.derivative_low, row.derivative_high
    return Effect(value, low, high, row.null_low, row.null_high, is_finding(row))


def effect_unit(statistic: str, score_fn: str) -> str:
    """Return the axis label of effects."""
    score_name = {"logit": "logit", "log_prob": "log probability", "margin": "margin"}.get(score_fn, score_fn)
    return f"change of the {score_name}" + ("" if statistic == "step_effect" else " per unit length")


def primary_tests(rows: Sequence[ScoreRow]) -> tuple[str, list[ScoreRow]]:
    """Return the tests against the random clips or, if there are none, against the other concepts."""
    for negatives in (NEGATIVE_PREFIX, OTHERS):
        if subset := [row for row in rows if row.negatives == negatives]:
            return negatives, subset
    return "", []


def comparison_name(clip_type: str, negatives: str) -> str:
    return f"{clip_type} vs {negatives}"


def format_number(value: float, digits: int = 3) -> str:
    """Format with a few significant digits and a typographic minus; NaN is "unknown"."""
    if math.isnan(value):
        return "unknown"
    return f"{value:.{digits}g}".replace("-", "−")


def format_signed(value: float, digits: int = 2) -> str:
    return format_number(value, digits) if value < 0 or math.isnan(value) else f"+{format_number(value, digits)}"


def format_p(value: float) -> str:
    return "unknown" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def format_range(low: float, high: float) -> str:
    return f"{format_number(low)} to {format_number(high)}"


def format_effect(e: Effect) -> str:
    """Format a value and its interval, rounded to two digits of the interval's width."""
    width = e.high - e.low
    if not (math.isfinite(width) and width > 0):
        return format_signed(e.value)
    decimals = max(0, 1 - math.floor(math.log10(width)))
    value, low, high = (f"{bound:.{decimals}f}".replace("-", "−") for bound in (e.value, e.low, e.high))
    return f"{'' if e.value < 0 else '+'}{value} ({low} to {high})"


def format_percent(share: float) -> str:
    return "unknown" if math.isnan(share) else f"{round(100 * share)} %".replace("-", "−")
