"""What is explained: one number per clip, made of the logits or of the values at a stage.

Whole numbers stand for `Margin`, as a bare logit also rises when all logits do, and any function from logits to one
score per clip is a target too.
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
    """Each clip's logit of its class."""

    classes: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return class_logit(self.classes, logits)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Margin:
    """The logit less the mean of the others; `among` are the first class of a head and the first behind it.

    These are no part of what is compiled: every head of a network is explained by one program.
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
    """Why this class rather than that one: the difference of two logits."""

    classes: Any
    others: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return class_logit(self.classes, logits) - class_logit(self.others, logits)


@dataclass(frozen=True)
class Group:
    """One of these classes rather than any other, the same for all clips: the log odds of the group."""

    classes: tuple[int, ...]
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        k = logits.shape[-1]
        inside = np.isin(np.arange(k), self.classes)
        if inside.all() or not inside.any() or not all(0 <= c < k for c in self.classes):
            raise ValueError(f"a group must be some of the classes 0 to {k - 1}, not all; got {self.classes}")
        mask = jnp.asarray(inside)[None]
        return jax.nn.logsumexp(logits, -1, where=mask) - jax.nn.logsumexp(logits, -1, where=~mask)


jax.tree_util.register_static(Group)


@dataclass(frozen=True)
class Channel:
    """A channel of a stage, its mean over time and space."""

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
    """The activation of a stage along a concept vector `(c,)`, its mean over places, or `(t, h, w, c)`, its sum."""

    stage: str = field(metadata={"static": True})
    vector: Any

    def __call__(self, logits: Array, activations: Activations) -> Array:
        value = activations[self.stage]
        vector = jnp.asarray(self.vector, value.dtype)
        if vector.shape == value.shape[1:]:
            return jnp.matmul(value.reshape(len(value), -1), vector.reshape(-1), precision="highest")
        if vector.shape != value.shape[-1:]:
            raise ValueError(
                f"a clip at {self.stage} is {value.shape[1:]}; a concept vector there has this shape or "
                f"{value.shape[-1:]}, got {vector.shape}"
            )
        return (value @ vector).reshape(len(value), -1).mean(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitFunction:
    """Any function from logits `(b, k)` to one score per clip."""

    function: Any
    stage: ClassVar[None] = None

    def __call__(self, logits: Array, activations: Activations) -> Array:
        return self.function(logits)


Target = (
    ArrayLike | Class | Margin | Contrast | Group | Channel | ConceptTarget | Callable[[Array], Array] | list | tuple
)


def as_target(target: Target, clips: int, k: int) -> Any:
    """`target` as a pytree that is called with logits and seen values; class numbers are checked."""
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
