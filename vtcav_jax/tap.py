"""The only way into a model: an argument that is called with every named value of the forward pass.

`model(video, tap)`, with a video `(b, t, h, w, c)`, calls `x = tap("layers.2", x)` wherever a value is worth naming.
What the tap returns is what the model goes on with, so that reading, differentiating and intervening are one mechanism.
A model is anything callable like this that is a pytree: an `nnx.Module`, or
`jax.tree_util.Partial(function, parameters)`.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
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
Stages = str | Sequence[Any]  # names, checked where they are used
Classes = ArrayLike | Sequence[Any]  # whole numbers, checked where they are used
TapTarget = Classes | Callable[[Array], Array]


class TapResult(NamedTuple):
    """What one forward and one backward pass give; dictionaries are keyed by stage."""

    logits: Float[Array, "b k"]
    activations: dict[str, Array]
    gradients: dict[str, Array]


def identity_tap(name: str, value: Array) -> Array:
    """The tap that changes nothing."""
    return value


def add_direction(stage: str, direction: ArrayLike, eps: ArrayLike = 1.0) -> Tap:
    """The tap that adds `eps * direction` at `stage`; both may be anything that broadcasts to the activation there."""

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


def stages_of(model: Model) -> tuple[str, ...]:
    """The stages that a model says it has, in forward order; empty if it does not say."""
    stages = getattr(model, "stages", None) or getattr(getattr(model, "func", None), "stages", None)
    return (stages,) if isinstance(stages, str) else tuple(stages or ())


def activations(model: Model, video: ArrayLike, stages: Stages) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    """Logits, and the activation at each of `stages`, from one forward pass."""
    stages = _check_stages(model, stages)
    logits, seen = _activations(as_pytree(model), _check_video(video), tuple(sorted(stages)))
    return logits, {name: seen[name] for name in stages}


def activations_and_gradients(model: Model, video: ArrayLike, target: TapTarget, stages: Stages) -> TapResult:
    """The activation at each of `stages` and the gradient of each clip's target score, from one forward, one backward.

    `target` is one class index per clip (the score is that logit), or a function from logits `(b, k)` to one score
    per clip `(b,)`. A function is compiled in: use one defined once, with what varies bound by
    `jax.tree_util.Partial(function, array)`; a new lambda at each call compiles at each call.

    Adding a zero to an activation and differentiating by that zero gives the gradient by the activation, and zeros at
    several stages give all of them in one backward pass. Clips must not interact: then the gradient of the sum of
    their scores is each clip's own.
    """
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
    """As `activations_and_gradients` for every class of `classes` at every clip, from one forward pass.

    Gradients have a leading axis, one entry per class. `classes_per_pass` classes are pulled back together.
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
    """Logits when `eps * direction` is added at `stage`; both may be anything that broadcasts to it."""
    if len(_check_stages(model, stage)) != 1:
        raise ValueError(f"expected one stage, got {stage}")
    video = _check_video(video)
    return _run_steered(
        as_pytree(model), video, stage, jnp.asarray(direction, video.dtype), jnp.asarray(eps, video.dtype)
    )


def class_logit(classes: Array, logits: Array) -> Array:
    """Each clip's logit of its class: the target that class indices stand for."""
    return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]


def _order_stages(tap_result: TapResult, stages: Sequence[str]) -> TapResult:
    """jit sorts dictionaries by key; a reader wants the order that was asked for."""
    logits, seen, gradients = tap_result
    return TapResult(logits, {name: seen[name] for name in stages}, {name: gradients[name] for name in stages})


@partial(jax.jit, static_argnames="stages")
def _activations(model, video, stages):
    seen = {}
    logits = model(video, partial(_record, seen, stages))
    _check_seen(stages, seen)
    return logits, seen


def _record(seen: dict[str, Array], stages: Collection[str], name: str, value: Array) -> Array:
    if name in stages:
        if name in seen:
            raise ValueError(f"the model names two values {name!r}; each stage needs a name of its own")
        seen[name] = value
    return value


@partial(jax.jit, static_argnames="stages")
def _activations_and_gradients(model, video, score, stages):
    def total(zeros):
        logits, seen = _run_shifted(model, video, zeros)
        scores = score(logits)
        if scores.shape != logits.shape[:1]:
            raise ValueError(
                f"the target function must give one score per clip, shape {logits.shape[:1]}; it gave {scores.shape}"
            )
        return scores.sum(), (logits, seen)

    gradients, (logits, seen) = jax.grad(total, has_aux=True)(_zeros(model, video, stages))
    return TapResult(logits, seen, gradients)


@partial(jax.jit, static_argnames=("stages", "classes_per_pass"))
def _gradients_for_classes(model, video, classes, stages, classes_per_pass):
    run = partial(_run_shifted, model, video)
    logits, pullback, seen = jax.vjp(run, _zeros(model, video, stages), has_aux=True)

    def gradients_of(one_class):
        return pullback(
            jnp.broadcast_to(jax.nn.one_hot(one_class, logits.shape[-1], dtype=logits.dtype), logits.shape)
        )[0]

    return TapResult(logits, seen, jax.lax.map(gradients_of, classes, batch_size=min(classes_per_pass, len(classes))))


@partial(jax.jit, static_argnames="stage")
def _run_steered(model, video, stage, direction, eps):
    seen = {}
    change = add_direction(stage, direction, eps)
    logits = model(video, lambda name, value: change(name, _record(seen, (stage,), name, value)))
    _check_seen((stage,), seen)
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
    """`function` as something that can be an argument of a compiled function."""
    if not callable(function):
        raise ValueError(f"expected something callable, got {type(function).__name__}")
    if not jax.tree_util.all_leaves([function]):
        return function
    plain = getattr(function, "__wrapped__", function)  # jax.jit and functools.wraps keep what they wrap
    if not isinstance(plain, FunctionType):
        # Compiled in, its weights would be frozen as they are at the first call.
        raise ValueError(
            f"a {type(function).__name__} hides its parameters from jax; pass an nnx.Module itself, or "
            "jax.tree_util.Partial(function, parameters) with a plain function"
        )
    return Partial(function)


def _check_video(video: ArrayLike) -> Array:
    video = jnp.asarray(video)
    if video.ndim != 5 or 0 in video.shape or not jnp.issubdtype(video.dtype, jnp.floating):
        raise ValueError(
            f"expected a normalised video (b, t, h, w, c) of floats with at least one clip, frame and pixel; "
            f"got {video.dtype} of shape {video.shape}"
        )
    return video


def _check_stages(model: Model, stages: Stages) -> tuple[str, ...]:
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    if not stages or not all(isinstance(name, str) for name in stages):
        raise ValueError(f"name at least one stage, by its name, got {stages}; the model has {stages_of(model)}")
    known = stages_of(model)
    if known and (missing := [name for name in stages if name not in known]):
        raise ValueError(unknown_name_message("stage", missing, known))
    return tuple(dict.fromkeys(stages))


def _check_seen(stages: Collection[str], seen: dict[str, Array]) -> None:
    if missing := [name for name in stages if name not in seen]:
        raise ValueError(f"the model never called its tap with {missing}; it may list stages that it does not have")


def _class_indices(classes: Classes, expected: str, shape: tuple[int, ...] | None) -> Array | np.ndarray:
    """As they came, but for a list: the range is checked before they become int32."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(classes))
    array = jnp.asarray(classes) if traced else np.asarray(classes)
    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    if not is_integer or array.ndim != 1 or (shape is not None and array.shape != shape) or not array.size:
        where = f" (shape {shape})" if shape else ""
        raise ValueError(f"expected {expected}{where}, got {array.dtype} of shape {array.shape}")
    return array


def _check_range(classes: Array | np.ndarray | None, logits: Array) -> None:
    if classes is None or isinstance(classes, Tracer) or isinstance(logits, Tracer):
        return  # what is traced has no values yet; an index out of range then gives NaN or another class
    k = logits.shape[-1]
    if wrong := sorted({int(c) for c in np.asarray(classes)} - set(range(k))):
        raise ValueError(f"the model has {k} classes, 0 to {k - 1}; there is no class {', '.join(map(str, wrong))}")
