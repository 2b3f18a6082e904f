"""Steering: score changes, by forward passes, when a clip's activation at a stage (layer) is moved along a vector.

Vectors are feature arrays here; `Features.linear_combination` computes them from coefficients, in blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from vtcav_jax import tap as taps
from vtcav_jax.platforms import use_kernels
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.features.encode import DEFAULT_ENCODING, SCORE_FNS, EncodeConfig, accumulation_dtype, class_table
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.features.microbatches import ClipBatches, map_batches
from vtcav_jax.tcav.features.pooling import broadcast_vector, pool_activations
from vtcav_jax.tcav.stats.permutation_test import mean_gaps
from vtcav_jax.tcav.stats.vectors import ConceptVectors, norms


@dataclass(frozen=True)
class SteeringResult:
    """Score changes by vector, step, class and target clip.

    Steps are in units of `unit_lengths`, the distances from the mean of the negatives to that of the concept.
    `control_changes` are those of moves of the same length in random directions; `p` is the two-sided p-value of the
    mean change against them.
    """

    unit_lengths: Float[np.ndarray, " v"]
    steps: Float[np.ndarray, " e"]
    score_change: Float[np.ndarray, "v e c n"]
    control_changes: Float[np.ndarray, "v r e c n"]

    @property
    def p(self) -> Float[np.ndarray, "v e c"]:
        observed_change, random_change = np.abs(self.score_change.mean(-1)), np.abs(self.control_changes.mean(-1))
        return (1 + (random_change >= observed_change[:, None]).sum(1)) / (1 + random_change.shape[1])


def unit_vectors(examples: Features, vectors: ConceptVectors) -> Float[np.ndarray, "v ..."]:
    """Return the unit vectors in the (pooled) shape of their stage."""
    return examples.linear_combination(vectors.unit)


def score_changes(
    model: taps.Model,
    targets: ClipBatches,
    classes: taps.Classes,
    stage: str,
    moves: Float[np.ndarray, "v ..."],
    config: EncodeConfig = DEFAULT_ENCODING,
    *,
    runtime: Runtime | None = None,
) -> Float[np.ndarray, "v c n"]:
    """Compute the change of each class score of each target clip when each of `moves` is added at `stage`.

    A pooled move is added at every position.
    """
    runtime = runtime or Runtime.single_device()
    mesh = runtime.mesh
    model = taps.as_pytree(model)
    table = class_table(classes, targets.count)
    video = jax.ShapeDtypeStruct((1, *targets.shape), targets.dtype)
    activation_shapes = jax.eval_shape(lambda model, video: taps.activations(model, video, stage)[1], model, video)
    shape, dtype = activation_shapes[stage].shape[1:], activation_shapes[stage].dtype
    position_moves = jnp.asarray(np.stack([broadcast_vector(move, shape, config.pool) for move in moves]), dtype)
    replicated = NamedSharding(mesh, PartitionSpec())
    model, position_moves = jax.device_put((model, position_moves), replicated)

    def run(video, table):
        return _compiled_score_changes(model, position_moves, video, table, stage, config.score_fn, mesh)

    out = np.zeros((len(moves), table.shape[1], targets.count))
    for start, n_real, change in map_batches(run, targets, (table,), "targets", config.batch_size, runtime):
        runtime.passes.forwards += n_real * (1 + len(moves))
        out[:, :, start : start + n_real] = change[:, :n_real].swapaxes(1, 2)
    return out


def steer(
    model: taps.Model,
    targets: ClipBatches,
    classes: taps.Classes,
    stage: str,
    examples: Features,
    gram: Gram,
    labels: Float[np.ndarray, "v m"],
    vectors: ConceptVectors,
    steps: Sequence[float] = (-1.0, 1.0),
    *,
    n_controls: int = 19,
    config: EncodeConfig = DEFAULT_ENCODING,
    seed: int | Sequence[int] = 0,
    runtime: Runtime | None = None,
    unit_lengths: Float[np.ndarray, " v"] | None = None,
) -> SteeringResult:
    """Move the target clips along each vector by each of `steps`, and along `n_controls` random directions.

    Steps are in units of `unit_lengths`, by default the distances between the means of both sides of `labels`. A random
    direction has random coefficients on the vector's examples and so lies in the span of real activations.
    """
    rng = np.random.default_rng(seed)
    unit_lengths = mean_gaps(gram.kernel, labels, vectors.unit) if unit_lengths is None else unit_lengths
    used = labels[:, None] != 0
    random = np.where(used, rng.normal(size=(len(labels), n_controls, labels.shape[1])), 0)
    random -= np.where(used, random.sum(-1, keepdims=True) / used.sum(-1, keepdims=True), 0)
    flat = random.reshape(-1, labels.shape[1])
    random = (flat / norms(gram.kernel, flat)[:, None]).reshape(random.shape)
    a = np.concatenate([vectors.unit[:, None], random], 1) * unit_lengths[:, None, None]
    step_sizes = np.asarray(steps, float)
    coefficients = np.einsum("vrm,e->vrem", a, step_sizes).reshape(-1, labels.shape[1])
    out = score_changes(
        model, targets, classes, stage, examples.linear_combination(coefficients), config, runtime=runtime
    )
    out = out.reshape(*a.shape[:2], len(step_sizes), *out.shape[1:])
    return SteeringResult(unit_lengths, step_sizes, out[:, 0], out[:, 1:])


def propagate_direction(
    model: taps.Model,
    clips: ClipBatches,
    stage: str,
    later: str,
    moves: Float[np.ndarray, "v ..."],
    config: EncodeConfig = DEFAULT_ENCODING,
    *,
    runtime: Runtime | None = None,
) -> Float[np.ndarray, "v ..."]:
    """Propagate small steps along `moves` at `stage` to a `later` stage: the mean derivative there over the clips.

    Its cosine to the vector of the same concept at `later` shows whether the concept is passed on.
    """
    runtime = runtime or Runtime.single_device()
    mesh = runtime.mesh
    model = taps.as_pytree(model)
    video = jax.ShapeDtypeStruct((1, *clips.shape), clips.dtype)
    activation_shapes = jax.eval_shape(lambda model, video: taps.activations(model, video, stage)[1], model, video)
    shape, dtype = activation_shapes[stage].shape[1:], activation_shapes[stage].dtype
    position_moves = jnp.asarray(np.stack([broadcast_vector(move, shape, config.pool) for move in moves]), dtype)
    model, position_moves = jax.device_put((model, position_moves), NamedSharding(mesh, PartitionSpec()))

    def run(video):
        return _compiled_propagation(model, position_moves, video, stage, later, config.pool, mesh)

    total = 0.0
    for _, n_real, out in map_batches(run, clips, (), "clips", config.batch_size, runtime):
        total = total + out[:, :n_real].sum(1, dtype=np.float64)
    return np.asarray(total) / clips.count


@partial(jax.jit, static_argnames=("stage", "score_fn", "mesh"))
def _compiled_score_changes(model, moves, video, table, stage, score_fn, mesh):
    def local(model, moves, video, table):
        def scores(tap):
            logits = model(video, tap)
            logits = logits.astype(accumulation_dtype(logits.dtype))
            return jnp.take_along_axis(SCORE_FNS[score_fn](logits), table, axis=-1)

        baseline_scores = scores(taps.identity_tap)
        return jax.lax.map(lambda move: scores(taps.add_direction(stage, move[None])) - baseline_scores, moves)

    replicated, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (replicated, replicated, by_clip, by_clip), "out_specs": PartitionSpec(None, mesh.axis_names)}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, moves, video, table)


@partial(jax.jit, static_argnames=("stage", "later", "pool", "mesh"))
def _compiled_propagation(model, moves, video, stage, later, pool, mesh):
    def local(model, moves, video):
        def derivative_along(move):
            def value(eps):
                captured = {}

                def tap(name, x):
                    x = taps.add_direction(stage, move[None], eps)(name, x)
                    if name == later:
                        captured[name] = pool_activations(x, pool)
                    return x

                with use_kernels(False):
                    model(video, tap)
                return captured[later]

            # Convolutions on a CPU have no forward mode; the pullback of the linear pullback is the derivative.
            unit = jnp.ones((), move.dtype)
            outputs, pullback = jax.vjp(value, jnp.zeros_like(unit))
            return jax.vjp(lambda cotangent: pullback(cotangent)[0], jnp.zeros_like(outputs))[1](unit)[0]

        return jax.lax.map(derivative_along, moves)

    replicated, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (replicated, replicated, by_clip), "out_specs": PartitionSpec(None, mesh.axis_names)}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, moves, video)
