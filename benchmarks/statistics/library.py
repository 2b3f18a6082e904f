"""The library's calls that the simulations examine, with the unit that is exchanged and resampled as an argument.

`unit="clip"` treats clips as independent; `unit="video"` exchanges and resamples whole source videos. A motion test is
`paired` (a clip and its control are exchanged or not) or a `contrast` (the differences between clips and controls of
the concept against those of random clips).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.stats.intervals import share_ci
from vtcav_jax.tcav.experiment.comparisons import Comparison
from vtcav_jax.tcav.experiment.strata import compare_within
from vtcav_jax.tcav.features.gram import Gram, contrast_gram
from vtcav_jax.tcav.stats.bootstrap import bootstrap
from vtcav_jax.tcav.stats.permutation_test import TestResult, permutation_tests
from vtcav_jax.tcav.stats.scores import derivatives
from vtcav_jax.tcav.stats.vectors import FitConfig, fit, label_vector

Unit = Literal["clip", "video"]
Motion = Literal["paired", "contrast"]

MAX_EXCEEDANCES = 50  # as in experiments


@dataclass(frozen=True)
class ClassTests:
    """p-values and sizes of one concept for each class; NaN where undefined."""

    p: Float[np.ndarray, " c"]  # of the step effect
    p_unit: Float[np.ndarray, " c"]  # of the derivative along the unit vector
    step: Float[np.ndarray, " c"]


def concept_labels(concept: int, negatives: int) -> Float[np.ndarray, " m"]:
    """Return the labels of examples that are ordered concept first."""
    return label_vector(range(concept), range(concept, concept + negatives), concept + negatives)


def video_units(count: int, per_video: int) -> Int[np.ndarray, " m"]:
    return np.arange(count) // per_video


def weigh_strata(labels: Float[np.ndarray, " m"], strata: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return the labels as `--within` weighs them: negatives as concept clips in each stratum, 0 without both sides."""
    positive, negative = (tuple(np.flatnonzero(sign * labels > 0).tolist()) for sign in (1, -1))
    conditioned = compare_within(Comparison("absolute", "", "", "", positive, negative), [f"{s}" for s in strata])
    return np.zeros(len(labels)) if conditioned is None else conditioned.label_vector(len(labels))


def concept_tests(
    grams: Sequence[Gram],
    labels: Float[np.ndarray, " m"],
    *,
    permutations: int,
    seed: Sequence[int],
    unit: Unit = "clip",
    units: Int[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " m"] | None = None,
) -> ClassTests:
    """Test a concept for the class of each gram; with `strata`, within equal values."""
    results = permutation_tests(
        grams,
        labels if strata is None else weigh_strata(labels, strata),
        permutations=permutations,
        seed=seed,
        max_exceedances=MAX_EXCEEDANCES,
        units=units if unit == "video" else None,
        strata=strata,
    )
    return _class_tests(results)


def motion_tests(
    grams: Sequence[Gram],
    concept: int,
    *,
    permutations: int,
    seed: Sequence[int],
    motion: Motion,
) -> ClassTests:
    """Test motion; the examples are moving clips, those of the concept first, then their controls in the same order."""
    m = len(grams[0].kernel) // 2
    pairs = [(i, m + i) for i in range(m)]
    if motion == "contrast":
        return concept_tests(
            [contrast_gram(gram, pairs) for gram in grams],
            concept_labels(concept, m - concept),
            permutations=permutations,
            seed=seed,
        )
    labels = label_vector(range(concept), range(m, m + concept), 2 * m)
    blocks = np.concatenate([np.arange(m), np.arange(m)])
    return _class_tests(
        permutation_tests(
            grams, labels, permutations=permutations, seed=seed, blocks=blocks, max_exceedances=MAX_EXCEEDANCES
        )
    )


def _class_tests(results: Sequence[TestResult]) -> ClassTests:
    columns = zip(*((test.p_step_effect[0], test.p[0], test.step_effect[0]) for test in results))
    return ClassTests(*(np.array(column) for column in columns))


def calibration_p(
    grams: Sequence[Gram],
    sets: Sequence[Int[np.ndarray, " _"]],
    *,
    permutations: int,
    seed: Sequence[int],
    unit: Unit = "clip",
    units: Int[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, "sets c"]:
    """Return the p-values of the calibration check: each random set is tested against the others, like a concept."""
    m = len(grams[0].kernel)
    return np.stack(
        [
            concept_tests(
                grams,
                label_vector(rows, np.setdiff1d(np.arange(m), rows), m),
                permutations=permutations,
                seed=[*seed, i],
                unit=unit,
                units=units,
            ).p
            for i, rows in enumerate(sets)
        ]
    )


@dataclass(frozen=True)
class Estimates:
    """Estimates of one concept and class with their 95 % intervals, by name."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def step_intervals(
    grams: Sequence[Gram], labels: Float[np.ndarray, " m"], *, draws: int, seed: Sequence[int]
) -> list[tuple[float, tuple[float, float]]]:
    """Return the step effect and its interval for the class of each gram, with independent clips."""
    results = bootstrap(grams, labels, FitConfig(), draws=draws, seed=seed) if grams else []
    return [(result.step_effect, result.step_interval) for result in results]


def estimate(
    gram: Gram,
    labels: Float[np.ndarray, " m"],
    *,
    draws: int,
    seed: Sequence[int],
    unit: Unit,
    units: Int[np.ndarray, " m"] | None = None,
) -> tuple[Estimates, Float[np.ndarray, " m"]]:
    """Return the estimates of the class of `gram`, and the coefficients of the unit vector."""
    config = FitConfig()
    vector = fit(gram.kernel, labels[None], config)
    slopes = derivatives(gram, vector.unit)[0, :, 0]
    derivative, sign_count = float(slopes.mean()), float((slopes > 0).mean())
    result = bootstrap([gram], labels, config, units=units if unit == "video" else None, draws=draws, seed=seed)[0]
    values = {"derivative": derivative, "step_effect": result.step_effect, "sign_count": sign_count}
    ends = {
        "derivative": result.derivative["all"],
        "step_effect": result.step_interval,
        "sign_count": share_ci(sign_count, len(slopes)),
    }
    return Estimates(values, ends), vector.unit[0]
