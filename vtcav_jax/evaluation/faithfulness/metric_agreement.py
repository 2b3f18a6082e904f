"""Which metric to believe where no truth is known: those that put maps in the order in which truth puts them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.sanity_checks import spearman
from vtcav_jax.evaluation.faithfulness import metrics as faithfulness_metrics
from vtcav_jax.evaluation.world_benchmark.entries import FREE, Entry, given, maps
from vtcav_jax.evaluation.world_benchmark.eval_set import AT_ONCE, Material
from vtcav_jax.evaluation.world_benchmark.questions import QUESTIONS
from vtcav_jax.evaluation.world_benchmark.scoring import Measured, groups, rows
from vtcav_jax.evaluation.world_benchmark.tables import TRUTH, MetaRow
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES

CLIPS = 10
EFFORT = faithfulness_metrics.Effort(fractions=faithfulness_metrics.FEW, randoms=2)
QUESTION = ("W2", "W3")  # a cause in motion, and one that is to be seen for a moment
FILLS = ("blur", "mean")


def meta(about: Material, network: str, entries: Sequence[Entry], found: Sequence[Measured]) -> list[MetaRow]:
    """Over the maps of `entries`, whose truth is `found`; both are asked of the same network and clips."""
    truths = {(r.world, r.method, r.stage): r for r in rows(found, network) if r.axis == TRUTH}
    # Maps are made of as many clips as for the table, where they are compiled, and measured on fewer
    compared, batch, some = given(about.loaded, about.video), slice(0, AT_ONCE), slice(0, min(CLIPS, len(about)))
    out = []
    for question in (q for q in QUESTION if q in about.ids):
        asked, target = (about.target(QUESTIONS[question].head, rows) for rows in (batch, some))
        made, truth = {}, {}
        for group in groups(e for e in entries if e.method not in FREE).values():
            for entry, one in zip(group, maps(about.wide, group, about.video[batch], [asked], compared)[0]):
                one = one[some]
                row = truths.get((question, entry.method, one.stage))
                same = any(of.map.shape == one.map.shape and np.allclose(of.map, one.map) for of in made.values())
                if row is not None and not same:  # a map under another name is no further one
                    made[f"{entry.method}@{one.stage}"] = one
                    truth[f"{entry.method}@{one.stage}"] = row.value
        truth |= {name: row.value for (q, name, _), row in truths.items() if q == question and name in FREE}
        measured = faithfulness_metrics.measure(
            about.wide.model, about.video[some], target, made, fills=FILLS, effort=EFFORT
        )
        kinds = dict.fromkeys((row.metric, row.fill) for row in measured if row.better)
        for metric, fill in kinds:
            pairs = [
                (row.better * row.mean, truth[row.map])
                for row in measured
                if (row.metric, row.fill) == (metric, fill) and row.map in truth and np.isfinite(row.mean)
            ]
            if len(pairs) >= FEWEST and len({value for value, _ in pairs}) > 1:  # what is the same of all has no order
                out.append(MetaRow(network, question, metric, fill, *correlated(np.array(pairs)), len(pairs)))
    return out


FEWEST = 8  # maps without which an order says little


def correlated(pairs: Float[np.ndarray, "maps 2"], seed: int = 0) -> tuple[float, float, float]:
    """Spearman's correlation and its bootstrap interval over maps."""
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(BOOTSTRAP_RESAMPLES // 4, len(pairs)))
    values = np.concatenate([pairs[None], pairs[drawn]])
    of_metric, of_truth = (np.ascontiguousarray(values[..., i])[:, :, None, None] for i in (0, 1))
    found = spearman(of_metric, of_truth)
    low, high = np.nanquantile(found[1:], (0.025, 0.975))
    return float(found[0]), float(low), float(high)


def cheap(entries: Sequence[Entry], found: Sequence[Measured], most: int = 30) -> list[Entry]:
    """Those of which a map costs little, so that there are many."""
    cost = {one.method: one.forwards for one in found}
    return [e for e in entries if e.function is None and cost.get(e.method, most + 1) <= most]
