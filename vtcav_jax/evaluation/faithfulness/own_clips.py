"""Metrics that need no truth, of maps of one's own clips: what `label_free` and `remade` tell, question by question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution import explain_many
from vtcav_jax.attribution.result import concatenate_attributions
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.evaluation.faithfulness.metrics import FEW, METRICS, Effort, MetricRow, measure
from vtcav_jax.evaluation.faithfulness.reexplain import LOGIT, SENSITIVITY, SPLICE, WEIGHTS, remade
from vtcav_jax.evaluation.trivial_maps import MODEL_FREE
from vtcav_jax.tap import Model

FILE = "map_metrics.csv"
WANTED = tuple(name for name, one in METRICS.items() if one.group in ("curves", "time", "drop", "map", "sum"))
# A network of one's own may be a thousand times as dear as those of the table
EFFORT = Effort(fractions=FEW, randoms=2)


@dataclass(frozen=True)
class OwnRow(MetricRow):
    """A metric of the maps for one question."""

    target: str


def metrics_of(
    model: Model,
    clips: Float[np.ndarray, "b t h w c"],
    question: TargetSpec,
    logits: Float[np.ndarray, "b k"],
    methods: Sequence[tuple[str, str | None]],
    options: Mapping[str, dict[str, Any]],
    *,
    batch: int = 4,
    seed: int = 0,
    effort: Effort = EFFORT,
) -> Iterator[list[OwnRow]]:
    """First everything that removes parts of clips, then what takes maps made again; `logits` are the network's own."""
    target = question.target(logits)
    parts = [
        explain_many(model, clips[i : i + batch], question.target(logits[i : i + batch]), methods, options)
        for i in range(0, len(clips), batch)
    ]
    made = {f"{some[0].method}@{some[0].stage}": concatenate_attributions(some) for some in zip(*parts, strict=True)}
    # A target without a probability, such as a concept, has metrics of its score alone
    classes = question.custom is None
    wanted = [name for name in WANTED if classes or not METRICS[name].by_probability]
    found = measure(model, clips, target, made, metrics=wanted, seed=seed, at_once=2 * batch, effort=effort)
    yield [OwnRow(**asdict(row), target=question.name) for row in found]
    pairs = paired(target.classes) if isinstance(target, Margin) else np.zeros((0, 2), int)
    again = remade(
        model, clips, lambda rows: question.target(logits[rows]), pairs, methods, options, batch=batch, seed=seed
    )
    yield [OwnRow(**asdict(row), target=question.name) for row in again]


def paired(classes: Int[np.ndarray, " b"]) -> Int[np.ndarray, "pairs 2"]:
    """Clips of different classes side by side, each in one pair at most: the two largest classes give the next pair."""
    left = {one: np.flatnonzero(classes == one).tolist() for one in np.unique(classes).tolist()}
    pairs = []
    while len(two := sorted((some for some in left.values() if some), key=len)[-2:]) == 2:
        pairs.append((two[0].pop(0), two[1].pop(0)))
    return np.array(sorted(pairs), int).reshape(-1, 2)


TOLD = (  # metrics that put maps in the order of the truth, and what is about time
    *("relevance_gain", "comprehensiveness", "sufficiency", "insertion_less_deletion", "time_relevance_gain"),
    SPLICE,
)
FEWEST = 6  # clips, or pairs of them, of which something is said
AGAIN = (SENSITIVITY, LOGIT, WEIGHTS)  # what a map is like when it is made again
BEATING = ("relevance_gain", "time_relevance_gain", SPLICE)


def title(row: MetricRow) -> str:
    return row.metric.replace("_", " ") + (f" ({row.fill})" if row.fill else "")


def told(rows: Sequence[MetricRow], metrics: Sequence[str] = TOLD) -> list[str]:
    """The titles of `metrics`, by default of what is worth reading of all, fill by fill."""
    return list(dict.fromkeys(title(row) for name in metrics for row in rows if row.metric == name))


def verdicts(rows: Sequence[MetricRow]) -> list[tuple[str, str]]:
    """Map by map of a method, whether it beats the four that ask no network: all that a number here can say."""
    out = []
    for name in dict.fromkeys(row.map for row in rows if row.map not in MODEL_FREE):
        if any(row.clips < FEWEST for row in rows if row.metric in BEATING):
            out.append((name, f"has been measured on too few clips to tell; it takes {FEWEST}, and as many pairs"))
            continue
        won, lost = [], []
        for own in (row for metric in BEATING for row in rows if (row.map, row.metric) == (name, metric)):
            column = title(own)
            free = [row for row in rows if row.map in MODEL_FREE and title(row) == column]
            (won if all(own.low > row.high for row in free) else lost).append(column)
        if not won:
            out.append((name, "beats the maps that ask no network in nothing"))
            continue
        but = f", but not in {', '.join(lost)}" if lost else ""
        out.append((name, f"beats every map that asks no network in {', '.join(won)}{but}"))
    return out
