"""Every metric that needs no label, of many maps at once, with the maps that ask no network beside them.

None of these numbers means anything alone: what counts is how far a map is from the rows of `MODEL_FREE`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import ArrayLike

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.evaluation.faithfulness import additivity, insertion_deletion, partition, robustness, single_removal
from vtcav_jax.evaluation.faithfulness import infill as filling
from vtcav_jax.evaluation.faithfulness.insertion_deletion import Each
from vtcav_jax.evaluation.faithfulness.masked_inference import AT_ONCE, Shown, showing
from vtcav_jax.evaluation.trivial_maps import MODEL_FREE, RANDOMS, baseline_maps
from vtcav_jax.names import unknown
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.tap import Model

FURTHER = re.compile(r"random_\d+")  # random maps but the first
FILLS, TIME_FILLS = ("blur", "mean"), ("hold", "blur")
FEW = (0.0, 0.02, 0.35, 0.65, 0.98, 1.0)  # points of curves, beside the levels that all have: less than half the passes


@dataclass(frozen=True)
class Metric:
    """`better` is 1 if high is good, -1 if low is, 0 if it says nothing of good and bad. `group` shares its passes."""

    better: int
    group: str
    by_probability: bool = False


METRICS: dict[str, Metric] = {
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
class MetricRow:
    """A metric of a map over clips, and its bootstrap interval; `clips` are those where it can be told.

    `forwards` are the passes of each clip that this number takes if it is asked for alone, with the two of the whole
    clip and of nothing; in one call rows share what they can. The row of random maps is the mean of several.
    """

    map: str
    metric: str
    fill: str  # empty where nothing is filled
    better: int
    mean: float
    low: float
    high: float
    clips: int
    forwards: int


@dataclass(frozen=True)
class Effort:
    """How much is drawn and how finely curves are measured: less for large networks."""

    fractions: tuple[float, ...] = insertion_deletion.FRACTIONS
    mu_subsets: int = additivity.MU_SUBSETS
    n_subsets: int = additivity.N_SUBSETS
    n_sizes: int = additivity.N_SIZES
    draws: int = additivity.DRAWS
    randoms: int = RANDOMS


def measure(
    model: Model,
    clips: ArrayLike,
    target: Target,
    maps: partition.Maps,
    *,
    fills: Collection[str] = FILLS,
    time_fills: Collection[str] = TIME_FILLS,
    metrics: Collection[str] | None = None,
    cut: partition.Cells | None = None,
    seed: int = 0,
    at_once: int = AT_ONCE,
    effort: Effort = Effort(),  # noqa: B008 (frozen)
) -> list[MetricRow]:
    """One row for each map, model-free ones as well, each of `metrics` (by default all) and each fill.

    `cut` are the cells, tokens unless given: `cells.coarsest` asks no map for more than the coarsest says. What is
    about time alone takes whole frames.
    """
    given, video = partition.named(maps), np.asarray(clips)
    _check(given, metrics, fills, time_fills)
    wanted = set(METRICS if metrics is None else metrics)
    everything = given | baseline_maps(video, seed, randoms=effort.randoms)
    t, h, w = video.shape[1:4]
    cut = partition.tokens((t, h, w)) if cut is None else cut
    pooled = dict(zip(everything, partition.on_cells(everything, cut, len(video))))
    by_frame = dict(zip(everything, partition.on_frames(everything, pooled, cut, len(video))))
    groups = {METRICS[name].group for name in wanted}
    rows = _of_maps(pooled, cut) if "map" in groups else []
    rows += _of_sums(given) if "sum" in groups else []
    by_fill: dict[str, list[str]] = {}
    for fill in fills if groups & {"curves", "drop", "mu", "n", "infidelity"} else ():
        by_fill.setdefault(fill, []).append("cells")
    for fill in time_fills if "time" in groups else ():
        by_fill.setdefault(fill, []).append("frames")
    for fill, kinds in by_fill.items():
        shown = showing(model, clips, target, fill_with=fill, cells=cut, seed=seed, at_once=at_once)
        _check_probability(shown, wanted)
        for group, measured in _GROUPS.items():
            if group in groups and ("frames" if group == "time" else "cells") in kinds:
                values, each = measured(shown, by_frame if group == "time" else pooled, effort)
                rows += _rows(tuple(everything), values, fill, ENDS, each)
    return [row for row in rows if row.metric in wanted]


Values = dict[str, Each]


def _by_curves(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    found = insertion_deletion.curves(shown, maps, fractions=effort.fractions)
    values = {
        "relevance_gain": found.relevance_gain,
        "insertion": found.insertion,
        "deletion": found.deletion,
        "insertion_less_deletion": found.insertion_less_deletion,
        "insertion_of_rise": found.insertion_of_rise,
        "aopc": found.aopc,
        "minimal_shown": found.minimal_shown(),
        "minimal_removed": found.minimal_removed(),
        "comprehensiveness": single_removal.comprehensiveness(found),
        "sufficiency": single_removal.sufficiency(found),
    }
    return values, found.cost


def _over_time(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    found = insertion_deletion.curves(
        replace(shown, cells=partition.frames(shown.cells.sizes)), maps, fractions=effort.fractions
    )
    values = {
        "time_relevance_gain": found.relevance_gain,
        "time_insertion": found.insertion,
        "time_deletion": found.deletion,
    }
    return values, found.cost


def _by_drop(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    found = single_removal.average_drop(shown, maps)
    values = {"average_drop": found.drop, "increase": found.increase, "average_gain": found.gain}
    return values | {"complexity": found.complexity}, single_removal.DROP_COST


def _by_mu(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    return {"mu_fidelity": additivity.mu_fidelity(shown, maps, subsets=effort.mu_subsets)}, effort.mu_subsets


def _by_n(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    found = additivity.sensitivity_n(shown, maps, subsets=effort.n_subsets, sizes=effort.n_sizes)
    return {"sensitivity_n": found.mean}, effort.n_subsets * len(found.sizes)


def _by_infidelity(shown: Shown, maps: partition.Maps, effort: Effort) -> tuple[Values, int]:
    return {"infidelity_explained": additivity.infidelity(shown, maps, draws=effort.draws).explained}, effort.draws


_GROUPS: dict[str, Callable[[Shown, partition.Maps, Effort], tuple[Values, int]]] = {
    "curves": _by_curves,
    "time": _over_time,
    "drop": _by_drop,
    "mu": _by_mu,
    "n": _by_n,
    "infidelity": _by_infidelity,
}
SHARED = ("mu", "n", "infidelity")  # what is removed is the same for all maps
ENDS = 2  # passes of each clip as it is and without anything: once for each fill


def _of_maps(pooled: Mapping[str, np.ndarray], cut: partition.Cells) -> list[MetricRow]:
    t, h, w = cut.counts or (cut.count, 1, 1)
    grids = [values.reshape(-1, t, h, w) for values in pooled.values()]
    functions = (robustness.gini, robustness.entropy, robustness.effective_complexity)
    return _rows(tuple(pooled), {f.__name__: np.stack([f(one) for one in grids]) for f in functions}, "", 0, 0)


def _of_sums(given: Mapping[str, ArrayLike | Attribution]) -> list[MetricRow]:
    """Of maps that owe one: no model-free map does."""
    owing = {
        name: one for name, one in given.items() if isinstance(one, Attribution) and one.completeness_gap is not None
    }
    values = [additivity.completeness(one) for one in owing.values()]
    return _rows(tuple(owing), {"completeness": np.stack(values)}, "", 0, 0) if owing else []


def _rows(names: tuple[str, ...], values: Values, fill: str, ends: int, each: int) -> list[MetricRow]:
    """Random maps are one row: of each clip the mean over them."""
    further = [i for i, name in enumerate(names) if FURTHER.fullmatch(name)]
    rows = []
    for metric, found in values.items():
        for i in (i for i in range(len(names)) if i not in further):
            several = [i, *further] if names[i] == MODEL_FREE[0] else [i]
            one = found[several].mean(0)
            clips, passes = (
                int(np.isfinite(one).sum()),
                ends + each * (1 if METRICS[metric].group in SHARED else len(several)),
            )
            interval = mean_ci(one.astype(np.float64))
            rows.append(MetricRow(names[i], metric, fill, METRICS[metric].better, *interval, clips, passes))
    return rows


def _check(
    given: Mapping[str, object], metrics: Collection[str] | None, fills: Collection[str], time_fills: Collection[str]
) -> None:
    faults = []
    if strange := sorted(set(metrics or ()) - set(METRICS)):
        faults.append(unknown("metric", strange, METRICS))
    if strange := sorted({*fills, *time_fills} - set(filling.FILLS)):
        faults.append(unknown("fill", strange, filling.FILLS))
    if taken := sorted(name for name in given if name in MODEL_FREE or FURTHER.fullmatch(name)):
        faults.append(f"{', '.join(taken)} are names of the maps that every metric is told for; call yours otherwise")
    if faults:
        raise ValueError("; ".join(faults))


def _check_probability(shown: Shown, wanted: Collection[str]) -> None:
    if np.isnan(shown.whole.probability).all():
        if lacking := sorted(name for name in wanted if METRICS[name].by_probability):
            others = ", ".join(name for name, metric in METRICS.items() if not metric.by_probability)
            raise ValueError(
                f"this target has no probability, which {', '.join(lacking)} take; give metrics among {others}"
            )
