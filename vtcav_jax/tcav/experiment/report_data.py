"""What a page shows beside the tables: when in its clip a derivative arises, and which vectors say the same."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.verdicts import write_rows
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.vectors import cosines, fit

COSINES, OVER_TIME = "entanglement.csv", "over_time.npz"


@dataclass(frozen=True)
class Cosine:
    """Between two vectors of a stage that are trained for the same test."""

    stage: str
    test: str
    left: str
    right: str
    cosine: float


def write_shown(folder: Path, plan: Plan, examples: Callable[[str], Features], products: Callable[[str], Gram]) -> None:
    """Writes `entanglement.csv` and `over_time.npz`.

    The second holds, for each stage whose features have a time, `STAGE|vectors` (names), and for each class
    `STAGE|TARGET` of shape (vectors, clips, times), whose sum over times is the clip's derivative, and `TARGET|clips`
    (names). Stages whose vectors are more than the memory that may be used are left out, and all stages where
    derivatives are those of whole steps, which are no sums over moments.
    """
    rows: list[Cosine] = []
    arrays: dict[str, np.ndarray] = {}
    questions = plan.asked.questions
    names = np.array([question.name for question in questions])
    for target in plan.looked.classes:
        arrays[f"{target.name}|clips"] = np.array([plan.looked.targets.names[row] for row in target.rows])
    for stage in plan.stages:
        kernel = products(stage).kernel
        vectors = fit(kernel, np.stack([q.signed(len(kernel)) for q in questions]), plan.settings.training)
        cosine = cosines(kernel, vectors)
        rows += [
            Cosine(stage, left.test, left.name, right.name, float(cosine[i, j]))
            for i, left in enumerate(questions)
            for j, right in enumerate(questions)
            if i != j and left.test == right.test
        ]
        shape = plan.shapes[stage][0]
        settings = plan.settings
        if settings.sensitivity == "finite" or not _timed(shape, settings.pool):
            continue
        if 4 * len(questions) * math.prod(shape) > settings.budget:
            continue
        directions = examples(stage).combined(np.nan_to_num(vectors.unit))
        arrays[f"{stage}|vectors"] = names
        for target in plan.looked.classes:
            slopes = (plan.store.get(plan.gradient_key(row, target.index, stage)) for row in target.rows)
            arrays[f"{stage}|{target.name}"] = np.stack([over_time(slope, directions) for slope in slopes], 1)
    write_rows(folder / COSINES, Cosine, rows)
    with atomic.replacing(folder / OVER_TIME) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _timed(shape: tuple[int, ...], pool: str) -> bool:
    """Whether the first axis of a clip's (pooled) value is time."""
    return len(shape) == {"none": 4, "space": 2}.get(pool)


def over_time(slope: Float[np.ndarray, "t ..."], directions: Float[np.ndarray, "v t ..."]) -> Float[np.ndarray, "v t"]:
    """The parts of a clip's derivatives along `directions` that come from each moment."""
    t, v = len(slope), len(directions)
    return np.einsum("tf,vtf->vt", slope.reshape(t, -1), directions.reshape(v, t, -1)).astype(np.float32)
