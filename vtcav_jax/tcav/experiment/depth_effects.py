"""Effects by depth beyond the tests: random sets as if they were concepts, dynamic against static clips, and trends."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.console import progress
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_depth_rows import (
    CLIP_TYPES,
    DEPTH_TRENDS_CSV,
    GROUP_EFFECTS_CSV,
    RANDOM_SETS,
    DepthTrendRow,
    GroupEffectRow,
)
from vtcav_jax.stats.intervals import share_ci
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_comparison import take_rows
from vtcav_jax.tcav.experiment.stage_results import restricted_comparison, split_by_class
from vtcav_jax.tcav.experiment.verdicts import MIN_VIDEOS
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import EffectIntervals, bootstrap
from vtcav_jax.tcav.stats.depth_trend import depth_trend
from vtcav_jax.tcav.stats.multiple_testing import adjust_p
from vtcav_jax.tcav.stats.scores import tcav_scores
from vtcav_jax.tcav.stats.vectors import fit, label_vector

MIN_TREND_STAGES = 3
TREND_COMPARISONS = "absolute", "motion"


def write_depth_effects(folder: Path, plan: Plan, grams: Callable[[str], Gram]) -> None:
    """Write `group_effects.csv` and, for at least three stages, `depth_trends.csv`; both need gradients."""
    if plan.config.sensitivity == "finite":
        return
    rows: list[GroupEffectRow] = []
    intervals: dict[str, list[list[EffectIntervals]]] = {}
    for stage in progress(plan.stages, len(plan.stages), "effects by depth", size=lambda _: 1):
        class_grams = split_by_class(grams(stage), plan)
        rows += _group_rows(plan, stage, class_grams)
        if len(plan.stages) >= MIN_TREND_STAGES:
            intervals[stage] = _comparison_intervals(plan, class_grams)
    write_rows(folder / GROUP_EFFECTS_CSV, GroupEffectRow, rows)
    if intervals:
        write_rows(folder / DEPTH_TRENDS_CSV, DepthTrendRow, _trend_rows(plan, intervals))


@dataclass(frozen=True)
class _Group:
    group: str
    concept: str
    clip_type: str
    negatives: str
    positive_clips: tuple[int, ...]
    negative_clips: tuple[int, ...]


def _groups(plan: Plan) -> Iterator[_Group]:
    """Yield each random set against the other sets, and dynamic against static clips of concepts and random sets."""
    for clip_type, sets in plan.comparisons.random_sets.items():
        for name, clips in sets.items():
            others = sum((rows for other, rows in sets.items() if other != name), ())
            yield _Group(RANDOM_SETS, name, clip_type, NEGATIVE_PREFIX, clips, others)
    rows_of: dict[tuple[str, str], tuple[int, ...]] = {}
    for i, clip in enumerate(plan.clips.concept_clips):
        key = NEGATIVE_PREFIX if clip.is_negative else clip.concept, clip.clip_type
        rows_of[key] = (*rows_of.get(key, ()), i)
    for concept in dict.fromkeys(concept for concept, _ in rows_of):
        clips = (rows_of.get((concept, clip_type), ()) for clip_type in ("dynamic", "static"))
        yield _Group(CLIP_TYPES, concept, "dynamic", "static", *clips)


def _group_rows(plan: Plan, stage: str, grams: list[Gram]) -> list[GroupEffectRow]:
    config, out = plan.config, []
    for group in _groups(plan):
        n_concept, n_negatives = len(group.positive_clips), len(group.negative_clips)
        if min(n_concept, n_negatives) < 2:
            continue
        used = [*group.positive_clips, *group.negative_clips]
        class_grams = [take_rows(gram, used) for gram in grams]
        labels = label_vector(range(n_concept), range(n_concept, len(used)), len(used))
        vectors = fit(class_grams[0].kernel, labels[None], config.fit_config)
        if not vectors.norm[0] > 0:
            continue
        intervals = bootstrap(
            class_grams,
            labels,
            config.fit_config,
            units=plan.clips.video_ids[used],
            target_units=plan.clips.target_videos,
            draws=config.bootstrap_draws,
            seed=config.seed,
        )
        for target, videos, gram, interval in zip(plan.clips.classes, plan.clips.target_videos, class_grams, intervals):
            scores, n_target_videos = tcav_scores(gram, vectors), len(np.unique(videos))
            sign_count = float(scores.sign_count[0, 0])
            out.append(
                GroupEffectRow(
                    *(target.name, stage, group.group, group.concept, group.clip_type, group.negatives),
                    *(n_concept, n_negatives, len(target.rows), n_target_videos),
                    *(sign_count, *share_ci(sign_count, n_target_videos)),
                    *(float(scores.derivative[0, 0]), *interval.derivative["all"]),
                    float(scores.relative_derivative[0, 0]),
                    *(interval.step_effect, *interval.step_interval),
                )
            )
    return out


def _comparison_intervals(plan: Plan, grams: list[Gram]) -> list[list[EffectIntervals]]:
    """Return the resampled effects of each comparison and class at a stage; resamples do not depend on the stage."""
    return [
        restricted_comparison(comparison, grams, plan).intervals([])
        for comparison in plan.comparisons.entries
        if comparison.comparison_type in TREND_COMPARISONS
    ]


def _trend_rows(plan: Plan, intervals: dict[str, list[list[EffectIntervals]]]) -> list[DepthTrendRow]:
    """Return the trends of all comparisons with enough stages and videos; p-values for those of motion."""
    rows = []
    comparisons = [entry for entry in plan.comparisons.entries if entry.comparison_type in TREND_COMPARISONS]
    for i, comparison in enumerate(comparisons):
        n_videos = comparison.n_videos(plan.clips.video_ids)
        for c, (target, videos) in enumerate(zip(plan.clips.classes, plan.clips.target_videos)):
            known = {
                stage: entry[i][c]
                for stage, entry in intervals.items()
                if np.isfinite([entry[i][c].step_effect, *entry[i][c].step_draws]).all() and entry[i][c].step_effect
            }
            n_target_videos = len(np.unique(videos))
            if len(known) < MIN_TREND_STAGES or min(n_videos, n_target_videos) < MIN_VIDEOS:
                continue
            effects = np.array([entry.step_effect for entry in known.values()])
            trend = depth_trend(effects, np.stack([entry.step_draws for entry in known.values()]))
            is_motion = comparison.comparison_type == "motion"
            names = comparison.comparison_type, comparison.concept, comparison.clip_type, comparison.negatives
            counts = " ".join(known), n_videos, n_target_videos
            p = trend.p if is_motion else math.nan
            rows.append(DepthTrendRow(target.name, *names, *counts, trend.slope, trend.low, trend.high, p, math.nan))
    p_adjusted = adjust_p(np.array([row.p for row in rows], float), "holm")
    return [replace(row, p_adjusted=float(p)) for row, p in zip(rows, p_adjusted)]
