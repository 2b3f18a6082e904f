"""Intervals: no share, mean or ratio is told without one."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Wilson, 1927): sound at 0 and at n, where the usual one has no width."""
    if not 0 <= right <= n:
        raise ValueError(f"expected 0 to n of n, got {right} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    # Rounding must not exclude the share itself
    return (0.0 if right == 0 else max(0.0, centre - half)), (1.0 if right == n else min(1.0, centre + half))


def ratio_of_means(
    above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over mean, and the interval that drawing the pairs again gives (percentile bootstrap).

    Pairs with a NaN are left out. NaN where nothing is left, and for the interval of a single pair.
    """
    known = ~(np.isnan(above) | np.isnan(below))
    above, below = (np.asarray(x, np.float64)[known] for x in (above, below))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = float(np.divide(above.sum(), below.sum())) if len(above) else float("nan")
        if len(above) < 2:
            return found, float("nan"), float("nan")
        drawn = np.random.default_rng(seed).integers(len(above), size=(RESAMPLES, len(above)))
        ratios = above[drawn].sum(1) / below[drawn].sum(1)
    low, high = np.nanquantile(ratios, ((1 - level) / 2, (1 + level) / 2))
    return found, float(low), float(high)


def told(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def mean(values: Float[np.ndarray, " n"], *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """The mean of what is not NaN, and its bootstrap interval."""
    return ratio_of_means(values, np.ones(len(values)), level=level, seed=seed)


def means(
    values: Float[np.ndarray, "k n"], *, level: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """`mean` of each row, without NaNs, from one drawing for all."""
    n = values.shape[1]
    found = values.mean(1, dtype=np.float64)
    if n < 2:
        return found, np.full(len(values), np.nan), np.full(len(values), np.nan)
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n)) + n * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    again = values.astype(np.float64) @ (times.T / n)
    low, high = np.quantile(again, ((1 - level) / 2, (1 + level) / 2), axis=1)
    return found, low, high
