"""Area under the ROC curve."""

import numpy as np
from jaxtyping import Bool, Float, Int


def area_under_roc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Return how often a positive score exceeds another, ties counting half; NaN if either kind is missing."""
    from scipy.stats import rankdata

    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def weighted_area_under_roc(
    scores: Float[np.ndarray, " n"],
    above: Bool[np.ndarray, " n"],
    below: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Return how often a score in `above` exceeds one in `below`, ties counting half, for each row of weights."""
    place = np.unique(scores, return_inverse=True)[1]
    yes, no = sum_by_rank(weights * above, place), sum_by_rank(weights * below, place)
    lower = np.cumsum(no, 1) - no / 2
    with np.errstate(invalid="ignore"):
        return (yes * lower).sum(1) / (yes.sum(1) * no.sum(1))


def sum_by_rank(weights: Float[np.ndarray, "draws n"], place: Int[np.ndarray, " n"]) -> Float[np.ndarray, "draws p"]:
    """Return the total weight of the values at each place, counted from 0 without gaps."""
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    return np.add.reduceat(weights[:, order], starts, axis=1)
