"""Scores of maps against the known cause: one row per method, stage, network, question and metric."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.console import progress
from vtcav_jax.evaluation.world_benchmark import world_metrics
from vtcav_jax.evaluation.world_benchmark.entries import (
    CUSTOM_CODE_LOCK,
    CustomMethod,
    Entry,
    batches_targets,
    build_entries,
    import_function,
    make_maps,
    reference_data,
)
from vtcav_jax.evaluation.world_benchmark.eval_set import (
    EVAL_BATCH_SIZE,
    EvalSet,
    batched_logits,
    build_eval_set,
    questions_by_world,
)
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.readings import better_reading
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult, result_rows
from vtcav_jax.evaluation.world_benchmark.world_metrics import READINGS, Parts
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import (
    REFERENCE_MAPS,
    STABILITY_SCORE,
    MethodScoreRow,
)
from vtcav_jax.worlds.render import WORLDS

DEFAULT_EVAL_CLIPS = 200
STABILITY_CLIPS = EVAL_BATCH_SIZE  # each needs a second map
MapsByHead = Mapping[str, Float[np.ndarray, "..."]]  # (clips, time, height, width), at any resolution
EVAL_SEED = 77  # differs from the seeds of training clips


def score_method(
    method: str | CustomMethod,
    network: str | Network,
    questions: Sequence[str] = (),
    *,
    stage: str | None = None,
    n_clips: int = DEFAULT_EVAL_CLIPS,
    seed: int = EVAL_SEED,
    **options: Any,
) -> list[MethodScoreRow]:
    """Score one method, a name or a function `(model, clips, target) -> Attribution or maps (b, t, h, w)`.

    `questions` are names in `EVAL_QUESTIONS` (default: all that the network answers). Raises if the network fails a
    gate: the cause of its answers would then be unknown.
    """
    loaded_network = load(network) if isinstance(network, str) else network
    name = network if isinstance(network, str) else loaded_network.name
    if callable(method):
        entry = Entry(getattr(method, "__name__", "function"), function=method)
    elif ":" in method:
        entry = Entry(method, function=import_function(method))
    else:
        build_entries(loaded_network, [method])
        entry = Entry(method, stage, options)
    results = []
    for world, ids in resolve_questions(loaded_network, questions).items():
        results += measure_entries(build_eval_set(loaded_network, world, ids, n_clips, seed), [entry])
    return result_rows(results, name)


def answerable_questions(network: Network, questions: Sequence[str]) -> list[str]:
    """Return the questions that a network answers, and unknown names, which `resolve_questions` reports."""
    available = sum(questions_by_world(network).values(), ())
    return [w for w in questions if not (names := _matching_questions(w)) or set(names) & set(available)]


def resolve_questions(
    network: Network, questions: Sequence[str] = (), network_name: str = ""
) -> dict[str, tuple[str, ...]]:
    """Return the questions (default: all) that a network answers, by world; `network_name` is used in messages."""
    parts = {w: _matching_questions(w) for w in questions}
    if unknown_questions := [w for w, names in parts.items() if not names]:
        raise ValueError(f"unknown question {', '.join(unknown_questions)}; choose from {', '.join(EVAL_QUESTIONS)}")
    questions = [name for names in parts.values() for name in names]
    available, network_name = questions_by_world(network), network_name or network.name
    if not available:
        raise ValueError(
            f"expected a network that reads clips of 8 x 32 x 32 and has all heads of a world ({_heads_text()});"
            f" {network_name} has {', '.join(network.heads)}: train one with `vtcav train`"
        )
    by_world = {world: tuple(i for i in ids if not questions or i in questions) for world, ids in available.items()}
    if unavailable := [w for w in questions if w not in sum(by_world.values(), ())]:
        choices = ", ".join(sum(available.values(), ()))
        raise ValueError(f"{network_name} does not answer {', '.join(unavailable)}; it answers {choices}")
    return {world: ids for world, ids in by_world.items() if ids}


def _matching_questions(question: str) -> list[str]:
    """Return the question of this name, or all that begin with it, such as W8."""
    return [name for name in EVAL_QUESTIONS if name == question or name.startswith(f"{question} ")]


def _heads_text() -> str:
    worlds = dict.fromkeys(question.world for question in EVAL_QUESTIONS.values())
    return "; ".join(f"{world}: {', '.join(WORLDS[world].heads)}" for world in worlds)


def measure_entries(eval_set: EvalSet, entries: Sequence[Entry]) -> list[MethodResult]:
    """Score the entries of one group on all questions of the evaluation set."""
    if entries[0].method in REFERENCE_MAPS:
        return [result for entry in entries for result in score_reference_maps(eval_set, entry.method)]
    network = eval_set.network if entries[0].function else eval_set.padded_network
    make = partial(make_maps, network, entries, extra_options=reference_data(eval_set.network, eval_set.video))
    parts: dict[str, list[list[Attribution]]] = {head: [] for head in eval_set.heads}
    seconds: list[float] = []
    times = 1 if batches_targets(entries[0]) else len(eval_set.heads)
    n = len(eval_set)
    for rows in progress(batch_slices(n), n, f"clips by {entries[0].method}", size=lambda rows: rows.stop - rows.start):
        with CUSTOM_CODE_LOCK if entries[0].function else nullcontext():
            start = time.perf_counter()
            attributions = make(eval_set.video[rows], [eval_set.target(head, rows) for head in parts])
            seconds.append((time.perf_counter() - start) / (times * len(eval_set.video[rows])))
        for head, head_maps in zip(parts, attributions):
            parts[head].append(head_maps)
    # With three batches or more, compilation of the first does not affect the median
    cost = cost_in_passes(eval_set, make) if entries[0].function else 0, float(np.median(seconds))
    out, better = [], []
    for i, entry in enumerate(entries):
        batches = {head: [batch[i] for batch in head_maps] for head, head_maps in parts.items()}
        first = batches[eval_set.heads[0]][0]
        maps = {head: np.concatenate([batch.map for batch in head_batches]) for head, head_batches in batches.items()}
        in_time = is_temporal_only(maps.values())
        reading, metrics = score_maps(eval_set, maps, in_time=in_time)
        better.append(None if in_time else (reading, maps))
        out += [
            MethodResult(entry.method, first.stage, name, first.forward_passes or cost[0], cost[1], metrics[name])
            for name in eval_set.question_ids
        ]
    for (name, i), parts_of in measure_stability(eval_set, make, better).items():
        out[i * len(eval_set.question_ids) + eval_set.question_ids.index(name)].metrics[STABILITY_SCORE] = parts_of
    return out


def score_reference_maps(eval_set: EvalSet, name: str) -> list[MethodResult]:
    """Score maps made from the known cause; they need no passes."""
    _, metrics = score_maps(eval_set, {head: eval_set.reference_map(name, head) for head in eval_set.heads})
    return [MethodResult(name, VIDEO, question, 0, 0.0, metrics[question]) for question in eval_set.question_ids]


def score_maps(
    eval_set: EvalSet, maps: MapsByHead, *, in_time: bool = False
) -> tuple[str, dict[str, dict[str, Parts]]]:
    """Return the better reading of the maps of each head, and the metrics of each question."""
    by_reading = {}
    for reading in READINGS:
        cells = {head: eval_set.read(values, reading, in_time=in_time) for head, values in maps.items()}
        by_reading[reading] = {
            name: world_metrics.compute_world_metrics(
                cells[EVAL_QUESTIONS[name].head], eval_set.ground_truth[name], cells
            )
            for name in eval_set.question_ids
        }
    return better_reading(by_reading)


def measure_stability(
    eval_set: EvalSet,
    make: Callable[..., list[list[Attribution]]],
    readings_and_maps: Sequence[tuple[str, MapsByHead] | None],
) -> dict[tuple[str, int], Parts]:
    """Return the parts of STABLE on the first clips, by question and number of the entry.

    Questions with the same irrelevant factor share the redrawn clips. `make` returns maps of all entries for clips and
    targets; `readings_and_maps` has each entry's reading and its maps by head, or None for maps of time only.
    """
    rows, out = slice(0, min(STABILITY_CLIPS, len(eval_set))), {}
    for factor in dict.fromkeys(EVAL_QUESTIONS[name].irrelevant_factor for name in eval_set.question_ids):
        names = [name for name in eval_set.question_ids if EVAL_QUESTIONS[name].irrelevant_factor == factor]
        targets = [eval_set.target(EVAL_QUESTIONS[name].head, rows) for name in names]
        attributions = make(eval_set.redraw_factor(factor, rows), targets)
        for name, entry_maps in zip(names, attributions):
            ground_truth, head = eval_set.ground_truth[name], EVAL_QUESTIONS[name].head
            for i, (after, entry) in enumerate(zip(entry_maps, readings_and_maps, strict=True)):
                if entry is None:
                    continue
                reading, maps = entry
                mass, redrawn = (
                    world_metrics.reorder(eval_set.read(values, reading), ground_truth.true_map[rows])
                    for values in (maps[head][rows], after.map)
                )
                out[name, i] = world_metrics.stable_parts(mass, redrawn, ground_truth.core[rows])
    return out


def cost_in_passes(eval_set: EvalSet, make: Callable[..., list[list[Attribution]]]) -> int:
    """Return the number of forward passes that take as long as a custom function, whose cost is unknown.

    Both are already compiled for this batch size.
    """
    video, rows = eval_set.video[:EVAL_BATCH_SIZE], slice(0, EVAL_BATCH_SIZE)
    target = eval_set.target(eval_set.heads[0], rows)

    def fastest(work: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    with CUSTOM_CODE_LOCK:
        method_seconds = fastest(lambda: make(video, [target]))
    return max(round(method_seconds / fastest(lambda: batched_logits(eval_set.network, video))), 1)


def is_temporal_only(maps: Iterable[Float[np.ndarray, "..."]]) -> bool:
    """Return whether maps vary over time but not over space."""
    maps = list(maps)
    same_everywhere = all((values == values[:, :, :1, :1]).all() for values in maps)
    return same_everywhere and any((values != values[:, :1]).any() for values in maps)


def batch_slices(n: int) -> Iterator[slice]:
    return (slice(start, min(start + EVAL_BATCH_SIZE, n)) for start in range(0, n, EVAL_BATCH_SIZE))


def group_entries(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group entries whose maps are computed together; an entry with options is a group by itself."""
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(entry.group, []).append(entry)
    return out
