"""File of a run's concept vectors as feature arrays, to score or explain other clips."""

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.tap import Model
from vtcav_jax.tcav.experiment.comparisons import fit_comparisons
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram

VECTORS_FILE = "vectors.safetensors"


@dataclass(frozen=True)
class VectorBundle:
    """Unit concept vectors by name, `STAGE|CONCEPT/TYPE/NEGATIVES`, with the pooling and network they belong to.

    A clip's classifier logit is the inner product of its (pooled) activation and the vector, times `norm`, plus
    `intercept`.
    """

    arrays: dict[str, np.ndarray]
    weights: str  # hash of the network
    pool: str
    norm: dict[str, float]
    intercept: dict[str, float]


def export_vectors(
    folder: Path, plan: Plan, examples: Callable[[str], Features], grams: Callable[[str], Gram]
) -> Path | None:
    """Write all vectors except zero vectors; if they exceed the memory budget, write nothing and return None."""
    from safetensors.numpy import save_file

    comparisons = plan.comparisons.entries
    if sum(len(comparisons) * math.prod(shape) * 4 for shape, _ in plan.shapes.values()) > plan.config.budget:
        return None
    arrays: dict[str, np.ndarray] = {}
    norms: dict[str, float] = {}
    intercepts: dict[str, float] = {}
    for stage in plan.stages:
        features, kernel = examples(stage), grams(stage).kernel
        vectors = fit_comparisons(kernel, comparisons, plan.config)
        real = np.flatnonzero(vectors.norm > 0)
        mean = np.concatenate([block.mean(0, dtype=np.float64) for block in features.blocks()])
        for i, vector in zip(real, features.linear_combination(vectors.unit[real])):
            name = f"{stage}|{comparisons[i].name}"
            arrays[name] = np.ascontiguousarray(vector, np.float32)
            norms[name] = float(vectors.norm[i])
            # The fitted classifier is relative to the examples' mean, the exported one to an activation of 0
            shift = norms[name] * float(vector.reshape(-1).astype(np.float64) @ mean)
            intercepts[name] = float(vectors.intercept[i]) - shift
    metadata = {"weights": plan.weights_hash, "pool": plan.config.pool, "norm": norms, "intercept": intercepts}
    path = folder / VECTORS_FILE
    with atomic.replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"about": json.dumps(metadata)})
    return path


def list_vectors(folder: Path) -> list[str]:
    """Return the names of the vectors that a run exported, without reading them; empty if it exported none."""
    return list(load_vectors(folder, ()).norm) if (folder / VECTORS_FILE).is_file() else []


def load_vectors(folder: Path, names: Collection[str] | None = None) -> VectorBundle:
    """Load the vectors that a run exported, or only those with these names."""
    from safetensors import SafetensorError, safe_open

    path = folder / VECTORS_FILE
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected the folder of a `vtcav tcav` run with --export_vectors")
    try:
        with safe_open(path, "numpy") as file:
            metadata = json.loads(file.metadata()["about"])
            names = file.keys() if names is None else names
            return VectorBundle({name: file.get_tensor(name) for name in names}, **metadata)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); repeat the tcav run") from error


def load_vectors_for(model: Model, folder: Path) -> VectorBundle:
    """Load the vectors that a run exported; raise ValueError if they belong to another network."""
    bundle = load_vectors(folder)
    if fingerprint(model) != bundle.weights:
        raise ValueError(
            f"the vectors in {folder} belong to another network; pass the --model that they were made with"
        )
    return bundle
