"""Statistics of one stage (layer), from its products alone unless finite steps need the network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vtcav_jax.console import progress
from vtcav_jax.runs.tcav_rows import DerivativeRow, ScoreRow, VectorRow
from vtcav_jax.stats.intervals import share_ci
from vtcav_jax.tcav.experiment.calibration import calibration_p
from vtcav_jax.tcav.experiment.comparisons import Comparison, fit_comparisons
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_comparison import (
    StageComparison,
    expand_examples,
    primary_p,
    restrict_to_comparison,
)
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import EffectIntervals
from vtcav_jax.tcav.stats.permutation_test import DerivativeFn, TestResult
from vtcav_jax.tcav.stats.scores import GradientStats, gradient_stats, scores_from_derivatives
from vtcav_jax.tcav.stats.vector_validation import VectorValidation, validate_vector
from vtcav_jax.tcav.stats.vectors import ConceptVectors, FitConfig, cosines, fit

AUC_PERMUTATIONS = 99  # for the p-value of the held-out AUC


@dataclass(frozen=True)
class StageResults:
    """Results of one stage; `calibration_p` are the calibration check's p-values by clip type and origin of the set."""

    rows: list[ScoreRow]
    vectors: list[VectorRow]
    derivatives: list[DerivativeRow]
    calibration_p: dict[str, dict[str, list[float]]]


def split_by_class(stage_gram: Gram, plan: Plan) -> list[Gram]:
    """Split products whose gradients are ordered by class into one Gram per class."""
    parts, start = [], 0
    for target in plan.clips.classes:
        rows = slice(start, start + len(target.rows))
        parts.append(Gram(stage_gram.kernel, stage_gram.cross[:, rows], stage_gram.gradients[:, rows, rows]))
        start = rows.stop
    return parts


def evaluate_stage(
    plan: Plan,
    stage: str,
    stage_gram: Gram,
    class_scores: Sequence[np.ndarray],
    derivative_fn: DerivativeFn | None = None,
) -> StageResults:
    """Evaluate all comparisons at a stage and run the calibration check.

    `class_scores` are the scores of each class at its target clips; `derivative_fn` replaces gradient derivatives.
    """
    grams, s = split_by_class(stage_gram, plan), plan.config
    kernel = stage_gram.kernel
    stats_by_class = [gradient_stats(gram) for gram in grams]
    comparisons, target_videos = plan.comparisons.entries, plan.clips.target_videos
    vectors = fit_comparisons(kernel, comparisons, s)
    rows, vector_rows, derivative_rows = [], [], []
    for i, comparison in enumerate(progress(comparisons, len(comparisons), f"tests at {stage}", size=lambda _: 1)):
        vector = None
        if not comparison.differences:
            vector = vectors.take(slice(i, i + 1))
            vector = replace(vector, a=vector.a[:, list(comparison.examples)])
        stage_comparison = restricted_comparison(comparison, grams, plan, vector, derivative_fn)
        comparison, vector = stage_comparison.comparison, stage_comparison.vector
        validation, n_videos = _validate(stage_comparison)
        tests, derivatives = (
            stage_comparison.tests(),
            stage_comparison.derivatives(vector.unit, stage_comparison.labels[None]),
        )
        vector_rows.append(_vector_row(stage, stage_comparison, validation, n_videos, tests))
        for target, target_ids, gram, class_stats, test_result, class_derivatives, intervals, single_set, logits in zip(
            plan.clips.classes,
            target_videos,
            grams,
            stats_by_class,
            tests,
            derivatives,
            stage_comparison.intervals(derivatives),
            stage_comparison.single_sets(),
            class_scores,
        ):
            gradient_norms = gram.gradient_norms
            rows.append(
                _score_row(
                    target.name,
                    stage,
                    stage_comparison,
                    gradient_norms,
                    class_stats,
                    test_result,
                    validation,
                    class_derivatives,
                    intervals,
                    single_set,
                    n_videos,
                    len(np.unique(target_ids)),
                )
            )
            clip_names = [plan.clips.targets.names[row] for row in target.rows]
            derivative_rows += [
                DerivativeRow(
                    target.name, stage, comparison.concept, comparison.clip_type, comparison.negatives, *values
                )
                for values in zip(
                    clip_names,
                    map(float, logits),
                    map(float, class_derivatives[0, :, 0]),
                    map(float, gradient_norms[0]),
                )
            ]
    return StageResults(
        rows,
        _with_most_similar(vector_rows, comparisons, vectors, kernel),
        derivative_rows,
        calibration_p(grams, plan, derivative_fn),
    )


def restricted_comparison(
    comparison: Comparison,
    grams: Sequence[Gram],
    plan: Plan,
    vector: ConceptVectors | None = None,
    derivative_fn: DerivativeFn | None = None,
) -> StageComparison:
    """Restrict the products of each class to the examples of a comparison, and fit its vector if it is not given."""
    restriction = restrict_to_comparison(comparison, plan.clips.video_ids)
    restricted_grams = [restriction.restrict(gram, comparison) for gram in grams]
    kernel = restricted_grams[0].kernel
    if vector is None:
        vector = fit(kernel, restriction.comparison.label_vector(len(kernel))[None], plan.config.fit_config)
    return StageComparison(
        restriction.comparison,
        restricted_grams,
        vector,
        restriction.video_ids,
        plan.clips.target_videos,
        plan.config,
        expand_examples(derivative_fn, restriction.to_clips),
    )


def _validate(stage_comparison: StageComparison) -> tuple[VectorValidation, int]:
    """Validate the vector, each source video in one fold unless a side has only one; also return their number."""
    s, labels, video_ids = stage_comparison.config, stage_comparison.labels, stage_comparison.video_ids
    n_videos = min(len(np.unique(video_ids[sign * labels > 0])) for sign in (1, -1))
    validation = validate_vector(
        stage_comparison.grams[0].kernel,
        labels,
        replace(s.fit_config, tolerance=1e-3),
        permutations=max(AUC_PERMUTATIONS, math.ceil(2 / s.alpha) - 1),
        seed=[s.seed, stage_comparison.comparison.seed],
        blocks=stage_comparison.blocks,
        groups=video_ids if n_videos > 1 else None,
        strata=stage_comparison.strata,
    )
    return validation, n_videos


def _score_row(
    target: str,
    stage: str,
    stage_comparison: StageComparison,
    gradient_norms: np.ndarray,
    class_stats: GradientStats,
    test_result: TestResult,
    validation: VectorValidation,
    class_derivatives: np.ndarray,
    intervals: EffectIntervals,
    single_set: tuple[float, float, float],
    n_videos: int,
    n_target_videos: int,
) -> ScoreRow:
    comparison, s = stage_comparison.comparison, stage_comparison.config
    class_scores = scores_from_derivatives(class_derivatives, gradient_norms)

    single_set_min, single_set_max, p_sets = single_set
    tcav_score = float(class_scores.sign_count[0, 0])
    tcav_score_low, tcav_score_high = share_ci(tcav_score, n_target_videos)
    derivative_low, derivative_high = intervals.derivative["all"]
    mean_norm = float(gradient_norms.mean()) or math.nan
    in_sample_step = float(test_result.step_effect[0])
    step_effect = in_sample_step if math.isnan(intervals.step_effect) else intervals.step_effect
    null_low, null_high = _central_interval(
        test_result.null_step_effects * (step_effect / in_sample_step if in_sample_step else 1.0)
        if s.statistic == "step_effect"
        else test_result.null_derivatives
    )
    return ScoreRow(
        target=target,
        stage=stage,
        concept=comparison.concept,
        clip_type=comparison.clip_type,
        negatives=comparison.negatives,
        n_clips=class_scores.n_clips,
        tcav_score=tcav_score,
        tcav_score_low=tcav_score_low,
        tcav_score_high=tcav_score_high,
        derivative=float(class_scores.derivative[0, 0]),
        derivative_low=derivative_low,
        derivative_high=derivative_high,
        p=primary_p(test_result, s),
        p_adjusted=math.nan,
        verdict="",
        comparison=comparison.comparison_type,
        n_concept=len(comparison.positive_clips),
        n_negatives=len(comparison.negative_clips),
        n_videos=n_videos,
        n_target_videos=n_target_videos,
        unit=s.permute.removesuffix("s"),
        relative_derivative=float(class_scores.relative_derivative[0, 0]),
        relative_derivative_low=derivative_low / mean_norm,
        relative_derivative_high=derivative_high / mean_norm,
        step_effect=step_effect,
        step_effect_low=intervals.step_interval[0],
        step_effect_high=intervals.step_interval[1],
        step_effect_in_sample=in_sample_step,
        p_step=float(test_result.p_step_effect[0]),
        p_unit=float(test_result.p[0]),
        p_min_attainable=test_result.p_min_attainable,
        p_sign_count=float(test_result.p_sign_count[0]),
        p_sets=p_sets,
        n_random_sets=len(comparison.random_sets),
        single_set_min=single_set_min,
        single_set_max=single_set_max,
        derivative_low_concepts=intervals.derivative["concept"][0],
        derivative_high_concepts=intervals.derivative["concept"][1],
        derivative_low_negatives=intervals.derivative["negatives"][0],
        derivative_high_negatives=intervals.derivative["negatives"][1],
        derivative_low_clips=intervals.derivative["targets"][0],
        derivative_high_clips=intervals.derivative["targets"][1],
        auc=validation.auc,
        auc_p=validation.p,
        n_ties=int(class_scores.n_ties[0, 0]),
        gradient_diversity=float(class_stats.gradient_diversity[0]),
        degenerate=bool(class_stats.degenerate[0]),
        zero_gradient=bool(class_stats.zero_gradient[0]),
        score_fn=s.score_fn,
        sensitivity=s.sensitivity,
        null_low=null_low,
        null_high=null_high,
    )


def _central_interval(null_values: Float[np.ndarray, "b 1"]) -> tuple[float, float]:
    """Return the central 95 % of the statistic under permutation."""
    finite_values = null_values[~np.isnan(null_values)]
    return (
        (float(np.quantile(finite_values, 0.025)), float(np.quantile(finite_values, 0.975)))
        if len(finite_values)
        else (math.nan, math.nan)
    )


def _vector_row(
    stage: str,
    stage_comparison: StageComparison,
    validation: VectorValidation,
    n_videos: int,
    tests: Sequence[TestResult],
) -> VectorRow:
    comparison, vector, kernel = stage_comparison.comparison, stage_comparison.vector, stage_comparison.grams[0].kernel
    mean_difference = fit(kernel, stage_comparison.labels[None], FitConfig("mean_difference"))
    return VectorRow(
        stage=stage,
        comparison=comparison.comparison_type,
        concept=comparison.concept,
        clip_type=comparison.clip_type,
        negatives=comparison.negatives,
        n_concept=len(comparison.positive_clips),
        n_negatives=len(comparison.negative_clips),
        auc=validation.auc,
        auc_p=validation.p,
        auc_p_min_attainable=validation.p_min_attainable,
        folds=validation.n_folds,
        n_source_videos=n_videos,
        split_half=validation.split_half,
        split_half_low=validation.split_half_low,
        split_half_high=validation.split_half_high,
        most_similar="",
        most_similar_cosine=math.nan,
        mean_difference_cosine=float(cosines(kernel, vector, mean_difference)[0, 0]),
        estimator=vector.estimator,
        l2=float(vector.l2[0]),
        vector_norm=float(vector.norm[0]),
        intercept=float(vector.intercept[0]),
        iterations=int(vector.iterations[0]),
        solver_residual=float(vector.residual[0]),
        converged=bool(vector.converged[0]),
        n_permutations_not_converged=tests[0].n_not_converged,
    )


def _with_most_similar(
    rows: Sequence[VectorRow], comparisons: Sequence[Comparison], vectors: ConceptVectors, kernel: np.ndarray
) -> list[VectorRow]:
    cosine = np.nan_to_num(cosines(kernel, vectors))
    out = []
    for i, (row, comparison) in enumerate(zip(rows, comparisons)):
        others = [
            j
            for j, other in enumerate(comparisons)
            if other.comparison_type == comparison.comparison_type and other.concept != comparison.concept
        ]
        if others:
            j = max(others, key=lambda j: abs(cosine[i, j]))
            row = replace(row, most_similar=comparisons[j].name, most_similar_cosine=float(cosine[i, j]))
        out.append(row)
    return out
