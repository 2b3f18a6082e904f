"""Data of the report page in addition to the tables: temporal profiles of derivatives, and cosines between vectors."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import COSINES_CSV, CosineRow
from vtcav_jax.tcav.experiment.comparisons import fit_comparisons
from vtcav_jax.tcav.experiment.depth_effects import write_depth_effects
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.vectors import cosines

DERIVATIVE_PROFILES_NPZ = "over_time.npz"


def write_report_data(
    folder: Path, plan: Plan, examples: Callable[[str], Features], grams: Callable[[str], Gram]
) -> None:
    """Write `cosines.csv`, `over_time.npz` and the tables of `depth_effects`.

    The second holds, for each stage with a time axis, `STAGE|vectors` (names), and for each class `STAGE|TARGET` with
    shape (vectors, clips, times), whose sum over times is the clip's derivative, and `TARGET|clips` (names). Stages
    whose vectors exceed the memory budget are left out, as are all stages for finite-step derivatives, which are not
    sums over time.
    """
    rows: list[CosineRow] = []
    arrays: dict[str, np.ndarray] = {}
    comparisons = plan.comparisons.entries
    names = np.array([comparison.name for comparison in comparisons])
    for target in plan.clips.classes:
        arrays[f"{target.name}|clips"] = np.array([plan.clips.targets.names[row] for row in target.rows])
    for stage in plan.stages:
        kernel = grams(stage).kernel
        vectors = fit_comparisons(kernel, comparisons, plan.config)
        cosine = cosines(kernel, vectors)
        rows += [
            CosineRow(stage, left.comparison_type, left.name, right.name, float(cosine[i, j]))
            for i, left in enumerate(comparisons)
            for j, right in enumerate(comparisons)
            if i != j and left.comparison_type == right.comparison_type
        ]
        shape = plan.shapes[stage][0]
        config = plan.config
        if config.sensitivity == "finite" or not _has_time_axis(shape, config.pool):
            continue
        if 4 * len(comparisons) * math.prod(shape) > config.budget:
            continue
        directions = examples(stage).linear_combination(np.nan_to_num(vectors.unit))
        arrays[f"{stage}|vectors"] = names
        for target in plan.clips.classes:
            gradients = (plan.store.get(plan.gradient_key(row, target.index, stage)) for row in target.rows)
            arrays[f"{stage}|{target.name}"] = np.stack(
                [derivative_profile(gradient, directions) for gradient in gradients], 1
            )
    write_rows(folder / COSINES_CSV, CosineRow, rows)
    write_depth_effects(folder, plan, grams)
    with atomic.replacing(folder / DERIVATIVE_PROFILES_NPZ) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _has_time_axis(shape: tuple[int, ...], pool: str) -> bool:
    """Return whether the first axis of a clip's (pooled) activation is time."""
    return len(shape) == {"none": 4, "space": 2}.get(pool)


def derivative_profile(
    gradient: Float[np.ndarray, "t ..."], directions: Float[np.ndarray, "v t ..."]
) -> Float[np.ndarray, "v t"]:
    """Return the temporal profile of a clip's derivatives along `directions`: their parts from each time step."""
    t, v = len(gradient), len(directions)
    return np.einsum("tf,vtf->vt", gradient.reshape(t, -1), directions.reshape(v, t, -1)).astype(np.float32)
