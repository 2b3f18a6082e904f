"""Targets: the scores that are explained, one per clip, computed from the logits or from the activation of a stage.

Class indices stand for `Margin`, because a single logit also rises when all logits do. A function from logits `(b, k)`
to scores `(b,)` is a target too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from vtcav_jax.tap import as_pytree, class_logit

Activations = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Class:
    """Logit z_c of each clip's class: `Class(3)`, or `Class([3, 7])` with one class per clip."""

    classes: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return class_logit(self.classes, logits)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Margin:
    """Logit of each clip's class minus the mean of the others: `z_c - mean(z_j for j != c)`.

    `head_range`, the first class of a head and the first after it, limits the others to that head. It is a traced
    value, so one compiled program serves all heads.
    """

    classes: Any
    head_range: Any = None
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        class_logits = class_logit(self.classes, logits)
        start, end = (0, logits.shape[-1]) if self.head_range is None else self.head_range
        number = jnp.arange(logits.shape[-1])
        rivals = jnp.where(((number >= start) & (number < end))[None], logits, 0).sum(-1) - class_logits
        return class_logits - rivals / jnp.maximum(end - start - 1, 1).astype(logits.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Contrast:
    """Difference of two logits, `z_a - z_b`: the evidence for one class rather than another."""

    classes: Any
    others: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return class_logit(self.classes, logits) - class_logit(self.others, logits)


@dataclass(frozen=True)
class Group:
    """Log odds of a group of classes, the same for all clips: `logsumexp(z_in) - logsumexp(z_out)`.

    `others` are the classes that it is compared with, by default all other classes.
    """

    classes: tuple[int, ...]
    others: tuple[int, ...] | None = None
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        k = logits.shape[-1]
        inside = np.isin(np.arange(k), self.classes)
        if inside.all() or not inside.any() or not all(0 <= c < k for c in self.classes):
            raise ValueError(f"a group must have some of the classes 0 to {k - 1}, not all; got {self.classes}")
        outside = ~inside if self.others is None else np.isin(np.arange(k), self.others)
        if (inside & outside).any() or not outside.any():
            raise ValueError(f"a group and the classes that it is compared with must differ; got both {self.classes}")
        log_sums = [jax.nn.logsumexp(logits, -1, where=jnp.asarray(mask)[None]) for mask in (inside, outside)]
        return log_sums[0] - log_sums[1]


jax.tree_util.register_static(Group)


@dataclass(frozen=True)
class Channel:
    """Mean of one channel of a stage over time and space."""

    stage: str
    channel: int

    def __call__(self, logits: Array, activations: Activations) -> Array:
        value = activations[self.stage]
        if not 0 <= self.channel < value.shape[-1]:
            raise ValueError(
                f"{self.stage} has channels 0 to {value.shape[-1] - 1}; there is no channel {self.channel}"
            )
        return value[..., self.channel].reshape(len(value), -1).mean(-1)


jax.tree_util.register_static(Channel)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConceptTarget:
    """Product of a stage's activation with a concept vector: `(c,)`, mean over places, or `(t, h, w, c)`, sum."""

    stage: str = field(metadata={"static": True})
    vector: Any

    def __call__(self, logits: Array, activations: Activations) -> Array:
        value = activations[self.stage]
        vector = jnp.asarray(self.vector, value.dtype)
        if vector.shape == value.shape[1:]:
            return jnp.matmul(value.reshape(len(value), -1), vector.reshape(-1), precision="highest")
        if vector.shape != value.shape[-1:]:
            raise ValueError(
                f"a clip's activation at {self.stage} is {value.shape[1:]}; the concept vector must have this shape or "
                f"{value.shape[-1:]}, got {vector.shape}"
            )
        return (value @ vector).reshape(len(value), -1).mean(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitFunction:
    """Function from logits `(b, k)` to one score per clip."""

    function: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return self.function(logits)


Target = (
    ArrayLike | Class | Margin | Contrast | Group | Channel | ConceptTarget | Callable[[Array], Array] | list | tuple
)


def as_target(target: Target, clips: int, k: int) -> Any:
    """Return `target` as a pytree to call with logits and recorded activations; check its class indices."""
    if isinstance(target, Group | Channel | ConceptTarget):
        return target
    if isinstance(target, Class):
        return Class(_indices(target.classes, clips, k))
    if isinstance(target, Margin):
        head_range = None if target.head_range is None else jnp.asarray(target.head_range, jnp.int32)
        return Margin(_indices(target.classes, clips, k), head_range)
    if isinstance(target, Contrast):
        return Contrast(_indices(target.classes, clips, k), _indices(target.others, clips, k))
    if callable(target):
        return LogitFunction(as_pytree(target))
    return Margin(_indices(target, clips, k))


def _indices(classes: Any, clips: int, k: int) -> Array:
    if isinstance(classes, Tracer):
        return classes
    array = np.asarray(classes)
    if not np.issubdtype(array.dtype, np.integer) or array.shape not in ((), (clips,)):
        raise ValueError(
            f"expected a class index, or one for each of {clips} clips; got {array.dtype} of shape {array.shape}"
        )
    if wrong := sorted({int(c) for c in array.ravel()} - set(range(k))):
        raise ValueError(f"the model has {k} classes, 0 to {k - 1}; there is no class {', '.join(map(str, wrong))}")
    return jnp.asarray(np.broadcast_to(array, (clips,)), jnp.int32)
