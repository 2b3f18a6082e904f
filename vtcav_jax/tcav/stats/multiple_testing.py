"""Many tests at once: corrected p-values, and whether a run can find anything at all, asked before it starts."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CORRECTIONS = "holm", "bh", "bonferroni"


def adjust_p(p: Float[np.ndarray, "..."], method: str = "holm") -> Float[np.ndarray, "..."]:
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

    family_size: int
    method: str
    alpha: float
    p_min: float
    p_corrected: float
    possible: bool
    can_pass_alone: bool
    n_needed: int

    def require(self, unit: str = "permutations") -> None:
        """Refuses a run that cannot find anything."""
        if not self.possible:
            max_family_size = math.floor(self.alpha / self.p_min * (1 + 1e-12))
            family_text = (
                f", or a family of {max_family_size} at most" if max_family_size and self.method != "bh" else ""
            )
            raise ValueError(
                f"with {self.family_size} tests, {self.method} and alpha {self.alpha:g} nothing can be found: the"
                f" smallest "
                f"p possible is {self.p_min:.3g}, corrected {self.p_corrected:.3g}; "
                f"{self.n_needed} {unit} would do{family_text}"
            )


def attainable(p_min: float, family_size: int, alpha: float = 0.05, method: str = "holm") -> Attainable:
    """For a family of tests that each can reach `smallest` at best: 1 / (B + 1) with B permutations or other sets."""
    problems = []
    if not 0 < p_min <= 1:
        problems.append(f"the smallest p is above 0 and at most 1, got {p_min}")
    if family_size < 1:
        problems.append(f"a family has at least one test, got {family_size}")
    if not 0 < alpha < 1:
        problems.append(f"alpha is between 0 and 1, got {alpha}")
    if method not in CORRECTIONS:
        problems.append(f"correction is one of {', '.join(CORRECTIONS)}, got {method!r}")
    if problems:
        raise ValueError("; ".join(problems))
    multiplier = 1 if method == "bh" else family_size  # if all of them reach it, bh leaves it as it is
    n_needed = math.ceil(multiplier / alpha * (1 - 1e-12)) - 1
    limit = alpha * (1 + 1e-12)
    p_alone, p_corrected = min(1.0, p_min * family_size), min(1.0, p_min * multiplier)
    return Attainable(
        family_size, method, alpha, p_min, p_corrected, p_min * multiplier <= limit, p_alone <= limit, n_needed
    )
