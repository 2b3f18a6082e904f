"""The tests that papers print: t-tests and Mann-Whitney, for scores over runs.

Runs that share their concept clips or their negatives are not independent, and these tests then find far too much; the
permutations in `significance` are the tests to rely on.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jax.scipy.special import betainc
from jaxtyping import Float


@dataclass(frozen=True)
class TTest:
    """Two-sided; NaN where the values do not vary, so that there is nothing to hold a difference against."""

    t: float
    df: float
    p: float


def one_sample(values: Float[np.ndarray, " n"], mean: float = 0.5) -> TTest:
    _at_least_two(values)
    return _test(values.mean() - mean, values.var(ddof=1) / len(values), len(values) - 1.0)


def two_samples(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " k"], *, same_variance: bool = True) -> TTest:
    """Student's test, or Welch's where the variances may differ."""
    _at_least_two(a, b)
    if same_variance:
        df = float(len(a) + len(b) - 2)
        pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / df
        return _test(a.mean() - b.mean(), pooled * (1 / len(a) + 1 / len(b)), df)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    parts = va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)
    return _test(a.mean() - b.mean(), va + vb, (va + vb) ** 2 / parts if parts else 1.0)


def paper(sign_counts: Float[np.ndarray, " n"]) -> TTest:
    """The test behind the paper's printed p-values: relative sign counts against those of the opposite vectors.

    The second sample is one minus the first, so every run is counted twice; `one_sample` against 0.5 is the honest one.
    """
    return two_samples(sign_counts, 1 - sign_counts)


def mann_whitney(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " k"]) -> float:
    """Exact two-sided p of the rank sum, for values without ties."""
    if not len(a) or not len(b):
        raise ValueError("each sample needs at least one value")
    both = np.concatenate([a, b])
    if len(np.unique(both)) < len(both):
        raise ValueError("the exact distribution of ranks holds for values without ties; use a permutation test")
    n, k = len(a), len(b)
    u = int((a[:, None] > b[None]).sum())
    ways = np.zeros((n + 1, n * k + 1))  # of choosing so many of the ranks so far, with such a sum above the smallest
    ways[0, 0] = 1
    for rank in range(n + k):
        for chosen in range(min(n, rank + 1), 0, -1):
            shift = rank - (chosen - 1)
            if shift <= n * k:
                ways[chosen, shift:] += ways[chosen - 1, : n * k + 1 - shift]
    tail = ways[n, max(u, n * k - u) :].sum() / math.comb(n + k, n)
    return min(1.0, 2 * float(tail))


def _test(difference: float, variance: float, df: float) -> TTest:
    if variance == 0:
        return TTest(math.nan, float(df), math.nan)
    t = float(difference / math.sqrt(variance))
    with jax.enable_x64(True):
        p = float(betainc(np.float64(df / 2), np.float64(0.5), np.float64(df / (df + t * t))))
    return TTest(t, float(df), p)


def _at_least_two(*samples: np.ndarray) -> None:
    if any(len(sample) < 2 for sample in samples):
        raise ValueError(f"a t-test needs at least 2 values a sample, got {[len(s) for s in samples]}")
