"""Maps held against what is known: one row for each method, stage, network, question and axis."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax import models
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.evaluation.world_benchmark import world_metrics
from vtcav_jax.evaluation.world_benchmark.entries import (
    ONE_AT_A_TIME,
    Entry,
    Function,
    given,
    imported,
    lineup,
    maps,
    shares,
)
from vtcav_jax.evaluation.world_benchmark.eval_set import AT_ONCE, Material, material, outputs, questions_of
from vtcav_jax.evaluation.world_benchmark.questions import QUESTIONS
from vtcav_jax.evaluation.world_benchmark.tables import ALL, AXES, CHOSEN, STABLE, TRUTH, Row
from vtcav_jax.evaluation.world_benchmark.world_metrics import Mass, Parts
from vtcav_jax.models import Network
from vtcav_jax.progress import progress
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES
from vtcav_jax.worlds.render import WORLDS

CLIPS = 200
STABLE_CLIPS = AT_ONCE  # a second map of each is needed
SEED = 77  # not one that a network was trained on


@dataclass(frozen=True, eq=False)
class Measured:
    """Of one entry and question every axis, clip by clip."""

    method: str
    stage: str
    question: str
    forwards: int
    seconds: float
    axes: dict[str, Parts]


def score(
    method: str | Function,
    network: str | Network,
    worlds: Sequence[str] = (),
    *,
    stage: str | None = None,
    clips: int = CLIPS,
    seed: int = SEED,
    **options: Any,
) -> list[Row]:
    """Every axis of one method: by name, or a function `(model, clips, target) -> Attribution or maps (b, t, h, w)`.

    `worlds` are some of `QUESTIONS`, by default all that the network answers. Raises where the network does not go by
    what was planted: of such a network nothing is known that a map could be held against.
    """
    loaded = models.load(network) if isinstance(network, str) else network
    name = network if isinstance(network, str) else loaded.preset
    if callable(method):
        entry = Entry(getattr(method, "__name__", "function"), function=method)
    elif ":" in method:
        entry = Entry(method, function=imported(method))
    else:
        lineup(loaded, [method])
        entry = Entry(method, stage, options)
    found = []
    for world, ids in asked(loaded, worlds).items():
        found += measure(material(loaded, world, ids, clips, seed), [entry])
    return rows(found, name)


def answered(loaded: Network, worlds: Sequence[str]) -> list[str]:
    """Those of `worlds` that a network can be asked about; what is no world is left for `asked` to tell."""
    can = sum(questions_of(loaded).values(), ())
    return [w for w in worlds if not (names := _questions(w)) or set(names) & set(can)]


def asked(loaded: Network, worlds: Sequence[str] = (), name: str = "") -> dict[str, tuple[str, ...]]:
    """The questions that are asked of a network, by the generator's world; `name` is what the network is called."""
    parts = {w: _questions(w) for w in worlds}
    if strange := [w for w, names in parts.items() if not names]:
        raise ValueError(f"there is no world {', '.join(strange)}; choose from {', '.join(QUESTIONS)}")
    worlds = sum(parts.values(), [])
    can, name = questions_of(loaded), name or loaded.preset
    if not can:
        raise ValueError(
            f"expected a network that reads the clips of a world, 8 x 32 x 32, and has all of its heads; {name} "
            f"has {', '.join(loaded.heads)}, and worlds have {_heads()}: train these with --task=train"
        )
    wanted = {world: tuple(i for i in ids if not worlds or i in worlds) for world, ids in can.items()}
    if lacking := [w for w in worlds if w not in sum(wanted.values(), ())]:
        told = ", ".join(sum(can.values(), ()))
        raise ValueError(f"{name} does not answer {', '.join(lacking)}; it answers {told}")
    return {world: ids for world, ids in wanted.items() if ids}


def _questions(world: str) -> list[str]:
    """Of a world that is named, such as W8, or the one question that is."""
    return [name for name in QUESTIONS if name == world or name.startswith(f"{world} ")]


def _heads() -> str:
    worlds = dict.fromkeys(question.world for question in QUESTIONS.values())
    return "; ".join(f"{world}: {', '.join(WORLDS[world].heads)}" for world in worlds)


def measure(about: Material, entries: Sequence[Entry]) -> list[Measured]:
    """Of entries of one group; all questions about the same clips."""
    known, sizes = about.known, about.sizes
    asked_of = about.loaded if entries[0].function else about.wide
    make = partial(maps, asked_of, entries, given=given(about.loaded, about.video))
    parts: dict[str, list[list[Attribution]]] = {head: [] for head in about.heads}
    seconds: list[float] = []
    times = 1 if shares(entries[0]) else len(about.heads)
    n = len(about)
    for rows in progress(batches(n), n, f"clips by {entries[0].method}", size=lambda some: some.stop - some.start):
        with ONE_AT_A_TIME if entries[0].function else nullcontext():
            start = time.perf_counter()
            made = make(about.video[rows], [about.target(head, rows) for head in parts])
            seconds.append((time.perf_counter() - start) / (times * len(about.video[rows])))
        for head, some in zip(parts, made):
            parts[head].append(some)
    made_of = [[batch[i] for some in parts.values() for batch in some] for i in range(len(entries))]
    grids = [(sizes[0], 1, 1) if over_time(every) else sizes for every in made_of]
    found = {
        head: [
            (made[0], np.concatenate([world_metrics.mass(one.map, grid) for one in made]))
            for made, grid in zip(zip(*some), grids)
        ]
        for head, some in parts.items()
    }
    spent = float(np.median(seconds))  # of three batches and more without the one that is compiled
    untold = as_forwards(about, make) if entries[0].function else 0
    out = []
    for i in range(len(entries)):
        own = {head: found[head][i][1] for head in about.heads}
        first = found[about.heads[0]][i][0]
        for name in about.ids:
            head = QUESTIONS[name].head
            got = world_metrics.axes(own[head], known[name], {other: m for other, m in own.items() if other != head})
            out.append(Measured(entries[i].method, first.stage, name, first.cost or untold, spent, got))
    for (name, entry), parts_of in stability(about, make, entries, found).items():
        next(m for m in out if (m.question, m.method, m.stage) == (name, *entry)).axes[STABLE] = parts_of
    return out


def stability(
    about: Material,
    make: Callable[..., list[list[Attribution]]],
    entries: Sequence[Entry],
    found: Mapping[str, Sequence[tuple[Attribution, Mass]]],
) -> dict[tuple[str, tuple[str, str]], Float[np.ndarray, "parts 2 some"]]:
    """Of some of the clips, by question, and method and stage; what has the same irrelevant factor is made together.

    `make` gives the maps of `entries` for videos and targets.
    """
    rows, out = slice(0, min(STABLE_CLIPS, len(about))), {}
    for factor in dict.fromkeys(QUESTIONS[name].irrelevant for name in about.ids):
        names = [name for name in about.ids if QUESTIONS[name].irrelevant == factor]
        targets = [about.target(QUESTIONS[name].head, rows) for name in names]
        made = make(about.redrawn(factor, rows), targets)
        for name, some in zip(names, made):
            for entry, after, (first, before) in zip(entries, some, found[QUESTIONS[name].head]):
                if before.shape[2:] != (1, 1):
                    core = about.known[name].core[rows]
                    value = world_metrics.stable(before[rows], world_metrics.mass(after.map, about.sizes), core)
                    out[name, (entry.method, first.stage)] = value
    return out


def as_forwards(about: Material, make: Callable[..., list[list[Attribution]]]) -> int:
    """How many passes of a clip through the network take as long: for a function that does not tell what it costs.

    Both have been compiled for such a batch.
    """
    video, rows = about.video[:AT_ONCE], slice(0, AT_ONCE)
    target = about.target(about.heads[0], rows)

    def least(work: Callable[[], Any]) -> float:
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            spent.append(time.perf_counter() - start)
        return min(spent)

    with ONE_AT_A_TIME:
        own = least(lambda: make(video, [target]))
    return max(round(own / least(lambda: outputs(about.loaded, video))), 1)


def over_time(made: Sequence[Attribution]) -> bool:
    """Whether maps tell when and not where."""
    same_everywhere = all((one.map == one.map[:, :, :1, :1]).all() for one in made)
    return same_everywhere and any((one.map != one.map[:, :1]).any() for one in made)


def batches(n: int) -> Iterator[slice]:
    return (slice(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE))


def groups(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Rows that are made together; a row with options is one of its own."""
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(entry.group, []).append(entry)
    return out


def rows(found: Sequence[Measured], network: str, seed: int = 0) -> list[Row]:
    """Each axis, TRUTH (their mean) of each question, and TRUTH over all questions of the network; of methods with
    several stages also CHOSEN."""
    out, whole = [], {}
    for (method, stage), some in grouped(found).items():
        row = partial(_row, (method, stage, network), _cost(some))
        truths = []
        for one in some:
            values = {axis: resampled(parts, seed) for axis, parts in one.axes.items()}
            n = {axis: int((~np.isnan(parts[0, 0])).sum()) for axis, parts in one.axes.items()}
            out += [row(one.question, axis, drawn, n[axis]) for axis, drawn in values.items()]
            if "WHERE" in values:
                truths.append(np.mean([values[axis] for axis in AXES if axis in values], 0))
                out.append(row(one.question, TRUTH, truths[-1], n["WHERE"]))
        if len(truths) == len(some):
            whole[method, stage] = np.mean(truths, 0)[0]
        if len(truths) > 1:
            clips = max(parts.shape[-1] for m in some for parts in m.axes.values())
            out.append(row(ALL, TRUTH, np.mean(truths, 0), clips))
    return [*out, *chosen(found, whole, network, seed)]


FEWEST_TO_CHOOSE = 20  # clips: a half must know every axis


def chosen(found: Sequence[Measured], whole: Mapping[tuple[str, str], float], network: str, seed: int) -> list[Row]:
    """What is left of TRUTH at the best stage, which the clips that chose it flatter: the stage that is best on half of
    the clips is judged on the other half, and the other way round, in every draw anew. `whole` is the truth on all."""
    methods: dict[str, dict[str, list[Measured]]] = {}
    for (method, stage), some in grouped(found).items():
        if (method, stage) in whole:
            methods.setdefault(method, {})[stage] = some
    out = []
    for method, stages in methods.items():
        clips = min(one.axes["WHERE"].shape[-1] for some in stages.values() for one in some)
        if len(stages) > 1 and clips >= FEWEST_TO_CHOOSE:
            halves = [
                np.stack([_truth(some, slice(half, None, 2), seed) for some in stages.values()]) for half in (0, 1)
            ]
            first, second = (np.where(np.isnan(half), -np.inf, half).argmax(0)[None] for half in halves)
            crossed = np.take_along_axis(halves[1], first, 0), np.take_along_axis(halves[0], second, 0)
            best = max(stages, key=lambda stage: whole[method, stage])
            of = method, best, network
            out.append(_row(of, _cost(stages[best]), ALL, CHOSEN, np.mean(crossed, (0, 1)), clips))
    return out


def _cost(some: Sequence[Measured]) -> tuple[int, float]:
    return max(m.forwards for m in some), float(np.median([m.seconds for m in some]))


def _truth(some: Sequence[Measured], clips: slice, seed: int) -> Float[np.ndarray, " draws"]:
    """Over all questions, of some of the clips."""
    each = ([resampled(one.axes[axis][..., clips], seed) for axis in AXES if axis in one.axes] for one in some)
    return np.mean([np.mean(one, 0) for one in each], 0)


def _row(
    of: tuple[str, str, str],
    cost: tuple[int, float],
    world: str,
    axis: str,
    drawn: Float[np.ndarray, " draws"],
    clips: int,
) -> Row:
    return Row(*of, world, axis, *interval(drawn), clips, *cost)


def grouped(found: Sequence[Measured]) -> dict[tuple[str, str], list[Measured]]:
    out: dict[tuple[str, str], list[Measured]] = {}
    for one in found:
        out.setdefault((one.method, one.stage), []).append(one)
    return out


def resampled(parts: Parts, seed: int) -> Float[np.ndarray, " draws"]:
    """The mean skill, first of all clips, then of clips drawn again: the same draws for all axes."""
    drawn = draws(parts.shape[-1], seed)
    told = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        means = (np.where(told, parts, 0.0) @ drawn.T) / (told.astype(np.float64) @ drawn.T)
    return world_metrics.skill(means[:, 0], means[:, 1]).mean(0)


@lru_cache(maxsize=4)
def draws(n: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """How often each clip comes: once, then as drawn."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), BOOTSTRAP_RESAMPLES)
    return np.concatenate([np.ones((1, n)), drawn])


def interval(drawn: Float[np.ndarray, " draws"]) -> tuple[float, float, float]:
    low, high = np.nanquantile(drawn[1:], (0.025, 0.975))
    return float(drawn[0]), float(low), float(high)
