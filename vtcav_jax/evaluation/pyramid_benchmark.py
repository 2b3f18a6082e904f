"""Are the kernels that a pyramid names those that its class hangs on, and do they tell the class from others?

A pyramid is made of half of a class's clips and judged by the other half, and the other way around. ABLATION: of what
the margin loses with all kernels of a stage, how much goes with the few that are named; SELECTIVE: how far their mean
activation tells the class from others. 0 is as many kernels drawn at random, 1 is all of the margin, and the kernels
that tell it best.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax import pyramid, tap
from vtcav_jax.attribution.score_model import ExplainContext, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Margin
from vtcav_jax.evaluation.world_benchmark.eval_set import Material
from vtcav_jax.evaluation.world_benchmark.questions import QUESTIONS
from vtcav_jax.evaluation.world_benchmark.scoring import draws, interval
from vtcav_jax.evaluation.world_benchmark.tables import ABLATION, SELECTIVE, Row
from vtcav_jax.progress import progress
from vtcav_jax.pyramid import Selection
from vtcav_jax.pyramid.ablation import score_without
from vtcav_jax.tap import Model
from vtcav_jax.telling import warn

KERNELS, DEPTH = 8, 3
DRAWS = 8  # sets of kernels at random
MOST, FEWEST = 20, 4  # clips of a class on either side

Named = dict[str, list[int]]  # of each stage the channels


def by_gradients(model: Model, own: Array, others: Array, target: Margin) -> tuple[Named, float]:
    """The package's pyramid, against clips of other classes."""
    return _named(model, own, target, reference=others, nodes=4)


def from_nothing(model: Model, own: Array, others: Array, target: Margin) -> tuple[Named, float]:
    """The same from activations of 0, in one pass."""
    return _named(model, own, target)


def strongest(model: Model, own: Array, others: Array, target: Margin) -> tuple[Named, float]:
    """What is most active in the clips, whatever they are asked: which kernels stand out, and no explanation."""
    chain = pyramid.pyramid_levels(prepare_explanation(model, own, target), None, DEPTH)
    names = tuple(name for level in chain for name in level)
    values = tap.activations(model, own, names)[1]
    means = {name: np.asarray(jnp.abs(value).mean((0, 1, 2, 3))) for name, value in values.items()}
    return {name: np.argsort(-mean)[:KERNELS].tolist() for name, mean in means.items()}, 1.0


WAYS: dict[str, Callable[[Model, Array, Array, Margin], tuple[Named, float]]] = {
    "pyramid": by_gradients,
    "pyramid (from nothing)": from_nothing,
    "strongest kernels": strongest,
}


def _named(model: Model, own: Array, target: Margin, **more: Any) -> tuple[Named, float]:
    made = pyramid.build_pyramid(model, own, target, depth=DEPTH, selection=Selection("top", float(KERNELS)), **more)
    stages = [name for level in made.levels for name in level]
    ranked = sorted(made.nodes, key=lambda node: -node.relevance)
    return {name: [node.channel for node in ranked if node.stage == name] for name in stages}, made.forward_passes


@dataclass(frozen=True, eq=False)
class _Side:
    """A class's clips that make a pyramid and those that judge it, with as many of other classes."""

    made_of: Array
    usual: Array
    judged: Array
    others: Array
    target: Margin


def kernels(about: Material, network: str) -> list[Row]:
    """Of every way and stage both axes, question by question."""
    if few := [name for name in about.ids if not _clips_each(about, QUESTIONS[name].head)]:
        warn(f"pyramids are not scored: {', '.join(few)} has under {2 * FEWEST} clips of an answer; add --truth_clips")
        return []
    judged: dict[str, list[dict[str, _Judged]]] = {name: [] for name in about.ids}
    heads = {name: QUESTIONS[name].head for name in about.ids}
    sides = ((name, side) for name, head in heads.items() for side in _sides(about, head))
    count = sum(2 * len(about.loaded.heads[head]) for head in heads.values())
    for name, side in progress(sides, count, "pyramids", size=lambda _: 1):
        judged[name].append(_judged(about, len(judged[name]), side))
    return [
        row
        for name, some in judged.items()
        for way in WAYS
        for row in _rows(about, network, name, way, [side[way] for side in some])
    ]


@dataclass(frozen=True, eq=False)
class _Judged:
    """What one side says of one way's kernels, stage by stage."""

    cost: float
    seconds: float  # of a clip
    # Of the margin: without the kernels, without as many others, without all
    falls: dict[str, Float[np.ndarray, "3 b"]]
    apart: dict[str, Float[np.ndarray, "3 draws"]]


def _judged(about: Material, number: int, side: _Side) -> dict[str, _Judged]:
    """Every way; what is lost without others, and without all, is the same for all ways."""
    model, out = about.wide.model, {}
    what = prepare_explanation(model, side.judged, side.target)
    falls: dict[str, _Falls] = {}
    for way, make in WAYS.items():
        start = time.perf_counter()
        named, cost = make(model, side.made_of, side.usual, side.target)
        seconds = (time.perf_counter() - start) / len(side.made_of)
        if not falls:
            scores, values = tap.activations(what.score_model, what.video, tuple(named))
            instead = tap.activations(model, side.others, tuple(named))[1]
            full, seed = to_numpy(scores[:, 0]), (about.seed, number)
            falls = {at: _Falls(what, at, values[at], instead[at], full, seed) for at in named}
        apart = {at: _apart(falls[at].value, falls[at].other, some, about.seed) for at, some in named.items()}
        out[way] = _Judged(cost, seconds, {at: falls[at].of(some) for at, some in named.items()}, apart)
    return out


def _rows(about: Material, network: str, name: str, way: str, sides: list[_Judged]) -> list[Row]:
    cost, spent = round(sides[0].cost), float(np.median([side.seconds for side in sides]))
    rows = []
    for stage in sides[0].falls:
        falls = np.concatenate([side.falls[stage] for side in sides], 1)
        fallen = falls @ draws(falls.shape[1], about.seed).T
        apart = np.mean([side.apart[stage] for side in sides], 0)
        for axis, drawn in ((ABLATION, _share(*fallen)), (SELECTIVE, _skill(*apart))):
            told = interval(drawn)
            rows.append(Row(way, stage, network, name, axis, *told, falls.shape[1], cost, spent))
    return rows


@dataclass(frozen=True, eq=False)
class _Falls:
    """What the margins lose without kernels of a stage; `other` is what stands in their place."""

    what: ExplainContext
    stage: str
    value: Array
    other: Array
    full: np.ndarray
    seed: tuple[int, int]  # of each class and side others are drawn
    drawn: dict[int, np.ndarray] = field(default_factory=dict)  # by how many

    def of(self, chosen: list[int]) -> Float[np.ndarray, "3 b"]:
        return np.stack([self._without(np.array(chosen, int)), self._as_many(len(chosen)), self._all])

    @property
    def _every(self) -> np.ndarray:
        return np.arange(self.value.shape[-1])

    @cached_property
    def _all(self) -> Float[np.ndarray, " b"]:
        return self._without(self._every)

    def _as_many(self, count: int) -> Float[np.ndarray, " b"]:
        if count not in self.drawn:
            random = np.random.default_rng(self.seed)
            falls = [self._without(random.choice(self._every, count, replace=False)) for _ in range(DRAWS)]
            self.drawn[count] = np.mean(falls, 0)
        return self.drawn[count]

    def _without(self, channels: np.ndarray) -> Float[np.ndarray, " b"]:
        gone = jnp.asarray(np.isin(self._every, channels))
        return self.full - to_numpy(
            score_without(self.what.score_model, self.what.video, self.stage, self.value, self.other, gone)
        )


def _sides(about: Material, head: str) -> Iterator[_Side]:
    """Every class twice, its halves in turn; all have as many clips, so that nothing is compiled again."""
    labels, where, n = about.clips.labels[head], about.loaded.head_slices[head], _clips_each(about, head)
    for c in range(where.stop - where.start):
        own, others = np.flatnonzero(labels == c), np.flatnonzero(labels != c)
        halves = [(own[i::2][:n], others[i::2][:n]) for i in (0, 1)]
        target = Margin(np.full(n, where.start + c), (where.start, where.stop))
        for one, other in (halves, halves[::-1]):
            made_of, usual, judged, others_of = (jnp.asarray(about.video[rows]) for rows in (*one, *other))
            yield _Side(made_of, usual, judged, others_of, target)


def _clips_each(about: Material, head: str) -> int:
    """Of each class on either side; 0 if there are too few."""
    labels, where = about.clips.labels[head], about.loaded.head_slices[head]
    n = min(MOST, *(int((labels == c).sum()) // 2 for c in range(where.stop - where.start)))
    return n if n >= FEWEST else 0


def _apart(own: Array, others: Array, chosen: list[int], seed: int) -> Float[np.ndarray, "3 draws"]:
    """How far means lie apart between the classes, in standard deviations: the chosen kernels', all, and the best."""
    one, other = (np.asarray(value.mean((1, 2, 3)), np.float64) for value in (own, others))
    spread = np.sqrt((one.var(0) + other.var(0)) / 2) + 1e-9
    sign = np.sign(one.mean(0) - other.mean(0))
    weights = draws(len(one), seed)
    means = [weights @ some / weights.sum(1, keepdims=True) for some in (one, other)]
    far = sign * (means[0] - means[1]) / spread  # sign and the best are those of all clips: no draw makes them better
    best = np.argsort(-far[0])[: max(len(chosen), 1)]
    return np.stack([far[:, chosen].mean(1) if chosen else far.mean(1), far.mean(1), far[:, best].mean(1)])


def _share(own: np.ndarray, chance: np.ndarray, everything: np.ndarray) -> Float[np.ndarray, " draws"]:
    """NaN where all kernels together do no more than some at random."""
    there = everything > chance
    return np.where(there, (own - chance) / np.where(there, everything - chance, 1), np.nan)


def _skill(own: np.ndarray, chance: np.ndarray, best: np.ndarray) -> Float[np.ndarray, " draws"]:
    return (own - chance) / np.maximum(best - chance, 1e-9)
