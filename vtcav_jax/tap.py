"""Taps: access to a model's activations through a callback that the forward pass calls at every stage (named layer).

`model(video, tap)`, with a video `(b, t, h, w, c)`, calls `x = tap("layers.2", x)` at each stage and continues with the
returned value, so one mechanism reads, differentiates and edits activations. A model is any callable of this form that
is a pytree: an `nnx.Module`, or `jax.tree_util.Partial(function, parameters)`.

    logits, values = activations(model, video, "layers.2")
    result = activations_and_gradients(model, video, [3, 7], ["layers.1", "layers.2"])  # one class per clip
    logits = steered_logits(model, video, "layers.2", direction, eps=2.0)
    logits = patch(model, video, [Patch("layers.2", other_video, places)])
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial, reduce
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.names import unknown_name_message

Tap = Callable[[str, Array], Array]
Model = Callable[..., Array]  # (video, tap) -> logits
Stages = str | Sequence[Any]  # stage names, checked at use
Classes = ArrayLike | Sequence[Any]  # class indices, checked at use
TapTarget = Classes | Callable[[Array], Array]


class TapResult(NamedTuple):
    """Logits, activations and gradients of one forward and one backward pass; dictionaries are keyed by stage."""

    logits: Float[Array, "b k"]
    activations: dict[str, Array]
    gradients: dict[str, Array]


class Patch(NamedTuple):
    """Activation of other clips at some places of a stage; `places` broadcast to all of its axes but the last."""

    stage: str
    other: ArrayLike  # a video with one clip for each patched clip, or one clip for all
    places: ArrayLike = True  # booleans, such as (t, h, w); by default everywhere


def identity_tap(name: str, value: Array) -> Array:
    """Return `value` unchanged; the default tap."""
    return value


def add_direction(stage: str, direction: ArrayLike, eps: ArrayLike = 1.0) -> Tap:
    """Return a tap that adds `eps * direction` at `stage`; both must broadcast to the activation there."""

    def tap(name: str, value: Array) -> Array:
        if name != stage:
            return value
        factors = [jnp.asarray(a, value.dtype) for a in (eps, direction)]
        try:
            return value + math.prod(jnp.broadcast_to(a, value.shape) for a in factors)
        except ValueError as error:
            shapes = " and ".join(str(a.shape) for a in factors)
            raise ValueError(
                f"{stage} is {value.shape}; eps and direction must broadcast to it, got {shapes}"
            ) from error

    return tap


def replace_at(stage: str, other: Array, places: Array) -> Tap:
    """Return a tap that replaces the activation at `stage` by `other` where `places` is True."""

    def tap(name: str, value: Array) -> Array:
        if name != stage:
            return value
        try:
            mask = jnp.broadcast_to(places, value.shape[:-1])[..., None]
            return jnp.where(mask, jnp.broadcast_to(other, value.shape), value)
        except ValueError as error:
            raise ValueError(
                f"{stage} is {value.shape}; the other activation must broadcast to it, got {other.shape}, and places to"
                f" all but its last axis, got {places.shape}"
            ) from error

    return tap


def stages_of(model: Model) -> tuple[str, ...]:
    """Return the stages listed in the model's attribute `stages`, in forward order; empty without that attribute."""
    stages = getattr(model, "stages", None) or getattr(getattr(model, "func", None), "stages", None)
    return (stages,) if isinstance(stages, str) else tuple(stages or ())


def compute_logits(model: Model, video: ArrayLike) -> Float[Array, "b k"]:
    """Return the logits of each clip."""
    return _logits(as_pytree(model), _check_video(video))


def activations(model: Model, video: ArrayLike, stages: Stages) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    """Return the logits and the activation at each of `stages`, from one forward pass."""
    stages = _check_stages(model, stages)
    logits, seen = _activations(as_pytree(model), _check_video(video), tuple(sorted(stages)))
    return logits, {name: seen[name] for name in stages}


def activations_and_gradients(model: Model, video: ArrayLike, target: TapTarget, stages: Stages) -> TapResult:
    """Return activations and gradients of the target score at `stages`, from one forward and one backward pass.

    `gradients[stage][i]` is the derivative of clip i's score with respect to `activations[stage][i]`. Clips must not
    interact (no batch statistics), since the sum of their scores is differentiated.

    Args:
        target: one class index per clip (the score is that logit), or a function from logits `(b, k)` to scores
            `(b,)`. The function is compiled: define it once and bind variable values with
            `jax.tree_util.Partial(function, array)`; a new lambda at each call recompiles.
    """
    # The gradient of a zero added to an activation is the gradient of the activation: one pass for all stages
    video, stages = _check_video(video), _check_stages(model, stages)
    classes = None
    if callable(target):
        score = target
    else:
        classes = _class_indices(target, "one class index per clip", video.shape[:1])
        score = Partial(class_logit, jnp.asarray(classes, jnp.int32))
    tap_result = _activations_and_gradients(as_pytree(model), video, as_pytree(score), tuple(sorted(stages)))
    _check_range(classes, tap_result.logits)
    return _order_stages(tap_result, stages)


def gradients_for_classes(
    model: Model,
    video: ArrayLike,
    classes: Classes,
    stages: Stages,
    *,
    classes_per_pass: int = 8,
) -> TapResult:
    """Return `activations_and_gradients` of every class in `classes` for every clip, from one forward pass.

    Gradients are `(classes, b, ...)`. `classes_per_pass` backward passes run at once; more need more memory.
    """
    if classes_per_pass < 1:
        raise ValueError(f"classes_per_pass must be at least 1, got {classes_per_pass}")
    classes = _class_indices(classes, "a list of class indices", None)
    stages = _check_stages(model, stages)
    indices = jnp.asarray(classes, jnp.int32)
    tap_result = _gradients_for_classes(
        as_pytree(model), _check_video(video), indices, tuple(sorted(stages)), classes_per_pass
    )
    _check_range(classes, tap_result.logits)
    return _order_stages(tap_result, stages)


def steered_logits(
    model: Model, video: ArrayLike, stage: str, direction: ArrayLike, eps: ArrayLike
) -> Float[Array, "b k"]:
    """Return the logits after adding `eps * direction` at `stage`; both must broadcast to the activation there."""
    if len(_check_stages(model, stage)) != 1:
        raise ValueError(f"expected one stage, got {stage}")
    video = _check_video(video)
    return _run_steered(
        as_pytree(model), video, stage, jnp.asarray(direction, video.dtype), jnp.asarray(eps, video.dtype)
    )


def patch(model: Model, video: ArrayLike, patches: Sequence[Patch]) -> Float[Array, "b k"]:
    """Return the logits of clips with activations of other clips at some places, in the order of the patches.

    Each patch takes an additional forward pass, of the other clips.
    """
    video, stages = _check_video(video), tuple(item.stage for item in patches)
    _check_stages(model, stages)
    places = [jnp.asarray(item.places) for item in patches]
    if any(mask.dtype != bool for mask in places):
        raise ValueError(f"expected places as booleans, True where to patch; got {[str(m.dtype) for m in places]}")
    values = [activations(model, item.other, item.stage)[1][item.stage] for item in patches]
    return run_patched(as_pytree(model), video, stages, values, places)


def class_logit(classes: Array, logits: Array) -> Array:
    """Return `logits[i, classes[i]]` for each clip i: the score of a target given as class indices."""
    return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]


def _order_stages(tap_result: TapResult, stages: Sequence[str]) -> TapResult:
    """Restore the requested order of stages: jit sorts dictionaries by key."""
    logits, seen, gradients = tap_result
    return TapResult(logits, {name: seen[name] for name in stages}, {name: gradients[name] for name in stages})


@jax.jit
def _logits(model, video):
    return model(video)


@partial(jax.jit, static_argnames="stages")
def _activations(model, video, stages):
    seen = {}
    logits = model(video, partial(_record, seen, stages))
    _check_seen(stages, seen)
    if inner := [name for name, value in seen.items() if trace_of(value) is not trace_of(video)]:
        raise ValueError(
            f"the model calls its tap for {', '.join(inner)} inside jax.lax.scan, cond, checkpoint or jit, where values"
            " cannot be read; call it outside, or write the loop over the layers in Python"
        )
    return logits, seen


def trace_of(value: Array) -> Any:
    """Return the trace that a value belongs to: those of inner functions, such as the body of a scan, have another."""
    return getattr(value, "_trace", None)


def _record(seen: dict[str, Array], stages: Collection[str], name: str, value: Array) -> Array:
    if name in stages:
        if name in seen:
            raise ValueError(f"the model calls its tap twice with {name!r}; stage names must be unique")
        seen[name] = value
    return value


@partial(jax.jit, static_argnames="stages")
def _activations_and_gradients(model, video, score, stages):
    def total(zeros):
        logits, seen = _run_shifted(model, video, zeros)
        scores = score(logits)
        if scores.shape != logits.shape[:1]:
            raise ValueError(
                f"the target function must return one score per clip, shape {logits.shape[:1]}; got {scores.shape}"
            )
        return scores.sum(), (logits, seen)

    gradients, (logits, seen) = jax.grad(total, has_aux=True)(_zeros(model, video, stages))
    return TapResult(logits, seen, gradients)


@partial(jax.jit, static_argnames=("stages", "classes_per_pass"))
def _gradients_for_classes(model, video, classes, stages, classes_per_pass):
    run = partial(_run_shifted, model, video)
    logits, pullback, seen = jax.vjp(run, _zeros(model, video, stages), has_aux=True)

    def gradients_of(class_index):
        return pullback(
            jnp.broadcast_to(jax.nn.one_hot(class_index, logits.shape[-1], dtype=logits.dtype), logits.shape)
        )[0]

    return TapResult(logits, seen, jax.lax.map(gradients_of, classes, batch_size=min(classes_per_pass, len(classes))))


@partial(jax.jit, static_argnames="stage")
def _run_steered(model, video, stage, direction, eps):
    return _run_edited(model, video, (stage,), [add_direction(stage, direction, eps)])


@partial(jax.jit, static_argnames="stages")
def run_patched(model: Any, video: Array, stages: tuple[str, ...], values: list[Array], places: list[Array]) -> Array:
    """Return the logits with each of `values` at its `places` of its stage."""
    return _run_edited(model, video, stages, [replace_at(*patch) for patch in zip(stages, values, places)])


def _run_edited(model, video, stages, changes):
    seen = {}

    def tap(name, value):
        return reduce(lambda edited, change: change(name, edited), changes, _record(seen, stages, name, value))

    logits = model(video, tap)
    _check_seen(stages, seen)
    return logits


def _run_shifted(model, video, zeros):
    seen = {}
    logits = model(
        video, lambda name, value: _record(seen, zeros, name, value + zeros[name] if name in zeros else value)
    )
    return logits, seen


def _zeros(model, video, stages):
    shapes = jax.eval_shape(_activations, model, video, stages)[1]
    return {name: jnp.zeros(a.shape, a.dtype) for name, a in shapes.items()}


def as_pytree(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as a pytree, to pass it to compiled functions as an argument."""
    if not callable(function):
        kind = type(function).__name__
        if callable(getattr(function, "model", None)):
            raise ValueError(f"expected a model, got a {kind}; pass its .model, or use attribute, which takes a {kind}")
        raise ValueError(f"expected a callable, got {kind}; pass a function of a video and a tap")
    if not jax.tree_util.all_leaves([function]):
        return function
    plain = getattr(function, "__wrapped__", function)  # the function inside jax.jit or functools.wraps
    if not isinstance(plain, FunctionType):
        # As part of the compiled program, its weights would stay those of the first call.
        raise ValueError(
            f"a {type(function).__name__} hides its parameters from jax; pass an nnx.Module itself, or "
            "jax.tree_util.Partial(function, parameters) with a plain function"
        )
    return Partial(function)


def _check_video(video: ArrayLike) -> Array:
    video = jnp.asarray(video)
    if video.ndim != 5 or 0 in video.shape or not jnp.issubdtype(video.dtype, jnp.floating):
        raise ValueError(
            f"expected a normalised float video (b, t, h, w, c) with at least one clip, frame and pixel; "
            f"got {video.dtype} of shape {video.shape}"
        )
    return video


def _check_stages(model: Model, stages: Stages) -> tuple[str, ...]:
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    if not stages or not all(isinstance(name, str) for name in stages):
        raise ValueError(f"expected at least one stage name, got {stages}; the model has {stages_of(model)}")
    known = stages_of(model)
    if known and (missing := [name for name in stages if name not in known]):
        hidden = getattr(getattr(model, "func", None), "hidden", ())
        if inner := [name for name in missing if name in hidden]:
            raise ValueError(
                f"{', '.join(inner)} is inside a scan, remat or jit, where values cannot be read; use another stage, or"
                " write the loop over the layers in Python"
            )
        raise ValueError(unknown_name_message("stage", missing, known))
    return tuple(dict.fromkeys(stages))


def _check_seen(stages: Collection[str], seen: dict[str, Array]) -> None:
    if missing := [name for name in stages if name not in seen]:
        raise ValueError(f"the model never called its tap with {missing}; it may list stages that it does not have")


def _class_indices(classes: Classes, expected: str, shape: tuple[int, ...] | None) -> Array | np.ndarray:
    """Return `classes` as an integer array, not yet int32: `_check_range` must see values that int32 cannot hold."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(classes))
    array = jnp.asarray(classes) if traced else np.asarray(classes)
    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    if not is_integer or array.ndim != 1 or (shape is not None and array.shape != shape) or not array.size:
        where = f" (shape {shape})" if shape else ""
        raise ValueError(f"expected {expected}{where}, got {array.dtype} of shape {array.shape}")
    return array


def _check_range(classes: Array | np.ndarray | None, logits: Array) -> None:
    if classes is None or isinstance(classes, Tracer) or isinstance(logits, Tracer):
        return  # traced values are unknown; an index out of range then gives NaN or another class
    k = logits.shape[-1]
    if wrong := sorted({int(c) for c in np.asarray(classes)} - set(range(k))):
        raise ValueError(f"the model has {k} classes, 0 to {k - 1}; there is no class {', '.join(map(str, wrong))}")
