"""One forward and one backward pass, shared by several maps."""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap as taps
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.targets import Activations, Target, as_target
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Tap, identity_tap


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoreModel:
    """A model that returns only the target's score, `(b, 1)`, and has its video as an additional stage."""

    model: Any
    target: Any

    @property
    def stages(self) -> tuple[str, ...]:
        known = taps.stages_of(self.model)
        return (VIDEO, *known) if known else ()

    def __call__(self, video: Array, tap: Tap = identity_tap) -> Array:
        recording_tap, activations = _recording_tap((self.target.stage,), tap)
        return _score_per_clip(self.target, self.model(tap(VIDEO, video), recording_tap), activations)[:, None]

    def score(self, video: Array) -> Array:
        return self(video)[:, 0]


def _recording_tap(stages: Collection[str | None], tap: Tap = identity_tap) -> tuple[Tap, Activations]:
    """Return `tap` extended to record its values at `stages`, and the dictionary of these values."""
    activations: Activations = {}

    def recording_tap(name: str, value: Array) -> Array:
        value = tap(name, value)
        if name in stages:
            activations[name] = value
        return value

    return recording_tap, activations


def _score_per_clip(target: Any, logits: Array, activations: Activations) -> Array:
    scores = target(logits, activations)
    if scores.shape != logits.shape[:1]:
        raise ValueError(f"the target must return one score per clip, {logits.shape[:1]}; got {scores.shape}")
    return scores


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultiScoreModel:
    """A model that returns the scores of several targets, `(targets, b)`, from one pass."""

    model: Any
    targets: tuple

    def score(self, video: Array) -> Array:
        return self._target_scores(*self._run(video))

    def score_broadcast(self, other: Array, clips: int) -> Array:
        """Return scores `(targets, clips)`: one clip, scored by the target of each of `clips` clips, in one pass."""
        return self._target_scores(
            *jax.tree.map(lambda a: jnp.broadcast_to(a, (clips, *a.shape[1:])), self._run(other))
        )

    def score_copies(self, videos: Float[Array, "m b t h w c"]) -> Float[Array, "m targets b"]:
        """Return the scores of `m` edited copies of all clips, which pass through the model as one batch."""
        copies, clips = videos.shape[:2]
        results = self._run(videos.reshape(copies * clips, *videos.shape[2:]))
        of_copy = jax.tree.map(lambda a: a.reshape(copies, -1, *a.shape[1:]), results)
        return jax.lax.map(lambda result: self._target_scores(*result), of_copy)

    def _run(self, video: Array) -> tuple[Array, Activations]:
        recording_tap, activations = _recording_tap({target.stage for target in self.targets})
        return self.model(video, recording_tap), activations

    def _target_scores(self, logits: Array, activations: Activations) -> Array:
        return jnp.stack([_score_per_clip(target, logits, activations) for target in self.targets])

    def gradients(self, video: Array) -> Array:
        """Return gradients `(targets, b, t, h, w, c)`, from one forward pass and one backward pass per target."""
        return target_gradients(self.score, video)


def target_gradients(scores_of: Callable[[Any], Array], values: Any) -> Any:
    """Return gradients of `scores_of(values)`, `(targets, b)`, for arrays `values`, along a new first axis of targets.

    Backward passes run one by one: batched over targets they take 1.4 times as long on a CPU, whose caches are too
    small for them.
    """
    scores, pullback = jax.vjp(scores_of, values)
    cotangents = jnp.eye(len(scores), dtype=scores.dtype)[:, :, None] * jnp.ones_like(scores)[None]
    gradients = [pullback(cotangent)[0] for cotangent in cotangents]
    return jax.tree.map(lambda *of_targets: jnp.stack(of_targets), *gradients)


class ExplainContext(NamedTuple):
    """Checked inputs of an attribution method: score model, video and the shape of each stage."""

    score_model: ScoreModel
    video: Array
    shapes: dict[str, tuple[int, ...]]  # of every stage in forward order, from the video on

    def resolve_stage(self, stage: str | None) -> str:
        """Return `stage` if it has time and space; by default the last such stage on which the target depends."""
        grids = [name for name, shape in self.shapes.items() if len(shape) == 5]
        if stage is None:
            order = list(self.shapes)
            end = order.index(self.score_model.target.stage) if self.score_model.target.stage else len(order)
            reachable = [name for name in grids if order.index(name) <= end]
            # A grid of one place, such as a pooled value that keeps its axes, has no map
            return ([name for name in reachable if math.prod(self.shapes[name][1:4]) > 1] or reachable)[-1]
        if stage not in self.shapes:
            raise ValueError(unknown_name_message("stage", [stage], grids))
        if stage not in grids:
            shape = self.shapes[stage]
            raise ValueError(f"{stage} has shape {shape}, without time and space; use one of {', '.join(grids)}")
        return stage

    def require_reachable(self, stages: Sequence[str]) -> None:
        """Raise a ValueError if `stages` come after the target's own stage, which cannot depend on them."""
        order, end = list(self.shapes), self.score_model.target.stage
        if end is not None and (late := [s for s in stages if order.index(s) > order.index(end)]):
            raise ValueError(
                f"the target is at {end}, which does not depend on {', '.join(late)}; choose an earlier stage"
            )


class PassResult(NamedTuple):
    """Scores `(b,)`, and the activation and the score's gradient keyed by stage."""

    score: Array
    activations: dict[str, Array]
    gradients: dict[str, Array]


def prepare_explanation(model: taps.Model, clips: ArrayLike, target: Target) -> ExplainContext:
    """Check the model, clips and target without computing anything, and return them as a context."""
    video, model = taps._check_video(clips), taps.as_pytree(model)
    logits, activations = jax.eval_shape(_run_with_stages, model, video)
    shapes = {VIDEO: video.shape} | {name: value.shape for name, value in activations.items()}
    resolved_target = as_target(target, len(video), logits.shape[-1])
    if resolved_target.stage is not None and resolved_target.stage not in shapes:
        raise ValueError(unknown_name_message("stage", [resolved_target.stage], shapes))
    return ExplainContext(ScoreModel(model, resolved_target), video, shapes)


def prepare_multi_score(
    model: taps.Model, clips: ArrayLike, targets: Sequence[Target]
) -> tuple[MultiScoreModel, Array]:
    """Return a model of all targets' scores and the video, after checking each target."""
    if not targets:
        raise ValueError("expected at least one target, got none")
    contexts = [prepare_explanation(model, clips, target) for target in targets]
    return MultiScoreModel(
        contexts[0].score_model.model, tuple(context.score_model.target for context in contexts)
    ), contexts[0].video


def run_pass(context: ExplainContext, stages: Sequence[str]) -> PassResult:
    """Return score, activations and gradients at `stages`, from one forward and one backward pass."""
    context.require_reachable(stages)
    return activations_and_gradients_at(context.score_model, context.video, stages)


def activations_and_gradients_at(score_model: ScoreModel, video: Array, stages: Sequence[str]) -> PassResult:
    tap_result = taps.activations_and_gradients(score_model, video, _score_column, tuple(dict.fromkeys(stages)))
    return PassResult(tap_result.logits[:, 0], tap_result.activations, tap_result.gradients)


def clip_scores(score_model: ScoreModel | MultiScoreModel, video: Array) -> np.ndarray:
    """Return scores `(b,)`, or `(targets, b)` for several targets, from one forward pass.

    Methods with many passes call it in a Python loop: inside a compiled loop XLA's CPU convolutions are three times
    slower, and all edited clips would have to fit in memory at once.
    """
    return to_numpy(_compute_scores(score_model, video))


@jax.jit
def _compute_scores(score_model: ScoreModel | MultiScoreModel, video: Array) -> Array:
    return score_model.score(video)


def to_numpy(values: Array) -> np.ndarray:
    """Return `values` as a numpy array of float32 or float64."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _score_column(scores: Array) -> Array:
    return scores[:, 0]


@jax.jit
def _run_with_stages(model, video):
    activations = OrderedDict()  # jit sorts the keys of a dict, but not of an OrderedDict

    def record(name, value):
        if name in activations:
            raise ValueError(f"the model calls its tap twice with {name!r}; stage names must be unique")
        activations[name] = value
        return value

    return model(video, record), activations
