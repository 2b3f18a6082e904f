"""Scores of maps against the known cause: one row per method, stage, network, question and metric."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.result import Attribution
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
from vtcav_jax.evaluation.world_benchmark.world_metrics import Mass, Parts
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import (
    ALL_QUESTIONS,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    STABILITY_SCORE,
    WORLD_METRICS,
    MethodScoreRow,
)
from vtcav_jax.stats.intervals import BOOTSTRAP_RESAMPLES
from vtcav_jax.worlds.render import WORLDS

DEFAULT_EVAL_CLIPS = 200
STABILITY_CLIPS = EVAL_BATCH_SIZE  # each needs a second map
EVAL_SEED = 77  # differs from the seeds of training clips


@dataclass(frozen=True, eq=False)
class MethodResult:
    """Metrics of one entry and question, per clip."""

    method: str
    stage: str
    question: str
    forward_passes: int
    seconds: float
    metrics: dict[str, Parts]


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
    ground_truth, sizes = eval_set.ground_truth, eval_set.grid_shape
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
    attributions_by_entry = [
        [batch[i] for head_maps in parts.values() for batch in head_maps] for i in range(len(entries))
    ]
    grids = [(sizes[0], 1, 1) if is_temporal_only(batches) else sizes for batches in attributions_by_entry]
    maps_by_head = {
        head: [
            (attributions[0], np.concatenate([world_metrics.normalise_map(a.map, grid) for a in attributions]))
            for attributions, grid in zip(zip(*head_maps), grids)
        ]
        for head, head_maps in parts.items()
    }
    median_seconds = float(
        np.median(seconds)
    )  # with three batches or more, compilation of the first does not affect it
    measured_passes = cost_in_passes(eval_set, make) if entries[0].function else 0
    out = []
    for i in range(len(entries)):
        entry_masses = {head: maps_by_head[head][i][1] for head in eval_set.heads}
        first = maps_by_head[eval_set.heads[0]][i][0]
        for name in eval_set.question_ids:
            head = EVAL_QUESTIONS[name].head
            metrics = world_metrics.compute_world_metrics(
                entry_masses[head], ground_truth[name], {other: m for other, m in entry_masses.items() if other != head}
            )
            out.append(
                MethodResult(
                    entries[i].method,
                    first.stage,
                    name,
                    first.forward_passes or measured_passes,
                    median_seconds,
                    metrics,
                )
            )
    for (name, entry), parts_of in measure_stability(eval_set, make, entries, maps_by_head).items():
        next(m for m in out if (m.question, m.method, m.stage) == (name, *entry)).metrics[STABILITY_SCORE] = parts_of
    return out


def measure_stability(
    eval_set: EvalSet,
    make: Callable[..., list[list[Attribution]]],
    entries: Sequence[Entry],
    maps_by_head: Mapping[str, Sequence[tuple[Attribution, Mass]]],
) -> dict[tuple[str, tuple[str, str]], Float[np.ndarray, "parts 2 some"]]:
    """Return the parts of STABLE on the first clips, by question, and by method and stage.

    Questions with the same irrelevant factor share the redrawn clips. `make` returns maps of `entries` for clips and
    targets.
    """
    rows, out = slice(0, min(STABILITY_CLIPS, len(eval_set))), {}
    for factor in dict.fromkeys(EVAL_QUESTIONS[name].irrelevant_factor for name in eval_set.question_ids):
        names = [name for name in eval_set.question_ids if EVAL_QUESTIONS[name].irrelevant_factor == factor]
        targets = [eval_set.target(EVAL_QUESTIONS[name].head, rows) for name in names]
        attributions = make(eval_set.redraw_factor(factor, rows), targets)
        for name, entry_maps in zip(names, attributions):
            for entry, after, (first, before) in zip(entries, entry_maps, maps_by_head[EVAL_QUESTIONS[name].head]):
                if before.shape[2:] != (1, 1):
                    core = eval_set.ground_truth[name].core[rows]
                    value = world_metrics.stable_parts(
                        before[rows], world_metrics.normalise_map(after.map, eval_set.grid_shape), core
                    )
                    out[name, (entry.method, first.stage)] = value
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


def is_temporal_only(attributions: Sequence[Attribution]) -> bool:
    """Return whether maps vary over time but not over space."""
    same_everywhere = all((a.map == a.map[:, :, :1, :1]).all() for a in attributions)
    return same_everywhere and any((a.map != a.map[:, :1]).any() for a in attributions)


def batch_slices(n: int) -> Iterator[slice]:
    return (slice(start, min(start + EVAL_BATCH_SIZE, n)) for start in range(0, n, EVAL_BATCH_SIZE))


def group_entries(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group entries whose maps are computed together; an entry with options is a group by itself."""
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(entry.group, []).append(entry)
    return out


def result_rows(results: Sequence[MethodResult], network_name: str, seed: int = 0) -> list[MethodScoreRow]:
    """Return rows of each metric, of TRUTH (their mean) per question and over all questions, and of CHOSEN.

    CHOSEN applies to methods with several stages.
    """
    out, overall = [], {}
    for (method, stage), method_results in group_by_method_and_stage(results).items():
        row = partial(_row, (method, stage, network_name), _entry_cost(method_results))
        mean_scores = []
        for result in method_results:
            values = {metric: bootstrap_skill(parts, seed) for metric, parts in result.metrics.items()}
            n = {metric: int((~np.isnan(parts[0, 0])).sum()) for metric, parts in result.metrics.items()}
            out += [row(result.question, metric, drawn, n[metric]) for metric, drawn in values.items()]
            if "WHERE" in values:
                mean_scores.append(np.mean([values[metric] for metric in WORLD_METRICS if metric in values], 0))
                out.append(row(result.question, MEAN_SCORE, mean_scores[-1], n["WHERE"]))
        if len(mean_scores) == len(method_results):
            overall[method, stage] = np.mean(mean_scores, 0)[0]
        if len(mean_scores) > 1:
            n_clips = max(parts.shape[-1] for m in method_results for parts in m.metrics.values())
            out.append(row(ALL_QUESTIONS, MEAN_SCORE, np.mean(mean_scores, 0), n_clips))
    return [*out, *cross_validated_stage(results, overall, network_name, seed)]


MIN_CLIPS_TO_SELECT = 20  # so that each half can measure every metric


def cross_validated_stage(
    results: Sequence[MethodResult], overall: Mapping[tuple[str, str], float], network_name: str, seed: int
) -> list[MethodScoreRow]:
    """Return CHOSEN: TRUTH on half of the clips, at the stage that is best on the other half, and vice versa.

    Without this split TRUTH of the best stage is biased upwards. Each bootstrap draw selects again. `overall` is TRUTH
    on all clips.
    """
    methods: dict[str, dict[str, list[MethodResult]]] = {}
    for (method, stage), method_results in group_by_method_and_stage(results).items():
        if (method, stage) in overall:
            methods.setdefault(method, {})[stage] = method_results
    out = []
    for method, stages in methods.items():
        n_clips = min(r.metrics["WHERE"].shape[-1] for method_results in stages.values() for r in method_results)
        if len(stages) > 1 and n_clips >= MIN_CLIPS_TO_SELECT:
            halves = [
                np.stack(
                    [_mean_score(method_results, slice(half, None, 2), seed) for method_results in stages.values()]
                )
                for half in (0, 1)
            ]
            first_choice, second_choice = (np.where(np.isnan(half), -np.inf, half).argmax(0)[None] for half in halves)
            cross_scores = (
                np.take_along_axis(halves[1], first_choice, 0),
                np.take_along_axis(halves[0], second_choice, 0),
            )
            best = max(stages, key=lambda stage: overall[method, stage])
            row_key = method, best, network_name
            out.append(
                _row(
                    row_key,
                    _entry_cost(stages[best]),
                    ALL_QUESTIONS,
                    CROSS_VALIDATED_SCORE,
                    np.mean(cross_scores, (0, 1)),
                    n_clips,
                )
            )
    return out


def _entry_cost(results: Sequence[MethodResult]) -> tuple[int, float]:
    return max(m.forward_passes for m in results), float(np.median([m.seconds for m in results]))


def _mean_score(results: Sequence[MethodResult], clips: slice, seed: int) -> Float[np.ndarray, " draws"]:
    """Return the mean score over all questions on `clips`."""
    result_draws = (
        [bootstrap_skill(r.metrics[metric][..., clips], seed) for metric in WORLD_METRICS if metric in r.metrics]
        for r in results
    )
    return np.mean([np.mean(draws, 0) for draws in result_draws], 0)


def _row(
    row_key: tuple[str, str, str],
    cost: tuple[int, float],
    question: str,
    metric: str,
    samples: Float[np.ndarray, " draws"],
    n_clips: int,
) -> MethodScoreRow:
    return MethodScoreRow(*row_key, question, metric, *bootstrap_interval(samples), n_clips, *cost)


def group_by_method_and_stage(results: Sequence[MethodResult]) -> dict[tuple[str, str], list[MethodResult]]:
    out: dict[tuple[str, str], list[MethodResult]] = {}
    for result in results:
        out.setdefault((result.method, result.stage), []).append(result)
    return out


def bootstrap_skill(parts: Parts, seed: int) -> Float[np.ndarray, " draws"]:
    """Return the mean skill over all clips, then over bootstrap samples, which are the same for all metrics."""
    weights = bootstrap_weights(parts.shape[-1], seed)
    known = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        means = (np.where(known, parts, 0.0) @ weights.T) / (known.astype(np.float64) @ weights.T)
    return world_metrics.chance_corrected(means[:, 0], means[:, 1]).mean(0)


@lru_cache(maxsize=4)
def bootstrap_weights(n: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """Return weights of the clips: all 1, then the counts of each bootstrap sample."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), BOOTSTRAP_RESAMPLES)
    return np.concatenate([np.ones((1, n)), counts])


def bootstrap_interval(samples: Float[np.ndarray, " draws"]) -> tuple[float, float, float]:
    low, high = np.nanquantile(samples[1:], (0.025, 0.975))
    return float(samples[0]), float(low), float(high)
