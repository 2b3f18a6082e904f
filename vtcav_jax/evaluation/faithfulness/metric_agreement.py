"""Agreement of metrics that need no ground truth with the ground-truth score, in how they rank maps."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.sanity_checks import spearman
from vtcav_jax.evaluation.faithfulness import metrics as faithfulness_metrics
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS
from vtcav_jax.evaluation.world_benchmark.entries import Entry, make_maps, reference_data
from vtcav_jax.evaluation.world_benchmark.eval_set import EVAL_BATCH_SIZE, EvalSet
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult, result_rows
from vtcav_jax.evaluation.world_benchmark.scoring import group_entries
from vtcav_jax.runs.evaluation_rows import MEAN_SCORE, REFERENCE_MAPS, MetricAgreementRow
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES

AGREEMENT_CLIPS = 10
AGREEMENT_BUDGET = faithfulness_metrics.MetricBudget(fractions=faithfulness_metrics.COARSE_FRACTIONS, n_random_maps=2)
AGREEMENT_QUESTIONS = ("W2", "W3")  # a moving cause, and one visible on two frames
AGREEMENT_INFILLS = ("blur", "mean")


def metric_agreement(
    eval_set: EvalSet, network_name: str, entries: Sequence[Entry], results: Sequence[MethodResult]
) -> list[MetricAgreementRow]:
    """Correlate each metric over maps of `entries` with their scores in `results`, on the same network and clips."""
    mean_scores = {
        (r.question, r.method, r.stage): r for r in result_rows(results, network_name) if r.metric == MEAN_SCORE
    }
    # Maps are computed in batches of the size that is already compiled, and measured on fewer clips
    extra_options, batch, subset = (
        reference_data(eval_set.network, eval_set.video),
        slice(0, EVAL_BATCH_SIZE),
        slice(0, min(AGREEMENT_CLIPS, len(eval_set))),
    )
    out = []
    for question in (q for q in AGREEMENT_QUESTIONS if q in eval_set.question_ids):
        batch_target, target = (eval_set.target(EVAL_QUESTIONS[question].head, rows) for rows in (batch, subset))
        attributions, score_by_map = {}, {}
        for group in group_entries(e for e in entries if e.method not in TRIVIAL_MAPS).values():
            for entry, attribution in zip(
                group,
                make_maps(eval_set.padded_network, group, eval_set.video[batch], [batch_target], extra_options)[0],
            ):
                attribution = attribution[subset]
                row = mean_scores.get((question, entry.method, attribution.stage))
                is_duplicate = any(
                    of.map.shape == attribution.map.shape and np.allclose(of.map, attribution.map)
                    for of in attributions.values()
                )
                if row is not None and not is_duplicate:  # count maps of two equivalent methods once
                    attributions[f"{entry.method}@{attribution.stage}"] = attribution
                    score_by_map[f"{entry.method}@{attribution.stage}"] = row.value
        score_by_map |= {
            name: row.value for (q, name, _), row in mean_scores.items() if q == question and name in TRIVIAL_MAPS
        }
        metric_rows = faithfulness_metrics.evaluate_maps(
            eval_set.padded_network.model,
            eval_set.video[subset],
            target,
            attributions,
            infills=AGREEMENT_INFILLS,
            budget=AGREEMENT_BUDGET,
        )
        metric_infills = dict.fromkeys((row.metric, row.infill) for row in metric_rows if row.higher_is_better)
        for metric, infill in metric_infills:
            pairs = [
                (row.higher_is_better * row.mean, score_by_map[row.map])
                for row in metric_rows
                if (row.metric, row.infill) == (metric, infill) and row.map in score_by_map and np.isfinite(row.mean)
            ]
            is_constant = len({value for value, _ in pairs}) == 1
            if len(pairs) >= MIN_AGREEMENT_MAPS and not is_constant:
                out.append(
                    MetricAgreementRow(
                        network_name, question, metric, infill, *spearman_with_interval(np.array(pairs)), len(pairs)
                    )
                )
    return out


MIN_AGREEMENT_MAPS = 8  # minimum number of maps for a correlation


def spearman_with_interval(pairs: Float[np.ndarray, "maps 2"], seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's correlation and its 95 % bootstrap interval over maps."""
    indices = np.random.default_rng(seed).integers(len(pairs), size=(BOOTSTRAP_RESAMPLES // 4, len(pairs)))
    values = np.concatenate([pairs[None], pairs[indices]])
    metric_values, reference_values = (np.ascontiguousarray(values[..., i])[:, :, None, None] for i in (0, 1))
    correlations = spearman(metric_values, reference_values)
    low, high = np.nanquantile(correlations[1:], (0.025, 0.975))
    return float(correlations[0]), float(low), float(high)


def cheap_entries(entries: Sequence[Entry], results: Sequence[MethodResult], max_cost: int = 30) -> list[Entry]:
    """Return the entries whose maps cost at most `max_cost` forward passes."""
    cost = {result.method: result.forward_passes for result in results}
    candidates = [e for e in entries if e.function is None and e.method not in REFERENCE_MAPS]
    return [e for e in candidates if cost.get(e.method, max_cost + 1) <= max_cost]
