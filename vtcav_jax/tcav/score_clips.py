"""New clips by vectors that are there: how much of a concept is in them, when, and what it does to class scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vtcav_jax import models, tap
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import progress
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.data.open import Source
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tcav.features.cache import fingerprint
from vtcav_jax.tcav.features.encode import TARGETS
from vtcav_jax.tcav.features.pooling import spread_out
from vtcav_jax.tcav.vector_file import Stored


@dataclass(frozen=True)
class Explained:
    """One clip, class and vector. `projection` is the (pooled) activation along the unit vector, `inside` what the
    concept's classifier says of the clip (above 0: the concept), `derivative` that of the class score."""

    clip: str
    target: str
    stage: str
    vector: str
    class_score: float
    derivative: float
    projection: float
    inside: float


@dataclass(frozen=True)
class Moment:
    """The part of a projection that comes from one place in time of the stage; the parts' sum, or where time is pooled
    their mean, is the projection. `fraction` is where in the clip it lies, 0 to 1."""

    clip: str
    stage: str
    vector: str
    index: int
    fraction: float
    projection: float


def explain(
    loaded: Network,
    stored: Stored,
    source: Source,
    targets: Sequence[str],
    *,
    target_fn: str = "logit",
    geometry: ClipSpec | None = None,
    workers: int = 0,
) -> tuple[list[Explained], list[Moment], list[ReadResult]]:
    """Of every clip that can be read; what could not comes last."""
    geometry = geometry or models.PRESETS[loaded.preset].clip_spec
    if fingerprint(loaded.model) != stored.weights:
        raise ValueError(
            "the vectors are of another network; give the --model that they were made with, or make new ones"
        )
    if not targets:
        raise ValueError(f"name at least one target; the network has {', '.join(loaded.labels)}")
    if target_fn not in TARGETS:
        raise ValueError(unknown_name_message("target_fn", [target_fn], TARGETS))
    classes = np.array([loaded.class_index(name) for name in targets])
    names: dict[str, list[str]] = {}
    for name in stored.arrays:
        names.setdefault(name.split("|", 1)[0], []).append(name)
    video = jax.ShapeDtypeStruct((1, *geometry.shape), np.float32)
    seen = jax.eval_shape(lambda m, v: tap.activations(m, v, tuple(names))[1], loaded.model, video)
    vectors = {
        stage: jnp.asarray(np.stack([spread_out(stored.arrays[n], seen[stage].shape[1:], stored.pool) for n in some]))
        for stage, some in names.items()
    }
    rows, moments, failed = [], [], []
    reads = stream(source, geometry, SamplingConfig(), num_workers=workers)
    for read in progress(reads, len(source.items), "clips", size=lambda _: 1):
        if read.clip is None:
            failed.append(read)
            continue
        found = _explain(loaded.model, read.clip.video[:1], vectors, jnp.asarray(classes), stored.pool, target_fn)
        scores, along, parts = jax.tree.map(np.asarray, found)
        for stage, some in names.items():
            for v, name in enumerate(some):
                times = parts[stage][v]
                whole = float(times.mean() if stored.pool in ("time", "all") else times.sum())
                inside = stored.norm[name] * whole + stored.intercept[name]
                label = name.split("|", 1)[1]
                rows += [
                    Explained(
                        read.item.name, target, stage, label, float(scores[c]), float(along[stage][c, v]), whole, inside
                    )
                    for c, target in enumerate(targets)
                ]
                moments += [
                    Moment(read.item.name, stage, label, t, (t + 0.5) / len(times), float(value))
                    for t, value in enumerate(times)
                ]
    return rows, moments, failed


@partial(jax.jit, static_argnames=("pool", "target_fn"))
def _explain(model, video: Array, vectors: dict[str, Array], classes: Array, pool: str, target_fn: str):
    """Class scores, derivatives (class, vector) and projections (vector, time) of one clip, by stage."""

    def asked(model, video, tapped):
        return TARGETS[target_fn](model(video, tapped))

    stages = tuple(sorted(vectors))
    scored = jax.tree_util.Partial(asked, model)
    found = tap.gradients_for_classes(scored, video, classes, stages)
    along, parts = {}, {}
    for stage in stages:
        x, g, v = found.activations[stage][0], found.gradients[stage][:, 0], vectors[stage]
        along[stage] = jnp.stack(
            [(g * one[None]).sum(tuple(range(1, g.ndim))) for one in jnp.broadcast_to(v, (v.shape[0], *x.shape))], 1
        )
        positions = x.shape[1] * x.shape[2] if x.ndim == 4 and pool in ("space", "all") else 1
        product = x[None] * jnp.broadcast_to(v, (v.shape[0], *x.shape)) / positions
        parts[stage] = product.sum(tuple(range(2, product.ndim))) if x.ndim == 4 else product.sum(-1, keepdims=True)
    return found.logits[0, classes], along, parts
