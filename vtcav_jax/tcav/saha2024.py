"""The tests as Saha et al. made them, beside ours: *Exploring Explainability in Video Action Recognition*, 2024,
arXiv:2404.09067.

Groups are all static concepts with a random set, all dynamic ones with one, and for each concept its static and its
dynamic clips with a dynamic random set. Each member is told apart from the rest of its group, once for each random set,
and a two-sided t-test holds the sign counts of those runs against 1/2, with Bonferroni's correction. All runs share
their concept clips: they are not independent, and the test rejects far too often. The printed p-values count every run
twice (a run and its opposite vector); they have a column of their own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_results import split
from vtcav_jax.tcav.experiment.verdicts import write_rows
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.classical import one_sample, paper
from vtcav_jax.tcav.stats.multiple_testing import adjusted
from vtcav_jax.tcav.stats.scores import scores
from vtcav_jax.tcav.stats.vectors import fit, labels

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
    p_printed: float  # as the paper's printed ones were computed
    n_targets: int
    note: str


def write_paper(folder: Path, plan: Plan, products: Callable[[str], Gram]) -> list[PaperRow]:
    found = groups(plan.looked.clips, plan.asked.random)
    rows = []
    for stage in plan.stages:
        whole = products(stage)
        for name, (members, sets) in found.items():
            rows += _group(plan, stage, whole, name, members, sets)
    p = adjusted(np.array([row.p for row in rows]), "bonferroni")
    rows = [replace(row, p_adjusted=float(value)) for row, value in zip(rows, p)]
    write_rows(folder / FILE, PaperRow, rows)
    return rows


Members = dict[tuple[str, str], tuple[int, ...]]  # clips by concept and kind
Sets = dict[str, tuple[int, ...]]


def groups(clips: Sequence[ConceptClip], random: dict[str, Sets]) -> dict[str, tuple[Members, Sets]]:
    """The concepts of each kind; and each concept that has both kinds. With the random sets that complete them."""
    of: Members = {}
    for i, clip in enumerate(clips):
        if not clip.is_negative:
            of[clip.concept, clip.clip_type] = (*of.get((clip.concept, clip.clip_type), ()), i)
    found: dict[str, tuple[Members, Sets]] = {}
    for kind, sets in random.items():
        members = {key: rows for key, rows in of.items() if key[1] == kind}
        found[_told(members, kind)] = members, sets
    for concept in dict.fromkeys(concept for concept, _ in of):
        both: Members = {key: of[key] for kind in ("static", "dynamic") if (key := (concept, kind)) in of}
        if len(both) == 2:
            found[_told(both, "dynamic")] = both, random.get("dynamic", {})
    return {name: (members, sets) for name, (members, sets) in found.items() if members and sets}


def _told(members: Members, kind: str) -> str:
    return ", ".join(f"{what} {concept}" for concept, what in (*members, (NEGATIVE_PREFIX, kind)))


def _group(plan: Plan, stage: str, whole: Gram, name: str, members: Members, sets: Sets) -> list[PaperRow]:
    count = len(whole.kernel)
    signed = []
    for rest in sets.values():
        group = [*members.values(), rest]
        for i, rows in enumerate(group):
            others = [row for other in (*group[:i], *group[i + 1 :]) for row in other]
            signed.append(labels(rows, others, count, balanced=True))
    vectors = fit(whole.kernel, np.stack(signed), plan.settings.training)
    out = []
    for target, gram in zip(plan.looked.classes, split(whole, plan)):
        runs = scores(gram, vectors).sign_count[0].reshape(len(sets), -1)
        for (concept, kind), values in zip((*members, (NEGATIVE_PREFIX, "")), runs.T):
            t, p, printed = math.nan, math.nan, math.nan
            if len(values) > 1:
                test = one_sample(values)
                t, p, printed = test.t, test.p, paper(values).p
            low, mean, high = (float(f(values)) for f in (np.min, np.mean, np.max))
            about = target.name, stage, name, concept, kind, len(values), mean, low, high
            out.append(PaperRow(*about, t, p, math.nan, printed, len(target.rows), WARNING))
    return out
