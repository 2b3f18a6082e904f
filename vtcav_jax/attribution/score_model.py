"""One forward and one backward pass, from which as many maps are made as share it."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vtcav_jax import tap as taps
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.targets import Activations, Target, as_target
from vtcav_jax.names import unknown_name_message
from vtcav_jax.tap import Tap, identity_tap


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoreModel:
    """A model that answers with the target's score only, `(b, 1)`, and names its video as a stage too."""

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
    """`tap` that also keeps its values at `stages`, and where it keeps them."""
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
        raise ValueError(f"the target must give one score per clip, {logits.shape[:1]}; it gave {scores.shape}")
    return scores


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultiScoreModel:
    """A model that answers with the scores of several targets, `(targets, b)`, from one pass."""

    model: Any
    targets: tuple

    def score(self, video: Array) -> Array:
        return self._target_scores(*self._run(video))

    def score_broadcast(self, other: Array, clips: int) -> Array:
        """`(targets, b)`: of one clip as if it stood in the place of each, from one pass of it."""
        return self._target_scores(
            *jax.tree.map(lambda a: jnp.broadcast_to(a, (clips, *a.shape[1:])), self._run(other))
        )

    def _run(self, video: Array) -> tuple[Array, Activations]:
        recording_tap, activations = _recording_tap({target.stage for target in self.targets})
        return self.model(video, recording_tap), activations

    def _target_scores(self, logits: Array, activations: Activations) -> Array:
        return jnp.stack([_score_per_clip(target, logits, activations) for target in self.targets])

    def gradients(self, video: Array) -> Array:
        """`(targets, b, t, h, w, c)`, from one forward pass and as many backward ones as there are targets.

        These are written out: as one of all targets together they take 1.4 times as long on a CPU, whose caches are
        too small for that.
        """
        scores, pullback = jax.vjp(self.score, video)
        cotangents = jnp.eye(len(scores), dtype=scores.dtype)[:, :, None] * jnp.ones_like(scores)[None]
        return jnp.stack([pullback(cotangent)[0] for cotangent in cotangents])


class ExplainContext(NamedTuple):
    """What is to be explained, checked: everything that an explainer needs."""

    score_model: ScoreModel
    video: Array
    shapes: dict[str, tuple[int, ...]]  # of every stage, in forward order, the video first

    def resolve_stage(self, stage: str | None) -> str:
        """`stage` if it has time and space; by default the last of them on which the target depends."""
        grids = [name for name, shape in self.shapes.items() if len(shape) == 5]
        if stage is None:
            order = list(self.shapes)
            end = order.index(self.score_model.target.stage) if self.score_model.target.stage else len(order)
            return [name for name in grids if order.index(name) <= end][-1]
        if stage not in self.shapes:
            raise ValueError(unknown_name_message("stage", [stage], grids))
        if stage not in grids:
            raise ValueError(f"{stage} is {self.shapes[stage]}, without time and space; use one of {', '.join(grids)}")
        return stage

    def require_reachable(self, stages: Sequence[str]) -> None:
        """Refuses stages on which a target within the network cannot depend."""
        order, end = list(self.shapes), self.score_model.target.stage
        if end is not None and (late := [s for s in stages if order.index(s) > order.index(end)]):
            raise ValueError(
                f"the target is at {end}, which does not depend on {', '.join(late)}; choose an earlier stage"
            )


class PassResult(NamedTuple):
    """Scores `(b,)`, and by stage the activation and the score's gradient."""

    score: Array
    activations: dict[str, Array]
    gradients: dict[str, Array]


def prepare_explanation(model: taps.Model, clips: ArrayLike, target: Target) -> ExplainContext:
    """Checks everything that can be checked before time is spent."""
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
    """Targets that share their passes, and the video; each is checked."""
    if not targets:
        raise ValueError("expected at least one target, got none")
    contexts = [prepare_explanation(model, clips, target) for target in targets]
    return MultiScoreModel(
        contexts[0].score_model.model, tuple(context.score_model.target for context in contexts)
    ), contexts[0].video


def run_pass(context: ExplainContext, stages: Sequence[str]) -> PassResult:
    """Activation and gradient at each of `stages`, from one forward and one backward pass."""
    context.require_reachable(stages)
    return activations_and_gradients_at(context.score_model, context.video, stages)


def activations_and_gradients_at(score_model: ScoreModel, video: Array, stages: Sequence[str]) -> PassResult:
    tap_result = taps.activations_and_gradients(score_model, video, _score_column, tuple(dict.fromkeys(stages)))
    return PassResult(tap_result.logits[:, 0], tap_result.activations, tap_result.gradients)


def clip_scores(score_model: ScoreModel | MultiScoreModel, video: Array) -> np.ndarray:
    """Of each clip `(b,)`, or of each target and clip `(targets, b)`, from one forward pass.

    Many passes are calls in a row and no loop inside a compiled function: there, XLA's CPU compiler is three times
    slower with convolutions, and the clips that are changed one after the other would have to fit in memory at once.
    """
    return to_numpy(_compute_scores(score_model, video))


@jax.jit
def _compute_scores(score_model: ScoreModel | MultiScoreModel, video: Array) -> Array:
    return score_model.score(video)


def to_numpy(values: Array) -> np.ndarray:
    """As numpy, float32 at least."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _score_column(scores: Array) -> Array:
    return scores[:, 0]


@jax.jit
def _run_with_stages(model, video):
    activations = OrderedDict()  # unlike a dict it keeps its order through jit

    def record(name, value):
        if name in activations:
            raise ValueError(f"the model names two values {name!r}; each stage needs a name of its own")
        activations[name] = value
        return value

    return model(video, record), activations
