"""How well concept tests tell causes from what is none: rows of truth_concepts.csv, out of verdicts about pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.stats.intervals import wilson_ci

FILE = "truth_concepts.csv"
MEASURES = ("AUROC", "POWER_AT_5", "POWER", "FALSE_POSITIVES", "NULL")
KINDS = ("static", "dynamic", "both")
CAUSE, OTHER, DISTRACTOR, DRAWN = range(4)  # what a concept is to a class
LEVEL, DRAWS = 0.05, 1000


@dataclass(frozen=True)
class Row:
    """`n` pairs of a class and a concept, and a 95 % interval.

    AUROC: how often a pair that is causal has a higher score than one that is not. POWER_AT_5: the share of causal
    pairs found, with the right sign, where the threshold lets 5 % of the neutral concepts pass. POWER: that by the
    procedure's own verdict. FALSE_POSITIVES: verdicts about neutral concepts, which are the distractor's values and
    sets drawn at random. NULL: of those drawn alone, which truly are no concept: a test at 5 % finds 5 % of them.

    Intervals of POWER, FALSE_POSITIVES and NULL are Wilson's, for as many independent pairs as give the variance that
    is seen between concepts (the classes that one concept is asked of share its clips); the others are a bootstrap over
    concepts of all seeds.
    """

    procedure: str
    network: str
    pool: str
    stage: str
    kind: str
    measure: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Pairs:
    """What one procedure said of classes and concepts at one stage; `concept` numbers sets of clips."""

    role: Int[np.ndarray, " n"]
    concept: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    found: Bool[np.ndarray, " n"]
    corrected: Bool[np.ndarray, " n"] | None
    up: Bool[np.ndarray, " n"]


def together(parts: Sequence[Pairs]) -> Pairs:
    """Concepts stay apart."""
    ends = np.cumsum([0] + [part.concept.max() + 1 for part in parts])
    concept = np.concatenate([part.concept + end for part, end in zip(parts, ends)])
    role, score, found, up = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("role", "score", "found", "up")
    )
    corrected = (
        None if parts[0].corrected is None else np.concatenate([p.corrected for p in parts if p.corrected is not None])
    )
    return Pairs(role, concept, score, found, corrected, up)


def measured(pairs: Pairs, about: tuple[str, str, str, str, str], correction: str) -> list[Row]:
    """Every measure; `about` is procedure, network, pool, stage, kind; a corrected verdict is one more procedure."""
    causal, neutral = pairs.role == CAUSE, pairs.role >= DISTRACTOR
    out = [
        Row(*about, "AUROC", *auroc(pairs.score, causal, ~causal, pairs.concept), len(causal)),
        Row(*about, "POWER_AT_5", *power(pairs.score, causal, neutral, pairs.up, pairs.concept), int(causal.sum())),
    ]
    verdicts = [(about, pairs.found)]
    if pairs.corrected is not None:
        verdicts.append(((f"{about[0]}, {correction}", *about[1:]), pairs.corrected))
    for told, found in verdicts:
        asked = [
            ("POWER", causal, found & pairs.up),
            ("FALSE_POSITIVES", neutral, found),
            ("NULL", pairs.role == DRAWN, found),
        ]
        for measure, some, yes in asked:
            out.append(Row(*told, measure, *rate(yes[some], pairs.concept[some]), int(some.sum())))
    return out


def rate(found: Bool[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]) -> tuple[float, float, float]:
    """A share and Wilson's interval, of as few tests as would vary as much as clusters do."""
    n, share = len(found), float(found.mean())
    _, where, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    clusters, design = len(sizes), 1.0
    if 0 < share < 1 and clusters > 1:
        apart = np.bincount(where, found - share)
        between = clusters / (clusters - 1) * (apart**2).sum() / n**2
        design = max(1.0, between / (share * (1 - share) / n))
    worth = max(1, round(n / design))
    low, high = wilson_ci(round(share * worth), worth)
    return share, min(low, share), max(high, share)


def auroc(
    score: Float[np.ndarray, " n"],
    above: Bool[np.ndarray, " n"],
    below: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
) -> tuple[float, float, float]:
    """How often a score of `above` is higher than one of `below`, half of it where they are equal."""
    weights, place = _drawn(cluster), np.unique(score, return_inverse=True)[1]
    yes, no = _by_place(weights * above, place), _by_place(weights * below, place)
    lower = np.cumsum(no, 1) - no / 2
    with np.errstate(invalid="ignore"):
        return _interval((yes * lower).sum(1) / (yes.sum(1) * no.sum(1)))


def power(
    score: Float[np.ndarray, " n"],
    causal: Bool[np.ndarray, " n"],
    neutral: Bool[np.ndarray, " n"],
    up: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
) -> tuple[float, float, float]:
    """The share of `causal` above what 5 % of `neutral` are above; where many are equal, a coin decides."""
    weights, place = _drawn(cluster), np.unique(-score, return_inverse=True)[1]  # the highest first
    right, wrong = _by_place(weights * (causal & up), place), _by_place(weights * neutral, place)
    with np.errstate(invalid="ignore"):
        wrong = wrong / wrong.sum(1, keepdims=True)
        right = right / (weights * causal).sum(1, keepdims=True)
        let = np.clip((LEVEL - (np.cumsum(wrong, 1) - wrong)) / np.where(wrong > 0, wrong, 1.0), 0, 1)
        free = (wrong == 0) & (np.cumsum(wrong, 1) <= LEVEL)
    return _interval((right * np.where(wrong > 0, let, free)).sum(1))


def _drawn(cluster: Int[np.ndarray, " n"]) -> Float[np.ndarray, "b n"]:
    """How often each pair counts: first once, then as often as its concept is drawn again."""
    where = np.unique(cluster, return_inverse=True)[1]
    count = where.max() + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS)
    return np.concatenate([np.ones((1, count)), drawn])[:, where]


def _by_place(weights: Float[np.ndarray, "b n"], place: Int[np.ndarray, " n"]) -> Float[np.ndarray, "b p"]:
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    return np.add.reduceat(weights[:, order], starts, axis=1)


def _interval(drawn: Float[np.ndarray, " b"]) -> tuple[float, float, float]:
    low, high = np.nanquantile(drawn[1:], (0.025, 0.975))
    return float(drawn[0]), float(low), float(high)
