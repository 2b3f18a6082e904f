"""Clusters of movements by k-means on directions, and how far other source videos would give the same ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.console import progress
from vtcav_jax.discovery.dictionaries import Dictionary, TokenPairs, encode_tokens, fit_dictionary
from vtcav_jax.stats.intervals import unit_indices
from vtcav_jax.stats.partitions import adjusted_rand_index, best_overlaps

RESTARTS, RESTARTS_PER_RESAMPLE = 10, 3  # of k-means, of which the best counts
RESAMPLES = 40  # of source videos
PERCENTILES = (0.025, 0.975)

Features = Float[np.ndarray, "w features"]


@dataclass(frozen=True)
class Stability:
    """Agreement of the clusters with those of resampled source videos: the mean, and 95 % of the resamples."""

    rand_index: tuple[float, float, float]  # adjusted Rand index of all clusters: mean, low, high
    overlaps: Float[np.ndarray, "k 3"]  # Jaccard index of each cluster with the most similar one: mean, low, high


def cluster_features(features: Features, k: int, seed: int) -> Int[np.ndarray, " w"]:
    """Return the cluster of each window, numbered by decreasing size."""
    clusters = _assign(_fit_best(features, k, seed, RESTARTS)[0], features)
    by_size = np.argsort(-np.bincount(clusters, minlength=k), kind="stable")
    return np.argsort(by_size)[clusters]


def _fit_best(features: Features, k: int, seed: int, restarts: int) -> tuple[Dictionary, float]:
    """Return the centres, of several starts, that are most similar to their windows, and the mean similarity."""
    tokens = TokenPairs(features, features)
    fits = [fit_dictionary("kmeans", tokens, k, seed + restart) for restart in range(restarts)]
    norms = np.maximum(np.linalg.norm(features, axis=1), 1e-12)
    similarities = [float((_projections(fitted, features).max(1) / norms).mean()) for fitted in fits]
    best = int(np.argmax(similarities))
    return fits[best], similarities[best]


def _projections(dictionary: Dictionary, features: Features) -> Float[np.ndarray, "w k"]:
    """Return the projection on the nearest centre, 0 for the others."""
    return np.asarray(encode_tokens("kmeans", dictionary, np.asarray(features, np.float32)))


def _assign(dictionary: Dictionary, features: Features) -> Int[np.ndarray, " w"]:
    return _projections(dictionary, features).argmax(1)


def silhouettes(features: Features, clusters: Int[np.ndarray, " w"]) -> Float[np.ndarray, " w"]:
    """Return the silhouette (Rousseeuw 1987) of each window, with cosine distances; 0 in a cluster of one window.

    Above 0 a window is nearer to its own cluster than to the next.
    """
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    k = int(clusters.max()) + 1
    sizes = np.bincount(clusters, minlength=k)
    sums = np.zeros((k, features.shape[1]))
    np.add.at(sums, clusters, units)
    similarity = units @ sums.T  # summed over the members of each cluster
    rows = np.arange(len(units))
    own_size = sizes[clusters]
    within = 1 - (similarity[rows, clusters] - (units**2).sum(1)) / np.maximum(own_size - 1, 1)
    to_others = np.where(sizes > 0, 1 - similarity / np.maximum(sizes, 1), np.inf)
    to_others[rows, clusters] = np.inf
    nearest = to_others.min(1)
    is_defined = (own_size > 1) & np.isfinite(nearest)
    nearest = np.where(is_defined, nearest, 1.0)
    return np.where(is_defined, (nearest - within) / np.maximum(np.maximum(nearest, within), 1e-12), 0.0)


def measure_cluster_stability(
    features: Features, clusters: Int[np.ndarray, " w"], k: int, source_videos: list[str], seed: int
) -> Stability:
    """Compare the clusters with those that resampled source videos give, to which all windows are assigned.

    Each resample draws source videos with replacement, and then as many of their windows as there are. The agreement is
    NaN for a single source video.
    """
    random, unit = np.random.default_rng(seed), unit_indices(source_videos)
    rows_of_unit = [np.flatnonzero(unit == i) for i in range(int(unit.max()) + 1)]
    if len(rows_of_unit) < 2:
        return Stability((np.nan, np.nan, np.nan), np.full((k, 3), np.nan))
    indices, overlaps = [], []
    for (resample,) in progress(([i] for i in range(RESAMPLES)), RESAMPLES, "resamples"):
        drawn = random.integers(len(rows_of_unit), size=len(rows_of_unit))
        pool = np.concatenate([rows_of_unit[i] for i in drawn])
        sample = features[pool[random.integers(len(pool), size=len(features))]]
        fitted, _ = _fit_best(sample, k, seed + 1000 * (resample + 1), RESTARTS_PER_RESAMPLE)
        other = _assign(fitted, features)
        indices.append(adjusted_rand_index(clusters, other))
        overlaps.append(best_overlaps(clusters, other, k))
    low, high = np.quantile(indices, PERCENTILES).tolist()
    by_cluster = np.array(overlaps)
    summaries = np.stack([by_cluster.mean(0), *np.quantile(by_cluster, PERCENTILES, axis=0)], 1)
    return Stability((float(np.mean(indices)), low, high), summaries)
