"""Confidence intervals of shares, means and ratios.

Percentiles of a bootstrap are too narrow for few units: with 10 of them, 95 % intervals contain the true value in 89 %
of cases. `widened_percentiles` therefore multiplies the distances from the estimate by Student's t relative to the
normal quantile.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int, Real

BOOTSTRAP_RESAMPLES = 2000
BLOCK_SIZE = 1 << 18  # units drawn at once, so that memory does not grow with their number
# Of the squared deviation of a unit whose values all have the rarer outcome, since a sample may lack such units
UNSEEN_UNIT_SHARE = 0.25


def wilson_ci(successes: int | float, n: int | float, level: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson (1927) interval of a share, which, unlike the normal one, has a width at 0 and at n."""
    if not 0 <= successes <= n:
        raise ValueError(f"expected between 0 and n successes, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    # Rounding must not exclude the share itself
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))


def share_ci(share: float, n: int | float, level: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson interval of a share over `n` units, which need not be a whole number of them."""
    return wilson_ci(share * n, n, level) if n and share == share else (float("nan"), float("nan"))


def clustered_share_ci(hits: Bool[np.ndarray, " n"], units: Sequence[str], level: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson interval of a share of clips that come from `units`, such as their source videos.

    The number of clips is replaced by their effective number.
    """
    if not len(hits):
        return float("nan"), float("nan")
    unit = unit_indices(units)
    n = effective_number(np.bincount(unit), np.bincount(unit, hits), unseen_share=UNSEEN_UNIT_SHARE)
    return share_ci(float(hits.mean()), n, level)


def effective_number(
    counts: Real[np.ndarray, " u"], hit_counts: Real[np.ndarray, " u"], *, unseen_share: float = 0.0
) -> float:
    """Return the number of independent values whose share of hits varies as much as that of the values of u units.

    It is at least u and at most the number of values. The variance is estimated from the differences between units,
    and this share of the squared deviation of a further unit whose values all have the rarer outcome.
    """
    n, u, share = float(counts.sum()), len(counts), float(hit_counts.sum() / counts.sum())
    if share in (0, 1) or u < 2:
        return float(u)
    squares = float(((hit_counts - share * counts) ** 2).sum()) + unseen_share * (max(share, 1 - share) * n / u) ** 2
    variance = squares / n**2 * u / (u - 1)
    return min(n, max(float(u), share * (1 - share) / variance)) if variance > 0 else n


def bounded_mean_ci(value: float, variance: float, n_units: int | float, level: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson interval of a mean of values in 0..1, such as a mean over classes, from its variance.

    The mean counts as a share of as many independent values as give this variance. `n_units` is their number if they
    were shares over units; a further unit with the rarer outcome is added to the variance as in `effective_number`.
    """
    if not (0 < value < 1 and n_units > 1):
        return share_ci(value, n_units, level)
    unseen = UNSEEN_UNIT_SHARE * (max(value, 1 - value) / n_units) ** 2
    return share_ci(value, value * (1 - value) / (variance + unseen), level)


def ratio_ci(
    numerators: Float[np.ndarray, " n"],
    denominators: Float[np.ndarray, " n"],
    *,
    units: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Compute the ratio of two means and its percentile bootstrap interval over pairs.

    With `units`, such as the source video of each pair, whole units are resampled, and the interval is widened for few.
    Pairs with a NaN are left out. The ratio is NaN without pairs, its interval NaN for fewer than two pairs or units
    and where the denominators add up to 0.
    """
    is_known = ~(np.isnan(numerators) | np.isnan(denominators))
    unit = np.arange(len(is_known)) if units is None else unit_indices(units)
    unit = np.unique(unit[is_known], return_inverse=True)[1]
    sums = [np.bincount(unit, np.asarray(x, np.float64)[is_known]) for x in (numerators, denominators)]
    n = len(sums[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = float(np.divide(sums[0].sum(), sums[1].sum())) if n else float("nan")
        if n < 2 or not math.isfinite(estimate):
            return estimate, float("nan"), float("nan")
        ratios = np.concatenate([sums[0][rows].sum(1) / sums[1][rows].sum(1) for rows in bootstrap_samples(n, seed)])
    if units is not None:
        return estimate, *widened_percentiles(estimate, ratios, n, level)
    low, high = np.nanquantile(ratios, ((1 - level) / 2, (1 + level) / 2))
    return estimate, float(low), float(high)


def bootstrap_samples(n: int, seed: int, count: int = BOOTSTRAP_RESAMPLES) -> Iterator[Int[np.ndarray, "samples n"]]:
    """Yield `count` samples of n units drawn with replacement, in blocks whose size does not depend on n."""
    rng, rows = np.random.default_rng(seed), max(1, BLOCK_SIZE // n)
    for start in range(0, count, rows):
        yield rng.integers(n, size=(min(rows, count - start), n))


def sample_counts(samples: Int[np.ndarray, "samples n"]) -> Int[np.ndarray, "samples n"]:
    """Return how many times each unit is in each sample."""
    keys = samples + samples.shape[1] * np.arange(len(samples))[:, None]
    return np.bincount(keys.ravel(), minlength=keys.size).reshape(keys.shape)


def unit_indices(units: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Return the index of each value's unit, such as its source video, among the different units."""
    return np.unique(np.asarray(units), return_inverse=True)[1]


def widened_percentiles(
    estimate: float, resampled: Float[np.ndarray, " resamples"], n: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentiles of estimates from resamples of n units, further from the estimate if n is small."""
    low, high = np.nanquantile(resampled, ((1 - level) / 2, (1 + level) / 2))
    factor = small_sample_factor(n, level)
    return float(estimate + factor * (low - estimate)), float(estimate + factor * (high - estimate))


def small_sample_factor(n: int, level: float = 0.95) -> float:
    """Return the factor that makes percentiles of a bootstrapped mean of n values those of Student's t."""
    from scipy.stats import norm, t

    return float((n / (n - 1)) ** 0.5 * t.ppf((1 + level) / 2, n - 1) / norm.ppf((1 + level) / 2))


def format_interval(value: float, low: float, high: float) -> str:
    """Return the value and its interval with two decimals, without negative zeros."""
    value, low, high = (round(number, 2) + 0.0 for number in (value, low, high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def mean_ci(
    values: Float[np.ndarray, " n"], *, units: Sequence[str] | None = None, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Compute the mean of the values that are not NaN and its bootstrap interval, as `ratio_ci` does."""
    return ratio_ci(values, np.ones(len(values)), units=units, level=level, seed=seed)


def row_mean_ci(
    values: Float[np.ndarray, "k n"], *, level: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Compute the mean of each row (without NaNs) and its bootstrap interval, with the same resamples for all rows."""
    n = values.shape[1]
    estimates = values.mean(1, dtype=np.float64)
    if n < 2:
        return estimates, np.full(len(values), np.nan), np.full(len(values), np.nan)
    doubles = values.astype(np.float64)
    resampled_means = np.concatenate([doubles @ (sample_counts(rows).T / n) for rows in bootstrap_samples(n, seed)], 1)
    low, high = np.quantile(resampled_means, ((1 - level) / 2, (1 + level) / 2), axis=1)
    return estimates, low, high
