"""The tests as Saha et al. made them, beside ours: *Exploring Explainability in Video Action Recognition*, 2024,
arXiv:2404.09067.

Concepts of a kind and one random set are a group; each is told apart from the rest of the group, once for each random
set, and a t-test holds the sign counts of those runs against 1/2, with Bonferroni's correction. All runs share their
concept clips: they are not independent, and the test rejects far too often. (The paper's printed p-values count every
run twice; here each counts once.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtcav_jax.concepts.settings import NEGATIVE
from vtcav_jax.tcav.classical import one_sample
from vtcav_jax.tcav.families import adjusted
from vtcav_jax.tcav.gram import Gram
from vtcav_jax.tcav.measures import split
from vtcav_jax.tcav.plan import Plan
from vtcav_jax.tcav.scores import scores
from vtcav_jax.tcav.settings import Experiment
from vtcav_jax.tcav.table import write_rows
from vtcav_jax.tcav.vectors import fit, labels

FILE = "paper.csv"
WARNING = "runs are not independent"


@dataclass(frozen=True)
class PaperRow:
    """`score` is the mean sign count over `runs`, one for each random set."""

    target: str
    stage: str
    group: str
    concept: str
    kind: str
    runs: int
    score: float
    score_low: float  # the least and the greatest of the runs
    score_high: float
    t: float
    p: float
    p_adjusted: float
    n_targets: int
    note: str


def adapted(settings: Experiment) -> Experiment:
    """Flattened activations and Bonferroni's correction; stages are the three of the paper where nothing is said."""
    return replace(settings, pool="none", correction="bonferroni")


def write_paper(folder: Path, plan: Plan, products: Callable[[str], Gram]) -> list[PaperRow]:
    rows = []
    for stage in plan.stages:
        whole = products(stage)
        for kind, sets in plan.asked.random.items():
            concepts = _concepts(plan, kind)
            for name, members in _groups(concepts).items():
                rows += _group(plan, stage, whole, f"{name} ({kind})", kind, members, sets)
    p = adjusted(np.array([row.p for row in rows]), "bonferroni")
    rows = [replace(row, p_adjusted=float(value)) for row, value in zip(rows, p)]
    write_rows(folder / FILE, PaperRow, rows)
    return rows


def _concepts(plan: Plan, kind: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for i, clip in enumerate(plan.looked.clips):
        if clip.kind == kind and not clip.negative:
            found[clip.concept] = (*found.get(clip.concept, ()), i)
    return found


def _groups(concepts: dict[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    return {" ".join([*concepts, NEGATIVE]): concepts} if concepts else {}


def _group(
    plan: Plan,
    stage: str,
    whole: Gram,
    name: str,
    kind: str,
    members: dict[str, tuple[int, ...]],
    sets: dict[str, tuple[int, ...]],
) -> list[PaperRow]:
    count = len(whole.kernel)
    signed = []
    for rest in sets.values():
        group = {**members, NEGATIVE: rest}
        for concept, rows in group.items():
            others = [i for other, some in group.items() if other != concept for i in some]
            signed.append(labels(rows, others, count, balanced=True))
    if not signed:
        return []
    vectors = fit(whole.kernel, np.stack(signed), plan.settings.training)
    out = []
    for target, gram in zip(plan.looked.classes, split(whole, plan)):
        runs = scores(gram, vectors).sign_count[0].reshape(len(sets), -1)
        for concept, values in zip((*members, NEGATIVE), runs.T):
            test = one_sample(values) if len(values) > 1 else None
            t, p = (math.nan, math.nan) if test is None else (test.t, test.p)
            low, mean, high = (float(f(values)) for f in (np.min, np.mean, np.max))
            n = len(target.rows)
            row = PaperRow(
                target.name, stage, name, concept, kind, len(values), mean, low, high, t, p, math.nan, n, WARNING
            )
            out.append(row)
    return out
