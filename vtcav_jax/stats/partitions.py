"""Agreement of two partitions of the same items, such as clusters and known classes."""

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES, bootstrap_samples, unit_indices, widened_percentiles


def contingency(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> Int[np.ndarray, "k l"]:
    """Return how many items are in each pair of a group of `a` and one of `b`, numbered from 0."""
    counts = np.zeros((int(a.max()) + 1, int(b.max()) + 1), np.int64)
    np.add.at(counts, (a, b), 1)
    return counts


def adjusted_rand_index(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Return the adjusted Rand index (Hubert and Arabie 1985): 1 for equal partitions, 0 on average by chance."""
    return _index_of_counts(contingency(a, b))


def _index_of_counts(counts: Int[np.ndarray, "k l"]) -> float:
    def pairs(sizes: np.ndarray) -> float:
        return float((sizes * (sizes - 1) / 2).sum())

    rows, columns, total = pairs(counts.sum(1)), pairs(counts.sum(0)), pairs(counts.sum(keepdims=True))
    expected, highest = rows * columns / max(total, 1.0), (rows + columns) / 2
    return 1.0 if highest == expected else (pairs(counts) - expected) / (highest - expected)


def adjusted_rand_ci(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], units: list[str], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the adjusted Rand index and its bootstrap interval over `units`, such as source videos."""
    unit = unit_indices(units)
    n = int(unit.max()) + 1
    estimate = adjusted_rand_index(a, b)
    if n < 2:
        return estimate, float("nan"), float("nan")
    tables = np.zeros((n, int(a.max()) + 1, int(b.max()) + 1), np.int64)
    np.add.at(tables, (unit, a, b), 1)
    resampled = [
        _index_of_counts(tables[sample].sum(0))
        for samples in bootstrap_samples(n, seed, BOOTSTRAP_RESAMPLES)
        for sample in samples
    ]
    low, high = widened_percentiles(estimate, np.array(resampled), n, level)
    return estimate, low, min(high, 1.0)


def best_overlaps(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], n_groups: int) -> Float[np.ndarray, " k"]:
    """Return for each group of `a` the largest Jaccard index with a group of `b`; NaN for empty groups."""
    counts = np.zeros((n_groups, int(b.max()) + 1), np.int64)
    np.add.at(counts, (a, b), 1)
    sizes = counts.sum(1, keepdims=True)
    unions = sizes + counts.sum(0, keepdims=True) - counts
    overlaps = (counts / np.maximum(unions, 1)).max(1)
    return np.where(sizes[:, 0] > 0, overlaps, np.nan)
