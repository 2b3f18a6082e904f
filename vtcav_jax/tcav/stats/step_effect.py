"""Cross-fitted step effects: the score change for the step from the negatives to the concept, without optimism.

A vector separates the clips that it was trained on better than others, so the distance between their means along it is
too large. Here the distance is measured on clips of held-out source videos.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.permutation_test import mean_gaps
from vtcav_jax.tcav.stats.vector_validation import stratified_folds
from vtcav_jax.tcav.stats.vectors import FitConfig, fit

STEP_FOLDS = 5


def cross_fitted_steps(
    grams: Sequence[Gram],
    labels: Float[np.ndarray, "v m"],
    folds: Int[np.ndarray, " m"],
    fit_config: FitConfig,
) -> list[Float[np.ndarray, "c n v"]]:
    """Return the step effect of each label vector at each target clip, for each of `grams`, which share the kernel.

    With the unit vector v_k trained without fold k, the means of the concept clips and of the negatives of fold k, and
    the gradient g of a target clip, it is the mean over folds of

        (g · v_k) × (mean of concept clips of fold k - mean of negatives of fold k) · v_k

    NaN for a label vector of which no fold can be held out.
    """
    kernel, n_folds = grams[0].kernel, int(folds.max()) + 1
    train = np.concatenate([np.where(folds == k, 0.0, labels) for k in range(n_folds)])
    held_out = np.concatenate([np.where(folds == k, labels, 0.0) for k in range(n_folds)])
    usable = _has_both_sides(train) & _has_both_sides(held_out)
    count = len(labels)
    unit = fit(kernel, train[usable], fit_config).unit if usable.any() else np.zeros((0, len(kernel)))
    gaps = mean_gaps(kernel, held_out[usable], unit)
    # Means over the folds of each label vector
    average = np.eye(count)[np.flatnonzero(usable) % count]
    average /= np.where(average.any(0), average.sum(0), np.nan)
    return [(gram.cross @ (unit * gaps[:, None]).T) @ average for gram in grams]


def step_folds(
    labels: Float[np.ndarray, " m"], units: Int[np.ndarray, " m"], rng: np.random.Generator
) -> Int[np.ndarray, " m"] | None:
    """Return a fold for each example, with whole videos in one fold; None if a side has a single video."""
    used = np.flatnonzero(labels)
    group = np.unique(units[used], return_inverse=True)[1]
    if min(len(np.unique(group[sign * labels[used] > 0])) for sign in (1, -1)) < 2:
        return None
    folds = np.zeros(len(labels), int)
    folds[used] = stratified_folds(labels[used], STEP_FOLDS, rng, group)
    return folds


def _has_both_sides(labels: Float[np.ndarray, "v m"]) -> Bool[np.ndarray, " v"]:
    return np.asarray((labels > 0).any(1) & (labels < 0).any(1))
