"""Metrics that need no ground truth, for several maps at once, together with those of the trivial maps.

The values mean nothing by themselves; compare them with the rows of `TRIVIAL_MAPS`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import ArrayLike

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.evaluation.faithfulness import additivity, insertion_deletion, robustness, single_removal
from vtcav_jax.evaluation.faithfulness import infill as filling
from vtcav_jax.evaluation.faithfulness import partition as cells
from vtcav_jax.evaluation.faithfulness.insertion_deletion import PerMapAndClip
from vtcav_jax.evaluation.faithfulness.masked_inference import MASKED_BATCH_SIZE, MaskedClips, prepare_masking
from vtcav_jax.evaluation.trivial_maps import N_RANDOM_MAPS, TRIVIAL_MAPS, trivial_maps
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.attribution_rows import MetricRow
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.tap import Model

EXTRA_RANDOM_MAP = re.compile(r"random_\d+")  # random maps after the first
DEFAULT_INFILLS, DEFAULT_TIME_INFILLS = ("blur", "mean"), ("hold", "blur")
# Points of curves in addition to REMOVAL_LEVELS: fewer than half the passes of CURVE_FRACTIONS
COARSE_FRACTIONS = (0.0, 0.02, 0.35, 0.65, 0.98, 1.0)


@dataclass(frozen=True)
class Metric:
    """A metric: `direction` is 1 if high is good, -1 if low is, 0 if neither; metrics of one `group` share passes."""

    direction: int
    group: str
    needs_probability: bool = False


FAITHFULNESS_METRICS: dict[str, Metric] = {
    "relevance_gain": Metric(1, "curves"),
    "insertion": Metric(1, "curves", True),
    "deletion": Metric(-1, "curves", True),
    "insertion_less_deletion": Metric(1, "curves", True),
    "insertion_of_rise": Metric(1, "curves", True),
    "aopc": Metric(1, "curves"),
    "minimal_shown": Metric(-1, "curves", True),
    "minimal_removed": Metric(-1, "curves", True),
    "comprehensiveness": Metric(1, "curves", True),
    "sufficiency": Metric(-1, "curves", True),
    "time_relevance_gain": Metric(1, "time"),
    "time_insertion": Metric(1, "time", True),
    "time_deletion": Metric(-1, "time", True),
    "average_drop": Metric(-1, "drop", True),
    "increase": Metric(1, "drop", True),
    "average_gain": Metric(1, "drop", True),
    "complexity": Metric(0, "drop"),
    "mu_fidelity": Metric(1, "mu"),
    "sensitivity_n": Metric(1, "n"),
    "infidelity_explained": Metric(1, "infidelity"),
    "gini": Metric(0, "map"),
    "entropy": Metric(0, "map"),
    "effective_complexity": Metric(0, "map"),
    "completeness": Metric(-1, "sum"),
}


@dataclass(frozen=True)
class MetricBudget:
    """Numbers of random draws and of points of curves; reduce them for large networks."""

    fractions: tuple[float, ...] = insertion_deletion.CURVE_FRACTIONS
    mu_subsets: int = additivity.MU_SUBSETS
    n_subsets: int = additivity.N_SUBSETS
    n_sizes: int = additivity.N_SIZES
    infidelity_draws: int = additivity.INFIDELITY_DRAWS
    n_random_maps: int = N_RANDOM_MAPS


def evaluate_maps(
    model: Model,
    clips: ArrayLike,
    target: Target,
    maps: cells.NamedMaps,
    *,
    infills: Collection[str] = DEFAULT_INFILLS,
    time_infills: Collection[str] = DEFAULT_TIME_INFILLS,
    metrics: Collection[str] | None = None,
    partition: cells.Partition | None = None,
    seed: int = 0,
    batch_size: int = MASKED_BATCH_SIZE,
    budget: MetricBudget = MetricBudget(),
) -> list[MetricRow]:
    """Compute `metrics` (default: all) of `maps` and of the trivial maps: one row per map, metric and infill.

    `partition` defaults to tokens; `partition_for_maps` adapts it to coarse maps. Metrics over time use whole frames.
    """
    input_maps, video = cells.name_maps(maps), np.asarray(clips)
    _check(input_maps, metrics, infills, time_infills)
    metric_names = set(FAITHFULNESS_METRICS if metrics is None else metrics)
    all_maps = input_maps | trivial_maps(video, seed, n_random=budget.n_random_maps)
    t, h, w = video.shape[1:4]
    partition = cells.token_partition((t, h, w)) if partition is None else partition
    cell_values = dict(zip(all_maps, cells.pool_to_cells(all_maps, partition, len(video))))
    frame_values = dict(zip(all_maps, cells.pool_to_frames(all_maps, cell_values, partition, len(video))))
    groups = {FAITHFULNESS_METRICS[name].group for name in metric_names}
    rows = _map_shape_rows(cell_values, partition) if "map" in groups else []
    rows += _completeness_rows(input_maps) if "sum" in groups else []
    units_by_infill: dict[str, list[str]] = {}
    for infill in infills if groups & {"curves", "drop", "mu", "n", "infidelity"} else ():
        units_by_infill.setdefault(infill, []).append("cells")
    for infill in time_infills if "time" in groups else ():
        units_by_infill.setdefault(infill, []).append("frames")
    for infill, units in units_by_infill.items():
        masked = prepare_masking(
            model, clips, target, infill=infill, partition=partition, seed=seed, batch_size=batch_size
        )
        _check_probability(masked, metric_names)
        for group, evaluate_group in _GROUPS.items():
            if group in groups and ("frames" if group == "time" else "cells") in units:
                values, passes_per_map = evaluate_group(
                    masked, frame_values if group == "time" else cell_values, budget
                )
                rows += _rows(tuple(all_maps), values, infill, REFERENCE_PASSES, passes_per_map)
    return [row for row in rows if row.metric in metric_names]


MetricValues = dict[str, PerMapAndClip]


def _by_curves(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    result = insertion_deletion.measure_curves(masked, maps, fractions=budget.fractions)
    values = {
        "relevance_gain": result.relevance_gain,
        "insertion": result.insertion,
        "deletion": result.deletion,
        "insertion_less_deletion": result.insertion_less_deletion,
        "insertion_of_rise": result.insertion_of_rise,
        "aopc": result.aopc,
        "minimal_shown": result.minimal_shown(),
        "minimal_removed": result.minimal_removed(),
        "comprehensiveness": single_removal.comprehensiveness(result),
        "sufficiency": single_removal.sufficiency(result),
    }
    return values, result.cost


def _over_time(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    result = insertion_deletion.measure_curves(
        replace(masked, partition=cells.frame_partition(masked.partition.clip_shape)), maps, fractions=budget.fractions
    )
    values = {
        "time_relevance_gain": result.relevance_gain,
        "time_insertion": result.insertion,
        "time_deletion": result.deletion,
    }
    return values, result.cost


def _by_drop(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    result = single_removal.average_drop(masked, maps)
    values = {"average_drop": result.drop, "increase": result.increase, "average_gain": result.gain}
    return values | {"complexity": result.complexity}, single_removal.DROP_COST


def _by_mu(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    return {"mu_fidelity": additivity.mu_fidelity(masked, maps, subsets=budget.mu_subsets)}, budget.mu_subsets


def _by_n(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    result = additivity.sensitivity_n(masked, maps, subsets=budget.n_subsets, sizes=budget.n_sizes)
    return {"sensitivity_n": result.mean}, budget.n_subsets * len(result.sizes)


def _by_infidelity(masked: MaskedClips, maps: cells.NamedMaps, budget: MetricBudget) -> tuple[MetricValues, int]:
    return {
        "infidelity_explained": additivity.infidelity(masked, maps, draws=budget.infidelity_draws).explained_share
    }, budget.infidelity_draws


_GROUPS: dict[str, Callable[[MaskedClips, cells.NamedMaps, MetricBudget], tuple[MetricValues, int]]] = {
    "curves": _by_curves,
    "time": _over_time,
    "drop": _by_drop,
    "mu": _by_mu,
    "n": _by_n,
    "infidelity": _by_infidelity,
}
SHARED_PASS_GROUPS = ("mu", "n", "infidelity")  # removals do not depend on the map
REFERENCE_PASSES = 2  # per infill: the whole clip and its background


def _map_shape_rows(cell_values: Mapping[str, np.ndarray], partition: cells.Partition) -> list[MetricRow]:
    t, h, w = partition.grid_shape or (partition.n_cells, 1, 1)
    grids = [values.reshape(-1, t, h, w) for values in cell_values.values()]
    functions = (robustness.gini, robustness.entropy, robustness.effective_complexity)
    return _rows(tuple(cell_values), {f.__name__: np.stack([f(grid) for grid in grids]) for f in functions}, "", 0, 0)


def _completeness_rows(input_maps: Mapping[str, ArrayLike | Attribution]) -> list[MetricRow]:
    """Return completeness of the maps that should sum to a known value; no trivial map does."""
    complete_maps = {
        name: attribution
        for name, attribution in input_maps.items()
        if isinstance(attribution, Attribution) and attribution.completeness_gap is not None
    }
    values = [additivity.completeness(attribution) for attribution in complete_maps.values()]
    return _rows(tuple(complete_maps), {"completeness": np.stack(values)}, "", 0, 0) if complete_maps else []


def _rows(
    names: tuple[str, ...], values: MetricValues, infill: str, reference_passes: int, passes_per_map: int
) -> list[MetricRow]:
    """Return one row per map and metric; random maps are averaged per clip into one row."""
    extra_random = [i for i, name in enumerate(names) if EXTRA_RANDOM_MAP.fullmatch(name)]
    rows = []
    for metric, map_values in values.items():
        for i in (i for i in range(len(names)) if i not in extra_random):
            map_indices = [i, *extra_random] if names[i] == TRIVIAL_MAPS[0] else [i]
            clip_values = map_values[map_indices].mean(0)
            n_clips, passes = (
                int(np.isfinite(clip_values).sum()),
                reference_passes
                + passes_per_map
                * (1 if FAITHFULNESS_METRICS[metric].group in SHARED_PASS_GROUPS else len(map_indices)),
            )
            interval = mean_ci(clip_values.astype(np.float64))
            rows.append(
                MetricRow(names[i], metric, infill, FAITHFULNESS_METRICS[metric].direction, *interval, n_clips, passes)
            )
    return rows


def _check(
    input_maps: Mapping[str, object],
    metrics: Collection[str] | None,
    infills: Collection[str],
    time_infills: Collection[str],
) -> None:
    faults = []
    if unknown_names := sorted(set(metrics or ()) - set(FAITHFULNESS_METRICS)):
        faults.append(unknown_name_message("metric", unknown_names, FAITHFULNESS_METRICS))
    if unknown_names := sorted({*infills, *time_infills} - set(filling.INFILLS)):
        faults.append(unknown_name_message("infill", unknown_names, filling.INFILLS))
    if reserved_names := sorted(
        name for name in input_maps if name in TRIVIAL_MAPS or EXTRA_RANDOM_MAP.fullmatch(name)
    ):
        faults.append(f"{', '.join(reserved_names)} are reserved names of trivial maps; rename yours")
    if faults:
        raise ValueError("; ".join(faults))


def _check_probability(masked: MaskedClips, metric_names: Collection[str]) -> None:
    affected = sorted(name for name in metric_names if FAITHFULNESS_METRICS[name].needs_probability)
    if affected and np.isnan(masked.full_scores.probability).all():
        others = ", ".join(name for name, metric in FAITHFULNESS_METRICS.items() if not metric.needs_probability)
        raise ValueError(
            f"{', '.join(affected)} need a probability, which this target does not have; choose metrics among {others}"
        )
