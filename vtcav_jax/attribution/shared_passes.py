"""Methods for one or several targets; several targets share their passes through the network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Concatenate, Generic, ParamSpec, TypeVar, overload

from jaxtyping import ArrayLike

from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Targets:
    """Several targets, as in `Targets([0, 3])`; the bare list `[0, 3]` is one target, with one class for each clip."""

    each: Sequence[Target]


class SharedPasses(Generic[P, Result]):
    """Decorator for functions of several targets: a call with one target returns one result, with `Targets` a list."""

    def __init__(self, of_targets: Callable[Concatenate[Model, ArrayLike, Sequence[Target], P], list[Result]]):
        self.of_targets = of_targets
        update_wrapper(self, of_targets)

    @overload
    def __call__(
        self, model: Model, clips: ArrayLike, target: Targets, /, *args: P.args, **options: P.kwargs
    ) -> list[Result]: ...

    @overload
    def __call__(
        self, model: Model, clips: ArrayLike, target: Target, /, *args: P.args, **options: P.kwargs
    ) -> Result: ...

    def __call__(
        self, model: Model, clips: ArrayLike, target: Target | Targets, /, *args: P.args, **options: P.kwargs
    ) -> Result | list[Result]:
        if isinstance(target, Targets):
            return self.of_targets(model, clips, target.each, *args, **options)
        return self.of_targets(model, clips, [target], *args, **options)[0]
