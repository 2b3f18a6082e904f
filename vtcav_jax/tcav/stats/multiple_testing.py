"""Many tests at once: corrected p-values, and whether a run can find anything at all, asked before it starts."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CORRECTIONS = "holm", "bh", "bonferroni"


def adjusted(p: Float[np.ndarray, "..."], method: str = "holm") -> Float[np.ndarray, "..."]:
    """p-values corrected for their number: compare them with alpha. Holm and Bonferroni bound the chance of any false
    finding, Benjamini and Hochberg (bh) the share of false ones among the findings. NaN is no test and is not counted.
    """
    if method not in CORRECTIONS:
        raise ValueError(f"correction is one of {', '.join(CORRECTIONS)}, got {method!r}")
    real = ~np.isnan(p)
    values = p[real]
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p-values lie between 0 and 1")
    count = len(values)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    if method == "bonferroni":
        corrected = count * ranked
    elif method == "holm":
        corrected = np.maximum.accumulate((count - np.arange(count)) * ranked)
    else:
        corrected = np.minimum.accumulate((count / (1 + np.arange(count)) * ranked)[::-1])[::-1]
    inverse = np.empty(count)
    inverse[order] = np.minimum(corrected, 1)
    out = np.full(p.shape, np.nan)
    out[real] = inverse
    return out


@dataclass(frozen=True)
class Attainable:
    """What the best possible outcome of a run is worth. `needed` permutations (or sets) make `possible` true.

    `alone`: one finding among tests that find nothing can pass; with `bh` a run can be possible without.
    """

    family: int
    method: str
    alpha: float
    smallest: float
    corrected: float
    possible: bool
    alone: bool
    needed: int

    def require(self, unit: str = "permutations") -> None:
        """Refuses a run that cannot find anything."""
        if not self.possible:
            fit = math.floor(self.alpha / self.smallest * (1 + 1e-12))
            family = f", or a family of {fit} at most" if fit and self.method != "bh" else ""
            raise ValueError(
                f"with {self.family} tests, {self.method} and alpha {self.alpha:g} nothing can be found: the smallest "
                f"p possible is {self.smallest:.3g}, corrected {self.corrected:.3g}; "
                f"{self.needed} {unit} would do{family}"
            )


def attainable(smallest: float, family: int, alpha: float = 0.05, method: str = "holm") -> Attainable:
    """For a family of tests that each can reach `smallest` at best: 1 / (B + 1) with B permutations or other sets."""
    problems = []
    if not 0 < smallest <= 1:
        problems.append(f"the smallest p is above 0 and at most 1, got {smallest}")
    if family < 1:
        problems.append(f"a family has at least one test, got {family}")
    if not 0 < alpha < 1:
        problems.append(f"alpha is between 0 and 1, got {alpha}")
    if method not in CORRECTIONS:
        problems.append(f"correction is one of {', '.join(CORRECTIONS)}, got {method!r}")
    if problems:
        raise ValueError("; ".join(problems))
    times = 1 if method == "bh" else family  # if all of them reach it, bh leaves it as it is
    needed = math.ceil(times / alpha * (1 - 1e-12)) - 1
    below = alpha * (1 + 1e-12)
    alone, corrected = min(1.0, smallest * family), min(1.0, smallest * times)
    return Attainable(family, method, alpha, smallest, corrected, smallest * times <= below, alone <= below, needed)
