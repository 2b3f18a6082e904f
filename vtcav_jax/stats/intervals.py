"""Confidence intervals of shares, means and ratios."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float

BOOTSTRAP_RESAMPLES = 2000


def wilson_ci(successes: int | float, n: int, level: float = 0.95) -> tuple[float, float]:
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


def share_ci(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson interval of a share over `n` units, which need not be a whole number of them."""
    return wilson_ci(share * n, n, level) if n and share == share else (float("nan"), float("nan"))


def ratio_ci(
    numerators: Float[np.ndarray, " n"], denominators: Float[np.ndarray, " n"], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Compute the ratio of two means and its percentile bootstrap interval over pairs.

    Pairs with a NaN are left out. The ratio is NaN without pairs, its interval NaN for fewer than two pairs.
    """
    is_known = ~(np.isnan(numerators) | np.isnan(denominators))
    numerators, denominators = (np.asarray(x, np.float64)[is_known] for x in (numerators, denominators))
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = float(np.divide(numerators.sum(), denominators.sum())) if len(numerators) else float("nan")
        if len(numerators) < 2:
            return estimate, float("nan"), float("nan")
        resampled_rows = np.random.default_rng(seed).integers(
            len(numerators), size=(BOOTSTRAP_RESAMPLES, len(numerators))
        )
        ratios = numerators[resampled_rows].sum(1) / denominators[resampled_rows].sum(1)
    low, high = np.nanquantile(ratios, ((1 - level) / 2, (1 + level) / 2))
    return estimate, float(low), float(high)


def format_interval(value: float, low: float, high: float) -> str:
    """Return the value and its interval with two decimals, without negative zeros."""
    value, low, high = (round(number, 2) + 0.0 for number in (value, low, high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def mean_ci(values: Float[np.ndarray, " n"], *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Compute the mean of the values that are not NaN and its bootstrap interval."""
    return ratio_ci(values, np.ones(len(values)), level=level, seed=seed)


def row_mean_ci(
    values: Float[np.ndarray, "k n"], *, level: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Compute the mean of each row (without NaNs) and its bootstrap interval, with the same resamples for all rows."""
    n = values.shape[1]
    estimates = values.mean(1, dtype=np.float64)
    if n < 2:
        return estimates, np.full(len(values), np.nan), np.full(len(values), np.nan)
    resampled_rows = (
        np.random.default_rng(seed).integers(n, size=(BOOTSTRAP_RESAMPLES, n))
        + n * np.arange(BOOTSTRAP_RESAMPLES)[:, None]
    )
    counts = np.bincount(resampled_rows.ravel(), minlength=resampled_rows.size).reshape(resampled_rows.shape)
    resampled_means = values.astype(np.float64) @ (counts.T / n)
    low, high = np.quantile(resampled_means, ((1 - level) / 2, (1 + level) / 2), axis=1)
    return estimates, low, high
