"""Rows of the tables of scores: each metric of each method and stage, with an interval over clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float

from vtcav_jax.evaluation.world_benchmark import world_metrics
from vtcav_jax.evaluation.world_benchmark.readings import MIN_CLIPS_TO_SELECT
from vtcav_jax.evaluation.world_benchmark.world_metrics import Parts
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    WORLD_METRICS,
    MethodScoreRow,
)
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES

MIN_DEFINED_SHARE = 0.1  # of the clips


@dataclass(frozen=True, eq=False)
class MethodResult:
    """Metrics of one entry and question, per clip."""

    method: str
    stage: str
    question: str
    forward_passes: int
    seconds: float
    metrics: dict[str, Parts]


def result_rows(results: Sequence[MethodResult], network_name: str, seed: int = 0) -> list[MethodScoreRow]:
    """Return rows of each metric, of TRUTH (their mean) per question and over all questions, and of CHOSEN.

    CHOSEN applies to methods with several stages.
    """
    results = [replace(result, metrics=defined_metrics(result.metrics)) for result in results]
    out, overall = [], {}
    for (method, stage), method_results in group_by_method_and_stage(results).items():
        row = partial(_row, (method, stage, network_name), _entry_cost(method_results))
        mean_scores = []
        for result in method_results:
            values = {metric: bootstrap_skill(parts, seed) for metric, parts in result.metrics.items()}
            n = {metric: int((~np.isnan(parts[0, 0])).sum()) for metric, parts in result.metrics.items()}
            out += [row(result.question, metric, drawn, n[metric]) for metric, drawn in values.items()]
            if "WHERE" in values:
                mean_scores.append(np.mean([values[metric] for metric in WORLD_METRICS if metric in values], 0))
                out.append(row(result.question, MEAN_SCORE, mean_scores[-1], n["WHERE"]))
        if len(mean_scores) == len(method_results):
            overall[method, stage] = np.mean(mean_scores, 0)[0]
        if len(mean_scores) > 1:
            n_clips = max(parts.shape[-1] for m in method_results for parts in m.metrics.values())
            out.append(row(ALL_QUESTIONS, MEAN_SCORE, np.mean(mean_scores, 0), n_clips))
    return [*out, *cross_validated_stage(results, overall, network_name, seed)]


def cross_validated_stage(
    results: Sequence[MethodResult], overall: Mapping[tuple[str, str], float], network_name: str, seed: int
) -> list[MethodScoreRow]:
    """Return CHOSEN: TRUTH on half of the clips, at the stage that is best on the other half, and vice versa.

    Without this split TRUTH of the best stage is biased upwards. Each bootstrap draw selects again. `overall` is TRUTH
    on all clips.
    """
    methods: dict[str, dict[str, list[MethodResult]]] = {}
    for (method, stage), method_results in group_by_method_and_stage(results).items():
        if (method, stage) in overall:
            methods.setdefault(method, {})[stage] = method_results
    out = []
    for method, stages in methods.items():
        n_clips = min(r.metrics["WHERE"].shape[-1] for method_results in stages.values() for r in method_results)
        if len(stages) > 1 and n_clips >= MIN_CLIPS_TO_SELECT:
            halves = [
                np.stack(
                    [_mean_score(method_results, slice(half, None, 2), seed) for method_results in stages.values()]
                )
                for half in (0, 1)
            ]
            first_choice, second_choice = (np.where(np.isnan(half), -np.inf, half).argmax(0)[None] for half in halves)
            cross_scores = (
                np.take_along_axis(halves[1], first_choice, 0),
                np.take_along_axis(halves[0], second_choice, 0),
            )
            best = max(stages, key=lambda stage: overall[method, stage])
            row_key = method, best, network_name
            out.append(
                _row(
                    row_key,
                    _entry_cost(stages[best]),
                    ALL_QUESTIONS,
                    CROSS_VALIDATED_SCORE,
                    np.mean(cross_scores, (0, 1)),
                    n_clips,
                )
            )
    return out


def defined_metrics(metrics: Mapping[str, Parts]) -> dict[str, Parts]:
    """Return the metrics without parts that are defined for hardly any clip."""
    out = {}
    for name, parts in metrics.items():
        is_defined = (~np.isnan(parts[:, 0])).mean(-1) >= MIN_DEFINED_SHARE
        if is_defined.any():
            out[name] = parts[is_defined]
    return out


def _entry_cost(results: Sequence[MethodResult]) -> tuple[int, float]:
    return max(m.forward_passes for m in results), float(np.median([m.seconds for m in results]))


def _mean_score(results: Sequence[MethodResult], clips: slice, seed: int) -> Float[np.ndarray, " draws"]:
    """Return the mean score over all questions on `clips`."""
    result_draws = (
        [bootstrap_skill(r.metrics[metric][..., clips], seed) for metric in WORLD_METRICS if metric in r.metrics]
        for r in results
    )
    return np.mean([np.mean(draws, 0) for draws in result_draws], 0)


def _row(
    row_key: tuple[str, str, str],
    cost: tuple[int, float],
    question: str,
    metric: str,
    samples: Float[np.ndarray, " draws"],
    n_clips: int,
) -> MethodScoreRow:
    return MethodScoreRow(*row_key, question, metric, *bootstrap_interval(samples), n_clips, *cost)


def group_by_method_and_stage(results: Sequence[MethodResult]) -> dict[tuple[str, str], list[MethodResult]]:
    out: dict[tuple[str, str], list[MethodResult]] = {}
    for result in results:
        out.setdefault((result.method, result.stage), []).append(result)
    return out


def bootstrap_skill(parts: Parts, seed: int) -> Float[np.ndarray, " draws"]:
    """Return the mean skill over all clips, then over bootstrap samples, which are the same for all metrics."""
    weights = bootstrap_weights(parts.shape[-1], seed)
    known = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        means = (np.where(known, parts, 0.0) @ weights.T) / (known.astype(np.float64) @ weights.T)
    skills = world_metrics.chance_corrected(means[:, 0], means[:, 1])
    defined = ~np.isnan(means[:, 0])  # a part that few clips have can be missing in a bootstrap sample
    with np.errstate(invalid="ignore"):
        return np.where(defined, skills, 0.0).sum(0) / defined.sum(0)


@lru_cache(maxsize=4)
def bootstrap_weights(n: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """Return weights of the clips: all 1, then the counts of each bootstrap sample."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), BOOTSTRAP_RESAMPLES)
    return np.concatenate([np.ones((1, n)), counts])


def bootstrap_interval(samples: Float[np.ndarray, " draws"]) -> tuple[float, float, float]:
    low, high = np.nanquantile(samples[1:], (0.025, 0.975))
    return float(samples[0]), float(low), float(high)
