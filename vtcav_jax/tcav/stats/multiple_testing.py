"""Multiple testing: corrected p-values, and a check in advance that a run can reach significance."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.names import count_noun

CORRECTIONS = "holm", "bh", "bonferroni"


def adjust_p(p: Float[np.ndarray, "..."], method: str = "holm") -> Float[np.ndarray, "..."]:
    """Return p-values corrected for their number, to be compared with alpha.

    Holm and Bonferroni bound the probability of any false finding (family-wise error rate), Benjamini-Hochberg (bh) the
    expected share of false findings (false discovery rate). NaN stands for no test and is not counted.
    """
    if method not in CORRECTIONS:
        raise ValueError(f"correction must be one of {', '.join(CORRECTIONS)}, got {method!r}")
    real = ~np.isnan(p)
    values = p[real]
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p-values must lie between 0 and 1")
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
    """Best attainable outcome of a family of tests; with `n_needed` permutations (or sets) `possible` becomes true.

    `can_pass_alone`: a finding can be significant if no other test is. With `bh` a run can be possible without it.
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
        """Raise ValueError if no finding is possible."""
        if not self.possible:
            max_family_size = math.floor(self.alpha / self.p_min * (1 + 1e-12))
            family_text = (
                f", or a family of at most {max_family_size} tests" if max_family_size and self.method != "bh" else ""
            )
            raise ValueError(
                f"with {count_noun(self.family_size, 'test')}, correction {self.method} and alpha {self.alpha:g} no"
                f" finding is possible: the smallest attainable p is {self.p_min:.3g}, adjusted {self.p_corrected:.3g};"
                f" at least {self.n_needed} {unit} are needed{family_text}"
            )


def attainable(p_min: float, family_size: int, alpha: float = 0.05, method: str = "holm") -> Attainable:
    """Return the best outcome of tests whose p-values are at least `p_min`, 1 / (B + 1) for B permutations or sets."""
    problems = []
    if not 0 < p_min <= 1:
        problems.append(f"the smallest p must be above 0 and at most 1, got {p_min}")
    if family_size < 1:
        problems.append(f"a family needs at least one test, got {family_size}")
    if not 0 < alpha < 1:
        problems.append(f"alpha must be between 0 and 1, got {alpha}")
    if method not in CORRECTIONS:
        problems.append(f"correction must be one of {', '.join(CORRECTIONS)}, got {method!r}")
    if problems:
        raise ValueError("; ".join(problems))
    multiplier = 1 if method == "bh" else family_size  # bh does not change p_min if all tests reach it
    n_needed = math.ceil(multiplier / alpha * (1 - 1e-12)) - 1
    limit = alpha * (1 + 1e-12)
    p_alone, p_corrected = min(1.0, p_min * family_size), min(1.0, p_min * multiplier)
    return Attainable(
        family_size, method, alpha, p_min, p_corrected, p_min * multiplier <= limit, p_alone <= limit, n_needed
    )
