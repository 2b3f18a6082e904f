"""What class scores really do when a clip is moved along a vector at a stage: forward passes, not derivatives.

Here vectors have their features: `features.Features.combined` makes them from coefficients, in blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from vtcav_jax import tap as taps
from vtcav_jax.tcav.features.encode import PLAIN, TARGETS, Reading, class_table, wide_type
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.features.microbatches import Clips, Work, through
from vtcav_jax.tcav.features.pooling import pooled, spread_out
from vtcav_jax.tcav.stats.permutation_test import gaps
from vtcav_jax.tcav.stats.vectors import Vectors, norms


@dataclass(frozen=True)
class Steering:
    """How far the scores go, by vector, step, class and target; steps are in `units`, the vectors' own lengths.

    One unit takes a clip from the mean of the negatives to the mean of the concept. `controls` are moves of the same
    length in random directions, and `p` says how often one of them moves the mean score as far, or further.
    """

    units: Float[np.ndarray, " v"]
    steps: Float[np.ndarray, " e"]
    change: Float[np.ndarray, "v e c n"]
    controls: Float[np.ndarray, "v r e c n"]

    @property
    def p(self) -> Float[np.ndarray, "v e c"]:
        real, random = np.abs(self.change.mean(-1)), np.abs(self.controls.mean(-1))
        return (1 + (random >= real[:, None]).sum(1)) / (1 + random.shape[1])


def exported(examples: Features, vectors: Vectors) -> Float[np.ndarray, "v ..."]:
    """The unit vectors in the (pooled) shape of their stage."""
    return examples.combined(vectors.unit)


def changes(
    model: taps.Model,
    targets: Clips,
    classes: taps.Classes,
    stage: str,
    moves: Float[np.ndarray, "v ..."],
    reading: Reading = PLAIN,
    *,
    mesh: Mesh | None = None,
    work: Work | None = None,
) -> Float[np.ndarray, "v c n"]:
    """How far each score of each target goes when `moves` are added at `stage`, one by one.

    Divided by their length that is the sensitivity to steps that are not small, the `finite` one. A pooled move is made
    at every position.
    """
    mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("b",))
    model = taps.as_pytree(model)
    table = class_table(classes, targets.count)
    video = jax.ShapeDtypeStruct((1, *targets.shape), targets.dtype)
    seen = jax.eval_shape(lambda model, video: taps.activations(model, video, stage)[1], model, video)
    shape, dtype = seen[stage].shape[1:], seen[stage].dtype
    wide = jnp.asarray(np.stack([spread_out(move, shape, reading.pool) for move in moves]), dtype)
    everywhere = NamedSharding(mesh, PartitionSpec())
    model, wide = jax.device_put((model, wide), everywhere)

    def run(video, table):
        return _changes(model, wide, video, table, stage, reading.target_fn, mesh)

    work = Work() if work is None else work
    out = np.zeros((len(moves), table.shape[1], targets.count))
    for start, real, change in through(run, targets, (table,), "targets", reading.micro_batch, mesh, work):
        work.forwards += real * (1 + len(moves))
        out[:, :, start : start + real] = change[:, :real].swapaxes(1, 2)
    return out


def steer(
    model: taps.Model,
    targets: Clips,
    classes: taps.Classes,
    stage: str,
    examples: Features,
    gram: Gram,
    signed: Float[np.ndarray, "v m"],
    vectors: Vectors,
    steps: Sequence[float] = (-1.0, 1.0),
    *,
    controls: int = 19,
    reading: Reading = PLAIN,
    seed: int | Sequence[int] = 0,
    mesh: Mesh | None = None,
    work: Work | None = None,
) -> Steering:
    """Moves the targets along +-v and along as many random directions within what the vector's examples span.

    A random direction has random coefficients on the examples, so that it goes where activations do go.
    """
    rng = np.random.default_rng(seed)
    units = gaps(gram.kernel, signed, vectors.unit)
    used = signed[:, None] != 0
    random = np.where(used, rng.normal(size=(len(signed), controls, signed.shape[1])), 0)
    random -= np.where(used, random.sum(-1, keepdims=True) / used.sum(-1, keepdims=True), 0)
    flat = random.reshape(-1, signed.shape[1])
    random = (flat / norms(gram.kernel, flat)[:, None]).reshape(random.shape)
    a = np.concatenate([vectors.unit[:, None], random], 1) * units[:, None, None]
    lengths = np.asarray(steps, float)
    moved = np.einsum("vrm,e->vrem", a, lengths).reshape(-1, signed.shape[1])
    out = changes(model, targets, classes, stage, examples.combined(moved), reading, mesh=mesh, work=work)
    out = out.reshape(*a.shape[:2], len(lengths), *out.shape[1:])
    return Steering(units, lengths, out[:, 0], out[:, 1:])


def carried(
    model: taps.Model,
    clips: Clips,
    stage: str,
    later: str,
    moves: Float[np.ndarray, "v ..."],
    reading: Reading = PLAIN,
    *,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "v ..."]:
    """What small steps along `moves` at `stage` become at a `later` one: the mean derivative there over the clips.

    The cosine to the vector of the same concept at `later` says whether the concept is passed on.
    """
    mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("b",))
    model = taps.as_pytree(model)
    video = jax.ShapeDtypeStruct((1, *clips.shape), clips.dtype)
    seen = jax.eval_shape(lambda model, video: taps.activations(model, video, stage)[1], model, video)
    shape, dtype = seen[stage].shape[1:], seen[stage].dtype
    wide = jnp.asarray(np.stack([spread_out(move, shape, reading.pool) for move in moves]), dtype)
    model, wide = jax.device_put((model, wide), NamedSharding(mesh, PartitionSpec()))

    def run(video):
        return _carried(model, wide, video, stage, later, reading.pool, mesh)

    total = 0.0
    for _, real, out in through(run, clips, (), "clips", reading.micro_batch, mesh, Work()):
        total = total + out[:, :real].sum(1, dtype=np.float64)
    return np.asarray(total) / clips.count


@partial(jax.jit, static_argnames=("stage", "target_fn", "mesh"))
def _changes(model, moves, video, table, stage, target_fn, mesh):
    def local(model, moves, video, table):
        def scores(tap):
            logits = model(video, tap)
            logits = logits.astype(wide_type(logits.dtype))
            return jnp.take_along_axis(TARGETS[target_fn](logits), table, axis=-1)

        before = scores(taps.identity_tap)
        return jax.lax.map(lambda move: scores(taps.add_direction(stage, move[None])) - before, moves)

    all_, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (all_, all_, by_clip, by_clip), "out_specs": PartitionSpec(None, mesh.axis_names)}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, moves, video, table)


@partial(jax.jit, static_argnames=("stage", "later", "pool", "mesh"))
def _carried(model, moves, video, stage, later, pool, mesh):
    def local(model, moves, video):
        def at(move):
            def value(eps):
                seen = {}

                def tap(name, x):
                    x = taps.add_direction(stage, move[None], eps)(name, x)
                    if name == later:
                        seen[name] = pooled(x, pool)
                    return x

                model(video, tap)
                return seen[later]

            zero = jnp.zeros((), move.dtype)
            return jax.jvp(value, (zero,), (jnp.ones_like(zero),))[1]

        return jax.lax.map(at, moves)

    everywhere, by_clip = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = {"in_specs": (everywhere, everywhere, by_clip), "out_specs": PartitionSpec(None, mesh.axis_names)}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(model, moves, video)
