"""One comparison at one stage (layer) for all classes, which share its vectors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vtcav_jax.tcav.experiment.comparisons import Comparison
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import ScoreIntervals, UncertaintySource, bootstrap
from vtcav_jax.tcav.stats.permutation_test import (
    DerivativeFn,
    TestResult,
    mean_gaps,
    permutation_tests,
    set_permutation_tests,
)
from vtcav_jax.tcav.stats.scores import derivatives
from vtcav_jax.tcav.stats.vectors import ConceptVectors, fit, label_vector

# A test stops after this many permutations as extreme as the concept: p is then at least 50 / number of permutations
EARLY_STOP_EXCEEDANCES = 50


@dataclass(frozen=True)
class StageComparison:
    """A comparison at a stage; `grams` of the classes and `vector` are restricted to its own clips."""

    comparison: Comparison
    grams: Sequence[Gram]
    vector: ConceptVectors
    config: ExperimentConfig
    derivative_fn: DerivativeFn | None

    @property
    def labels(self) -> np.ndarray:
        return self.comparison.label_vector(len(self.grams[0].kernel))

    @property
    def blocks(self) -> np.ndarray | None:
        return self.comparison.blocks(len(self.grams[0].kernel))

    def derivatives(self, unit: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Return the derivatives `(1, n, v)` of each class along the unit vectors of `labels`."""
        if self.derivative_fn is None:
            return [derivatives(gram, unit) for gram in self.grams]
        return list(self.derivative_fn(unit, mean_gaps(self.grams[0].kernel, labels, unit)))

    def tests(self) -> list[TestResult]:
        """Test by permuting clips, or random sets if the settings say so and there are any."""
        s = self.config
        if s.permute == "sets" and self.comparison.random_sets:
            return self.set_tests()
        return permutation_tests(
            self.grams,
            self.labels,
            s.fit_config,
            permutations=s.num_permutations(1),
            seed=[s.seed, self.comparison.seed],
            blocks=self.blocks,
            max_exceedances=EARLY_STOP_EXCEEDANCES,
            derivative_fn=self.derivative_fn,
        )

    def set_tests(self) -> list[TestResult]:
        sets = [
            np.array(rows)
            for rows in (self.comparison.positive_clips, *(rows for _, rows in self.comparison.random_sets))
        ]
        return set_permutation_tests(self.grams, sets, self.config.fit_config, derivative_fn=self.derivative_fn)

    def intervals(self, observed_derivatives: Sequence[np.ndarray]) -> list[dict[UncertaintySource, ScoreIntervals]]:
        s = self.config
        if not self.vector.norm[0] > 0:
            return [{} for _ in self.grams]
        return bootstrap(
            self.grams,
            self.labels,
            s.fit_config,
            draws=s.bootstrap_draws,
            seed=[s.seed, self.comparison.seed],
            observed_derivatives=None
            if self.derivative_fn is None
            else [slopes[:, :, 0] for slopes in observed_derivatives],
        )

    def single_sets(self) -> list[tuple[float, float, float]]:
        """Return for each class the extreme derivatives of vectors against single random sets, and the p by sets."""
        if not self.comparison.random_sets:
            return [(math.nan, math.nan, math.nan) for _ in self.grams]
        count = len(self.grams[0].kernel)
        labels = np.stack(
            [label_vector(self.comparison.positive_clips, rows, count) for _, rows in self.comparison.random_sets]
        )
        unit = fit(self.grams[0].kernel, labels, self.config.fit_config).unit
        results = []
        for class_derivatives, test_result in zip(self.derivatives(unit, labels), self.set_tests()):
            set_derivatives = class_derivatives.mean(1)[0]
            results.append(
                (float(set_derivatives.min()), float(set_derivatives.max()), primary_p(test_result, self.config))
            )
        return results


def primary_p(test_result: TestResult, config: ExperimentConfig) -> float:
    return float((test_result.p_step_effect if config.statistic == "step_effect" else test_result.p)[0])


def expand_rows(derivative_fn: DerivativeFn, used_rows: Sequence[int], count: int) -> DerivativeFn:
    """Adapt `derivative_fn` to vectors that have coefficients for `used_rows` only."""

    def derivatives_of_used(unit: np.ndarray, gap: np.ndarray) -> Sequence[np.ndarray]:
        expanded = np.zeros((len(unit), count))
        expanded[:, used_rows] = unit
        return derivative_fn(expanded, gap)

    return derivatives_of_used


def examples_of(comparison: Comparison) -> tuple[int, ...]:
    return tuple(sorted((*comparison.positive_clips, *comparison.negative_clips)))


def restrict_to_comparison(grams: Sequence[Gram], comparison: Comparison) -> tuple[list[Gram], Comparison]:
    """Restrict the grams and the comparison's row numbers to its own clips, to save computation."""
    rows = examples_of(comparison)
    new_index = {row: i for i, row in enumerate(rows)}

    def reindex(old_rows: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new_index[row] for row in old_rows)

    restricted = replace(
        comparison,
        positive_clips=reindex(comparison.positive_clips),
        negative_clips=reindex(comparison.negative_clips),
        pairs=tuple((new_index[left], new_index[right]) for left, right in comparison.pairs),
        random_sets=tuple((name, reindex(set_rows)) for name, set_rows in comparison.random_sets),
    )
    return [take_rows(gram, rows) for gram in grams], restricted


def take_rows(gram: Gram, rows: Sequence[int]) -> Gram:
    """Restrict a gram to these examples."""
    return Gram(gram.kernel[np.ix_(rows, rows)], gram.cross[:, :, rows], gram.gradients)
