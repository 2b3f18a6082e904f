"""Activations of concept clips and gradients of class scores at target clips, in one pass through the network.

A concept clip takes one forward pass up to the deepest requested stage (layer); a target clip takes one forward pass,
and one backward pass per class for all stages.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from vtcav_jax import tap as taps
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runtime import PassCounter, Runtime
from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, check_settings, setting
from vtcav_jax.stats.quadrature import gauss_legendre
from vtcav_jax.tcav.features.feature_store import Features, allocate_all
from vtcav_jax.tcav.features.microbatches import ClipBatches, map_batches
from vtcav_jax.tcav.features.pooling import POOLS, pool_activations, pooled_axes, sum_gradients

SENSITIVITIES = "gradient", "integrated", "finite"


def _margin(scores: Float[Array, "b k"]) -> Float[Array, "b k"]:
    best, second = jnp.split(jax.lax.top_k(scores, 2)[0], 2, axis=-1)
    return scores - jnp.where(scores == best, second, best)


SCORE_FNS: dict[str, Callable[[Array], Array]] = {
    "logit": lambda logits: logits,
    "log_prob": jax.nn.log_softmax,
    "margin": _margin,
}


@dataclass(frozen=True)
class EncodeConfig:
    """Settings of activations, class scores and gradients.

    `score_fn` is the class score: logit, log probability, or margin (logit minus the highest other logit).
    `sensitivity`: `gradient` is the gradient at the clip; `integrated` its mean on the straight line from an activation
    of 0 to the clip's, for each stage separately, by Gauss-Legendre quadrature with `integration_steps` nodes; `finite`
    computes the gradient here, and finite steps later, along vectors (`finite_steps.FiniteStepDerivatives`).
    Activations and gradients beyond `budget` bytes of host memory are written to a folder.
    """

    pool: str = setting("none", "axes of the activations to average over", choices=POOLS)
    score_fn: str = setting("logit", "class score to explain", choices=tuple(SCORE_FNS))
    sensitivity: str = setting("gradient", "how to measure sensitivity", choices=SENSITIVITIES)
    integration_steps: int = setting(16, "nodes of the integrated gradient", minimum=1, maximum=10**5)
    batch_size: int = setting(8, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    classes_per_pass: int = setting(8, "classes whose gradients are computed together", minimum=1)
    budget: int = setting(4 * 2**30, "bytes of host memory for activations and gradients", minimum=1, maximum=2**50)

    def __post_init__(self):
        check_settings(self)


DEFAULT_ENCODING = EncodeConfig()


@dataclass(frozen=True)
class EncodeResult:
    """Activations by stage with one row per example; gradients by stage with one row per target, ordered by class."""

    examples: dict[str, Features]
    gradients: dict[str, Features]
    scores: Float[np.ndarray, "n c"]  # of the requested classes, by `score_fn`
    passes: PassCounter


def encode(
    model: taps.Model,
    examples: ClipBatches,
    targets: ClipBatches,
    classes: taps.Classes,
    stages: taps.Stages,
    config: EncodeConfig = DEFAULT_ENCODING,
    *,
    spill: Path | None = None,
    runtime: Runtime | None = None,
) -> EncodeResult:
    """Compute activations of the examples and gradients of class scores at the targets.

    `classes` are the classes explained at every target, or an array (n, c) of classes for each target. The clips of a
    micro-batch are divided among the devices of `runtime`. Features beyond the budget are written to `spill`.
    """
    runtime = runtime or Runtime.single_device()
    stages = (stages,) if isinstance(stages, str) else tuple(dict.fromkeys(stages))
    table = class_table(classes, targets.count)
    model = taps.as_pytree(model)
    _check_clips(examples, targets)
    shapes = stage_shapes(model, targets.shape, table, stages, config, targets.dtype)
    per_class = table.shape[1]
    layouts = {f"examples/{stage}": (examples.count, *shapes[stage]) for stage in stages}
    layouts |= {f"gradients/{stage}": (per_class * targets.count, *shapes[stage]) for stage in stages}
    allocated = allocate_all(layouts, config.budget, spill)
    activations = {stage: allocated[f"examples/{stage}"] for stage in stages}
    gradients = {stage: allocated[f"gradients/{stage}"] for stage in stages}
    model = jax.device_put(model, NamedSharding(runtime.mesh, PartitionSpec()))
    for start, batch_activations in stream_activations(model, examples, stages, config, runtime):
        for stage, features in activations.items():
            features.write(start, batch_activations[stage])
    scores = np.zeros((targets.count, per_class))
    for start, batch_scores, batch_gradients in stream_gradients(model, targets, table, stages, config, runtime):
        scores[start : start + len(batch_scores)] = batch_scores
        for stage, features in gradients.items():
            for c in range(per_class):
                features.write(c * targets.count + start, batch_gradients[stage][c])
    return EncodeResult(activations, gradients, scores, runtime.passes)


def stream_activations(
    model: taps.Model, clips: ClipBatches, stages: Sequence[str], config: EncodeConfig, runtime: Runtime
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield, for each micro-batch, the index of its first clip and the activations by stage."""
    run = partial(_activations, model, **_static_arguments(stages, config, runtime.mesh))
    for start, n_real, activations in map_batches(run, clips, (), "concept clips", config.batch_size, runtime):
        runtime.passes.forwards += n_real
        yield start, {stage: activations[stage][:n_real] for stage in stages}


def stream_gradients(
    model: taps.Model,
    clips: ClipBatches,
    table: Int[np.ndarray, "n c"],
    stages: Sequence[str],
    config: EncodeConfig,
    runtime: Runtime,
) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Yield for each micro-batch the index of its first clip, scores `(b, c)` and gradients `(c, b, ...)` by stage."""
    run = partial(_gradients, model, **_static_arguments(stages, config, runtime.mesh))
    path_passes = config.integration_steps * len(stages) if config.sensitivity == "integrated" else 0
    for start, n_real, (scores, gradients) in map_batches(run, clips, (table,), "targets", config.batch_size, runtime):
        runtime.passes.forwards += n_real * (1 + path_passes)
        runtime.passes.backwards += n_real * table.shape[1] * max(1, path_passes)
        yield start, scores[:n_real], {stage: gradients[stage][:, :n_real] for stage in stages}


def _static_arguments(stages: Sequence[str], config: EncodeConfig, mesh: Mesh) -> dict[str, Any]:
    """Return the settings that the compiled program depends on."""
    return {"stages": tuple(sorted(stages)), "config": replace(config, batch_size=1, budget=1), "mesh": mesh}


@partial(jax.jit, static_argnames=("stages", "config", "mesh"))
def _activations(model, video, stages, config, mesh):
    """Return activations by stage; layers after the deepest stage are not compiled, since their output is unused."""

    def local(model, video):
        activations = taps.activations(model, video, stages)[1]
        return {stage: pool_activations(_widen(value), config.pool) for stage, value in activations.items()}

    everywhere, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    split = jax.shard_map(local, mesh=mesh, in_specs=(everywhere, by_clip), out_specs=by_clip, check_vma=False)
    return split(model, video)


@partial(jax.jit, static_argnames=("stages", "config", "mesh"))
def _gradients(model, video, table, stages, config, mesh):
    """Return the scores `(b, c)` of the requested classes and their gradients `(c, b, ...)` by stage."""

    def local(model, video, table):
        columns = np.arange(table.shape[1])
        classes_per_pass = config.classes_per_pass

        def class_scores(model, video, tap):
            return jnp.take_along_axis(SCORE_FNS[config.score_fn](_widen(model(video, tap))), table, axis=-1)

        def integrate_path(stage):
            def gradient_at(point):
                fraction, weight = point

                def scaled_scores(model, fraction, video, tap):
                    def scaling_tap(name, value):
                        return tap(name, value * fraction.astype(value.dtype) if name == stage else value)

                    return class_scores(model, video, scaling_tap)

                gradient_result = taps.gradients_for_classes(
                    Partial(scaled_scores, model, fraction), video, columns, stage, classes_per_pass=classes_per_pass
                )
                return weight * _widen(gradient_result.gradients[stage])

            points = tuple(jnp.asarray(p, jnp.result_type(float)) for p in gauss_legendre(config.integration_steps))
            shape = jax.eval_shape(gradient_at, jax.tree.map(lambda p: p[0], points))
            total, _ = jax.lax.scan(
                lambda sums, p: (sums + gradient_at(p), None), jnp.zeros(shape.shape, shape.dtype), points
            )
            return total

        if config.sensitivity == "integrated":
            scores = class_scores(model, video, taps.identity_tap)
            gradients = {stage: integrate_path(stage) for stage in stages}
        else:
            gradient_result = taps.gradients_for_classes(
                Partial(class_scores, model), video, columns, stages, classes_per_pass=classes_per_pass
            )
            scores, gradients = gradient_result.logits, gradient_result.gradients
        return scores, {stage: sum_gradients(_widen(value), config.pool) for stage, value in gradients.items()}

    everywhere, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (everywhere, by_clip, by_clip), "out_specs": (by_clip, PartitionSpec(None, mesh.axis_names))}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, video, table)


def _widen(value: Array) -> Array:
    """Cast to at least float32, for sums over positions and products."""
    return value.astype(accumulation_dtype(value.dtype))


def accumulation_dtype(dtype: Any) -> Any:
    return np.float64 if dtype == np.float64 else np.float32


def class_table(classes: taps.Classes, count: int) -> Int[np.ndarray, "n c"]:
    table = np.asarray(classes)
    if not np.issubdtype(table.dtype, np.integer) or table.ndim not in (1, 2) or not table.size:
        raise ValueError(
            f"classes must be integers, a list or an array (targets, classes); got {table.dtype} {table.shape}"
        )
    if table.ndim == 2 and len(table) != count:
        raise ValueError(
            f"classes of shape (targets, classes) need one row for each of {count} targets, got {len(table)}"
        )
    return np.broadcast_to(table, (count, table.shape[-1])).astype(np.int64)


def _check_clips(examples: ClipBatches, targets: ClipBatches) -> None:
    problems = [
        f"there are no {unit}" for unit, clips in (("concept clips", examples), ("targets", targets)) if not clips.count
    ]
    if examples.shape != targets.shape or examples.dtype != targets.dtype:
        descriptions = " and ".join(f"{clips.dtype} {clips.shape}" for clips in (examples, targets))
        problems.append(f"concept clips and targets must have the same shape and dtype, got {descriptions}")
    if problems:
        raise ValueError("; ".join(problems))


def stage_shapes(
    model: taps.Model,
    clip_shape: tuple[int, ...],
    classes: Int[np.ndarray, "..."],
    stages: Sequence[str],
    config: EncodeConfig,
    dtype: Any = np.float32,
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return the shape and dtype of one clip's (pooled) activation at each stage, without running the network."""
    problems = []
    network_stages = taps.stages_of(model)
    if not stages:
        problems.append("pass at least one stage")
    if network_stages and (missing := [stage for stage in stages if stage not in network_stages]):
        problems.append(unknown_name_message("stage", missing, network_stages))
    if problems:
        raise ValueError("; ".join(problems))
    video = jax.ShapeDtypeStruct((1, *clip_shape), dtype)
    logits, activations = jax.eval_shape(lambda model, video: taps.activations(model, video, stages), model, video)
    k = logits.shape[-1]
    if wrong := sorted({int(c) for c in classes.ravel()} - set(range(k))):
        problems.append(f"the model has {k} classes, 0 to {k - 1}; there is no class {', '.join(map(str, wrong))}")
    if config.score_fn == "margin" and k < 2:
        problems.append("a margin needs at least two classes, the model has one; use score_fn=logit")
    shapes = {}
    without_axes: dict[str, list[str]] = {}
    for stage, value in activations.items():
        try:
            removed_axes = pooled_axes(value.shape[1:], config.pool)
        except ValueError as error:
            without_axes.setdefault(str(error), []).append(stage)
            continue
        shape = tuple(size for i, size in enumerate(value.shape[1:]) if i not in removed_axes)
        shapes[stage] = shape, accumulation_dtype(value.dtype)
    for problem, names in without_axes.items():
        others = f" and {len(names) - 1} more stages" if len(names) > 1 else ""
        problems.append(f"{names[0]}{others}: {problem}")
    if problems:
        raise ValueError("; ".join(problems))
    return shapes
