"""Trend of an effect over depth: its slope over the index of the stage (layer), from a joint bootstrap of stages."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class DepthTrend(NamedTuple):
    """Slope per stage with its 95 % interval, and the two-sided p-value of the hypothesis that it is 0."""

    slope: float
    low: float
    high: float
    p: float


def depth_trend(effects: Float[np.ndarray, " s"], draws: Float[np.ndarray, "s b"]) -> DepthTrend:
    """Fit a line to the effects at successive stages.

    Column b of `draws` are the effects in resample b, which must be the same at all stages: clips are shared, so that
    effects at different stages are correlated. The p-value compares the slope with the spread of the draws' slopes.
    """
    from scipy.stats import norm

    index = np.arange(len(effects)) - (len(effects) - 1) / 2
    weights = index / (index**2).sum()
    slope, slopes = float(weights @ effects), weights @ draws
    low, high = np.quantile(slopes, (0.025, 0.975))
    return DepthTrend(slope, float(low), float(high), float(2 * norm.sf(abs(slope) / slopes.std())))
