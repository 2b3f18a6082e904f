"""Steering check of findings: target clips are moved along the vectors of findings, and along random directions.

A derivative predicts an infinitesimal step. Here activations are moved by the whole distance between the negatives and
the concept, in both directions, and the rest of the network is run.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial

import numpy as np

from vtcav_jax import distributed
from vtcav_jax.console import progress
from vtcav_jax.runs.tcav_rows import DerivativeRow, ScoreRow, SteeringRow
from vtcav_jax.tcav.experiment.comparisons import Comparison, fit_comparisons
from vtcav_jax.tcav.experiment.fill_cache import target_batches
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_grams import StageGrams
from vtcav_jax.tcav.experiment.verdicts import CONTRADICTED, is_finding
from vtcav_jax.tcav.features.cache import content_key
from vtcav_jax.tcav.features.microbatches import ClipBatches
from vtcav_jax.tcav.stats.bootstrap import video_weights
from vtcav_jax.tcav.steering.steer import steer

STEERING_STEPS = (-1.0, 1.0)  # in units of the distance from the negatives to the concept


def check_steering(
    stage_grams: StageGrams, rows: Sequence[ScoreRow], derivatives: Sequence[DerivativeRow]
) -> list[SteeringRow]:
    """Return a row for each finding among `rows` and each of `STEERING_STEPS`.

    Results are cached; several processes divide the vectors among them.
    """
    plan = stage_grams.plan
    comparisons = {comparison.name: comparison for comparison in plan.comparisons.entries}
    findings: dict[tuple[str, str], list[ScoreRow]] = defaultdict(list)
    for row in filter(is_finding, rows):
        findings[row.stage, _comparison_name(row)].append(row)
    if not findings:
        return []
    rows_of_class = {target.name: steered_rows(plan, c) for c, target in enumerate(plan.clips.classes)}
    rows_of = {
        key: tuple(sorted({i for row in finding_rows for i in rows_of_class[row.target]}))
        for key, finding_rows in findings.items()
    }
    load_clips = lru_cache(maxsize=1)(partial(target_batches, plan, stage_grams.runtime))
    local_findings = distributed.local_share(sorted(findings, key=lambda key: rows_of[key]))
    for key in progress(local_findings, len(local_findings), "vectors to steer along", size=lambda _: 1):
        _score_changes(stage_grams, key[0], comparisons[key[1]], rows_of[key], load_clips)
    distributed.all_gather(None)
    slopes = {
        (d.target, d.stage, f"{d.concept}/{d.clip_type}/{d.negatives}", d.clip): d.derivative for d in derivatives
    }
    out = []
    for (stage, name), finding_rows in findings.items():
        moved_rows = rows_of[stage, name]
        changes = _score_changes(stage_grams, stage, comparisons[name], moved_rows, load_clips)
        for row in finding_rows:
            class_rows = rows_of_class[row.target]
            clip_names = [plan.clips.targets.names[i] for i in class_rows]
            slope = float(np.mean([slopes[row.target, stage, name, clip] for clip in clip_names]))
            out += _steering_rows(plan, row, changes, slope, [moved_rows.index(i) for i in class_rows])
    return out


def with_steering_verdicts(rows: Sequence[ScoreRow], steering: Sequence[SteeringRow]) -> list[ScoreRow]:
    """Return the rows, with the findings whose score really changes in the other direction marked as contradicted.

    The real change is half the difference between the steps towards the concept and away from it.
    """
    changes: dict[tuple[str, str, str], float] = defaultdict(float)
    for step in steering:
        changes[step.target, step.stage, _comparison_name(step)] += step.step_units * step.score_change
    return [
        replace(row, verdict=CONTRADICTED)
        if changes.get((row.target, row.stage, _comparison_name(row)), row.derivative) * row.derivative < 0
        else row
        for row in rows
    ]


def steered_rows(plan: Plan, class_index: int) -> list[int]:
    """Return the target clips of a class that are moved: one of each source video first, then further ones."""
    rows, limit = plan.clips.classes[class_index].rows, plan.config.steering_clips
    videos = plan.clips.target_videos[class_index]
    order = np.random.default_rng([plan.config.seed, class_index]).permutation(len(rows))
    turn_of_video: dict[int, int] = defaultdict(int)
    turns = []
    for i in order:
        turns.append(turn_of_video[int(videos[i])])
        turn_of_video[int(videos[i])] += 1
    positions = order[np.argsort(turns, kind="stable")][:limit]
    return [rows[i] for i in sorted(positions)]


def _comparison_name(row: ScoreRow | SteeringRow) -> str:
    return f"{row.concept}/{row.clip_type}/{row.negatives}"


def _steering_rows(
    plan: Plan, row: ScoreRow, changes: dict[str, np.ndarray], slope: float, positions: Sequence[int]
) -> list[SteeringRow]:
    """Return the rows of one finding; `positions` are its clips among the moved ones, `slope` their derivative."""
    class_index = next(c for c, target in enumerate(plan.clips.classes) if target.name == row.target)
    target = plan.clips.classes[class_index]
    moved_rows = steered_rows(plan, class_index)
    videos = plan.clips.target_videos[class_index][[target.rows.index(i) for i in moved_rows]]
    weights = video_weights(videos, plan.config.bootstrap_draws, np.random.default_rng([plan.config.seed, class_index]))
    unit_length, out = float(changes["units"][0]), []
    for e, step in enumerate(STEERING_STEPS):
        by_clip = changes["change"][e, class_index, positions]
        change = float(by_clip.mean())
        low, high = np.quantile(weights @ by_clip, [0.025, 0.975])
        random = changes["controls"][:, e, class_index, positions].mean(-1)
        random_low, random_high = np.quantile(random, [0.025, 0.975]) if len(random) else (math.nan, math.nan)
        p = (1 + int((np.abs(random) >= abs(change)).sum())) / (1 + len(random)) if len(random) else math.nan
        out.append(
            SteeringRow(
                target=row.target,
                stage=row.stage,
                concept=row.concept,
                clip_type=row.clip_type,
                negatives=row.negatives,
                step_units=step,
                step_norm=step * unit_length,
                n_clips=len(positions),
                score_change=change,
                score_change_low=float(low),
                score_change_high=float(high),
                predicted_change=slope * step * unit_length,
                random_low=float(random_low),
                random_high=float(random_high),
                p_random_directions=p,
            )
        )
    return out


def _score_changes(
    stage_grams: StageGrams,
    stage: str,
    comparison: Comparison,
    rows: tuple[int, ...],
    load_clips: Callable[[tuple[int, ...]], ClipBatches],
) -> dict[str, np.ndarray]:
    """Return the score changes of moved clips: `change` (step, class, clip), `controls` (control, step, class, clip).

    `rows` are the target clips to move.
    """
    plan = stage_grams.plan
    s, seed = plan.config, [plan.config.seed, comparison.seed]
    classes = [asdict(target) for target in plan.clips.classes]
    vectors = [s.steering_controls, STEERING_STEPS, seed, s.score_fn, asdict(s.fit_config), asdict(comparison)]
    clip_keys = [plan.clips.targets.keys[row] for row in rows]
    key = content_key("steering", stage_grams.gram_key(stage), classes, vectors, clip_keys)
    if not plan.store.has(key, ".npz"):
        stage_gram = stage_grams.cached_gram(stage)
        count = len(stage_gram.kernel)
        used = np.isin(np.arange(count), comparison.examples).astype(float)[None]
        vectors = fit_comparisons(stage_gram.kernel, [comparison], s)
        result = steer(
            plan.network.model,
            load_clips(rows),
            np.array([target.index for target in plan.clips.classes]),
            stage,
            stage_grams.examples(stage),
            stage_gram,
            used,
            vectors,
            STEERING_STEPS,
            n_controls=s.steering_controls,
            config=s.encode_config,
            seed=seed,
            runtime=stage_grams.runtime,
            unit_lengths=comparison.mean_difference(count)[None] @ stage_gram.kernel @ vectors.unit[0],
        )
        arrays = {"units": result.unit_lengths, "change": result.score_change[0], "controls": result.control_changes[0]}
        plan.store.put_arrays(key, arrays)
    return plan.store.get_arrays(key)
