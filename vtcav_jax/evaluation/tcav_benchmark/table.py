"""Measures of concept tests in tcav_benchmark.csv, computed from verdicts about pairs of class and concept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.runs.evaluation_rows import TcavBenchmarkRow
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.stats.roc import sum_by_rank, weighted_area_under_roc

TCAV_BENCHMARK_CSV = "tcav_benchmark.csv"
TCAV_BENCHMARK_MEASURES = ("AUROC", "POWER_AT_5", "POWER", "FALSE_POSITIVES", "NULL")
BENCHMARK_CLIP_TYPES = ("static", "dynamic", "both")
CAUSE_ROLE, OTHER_HEAD_ROLE, DISTRACTOR_ROLE, RANDOM_ROLE = range(4)  # roles of a concept for a class
FALSE_POSITIVE_LEVEL, PAIR_BOOTSTRAP_DRAWS = 0.05, 1000


@dataclass(frozen=True)
class ConceptVerdicts:
    """Verdicts of one method about pairs of class and concept at one stage; `concept` is the index of the set."""

    role: Int[np.ndarray, " n"]
    concept: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    significant: Bool[np.ndarray, " n"]
    significant_corrected: Bool[np.ndarray, " n"] | None
    raises_score: Bool[np.ndarray, " n"]


def merge_verdicts(parts: Sequence[ConceptVerdicts]) -> ConceptVerdicts:
    """Concatenate verdicts; concepts of different parts get different indices."""
    ends = np.cumsum([0] + [part.concept.max() + 1 for part in parts])
    concept = np.concatenate([part.concept + end for part, end in zip(parts, ends)])
    role, score, significant, raises_score = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("role", "score", "significant", "raises_score")
    )
    significant_corrected = (
        None
        if parts[0].significant_corrected is None
        else np.concatenate([p.significant_corrected for p in parts if p.significant_corrected is not None])
    )
    return ConceptVerdicts(role, concept, score, significant, significant_corrected, raises_score)


def protocol_rows(
    pairs: ConceptVerdicts, row_key: tuple[str, str, str, str, str], correction: str
) -> list[TcavBenchmarkRow]:
    """Return one row per measure; `row_key` is protocol, network, pool, stage and clip type.

    Corrected verdicts are listed as a further protocol.
    """
    causal, neutral = pairs.role == CAUSE_ROLE, pairs.role >= DISTRACTOR_ROLE
    out = [
        TcavBenchmarkRow(*row_key, "AUROC", *pair_auroc(pairs.score, causal, ~causal, pairs.concept), len(causal)),
        TcavBenchmarkRow(
            *row_key,
            "POWER_AT_5",
            *power_at_fpr(pairs.score, causal, neutral, pairs.raises_score, pairs.concept),
            int(causal.sum()),
        ),
    ]
    verdicts = [(row_key, pairs.significant)]
    if pairs.significant_corrected is not None:
        verdicts.append(((f"{row_key[0]}, {correction}", *row_key[1:]), pairs.significant_corrected))
    for key, significant in verdicts:
        selections = [
            ("POWER", causal, significant & pairs.raises_score),
            ("FALSE_POSITIVES", neutral, significant),
            ("NULL", pairs.role == RANDOM_ROLE, significant),
        ]
        for measure, subset, yes in selections:
            out.append(
                TcavBenchmarkRow(*key, measure, *clustered_rate(yes[subset], pairs.concept[subset]), int(subset.sum()))
            )
    return out


def clustered_rate(significant: Bool[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Return a share and its Wilson interval for the effective number of independent tests, given clusters."""
    n, share = len(significant), float(significant.mean())
    _, where, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    clusters, design = len(sizes), 1.0
    if 0 < share < 1 and clusters > 1:
        apart = np.bincount(where, significant - share)
        between = clusters / (clusters - 1) * (apart**2).sum() / n**2
        design = max(1.0, between / (share * (1 - share) / n))
    worth = max(1, round(n / design))
    low, high = wilson_ci(round(share * worth), worth)
    return share, min(low, share), max(high, share)


def pair_auroc(
    score: Float[np.ndarray, " n"],
    above: Bool[np.ndarray, " n"],
    below: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
) -> tuple[float, float, float]:
    """Return how often a score in `above` exceeds one in `below`, ties counting half, and its bootstrap interval."""
    return _interval(weighted_area_under_roc(score, above, below, _bootstrap_weights(cluster)))


def power_at_fpr(
    score: Float[np.ndarray, " n"],
    causal: Bool[np.ndarray, " n"],
    neutral: Bool[np.ndarray, " n"],
    raises_score: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
) -> tuple[float, float, float]:
    """Return the power where 5 % of `neutral` pass the threshold; ties at it are resolved by expectation."""
    weights, place = _bootstrap_weights(cluster), np.unique(-score, return_inverse=True)[1]  # highest score first
    right, wrong = sum_by_rank(weights * (causal & raises_score), place), sum_by_rank(weights * neutral, place)
    with np.errstate(invalid="ignore"):
        wrong = wrong / wrong.sum(1, keepdims=True)
        right = right / (weights * causal).sum(1, keepdims=True)
        let = np.clip((FALSE_POSITIVE_LEVEL - (np.cumsum(wrong, 1) - wrong)) / np.where(wrong > 0, wrong, 1.0), 0, 1)
        free = (wrong == 0) & (np.cumsum(wrong, 1) <= FALSE_POSITIVE_LEVEL)
    return _interval((right * np.where(wrong > 0, let, free)).sum(1))


def _bootstrap_weights(cluster: Int[np.ndarray, " n"]) -> Float[np.ndarray, "b n"]:
    """Return weights of the pairs: all 1, then how often each concept is in a bootstrap sample."""
    where = np.unique(cluster, return_inverse=True)[1]
    count = where.max() + 1
    draw_counts = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), PAIR_BOOTSTRAP_DRAWS)
    return np.concatenate([np.ones((1, count)), draw_counts])[:, where]


def _interval(samples: Float[np.ndarray, " b"]) -> tuple[float, float, float]:
    low, high = np.nanquantile(samples[1:], (0.025, 0.975))
    return float(samples[0]), float(low), float(high)
