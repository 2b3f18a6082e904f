"""Calibration check of a stage (layer): random sets are tested like concepts, to measure the false-positive rate."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vtcav_jax.tcav.experiment.config import CALIBRATION_PERMUTATIONS
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_comparison import (
    EARLY_STOP_EXCEEDANCES,
    expand_examples,
    primary_p,
    take_rows,
)
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.permutation_test import DerivativeFn, permutation_tests
from vtcav_jax.tcav.stats.vectors import label_vector


def calibration_p(
    grams: Sequence[Gram], plan: Plan, derivative_fn: DerivativeFn | None = None
) -> dict[str, dict[str, list[float]]]:
    """Run the calibration check: p-values of random sets that are tested like concepts, which should be uniform.

    First each random set is tested against the others; further sets are drawn as whole source videos from all random
    clips, up to the concepts' median size.
    """
    s, count, video_ids = plan.config, len(grams[0].kernel), plan.clips.video_ids
    out: dict[str, dict[str, list[float]]] = {}
    for clip_type, random_sets in plan.comparisons.random_sets.items() if s.calibration_trials else ():
        pool = np.array(sorted({i for rows in random_sets.values() for i in rows}))
        sizes = [
            len(q.positive_clips)
            for q in plan.comparisons.entries
            if q.comparison_type == "absolute" and q.clip_type == clip_type
        ]
        p_values: dict[str, list[float]] = {"sets": [], "drawn": []}
        for trial in range(s.calibration_trials):
            if trial < len(random_sets) and len(random_sets) > 1:
                posing_rows, origin = np.array(list(random_sets.values())[trial]), "sets"
            else:
                size = min(int(np.median(sizes)) if sizes else len(pool) // 2, len(pool) // 2)
                posing_rows, origin = (
                    _draw_videos(pool, video_ids, size, np.random.default_rng([s.seed, trial])),
                    "drawn",
                )
            if min(len(posing_rows), len(pool) - len(posing_rows)) < 2:
                continue
            labels = label_vector(posing_rows, np.setdiff1d(pool, posing_rows), count)
            used_rows = np.flatnonzero(labels).tolist()
            tests = permutation_tests(
                [take_rows(gram, used_rows) for gram in grams],
                labels[used_rows],
                s.fit_config,
                permutations=CALIBRATION_PERMUTATIONS,
                seed=[s.seed, trial, 1],
                units=None if s.permute == "clips" else video_ids[used_rows],
                max_exceedances=EARLY_STOP_EXCEEDANCES,
                derivative_fn=expand_examples(derivative_fn, np.eye(count)[used_rows]),
            )
            p_values[origin] += [primary_p(test, s) for test in tests]
        out[clip_type] = p_values
    return out


def _draw_videos(
    pool: Int[np.ndarray, " p"], video_ids: Int[np.ndarray, " m"], size: int, rng: np.random.Generator
) -> Int[np.ndarray, " s"]:
    """Return the clips of randomly drawn source videos, at least `size` of them."""
    order = rng.permutation(np.unique(video_ids[pool]))
    counts = np.array([(video_ids[pool] == video).sum() for video in order])
    videos = order[: int(np.searchsorted(np.cumsum(counts), size)) + 1]
    return pool[np.isin(video_ids[pool], videos)]
