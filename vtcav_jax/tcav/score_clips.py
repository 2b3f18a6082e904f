"""Scores of new clips by a run's concept vectors: presence of each concept over time, and effect on class scores."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vtcav_jax import tap
from vtcav_jax.console import progress
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.data.source import Source
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.models import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.tcav_rows import ConceptScoreRow, ProjectionRow
from vtcav_jax.tcav.features.encode import SCORE_FNS
from vtcav_jax.tcav.features.pooling import broadcast_vector
from vtcav_jax.tcav.vector_file import VectorBundle


def score_clips(
    network: Network,
    bundle: VectorBundle,
    source: Source,
    targets: Sequence[str],
    *,
    score_fn: str = "logit",
    num_workers: int = 0,
) -> tuple[list[ConceptScoreRow], list[ProjectionRow], list[ReadResult]]:
    """Score all clips of `source`; return the scores, their parts over time, and the clips that cannot be read."""
    clip_spec = network.clip_spec
    if fingerprint(network.model) != bundle.weights:
        raise ValueError(
            "the vectors belong to another network; pass the --model that they were made with, or repeat the tcav run"
        )
    if not targets:
        raise ValueError(f"pass at least one target; the network has {', '.join(network.labels)}")
    if score_fn not in SCORE_FNS:
        raise ValueError(unknown_name_message("score_fn", [score_fn], SCORE_FNS))
    classes = np.array([network.class_index(name) for name in targets])
    names_by_stage: dict[str, list[str]] = {}
    for name in bundle.arrays:
        names_by_stage.setdefault(name.split("|", 1)[0], []).append(name)
    video = jax.ShapeDtypeStruct((1, *clip_spec.shape), np.float32)
    activation_shapes = jax.eval_shape(
        lambda m, v: tap.activations(m, v, tuple(names_by_stage))[1], network.model, video
    )
    vectors = {
        stage: jnp.asarray(
            np.stack(
                [
                    broadcast_vector(bundle.arrays[name], activation_shapes[stage].shape[1:], bundle.pool)
                    for name in vector_names
                ]
            )
        )
        for stage, vector_names in names_by_stage.items()
    }
    rows, projection_rows, failures = [], [], []
    reads = stream(source, clip_spec, SamplingConfig(), num_workers=num_workers)
    for read in progress(reads, len(source.items), "clips", size=lambda _: 1):
        if read.clip is None:
            failures.append(read)
            continue
        outputs = _score_clip(network.model, read.clip.video[:1], vectors, jnp.asarray(classes), bundle.pool, score_fn)
        scores, derivatives, projections = jax.tree.map(np.asarray, outputs)
        for stage, vector_names in names_by_stage.items():
            for v, name in enumerate(vector_names):
                time_parts = projections[stage][v]
                projection = float(time_parts.mean() if bundle.pool in ("time", "all") else time_parts.sum())
                classifier_logit = bundle.norm[name] * projection + bundle.intercept[name]
                label = name.split("|", 1)[1]
                rows += [
                    ConceptScoreRow(
                        read.item.name,
                        target,
                        stage,
                        label,
                        float(scores[c]),
                        float(derivatives[stage][c, v]),
                        projection,
                        classifier_logit,
                    )
                    for c, target in enumerate(targets)
                ]
                projection_rows += [
                    ProjectionRow(read.item.name, stage, label, t, (t + 0.5) / len(time_parts), float(value))
                    for t, value in enumerate(time_parts)
                ]
    return rows, projection_rows, failures


@partial(jax.jit, static_argnames=("pool", "score_fn"))
def _score_clip(model, video: Array, vectors: dict[str, Array], classes: Array, pool: str, score_fn: str):
    """Return the class scores of one clip and, by stage, derivatives (class, vector) and projections (vector, time)."""

    def class_scores(model, video, tapped):
        return SCORE_FNS[score_fn](model(video, tapped))

    stages = tuple(sorted(vectors))
    score_model = jax.tree_util.Partial(class_scores, model)
    gradient_result = tap.gradients_for_classes(score_model, video, classes, stages)
    derivatives, projections = {}, {}
    for stage in stages:
        x, g, v = gradient_result.activations[stage][0], gradient_result.gradients[stage][:, 0], vectors[stage]
        derivatives[stage] = jnp.stack(
            [(g * vector[None]).sum(tuple(range(1, g.ndim))) for vector in jnp.broadcast_to(v, (v.shape[0], *x.shape))],
            1,
        )
        positions = x.shape[1] * x.shape[2] if x.ndim == 4 and pool in ("space", "all") else 1
        product = x[None] * jnp.broadcast_to(v, (v.shape[0], *x.shape)) / positions
        projections[stage] = (
            product.sum(tuple(range(2, product.ndim))) if x.ndim == 4 else product.sum(-1, keepdims=True)
        )
    return gradient_result.logits[0, classes], derivatives, projections
