"""Training by optax on any source of labelled clips, with one head per question; a killed run continues as if unbroken.

Everything that is random is a function of the seed and the step: which clips a batch has, how they are augmented. What
a checkpoint holds is therefore parameters, optimiser and step, and nothing else.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from vtcav_jax import models
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import How, Read, Source, stream
from vtcav_jax.models import parameters as weights
from vtcav_jax.progress import progress
from vtcav_jax.training.checkpoints import Checkpoints, Metrics

Augmentation = Literal["none", "flip", "torus"]

_LEFT_OUT = -1  # the label of a clip that has none, or could not be read: it does not count


@dataclass(frozen=True)
class Recipe:
    """What is done at each step; with the source and the model, all that the result depends on."""

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3  # at its highest, after the warm-up; then down to 0 along a cosine
    warmup: int = 100  # steps
    weight_decay: float = 0.05  # not on biases and normalisation
    clip_norm: float = 1.0  # of the gradient
    label_smoothing: float = 0.0  # share of each answer that is spread over all: margins then end somewhere
    augment: Augmentation = "none"  # flip: left and right, per clip; torus: a shift around a world's borders
    timeless: float = 0.0  # share of clips that are shown as one frame, repeated, or with their frames shuffled
    timeless_from: int = 0  # the step: such clips are harder, and nothing else is learnt while they are not understood
    timeless_heads: tuple[str, ...] = ()  # whose answers are still true of such a clip; the others' do not count
    random_start: bool = False  # of the clip within its video, another one each time
    checkpoint_every: int = 200  # steps
    seed: int = 0

    def __post_init__(self):
        problems = []
        if min(self.steps, self.batch_size, self.checkpoint_every) < 1:
            problems.append("steps, batch_size and checkpoint_every must be at least 1")
        if not 0 <= self.warmup <= self.steps:
            problems.append(f"warmup {self.warmup} must be within the {self.steps} steps")
        if not (self.learning_rate > 0 and self.clip_norm > 0 and self.weight_decay >= 0):
            problems.append("learning_rate and clip_norm must be positive, weight_decay not negative")
        if not 0 <= self.timeless <= 1 or (self.timeless and not self.timeless_heads):
            problems.append("timeless must be a share, with the heads whose answers need no time")
        if not 0 <= self.label_smoothing < 1:
            problems.append(f"label_smoothing {self.label_smoothing} must be a share, less than 1")
        if self.augment not in get_args(Augmentation):
            problems.append(f"augment must be one of {', '.join(get_args(Augmentation))}, got {self.augment!r}")
        if problems:
            raise ValueError(f"no training by this recipe: {'; '.join(problems)}")

    def schedule(self) -> optax.Schedule:
        # optax wants at least one step of decay after the warm-up
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup, max(self.steps, self.warmup + 1)
        )

    def optimiser(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(self.schedule(), weight_decay=self.weight_decay, mask=_is_matrix),
        )


class Diverged(ValueError):
    """The loss is not a number any more."""


class Trained(NamedTuple):
    model: nnx.Module
    failures: tuple[Read, ...]  # clips that could not be read since the run was last started


def train(
    make_model: Callable[[], nnx.Module],
    source: Source,
    geometry: ClipSpec,
    recipe: Recipe,
    folder: Path,
    *,
    initial: dict[str, Array] | None = None,
    workers: int = 2,
) -> Trained:
    """Trains until `recipe.steps`; `folder` holds checkpoints and `metrics.csv`.

    Called again with the same arguments it goes on from the last checkpoint. `initial` are parameters to begin with.
    A clip that cannot be read takes part in no loss.
    """
    heads = checked_heads(source)
    devices = jax.devices()
    if recipe.batch_size % len(devices):
        raise ValueError(f"batch_size {recipe.batch_size} must be a multiple of the {len(devices)} devices")
    mesh = Mesh(np.array(devices), ("b",))
    everywhere, by_clip = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("b"))

    parts = tuple((head, part.start, part.stop) for head, part in models.head_slices(heads).items())
    graphdef, fresh = nnx.split(weights.load(make_model, initial) if initial else make_model())
    state = State(
        jax.device_put(fresh, everywhere, may_alias=False), jax.device_put(recipe.optimiser().init(fresh), everywhere)
    )
    table = Metrics(folder / "metrics.csv", heads)
    failed: dict[str, Read] = {}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state, first = checkpoints.restored(state)
        table.rewind(first)
        step_of = partial(_step, graphdef, recipe, geometry, parts)
        schedule, told = recipe.schedule(), {}
        pending: list[tuple[int, Any]] = []

        def settle() -> None:
            """Looks at the steps that were started: only here the host waits for the devices."""
            for step, values in pending:
                found = {name: float(value) for name, value in jax.device_get(values).items()}
                if not all(map(math.isfinite, found.values())):
                    good = checkpoints.latest()
                    raise Diverged(
                        f"the loss is {found['loss']} at step {step}; the last good checkpoint is "
                        f"{'none' if good is None else f'step {good} in {checkpoints.folder}'}; lower the learning rate"
                    )
                table.add(step, found | {"learning_rate": float(np.asarray(schedule(step)))})
                told.update(found)
            pending.clear()

        batches = _batches(source, geometry, recipe, first, workers, failed)
        units = progress(
            zip(range(first, recipe.steps), batches),
            (recipe.steps - first) * recipe.batch_size,
            "clips",
            size=lambda _: recipe.batch_size,
            note=lambda: _note(told),
        )
        for step, (video, labels) in units:
            video, labels = jax.device_put((video, labels), by_clip)
            state, values = step_of(state, video, labels, jnp.asarray(step, jnp.int32))
            pending.append((step, values))
            last = step + 1 == recipe.steps
            if len(pending) > 8 or last or (step + 1) % recipe.checkpoint_every == 0:
                settle()
            if last or (step + 1) % recipe.checkpoint_every == 0:
                table.flush()
                checkpoints.save(step + 1, state)
    return Trained(nnx.merge(graphdef, state.parameters), tuple(failed[name] for name in sorted(failed)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    parameters: Any
    optimiser: Any


@partial(jax.jit, static_argnames=("graphdef", "recipe", "geometry", "heads"), donate_argnames="state")
def _step(
    graphdef: Any,
    recipe: Recipe,
    geometry: ClipSpec,
    heads: tuple[tuple[str, int, int], ...],
    state: State,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b heads"],
    step: Int[Array, ""],
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """One step of gradient descent, and how it went."""
    key = jax.random.fold_in(jax.random.key(recipe.seed), step)
    video = augmented(video, recipe.augment, key)
    if recipe.timeless:
        share = jnp.where(step >= recipe.timeless_from, recipe.timeless, 0.0)
        video, chosen = without_time(video, share, jax.random.fold_in(key, 1))
        needs_time = np.array([[head not in recipe.timeless_heads for head, _, _ in heads]])
        labels = jnp.where(chosen[:, None] & needs_time, _LEFT_OUT, labels)
    clips = geometry.normalise(video)

    def loss_of(parameters):
        logits = nnx.merge(graphdef, parameters)(clips).astype(jnp.float32)
        smoothing = recipe.label_smoothing
        losses, right = zip(*(_head(logits[:, a:z], labels[:, i], smoothing) for i, (_, a, z) in enumerate(heads)))
        return sum(losses) / len(heads), right

    (loss, right), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.parameters)
    updates, optimiser = recipe.optimiser().update(gradients, state.optimiser, state.parameters)
    values = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    values |= {f"accuracy:{head}": share for (head, _, _), share in zip(heads, right)}
    return State(optax.apply_updates(state.parameters, updates), optimiser), values


def _head(
    logits: Float[Array, "b k"], labels: Int[Array, " b"], smoothing: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross entropy and share of right answers of one head, over the clips that have a label for it."""
    counts = (labels != _LEFT_OUT).astype(jnp.float32)
    total = jnp.maximum(counts.sum(), 1.0)
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    losses = optax.softmax_cross_entropy(logits, wanted)
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return (losses * counts).sum() / total, (right * counts).sum() / total


def augmented(video: UInt8[Array, "b t h w 3"], how: Augmentation, key: Array) -> UInt8[Array, "b t h w 3"]:
    """Every clip changed in a way that leaves all of its labels true."""
    b, _, h, w, _ = video.shape
    if how == "flip":
        chosen = jax.random.bernoulli(key, 0.5, (b, 1, 1, 1, 1))
        return jnp.where(chosen, video[:, :, :, ::-1], video)
    if how == "torus":
        shifts = jax.random.randint(key, (b, 2), 0, jnp.array([[h, w]]))
        return jax.vmap(lambda clip, by: jnp.roll(clip, by, (1, 2)))(video, shifts)
    return video


def without_time(
    video: UInt8[Array, "b t h w 3"], share: float | Float[Array, ""], key: Array
) -> tuple[UInt8[Array, "b t h w 3"], Bool[Array, " b"]]:
    """A `share` of the clips frozen at one frame or with their frames shuffled, half and half; and which they are."""
    b, t = video.shape[:2]
    which, still, frame, shuffle = jax.random.split(key, 4)
    chosen = jax.random.bernoulli(which, share, (b,))
    orders = jax.random.uniform(shuffle, (b, t)).argsort(1)
    one = jax.random.randint(frame, (b, 1), 0, t)
    orders = jnp.where(jax.random.bernoulli(still, 0.5, (b, 1)), one, orders)
    orders = jnp.where(chosen[:, None], orders, jnp.arange(t)[None])
    return jnp.take_along_axis(video, orders[:, :, None, None, None], 1), chosen


def checked_heads(source: Source) -> dict[str, tuple[str, ...]]:
    heads = {head: tuple(names) for head, names in source.heads.items()}
    if not heads or not any(item.labels for item in source.items):
        raise ValueError(
            f"{source.spec} has no labels to train on; expected a folder of class folders, a manifest with a column "
            "label or label:HEAD, tfds:NAME:SPLIT with a class label, or worlds:small"
        )
    if small := [head for head, names in heads.items() if len(names) < 2]:
        raise ValueError(
            f"{source.spec} has one class only for {', '.join(small)}; expected at least two to tell apart"
        )
    return heads


def with_new_head(old: dict[str, Array], make_model: Callable[[], nnx.Module]) -> dict[str, Array]:
    """The parameters of a trained network, with those of a head (named `head...`) that fits the new classes."""
    fresh = weights.named_parameters(make_model())
    return {name: a if name.split(".")[0] == "head" else old[name] for name, a in fresh.items()}


def order(n: int, seed: int, first: int) -> Iterator[tuple[int, int]]:
    """(epoch, clip) without end from position `first` on: every clip once, shuffled, and again in another order."""
    epoch, skip = divmod(first, n)
    while True:
        shuffled = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(n)
        yield from ((epoch, int(i)) for i in shuffled[skip:])
        epoch, skip = epoch + 1, 0


def _batches(
    source: Source, geometry: ClipSpec, recipe: Recipe, first: int, workers: int, failed: dict[str, Read]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    positions = order(len(source.items), recipe.seed, first * recipe.batch_size)
    positions = islice(positions, (recipe.steps - first) * recipe.batch_size)
    how = How(normalise=False, random_start=recipe.seed if recipe.random_start else None)
    reads = stream(source, geometry, how, wanted=positions, workers=workers)
    for _ in range(first, recipe.steps):
        video = np.zeros((recipe.batch_size, *geometry.shape), np.uint8)
        labels = np.full((recipe.batch_size, len(source.heads)), _LEFT_OUT, np.int32)
        for row, read in enumerate(islice(reads, recipe.batch_size)):
            if read.clip is None:
                failed[read.item.name] = read
                continue
            video[row] = read.clip.video[0]
            labels[row] = [read.item.labels.get(head, _LEFT_OUT) for head in source.heads]
        yield video, labels


def _is_matrix(parameters: Any) -> Any:
    return jax.tree.map(lambda a: a.ndim > 1, parameters)


def _note(told: dict[str, float]) -> str:
    shown = {name.removeprefix("accuracy:"): value for name, value in told.items() if name != "gradient_norm"}
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
