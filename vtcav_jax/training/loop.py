"""Training with optax on any source of labelled clips, with one classification head per question.

The clips of a batch and their augmentation are functions of the seed and the step, so that a checkpoint consists of
parameters, optimiser state and step only, and a killed run continues with the same result.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from vtcav_jax import models
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import progress
from vtcav_jax.data import ReadResult, SamplingConfig, Source
from vtcav_jax.models import parameters as weights
from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, MAX_SEED, SEED_HELP, check_settings, setting
from vtcav_jax.training.checkpoints import Checkpoints, MetricsTable, VideoContents
from vtcav_jax.training.clip_memory import stream_epochs

Augmentation = Literal["none", "flip", "torus"]

_NO_LABEL = -1  # of clips that are unlabelled or unreadable, which are excluded from the loss


@dataclass(frozen=True)
class TrainConfig:
    """Training settings; together with the source and the model, they determine the result."""

    steps: int = setting(1000, "training steps, one batch each", minimum=1)
    batch_size: int = setting(64, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    learning_rate: float = setting(1e-3, "peak learning rate, after warm-up; cosine decay to 0 follows", above=0)
    warmup: int | None = setting(None, "steps of warm-up [default: a tenth of the steps, at most 100]", minimum=0)
    weight_decay: float = setting(0.05, "weight decay of AdamW, except biases and normalisation", minimum=0)
    clip_norm: float = setting(1.0, "maximum norm of the gradient", above=0)
    label_smoothing: float = setting(
        0.0, "share of each label spread evenly over all classes, which bounds the margins", minimum=0, below=1
    )
    augment: Augmentation = setting(
        "none",
        "flip: mirror half of the clips (unsuitable if left and right are classes); torus: shift worlds:... clips"
        " cyclically",
    )
    static_fraction: float = setting(
        0.0, "share of clips frozen or shuffled in time; needs --static_heads", minimum=0, maximum=1
    )
    static_from_step: int = setting(0, "first step with frozen and shuffled clips", minimum=0)
    static_heads: tuple[str, ...] = setting((), "heads whose labels remain valid for frozen and shuffled clips")
    temporal_jitter: bool = setting(False, "sample clips from a random part of the video in each epoch")
    checkpoint_every: int = setting(200, "steps between checkpoints", minimum=1)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        problems = []
        if self.warmup is not None and self.warmup > self.steps:
            problems.append(("warmup", f"expected at most the {self.steps} steps, got {self.warmup}"))
        if self.static_fraction and not self.static_heads:
            problems.append(("static_heads", "expected the heads whose labels remain valid for frozen clips, got none"))
        check_settings(self, *problems)

    @property
    def warmup_steps(self) -> int:
        return min(100, self.steps // 10) if self.warmup is None else self.warmup

    def schedule(self) -> optax.Schedule:
        # optax requires at least one step of decay after the warm-up
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, max(self.steps, self.warmup_steps + 1)
        )

    def optimiser(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(self.schedule(), weight_decay=self.weight_decay, mask=_is_matrix),
        )


DEFAULT_CLIP_MEMORY = 2 * 2**30


class DivergedError(ValueError):
    """Error of a loss or metric that is no longer finite."""


class TrainResult(NamedTuple):
    model: nnx.Module
    failures: tuple[ReadResult, ...]  # unreadable clips since the run was last started


def train_network(
    make_model: Callable[[], nnx.Module],
    source: Source,
    clip_spec: ClipSpec,
    config: TrainConfig,
    folder: Path,
    *,
    initial: dict[str, Array] | None = None,
    num_workers: int = 2,
    clip_memory: int = DEFAULT_CLIP_MEMORY,
) -> TrainResult:
    """Train for `config.steps` steps; `folder` receives checkpoints and `metrics.csv`.

    Repeating the call with the same arguments continues from the last checkpoint. `initial` are initial parameters.
    Unreadable clips are excluded from the loss. At most `clip_memory` bytes of decoded clips are kept for later epochs.
    """
    heads = require_heads(source)
    devices = jax.devices()
    if config.batch_size % len(devices):
        raise ValueError(f"batch_size {config.batch_size} must be a multiple of the {len(devices)} devices")
    # A batch of more clips than there are would have some of them several times
    batch_size = min(config.batch_size, -(-len(source.items) // len(devices)) * len(devices))
    mesh = Mesh(np.array(devices), ("b",))
    everywhere, by_clip = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("b"))

    parts = tuple((head, part.start, part.stop) for head, part in models.head_slices(heads).items())
    graphdef, fresh = nnx.split(weights.load(make_model, initial) if initial else make_model())
    state = TrainState(
        jax.device_put(fresh, everywhere, may_alias=False), jax.device_put(config.optimiser().init(fresh), everywhere)
    )
    table = MetricsTable(folder / "metrics.csv", heads)
    failed: dict[str, ReadResult] = {}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state, first_step = checkpoints.restore(state)
        table.rewind(first_step)
        step_of = partial(_step, graphdef, config, clip_spec, parts)
        schedule, last_values = config.schedule(), {}
        pending: list[tuple[int, Any]] = []

        def collect_pending() -> None:
            """Fetch the metrics of the dispatched steps; only here does the host wait for the devices."""
            for step, values in pending:
                scalars = {name: float(value) for name, value in jax.device_get(values).items()}
                if not all(map(math.isfinite, scalars.values())):
                    last_good = checkpoints.latest()
                    raise DivergedError(
                        f"the loss is {scalars['loss']} at step {step}; the last good checkpoint is "
                        f"{'none' if last_good is None else f'step {last_good} in {checkpoints.folder}'}; lower the"
                        " learning rate"
                    )
                table.add(step, scalars | {"learning_rate": float(np.asarray(schedule(step)))})
                last_values.update(scalars)
            pending.clear()

        contents = VideoContents(folder / "video_contents.json", source)
        contents.require_unchanged()
        batches = _batches(
            source, clip_spec, config, batch_size, first_step, num_workers, clip_memory, failed, contents
        )
        units = progress(
            zip(range(first_step, config.steps), batches),
            (config.steps - first_step) * batch_size,
            "clips",
            size=lambda _: batch_size,
            note=lambda: _progress_note(last_values),
        )
        for step, (video, labels) in units:
            video, labels = jax.device_put((video, labels), by_clip)
            state, values = step_of(state, video, labels, jnp.asarray(step, jnp.int32))
            pending.append((step, values))
            last = step + 1 == config.steps
            if len(pending) > 8 or last or (step + 1) % config.checkpoint_every == 0:
                collect_pending()
            if last or (step + 1) % config.checkpoint_every == 0:
                table.flush()
                contents.write()
                checkpoints.save(step + 1, state)
    return TrainResult(nnx.merge(graphdef, state.parameters), tuple(failed[name] for name in sorted(failed)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    parameters: Any
    optimiser: Any


@partial(jax.jit, static_argnames=("graphdef", "config", "clip_spec", "heads"), donate_argnames="state")
def _step(
    graphdef: Any,
    config: TrainConfig,
    clip_spec: ClipSpec,
    heads: tuple[tuple[str, int, int], ...],
    state: TrainState,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b heads"],
    step: Int[Array, ""],
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Run one training step; return the new state and the metrics."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    video = augment(video, config.augment, key)
    if config.static_fraction:
        share = jnp.where(step >= config.static_from_step, config.static_fraction, 0.0)
        video, is_static = ablate_time(video, share, jax.random.fold_in(key, 1))
        needs_time = np.array([[head not in config.static_heads for head, _, _ in heads]])
        labels = jnp.where(is_static[:, None] & needs_time, _NO_LABEL, labels)
    clips = clip_spec.normalise(video)

    def loss_of(parameters):
        logits = nnx.merge(graphdef, parameters)(clips).astype(jnp.float32)
        smoothing = config.label_smoothing
        losses, right = zip(*(_head_loss(logits[:, a:z], labels[:, i], smoothing) for i, (_, a, z) in enumerate(heads)))
        return sum(losses) / len(heads), right

    (loss, accuracies), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.parameters)
    updates, optimiser = config.optimiser().update(gradients, state.optimiser, state.parameters)
    values = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    values |= {f"accuracy:{head}": share for (head, _, _), share in zip(heads, accuracies)}
    return TrainState(optax.apply_updates(state.parameters, updates), optimiser), values


def _head_loss(
    logits: Float[Array, "b k"], labels: Int[Array, " b"], smoothing: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return cross entropy and accuracy of one head over the clips labelled for it."""
    counts = (labels != _NO_LABEL).astype(jnp.float32)
    total = jnp.maximum(counts.sum(), 1.0)
    smoothed_labels = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    losses = optax.softmax_cross_entropy(logits, smoothed_labels)
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return (losses * counts).sum() / total, (right * counts).sum() / total


def augment(video: UInt8[Array, "b t h w 3"], augmentation: Augmentation, key: Array) -> UInt8[Array, "b t h w 3"]:
    """Augment every clip in a way that keeps its labels valid."""
    b, _, h, w, _ = video.shape
    if augmentation == "flip":
        is_flipped = jax.random.bernoulli(key, 0.5, (b, 1, 1, 1, 1))
        return jnp.where(is_flipped, video[:, :, :, ::-1], video)
    if augmentation == "torus":
        shifts = jax.random.randint(key, (b, 2), 0, jnp.array([[h, w]]))
        return jax.vmap(lambda clip, by: jnp.roll(clip, by, (1, 2)))(video, shifts)
    return video


def ablate_time(
    video: UInt8[Array, "b t h w 3"], share: float | Float[Array, ""], key: Array
) -> tuple[UInt8[Array, "b t h w 3"], Bool[Array, " b"]]:
    """Freeze or shuffle the frames of a `share` of the clips, half each; return the clips and a mask of those."""
    b, t = video.shape[:2]
    choice_key, freeze_key, frame_key, shuffle_key = jax.random.split(key, 4)
    is_static = jax.random.bernoulli(choice_key, share, (b,))
    orders = jax.random.uniform(shuffle_key, (b, t)).argsort(1)
    frozen_frame = jax.random.randint(frame_key, (b, 1), 0, t)
    orders = jnp.where(jax.random.bernoulli(freeze_key, 0.5, (b, 1)), frozen_frame, orders)
    orders = jnp.where(is_static[:, None], orders, jnp.arange(t)[None])
    return jnp.take_along_axis(video, orders[:, :, None, None, None], 1), is_static


def require_heads(source: Source) -> dict[str, tuple[str, ...]]:
    heads = {head: tuple(names) for head, names in source.heads.items()}
    if not heads or not any(item.labels for item in source.items):
        raise ValueError(
            f"{source.spec} has no labels to train on; expected a folder of class folders, a manifest with a column "
            "label or label:HEAD, tfds:NAME:SPLIT with a class label, or worlds:small"
        )
    if small := [head for head, names in heads.items() if len(names) < 2]:
        raise ValueError(f"{source.spec} has only one class for {', '.join(small)}; expected at least two")
    return heads


def replace_head(old_parameters: dict[str, Array], make_model: Callable[[], nnx.Module]) -> dict[str, Array]:
    """Return the parameters of a trained network with a new head (parameters `head...`) for other classes."""
    new_parameters = weights.named_parameters(make_model())
    return {name: a if name.split(".")[0] == "head" else old_parameters[name] for name, a in new_parameters.items()}


def epoch_order(n: int, seed: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield (epoch, clip) endlessly from position `start` on; each epoch is a new permutation of the clips."""
    epoch, skip = divmod(start, n)
    while True:
        shuffled = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(n)
        yield from ((epoch, int(i)) for i in shuffled[skip:])
        epoch, skip = epoch + 1, 0


def _batches(
    source: Source,
    clip_spec: ClipSpec,
    config: TrainConfig,
    batch_size: int,
    first_step: int,
    num_workers: int,
    clip_memory: int,
    failed: dict[str, ReadResult],
    contents: VideoContents,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    positions = epoch_order(len(source.items), config.seed, first_step * batch_size)
    positions = islice(positions, (config.steps - first_step) * batch_size)
    sampling = SamplingConfig(normalise=False, random_start=config.seed if config.temporal_jitter else None)
    reads = stream_epochs(source, clip_spec, sampling, positions, num_workers=num_workers, max_bytes=clip_memory)
    for _ in range(first_step, config.steps):
        video = np.zeros((batch_size, *clip_spec.shape), np.uint8)
        labels = np.full((batch_size, len(source.heads)), _NO_LABEL, np.int32)
        for row, read in enumerate(islice(reads, batch_size)):
            if read.clip is None:
                failed[read.item.name] = read
                continue
            video[row] = read.clip.video[0]
            contents.add(read.index, read.clip.content)
            labels[row] = [read.item.labels.get(head, _NO_LABEL) for head in source.heads]
        yield video, labels


def _is_matrix(parameters: Any) -> Any:
    return jax.tree.map(lambda a: a.ndim > 1, parameters)


def _progress_note(values: dict[str, float]) -> str:
    displayed = {name.removeprefix("accuracy:"): value for name, value in values.items() if name != "gradient_norm"}
    return ", ".join(f"{name} {value:.3f}" for name, value in displayed.items())
