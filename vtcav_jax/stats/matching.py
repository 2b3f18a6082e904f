"""One-to-one matching of two sets of scores of the same units, with a test of each pair."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PERMUTATIONS = 1000


@dataclass(frozen=True)
class MatchedPair:
    """Columns of the two sets that are matched; `p` is adjusted for all pairs of columns."""

    left: int
    right: int
    correlation: float
    p: float


def match_columns(left: Float[np.ndarray, "n k"], right: Float[np.ndarray, "n l"], seed: int) -> list[MatchedPair]:
    """Match the columns one to one, so that the sum of their rank correlations over the n units is largest.

    The null hypothesis is that both sets are unrelated: the units of one are permuted. `p` is the share of permutations
    in which any pair of columns has at least the correlation of this one.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = _standardised_ranks(left), _standardised_ranks(right)
    correlations = a.T @ b
    random = np.random.default_rng(seed)
    largest = np.array([(a.T @ b[random.permutation(len(b))]).max() for _ in range(PERMUTATIONS)])
    pairs = []
    for i, j in zip(*linear_sum_assignment(-correlations), strict=True):
        p = (1 + (largest >= correlations[i, j]).sum()) / (1 + len(largest))
        pairs.append(MatchedPair(int(i), int(j), float(correlations[i, j]), float(p)))
    return sorted(pairs, key=lambda pair: -pair.correlation)


def _standardised_ranks(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(0, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=0, keepdims=True), 1e-12)
