"""The tests of Saha et al., *Exploring Explainability in Video Action Recognition*, 2024, arXiv:2404.09067.

A group consists of all static concepts and a random set, all dynamic concepts and a random set, or the static and the
dynamic clips of one concept and a dynamic random set. A vector separates each member from the rest of its group, once
per random set (a run), and a two-sided t-test compares the sign counts of the runs with 1/2, Bonferroni-corrected. The
runs share their concept clips and are therefore not independent, so that the test rejects too often. The published
p-values also count every run twice (the run and its opposite vector) and have their own column. Where all runs have the
same sign count, the t-test is undefined; an exact sign test of the runs is reported for all tests.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import SAHA2024_CSV, Saha2024Row
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_results import split_by_class
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.multiple_testing import adjust_p
from vtcav_jax.tcav.stats.scores import tcav_scores
from vtcav_jax.tcav.stats.vectors import fit, label_vector

DEPENDENCE_WARNING = "runs are not independent"
UNDEFINED_T_TEST = "the t-test is undefined, since all runs have the same TCAV score"
SINGLE_RUN = "the t-test is undefined, since there is only one run"


def write_saha2024(folder: Path, plan: Plan, grams: Callable[[str], Gram]) -> list[Saha2024Row]:
    """Run the tests of all groups, stages and classes and write their table."""
    groups = saha2024_groups(plan.clips.concept_clips, plan.comparisons.random_sets)
    rows = []
    for stage in plan.stages:
        stage_gram = grams(stage)
        for name, (members, sets) in groups.items():
            rows += _group_rows(plan, stage, stage_gram, name, members, sets)
    p = adjust_p(np.array([row.p for row in rows]), "bonferroni")
    rows = [replace(row, p_adjusted=float(value)) for row, value in zip(rows, p)]
    write_rows(folder / SAHA2024_CSV, Saha2024Row, rows)
    return rows


Members = dict[tuple[str, str], tuple[int, ...]]  # clips by concept and clip type
Sets = dict[str, tuple[int, ...]]


def saha2024_groups(clips: Sequence[ConceptClip], random_sets: dict[str, Sets]) -> dict[str, tuple[Members, Sets]]:
    """Return the members and random sets of each group: concepts of one clip type, or both types of one concept."""
    rows_of: Members = {}
    for i, clip in enumerate(clips):
        if not clip.is_negative:
            rows_of[clip.concept, clip.clip_type] = (*rows_of.get((clip.concept, clip.clip_type), ()), i)
    groups: dict[str, tuple[Members, Sets]] = {}
    for clip_type, random_set in random_sets.items():
        members = {key: rows for key, rows in rows_of.items() if key[1] == clip_type}
        groups[_group_name(members, clip_type)] = members, random_set
    for concept in dict.fromkeys(concept for concept, _ in rows_of):
        both_types: Members = {
            key: rows_of[key] for clip_type in ("static", "dynamic") if (key := (concept, clip_type)) in rows_of
        }
        if len(both_types) == 2:
            groups[_group_name(both_types, "dynamic")] = both_types, random_sets.get("dynamic", {})
    return {name: (members, random_set) for name, (members, random_set) in groups.items() if members and random_set}


def _group_name(members: Members, clip_type: str) -> str:
    return ", ".join(f"{member_type} {concept}" for concept, member_type in (*members, (NEGATIVE_PREFIX, clip_type)))


def _group_rows(plan: Plan, stage: str, stage_gram: Gram, name: str, members: Members, sets: Sets) -> list[Saha2024Row]:
    count = len(stage_gram.kernel)
    labels = []
    for rest in sets.values():
        group = [*members.values(), rest]
        for i, rows in enumerate(group):
            others = [row for other in (*group[:i], *group[i + 1 :]) for row in other]
            labels.append(label_vector(rows, others, count, balanced=True))
    vectors = fit(stage_gram.kernel, np.stack(labels), plan.config.fit_config)
    out = []
    for target, gram in zip(plan.clips.classes, split_by_class(stage_gram, plan)):
        runs = tcav_scores(gram, vectors).sign_count[0].reshape(len(sets), -1)
        for (concept, clip_type), values in zip((*members, (NEGATIVE_PREFIX, "")), runs.T):
            t, p, p_published = math.nan, math.nan, math.nan
            note = f"{DEPENDENCE_WARNING}; {SINGLE_RUN}"
            if len(values) > 1:
                t, p = (float(value) for value in t_test_against_half(values))
                p_published = float(published_t_test(values)[1])
                note = f"{DEPENDENCE_WARNING}; {UNDEFINED_T_TEST}" if math.isnan(p) else DEPENDENCE_WARNING
            low, mean, high = (float(f(values)) for f in (np.min, np.mean, np.max))
            row_start = target.name, stage, name, concept, clip_type, len(values), mean, low, high
            p_values = p, math.nan, p_published, sign_test_against_half(values)
            out.append(Saha2024Row(*row_start, t, *p_values, len(target.rows), note))
    return out


def sign_test_against_half(sign_counts: Float[np.ndarray, " runs"]) -> float:
    """Return the exact two-sided p of the number of runs above 1/2 among those that differ from it."""
    from scipy.stats import binomtest

    n_above, n_below = int((sign_counts > 0.5).sum()), int((sign_counts < 0.5).sum())
    return float(binomtest(n_above, n_above + n_below).pvalue) if n_above + n_below else 1.0


def t_test_against_half(sign_counts: Float[np.ndarray, "runs ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Return t and two-sided p of the runs' mean sign count against 1/2; NaN where the runs do not vary."""
    from scipy.stats import ttest_1samp

    with _ignoring_constant_samples():
        t, p = np.array(ttest_1samp(sign_counts, 0.5), float)
    return _undefined_where_constant(t, p, sign_counts)


def published_t_test(sign_counts: Float[np.ndarray, "runs ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Return t and p as published: sign counts against those of the opposite vectors, which counts every run twice."""
    from scipy.stats import ttest_ind

    with _ignoring_constant_samples():
        t, p = np.array(ttest_ind(sign_counts, 1 - sign_counts), float)
    return _undefined_where_constant(t, p, sign_counts)


@contextmanager
def _ignoring_constant_samples() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _undefined_where_constant(t: Any, p: Any, sign_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    constant = (sign_counts == sign_counts[:1]).all(0)
    return np.where(constant, np.nan, t), np.where(constant, np.nan, p)
