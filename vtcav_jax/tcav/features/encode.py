"""Through the network once: activations of concept clips, gradients of class scores at targets.

A concept clip goes forward as far as the deepest stage that is asked for; a target goes forward once and backward once
per class, and that serves all stages.
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
from vtcav_jax.stats.quadrature import gauss_legendre
from vtcav_jax.tcav.features.feature_store import Features, place
from vtcav_jax.tcav.features.microbatches import Clips, Work, through
from vtcav_jax.tcav.features.pooling import POOLS, axes, pooled, summed

SENSITIVITIES = "gradient", "integrated", "finite"


def _margin(scores: Float[Array, "b k"]) -> Float[Array, "b k"]:
    best, second = jnp.split(jax.lax.top_k(scores, 2)[0], 2, axis=-1)
    return scores - jnp.where(scores == best, second, best)


TARGETS: dict[str, Callable[[Array], Array]] = {
    "logit": lambda logits: logits,
    "log_prob": jax.nn.log_softmax,
    "margin": _margin,
}


@dataclass(frozen=True)
class Reading:
    """How the network is read.

    `target_fn` is what a class scores: its logit, its log-probability, or its logit above the best other one.
    `sensitivity`: `gradient` is the gradient at the clip; `integrated` its mean over the straight line from an
    activation of 0 to the clip's, at each stage on its own, with `steps` points of Gauss and Legendre; `finite`: steps
    that are not small, which are made when there are vectors (`finite.Finite`); what is read is the gradient.
    `budget` is bytes of host memory for activations and gradients; what is above it goes to a folder.
    """

    pool: str = "none"
    target_fn: str = "logit"
    sensitivity: str = "gradient"
    steps: int = 16
    micro_batch: int = 8
    classes_at_once: int = 8
    budget: int = 4 * 2**30

    def __post_init__(self):
        problems = [
            f"{name} is one of {', '.join(allowed)}, got {value!r}"
            for name, value, allowed in [
                ("pool", self.pool, POOLS),
                ("target_fn", self.target_fn, TARGETS),
                ("sensitivity", self.sensitivity, SENSITIVITIES),
            ]
            if value not in allowed
        ]
        problems += [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("steps", "micro_batch", "classes_at_once", "budget")
            if getattr(self, name) < 1
        ]
        if problems:
            raise ValueError("; ".join(problems))


PLAIN = Reading()


@dataclass(frozen=True)
class Encoded:
    """By stage: activations with one row per example; gradients with one per target, class after class."""

    examples: dict[str, Features]
    gradients: dict[str, Features]
    scores: Float[np.ndarray, "n c"]  # of the classes that were asked for, as `target_fn` has them
    work: Work


def encode(
    model: taps.Model,
    examples: Clips,
    targets: Clips,
    classes: taps.Classes,
    stages: taps.Stages,
    reading: Reading = PLAIN,
    *,
    spill: Path | None = None,
    mesh: Mesh | None = None,
) -> Encoded:
    """Each example forward, each target forward and backward.

    `classes` are the classes whose scores are followed at every target, or, of shape (n, c), c of them for each target
    in its row. `mesh` is one axis of devices; the clips of a micro-batch are divided among them.
    """
    mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("b",))
    stages = (stages,) if isinstance(stages, str) else tuple(dict.fromkeys(stages))
    table = class_table(classes, targets.count)
    model = taps.as_pytree(model)
    _check(examples, targets)
    shapes = checked_shapes(model, targets.shape, table, stages, reading, targets.dtype)
    per_class = table.shape[1]
    wanted = {f"examples/{stage}": (examples.count, *shapes[stage]) for stage in stages}
    wanted |= {f"gradients/{stage}": (per_class * targets.count, *shapes[stage]) for stage in stages}
    room = place(wanted, reading.budget, spill)
    activations = {stage: room[f"examples/{stage}"] for stage in stages}
    gradients = {stage: room[f"gradients/{stage}"] for stage in stages}
    model = jax.device_put(model, NamedSharding(mesh, PartitionSpec()))
    work = Work()
    for start, seen in activations_of(model, examples, stages, reading, mesh, work):
        for stage, features in activations.items():
            features.write(start, seen[stage])
    scores = np.zeros((targets.count, per_class))
    for start, score, slopes in gradients_of(model, targets, table, stages, reading, mesh, work):
        scores[start : start + len(score)] = score
        for stage, features in gradients.items():
            for c in range(per_class):
                features.write(c * targets.count + start, slopes[stage][c])
    return Encoded(activations, gradients, scores, work)


def activations_of(
    model: taps.Model, clips: Clips, stages: Sequence[str], reading: Reading, mesh: Mesh, work: Work
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """By micro-batch: the first clip's number, and by stage the clips' activations."""
    run = partial(_activations, model, **_compiled_for(stages, reading, mesh))
    for start, real, seen in through(run, clips, (), "concept clips", reading.micro_batch, mesh, work):
        work.forwards += real
        yield start, {stage: seen[stage][:real] for stage in stages}


def gradients_of(
    model: taps.Model,
    clips: Clips,
    table: Int[np.ndarray, "n c"],
    stages: Sequence[str],
    reading: Reading,
    mesh: Mesh,
    work: Work,
) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """By micro-batch: the first clip's number, the scores `(b, c)`, and by stage their gradients `(c, b, ...)`."""
    run = partial(_gradients, model, **_compiled_for(stages, reading, mesh))
    paths = reading.steps * len(stages) if reading.sensitivity == "integrated" else 0
    for start, real, (score, slopes) in through(run, clips, (table,), "targets", reading.micro_batch, mesh, work):
        work.forwards += real * (1 + paths)
        work.backwards += real * table.shape[1] * max(1, paths)
        yield start, score[:real], {stage: slopes[stage][:, :real] for stage in stages}


def _compiled_for(stages: Sequence[str], reading: Reading, mesh: Mesh) -> dict[str, Any]:
    """Of the settings only what changes the program."""
    return {"stages": tuple(sorted(stages)), "reading": replace(reading, micro_batch=1, budget=1), "mesh": mesh}


@partial(jax.jit, static_argnames=("stages", "reading", "mesh"))
def _activations(model, video, stages, reading, mesh):
    """Nothing behind the deepest stage is returned, hence nothing behind it is compiled."""

    def local(model, video):
        seen = taps.activations(model, video, stages)[1]
        return {stage: pooled(_wide(value), reading.pool) for stage, value in seen.items()}

    everywhere, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    split = jax.shard_map(local, mesh=mesh, in_specs=(everywhere, by_clip), out_specs=by_clip, check_vma=False)
    return split(model, video)


@partial(jax.jit, static_argnames=("stages", "reading", "mesh"))
def _gradients(model, video, table, stages, reading, mesh):
    """The asked scores `(b, c)`, and by stage their gradients `(c, b, ...)`."""

    def local(model, video, table):
        which = np.arange(table.shape[1])
        at_once = reading.classes_at_once

        def asked(model, video, tap):
            return jnp.take_along_axis(TARGETS[reading.target_fn](_wide(model(video, tap))), table, axis=-1)

        def along_path(stage):
            def at(point):
                share, weight = point

                def moved(model, share, video, tap):
                    def tapped(name, value):
                        return tap(name, value * share.astype(value.dtype) if name == stage else value)

                    return asked(model, video, tapped)

                there = taps.gradients_for_classes(
                    Partial(moved, model, share), video, which, stage, classes_per_pass=at_once
                )
                return weight * _wide(there.gradients[stage])

            points = tuple(jnp.asarray(p, jnp.result_type(float)) for p in gauss_legendre(reading.steps))
            like = jax.eval_shape(at, jax.tree.map(lambda p: p[0], points))
            total, _ = jax.lax.scan(lambda sums, p: (sums + at(p), None), jnp.zeros(like.shape, like.dtype), points)
            return total

        if reading.sensitivity == "integrated":
            scores = asked(model, video, taps.identity_tap)
            gradients = {stage: along_path(stage) for stage in stages}
        else:
            tapped = taps.gradients_for_classes(Partial(asked, model), video, which, stages, classes_per_pass=at_once)
            scores, gradients = tapped.logits, tapped.gradients
        return scores, {stage: summed(_wide(value), reading.pool) for stage, value in gradients.items()}

    everywhere, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (everywhere, by_clip, by_clip), "out_specs": (by_clip, PartitionSpec(None, mesh.axis_names))}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, video, table)


def _wide(value: Array) -> Array:
    """At least float32: sums over positions and products are not for fewer digits."""
    return value.astype(wide_type(value.dtype))


def wide_type(dtype: Any) -> Any:
    return np.float64 if dtype == np.float64 else np.float32


def class_table(classes: taps.Classes, count: int) -> Int[np.ndarray, "n c"]:
    table = np.asarray(classes)
    if not np.issubdtype(table.dtype, np.integer) or table.ndim not in (1, 2) or not table.size:
        raise ValueError(f"classes are whole numbers, a list or (targets, classes); got {table.dtype} {table.shape}")
    if table.ndim == 2 and len(table) != count:
        raise ValueError(
            f"classes of shape (targets, classes) need a row for each of {count} targets, got {len(table)}"
        )
    return np.broadcast_to(table, (count, table.shape[-1])).astype(np.int64)


def _check(examples: Clips, targets: Clips) -> None:
    problems = [
        f"there are no {unit}" for unit, clips in (("concept clips", examples), ("targets", targets)) if not clips.count
    ]
    if examples.shape != targets.shape or examples.dtype != targets.dtype:
        told = " and ".join(f"{clips.dtype} {clips.shape}" for clips in (examples, targets))
        problems.append(f"concept clips and targets must be of one shape and type, got {told}")
    if problems:
        raise ValueError("; ".join(problems))


def checked_shapes(
    model: taps.Model,
    clip: tuple[int, ...],
    classes: Int[np.ndarray, "..."],
    stages: Sequence[str],
    reading: Reading,
    dtype: Any = np.float32,
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of one clip's (pooled) value at each stage; nothing is computed for what can be wrong with it."""
    problems = []
    known = taps.stages_of(model)
    if not stages:
        problems.append("name at least one stage")
    if known and (missing := [stage for stage in stages if stage not in known]):
        problems.append(unknown_name_message("stage", missing, known))
    if problems:
        raise ValueError("; ".join(problems))
    video = jax.ShapeDtypeStruct((1, *clip), dtype)
    logits, seen = jax.eval_shape(lambda model, video: taps.activations(model, video, stages), model, video)
    k = logits.shape[-1]
    if wrong := sorted({int(c) for c in classes.ravel()} - set(range(k))):
        problems.append(f"the model has {k} classes, 0 to {k - 1}; there is no class {', '.join(map(str, wrong))}")
    if reading.target_fn == "margin" and k < 2:
        problems.append("a margin needs another class to be above, the model has one; take target_fn=logit")
    shapes = {}
    for stage, value in seen.items():
        try:
            gone = axes(value.shape[1:], reading.pool)
        except ValueError as error:
            problems.append(f"{stage}: {error}")
            continue
        shape = tuple(size for i, size in enumerate(value.shape[1:]) if i not in gone)
        shapes[stage] = shape, wide_type(value.dtype)
    if problems:
        raise ValueError("; ".join(problems))
    return shapes
