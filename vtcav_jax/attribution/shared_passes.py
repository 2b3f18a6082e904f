"""Methods about one target or several at once, which then share their passes through the network."""

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
    """Several targets; a bare sequence of class numbers is one target, the class of each clip."""

    each: Sequence[Target]


class SharedPasses(Generic[P, Result]):
    """Decorates a function of several targets: called with one target it gives one result, with `Targets` a list."""

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
