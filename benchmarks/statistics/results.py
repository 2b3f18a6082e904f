"""Rows of the benchmark: a measured share with its Wilson interval, and the requirement that it must meet."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vtcav_jax.stats import intervals


@dataclass(frozen=True)
class Requirement:
    """Bounds of a share; in `exact` mode its estimate must be within them, else its interval must reach them.

    A small run has wide intervals, so that only a clear violation fails it. `near` requires in either mode that the
    interval contains the value.
    """

    low: float = 0.0
    high: float = 1.0
    near: float | None = None

    def text(self) -> str:
        if self.near is not None:
            return f"interval contains {self.near:g}"
        if self.low > 0 and self.high < 1:
            return f"{self.low:g} to {self.high:g}"
        return f"at most {self.high:g}" if self.high < 1 else f"at least {self.low:g}"

    def holds(self, value: float, low: float, high: float, exact: bool) -> bool:
        if self.near is not None:
            return low <= self.near <= high
        first, last = (value, value) if exact else (low, high)
        return last >= self.low and first <= self.high


def at_most(high: float) -> Requirement:
    return Requirement(high=high)


def at_least(low: float) -> Requirement:
    return Requirement(low=low)


LEVEL = Requirement(near=0.05)
COVERAGE = Requirement(0.92, 0.98)


@dataclass(frozen=True)
class Row:
    """One measured share; `n` tests or intervals come from `draws` independent draws of clips.

    `requirement` is empty and `holds` None where the share is only reported.
    """

    scenario: str
    measured: str
    where: str  # network and stage, or the simulated features
    value: float
    low: float
    high: float
    n: int
    draws: int
    requirement: str = ""
    holds: bool | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            name: (None if np.isnan(value) else round(value, 4)) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def share_row(
    scenario: str,
    measured: str,
    where: str,
    hits: Iterable[Sequence[bool] | np.ndarray],
    requirement: Requirement | None,
    exact: bool,
    note: str = "",
) -> Row:
    """Return the row of a share over `hits`, one sequence per draw.

    Tests of one draw share its clips. The Wilson interval is therefore computed for the number of independent tests
    that has the variance observed between draws.
    """
    parts = [np.asarray(part, bool) for part in hits if len(part)]
    n, total = sum(map(len, parts)), sum(int(part.sum()) for part in parts)
    if not n:
        return Row(scenario, measured, where, float("nan"), 0.0, 1.0, 0, 0, note="not measured")
    share = total / n
    effective = effective_number(parts)
    low, high = intervals.wilson_ci(round(share * effective), effective)
    low, high = min(low, share), max(high, share)
    if requirement is None:
        return Row(scenario, measured, where, share, low, high, n, len(parts), note=note)
    holds = requirement.holds(share, low, high, exact)
    return Row(scenario, measured, where, share, low, high, n, len(parts), requirement.text(), holds, note)


def effective_number(parts: Sequence[np.ndarray]) -> int:
    """Return the number of independent tests with the same variance of the share, at least that of the draws."""
    counts, hits = (np.array([measure(part) for part in parts], float) for measure in (len, np.sum))
    return round(intervals.effective_number(counts, hits))
