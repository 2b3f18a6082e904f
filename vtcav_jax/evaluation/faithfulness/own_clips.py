"""Metrics that need no ground truth, for maps of the user's own clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution import attribute_many
from vtcav_jax.attribution.result import concatenate_attributions
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.evaluation.faithfulness.metrics import (
    COARSE_FRACTIONS,
    FAITHFULNESS_METRICS,
    MetricBudget,
    evaluate_maps,
)
from vtcav_jax.evaluation.faithfulness.reexplain import (
    RANDOM_LOGIT_METRIC,
    RANDOMISATION_METRIC,
    SENSITIVITY_METRIC,
    SPLICE_METRIC,
    reexplain_metrics,
)
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS
from vtcav_jax.runs.attribution_rows import MetricRow, OwnMetricRow
from vtcav_jax.tap import Model

OWN_CLIP_METRICS = tuple(
    name for name, metric in FAITHFULNESS_METRICS.items() if metric.group in ("curves", "time", "drop", "map", "sum")
)
# Own networks can cost a thousand times as much as those of the benchmark
OWN_CLIP_BUDGET = MetricBudget(fractions=COARSE_FRACTIONS, n_random_maps=2)


def own_clip_metrics(
    model: Model,
    clips: Float[np.ndarray, "b t h w c"],
    target_spec: TargetSpec,
    logits: Float[np.ndarray, "b k"],
    methods: Sequence[tuple[str, str | None]],
    options: Mapping[str, dict[str, Any]],
    *,
    batch_size: int = 4,
    seed: int = 0,
    budget: MetricBudget = OWN_CLIP_BUDGET,
) -> Iterator[list[OwnMetricRow]]:
    """Yield the metrics that remove parts of clips, then those that recompute maps; `logits` are those of `clips`."""
    target = target_spec.target(logits)
    parts = [
        attribute_many(
            model, clips[i : i + batch_size], target_spec.target(logits[i : i + batch_size]), methods, options
        )
        for i in range(0, len(clips), batch_size)
    ]
    attributions = {
        f"{batches[0].method}@{batches[0].stage}": concatenate_attributions(batches)
        for batches in zip(*parts, strict=True)
    }
    # Targets without a probability, such as a concept, allow only metrics of the score
    classes = target_spec.custom is None
    metric_names = [name for name in OWN_CLIP_METRICS if classes or not FAITHFULNESS_METRICS[name].needs_probability]
    removal_rows = evaluate_maps(
        model, clips, target, attributions, metrics=metric_names, seed=seed, batch_size=2 * batch_size, budget=budget
    )
    yield [OwnMetricRow(**asdict(row), target=target_spec.name) for row in removal_rows]
    pairs = pair_by_class(target.classes) if isinstance(target, Margin) else np.zeros((0, 2), int)
    reexplained_rows = reexplain_metrics(
        model,
        clips,
        lambda rows: target_spec.target(logits[rows]),
        pairs,
        methods,
        options,
        batch_size=batch_size,
        seed=seed,
    )
    yield [OwnMetricRow(**asdict(row), target=target_spec.name) for row in reexplained_rows]


def pair_by_class(classes: Int[np.ndarray, " b"]) -> Int[np.ndarray, "pairs 2"]:
    """Pair clips of different classes, each clip at most once, from the two classes with the most unpaired clips."""
    left = {c: np.flatnonzero(classes == c).tolist() for c in np.unique(classes).tolist()}
    pairs = []
    while len(largest := sorted((rows for rows in left.values() if rows), key=len)[-2:]) == 2:
        pairs.append((largest[0].pop(0), largest[1].pop(0)))
    return np.array(sorted(pairs), int).reshape(-1, 2)


DISPLAYED_METRICS = (  # metrics that rank maps as the ground truth does, and one over time
    *("relevance_gain", "comprehensiveness", "sufficiency", "insertion_less_deletion", "time_relevance_gain"),
    SPLICE_METRIC,
)
MIN_VERDICT_CLIPS = 6  # minimum number of clips, or of pairs of clips, for a verdict
REEXPLAIN_METRICS = (SENSITIVITY_METRIC, RANDOM_LOGIT_METRIC, RANDOMISATION_METRIC)  # compare recomputed maps
BEAT_TRIVIAL_METRICS = ("relevance_gain", "time_relevance_gain", SPLICE_METRIC)


def metric_title(row: MetricRow) -> str:
    return row.metric.replace("_", " ") + (f" ({row.infill})" if row.infill else "")


def displayed_titles(rows: Sequence[MetricRow], metrics: Sequence[str] = DISPLAYED_METRICS) -> list[str]:
    """Return the titles of `metrics`, one per infill."""
    return list(dict.fromkeys(metric_title(row) for name in metrics for row in rows if row.metric == name))


def compare_with_trivial(rows: Sequence[MetricRow]) -> list[tuple[str, str]]:
    """Return a verdict for each map: on which metrics its interval is above those of all trivial maps."""
    out = []
    for name in dict.fromkeys(row.map for row in rows if row.map not in TRIVIAL_MAPS):
        if any(row.n_clips < MIN_VERDICT_CLIPS for row in rows if row.metric in BEAT_TRIVIAL_METRICS):
            out.append(
                (name, f"has too few clips for a verdict; at least {MIN_VERDICT_CLIPS} clips and pairs are needed")
            )
            continue
        won, lost = [], []
        for method_row in (
            row for metric in BEAT_TRIVIAL_METRICS for row in rows if (row.map, row.metric) == (name, metric)
        ):
            column = metric_title(method_row)
            trivial_rows = [row for row in rows if row.map in TRIVIAL_MAPS and metric_title(row) == column]
            (won if all(method_row.low > row.high for row in trivial_rows) else lost).append(column)
        if not won:
            out.append((name, "is not clearly better than every trivial map on any metric"))
            continue
        exceptions = f", but not on {', '.join(lost)}" if lost else ""
        out.append((name, f"is clearly better than every trivial map on {', '.join(won)}{exceptions}"))
    return out
