"""One comparison at one stage (layer) for all classes, which share its vectors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.tcav.experiment.comparisons import Comparison, difference_matrix
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.features.gram import Gram, contrast_gram
from vtcav_jax.tcav.stats.bootstrap import UNCERTAINTY_SOURCES, UNKNOWN_INTERVAL, EffectIntervals, bootstrap
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
    """A comparison at a stage, restricted to its own examples: clips, or pair differences of a contrast.

    `video_ids` are the source videos of the examples, `target_videos` those of the target clips of each class.
    """

    comparison: Comparison
    grams: Sequence[Gram]
    vector: ConceptVectors
    video_ids: Int[np.ndarray, " m"]
    target_videos: Sequence[Int[np.ndarray, " n"]]
    config: ExperimentConfig
    derivative_fn: DerivativeFn | None

    @property
    def labels(self) -> np.ndarray:
        return self.comparison.label_vector(len(self.grams[0].kernel))

    @property
    def blocks(self) -> np.ndarray | None:
        return self.comparison.blocks(len(self.grams[0].kernel))

    @property
    def strata(self) -> np.ndarray | None:
        return self.comparison.stratum_codes(len(self.grams[0].kernel))

    @property
    def units(self) -> Int[np.ndarray, " m"] | None:
        """The source video of each example, if the tests exchange videos."""
        return None if self.config.permute == "clips" else self.video_ids

    def derivatives(self, unit: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Return the derivatives `(1, n, v)` of each class along the unit vectors of `labels`."""
        if self.derivative_fn is None:
            return [derivatives(gram, unit) for gram in self.grams]
        return list(self.derivative_fn(unit, mean_gaps(self.grams[0].kernel, labels, unit)))

    def tests(self) -> list[TestResult]:
        """Test by permuting videos or clips, or random sets if the settings say so and there are any."""
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
            units=self.units,
            strata=self.strata,
            max_exceedances=EARLY_STOP_EXCEEDANCES,
            derivative_fn=self.derivative_fn,
        )

    def set_tests(self) -> list[TestResult]:
        sets = [
            np.array(rows)
            for rows in (self.comparison.positive_clips, *(rows for _, rows in self.comparison.random_sets))
        ]
        return set_permutation_tests(self.grams, sets, self.config.fit_config, derivative_fn=self.derivative_fn)

    def intervals(self, observed_derivatives: Sequence[np.ndarray]) -> list[EffectIntervals]:
        s = self.config
        if not self.vector.norm[0] > 0:
            unknown = EffectIntervals(dict.fromkeys(UNCERTAINTY_SOURCES, UNKNOWN_INTERVAL), math.nan, UNKNOWN_INTERVAL)
            return [unknown for _ in self.grams]
        return bootstrap(
            self.grams,
            self.labels,
            s.fit_config,
            units=self.video_ids if self.units is not None or self.blocks is None else self.blocks,
            target_units=self.target_videos,
            draws=s.bootstrap_draws,
            seed=[s.seed, self.comparison.seed],
            observed_derivatives=None
            if self.derivative_fn is None
            else [slopes[0, :, 0] for slopes in observed_derivatives],
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


@dataclass(frozen=True)
class Restriction:
    """The examples of one comparison, to save computation: its clips, or the pair differences of a contrast."""

    comparison: Comparison  # with numbers of these examples
    to_clips: Float[np.ndarray, "u m"]  # each example as a combination of all clips
    video_ids: Int[np.ndarray, " u"]

    def restrict(self, gram: Gram, original: Comparison) -> Gram:
        """Return the products of these examples."""
        if original.differences:
            return contrast_gram(gram, original.differences)
        return take_rows(gram, original.examples)


def expand_examples(derivative_fn: DerivativeFn | None, to_clips: Float[np.ndarray, "u m"]) -> DerivativeFn | None:
    """Adapt a function of coefficients of all clips to coefficients of examples, which are combinations of clips."""
    if derivative_fn is None:
        return None
    return lambda unit, gap: derivative_fn(unit @ to_clips, gap)


def restrict_to_comparison(comparison: Comparison, video_ids: Int[np.ndarray, " m"]) -> Restriction:
    """Return the comparison with numbers of its own examples, and how these are made of clips."""
    count = len(video_ids)
    if comparison.differences:
        n_concept, n_all = len(comparison.pairs), len(comparison.differences)
        restricted = replace(
            comparison,
            positive_clips=tuple(range(n_concept)),
            negative_clips=tuple(range(n_concept, n_all)),
            pairs=(),
            random_pairs=(),
        )
        dynamic_clips = [pair[0] for pair in comparison.differences]
        return Restriction(restricted, difference_matrix(comparison.differences, count), video_ids[dynamic_clips])
    rows = comparison.examples
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
    return Restriction(restricted, np.eye(count)[list(rows)], video_ids[list(rows)])


def take_rows(gram: Gram, rows: Sequence[int]) -> Gram:
    """Restrict a gram to these examples."""
    rows = list(rows)
    return Gram(gram.kernel[np.ix_(rows, rows)], gram.cross[:, :, rows], gram.gradients)
