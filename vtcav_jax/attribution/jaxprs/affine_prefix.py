"""The affine beginning of a function: its result moves in a straight line when the input does.

The first layers of most networks, up to the first activation function or normalisation, are affine in the video.
Where a network runs at many places of one straight path, their results are those at both ends, interpolated; the
transposed layers can be applied once to the sum of all gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, ArrayLike

from vtcav_jax.attribution.jaxprs.equations import CALL_PRIMITIVES, bind_equation, called_jaxpr, is_linear_layer

# Does a value depend on the input: not at all; as an affine function; in another way
CONSTANT, AFFINE, OTHER = range(3)
MOVEMENT = ("reshape", "transpose", "squeeze", "copy", "copy_p", "expand_dims", "slice", "broadcast_in_dim", "rev",
            "pad", "concatenate")  # fmt: skip
SUMS = ("add", "add_any", "sub", "neg", "reduce_sum", "cumsum")
CALLS = tuple(name for name in CALL_PRIMITIVES if not name.startswith("custom"))  # whose equations are the call


@dataclass(eq=False)
class _Value:
    dependence: int
    array: Any = None  # None where this part of the function does not compute it


def affine_prefix(f: Callable[[Any, Any], Any], parameters: Any, x: ArrayLike) -> list[Array]:
    """Return the affine functions of `x` from which the rest of `f(parameters, x)` is computed, at `x`."""
    evaluation = _Prefix()
    evaluation.run(f, parameters, x)
    return evaluation.ends


def after_affine_prefix(f: Callable[[Any, Any], Any], parameters: Any, x: Any, ends: Sequence[Array]) -> Array:
    """Return `f(parameters, x)` from the results `ends` of `affine_prefix`; of `x`, only shape and type are used."""
    return jnp.asarray(_Rest(list(ends)).run(f, parameters, x))


@dataclass
class _Prefix:
    """Evaluation of the affine part; `ends` are its results that other operations use, in their order."""

    ends: list[Array] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)  # of affine values (by id) among `ends`
    values: list[_Value] = field(default_factory=list)  # keeps the values alive, whose ids are keys

    def run(self, f: Callable[[Any, Array], Array], parameters: Any, x: Any) -> Any:
        closed = jax.make_jaxpr(f)(parameters, x)
        inputs = [_Value(CONSTANT, leaf) for leaf in jax.tree.leaves(parameters)]
        (result,) = self.run_jaxpr(closed, [*inputs, _Value(AFFINE, self.input_array(x))])
        return self.leave_prefix(result)

    def input_array(self, x: Any) -> Any:
        return jnp.asarray(x)

    def run_jaxpr(self, jaxpr: ClosedJaxpr | Jaxpr, args: Sequence[_Value]) -> list[_Value]:
        consts = jaxpr.consts if isinstance(jaxpr, ClosedJaxpr) else ()
        inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
        known = dict(zip(inner.constvars, (_Value(CONSTANT, c) for c in consts))) | dict(
            zip(inner.invars, args, strict=True)
        )

        def read(atom: Any) -> _Value:
            return _Value(CONSTANT, atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in inner.eqns:
            known |= dict(zip(eqn.outvars, self.run_equation(eqn, [read(atom) for atom in eqn.invars]), strict=True))
        return [read(atom) for atom in inner.outvars]

    def run_equation(self, eqn: Any, args: list[_Value]) -> list[_Value]:
        dependences = [value.dependence for value in args]
        if eqn.primitive.name in CALLS and not is_linear_layer(eqn) and AFFINE in dependences:
            return self.run_jaxpr(called_jaxpr(eqn), args)
        if AFFINE not in dependences and OTHER not in dependences:
            return [_Value(CONSTANT, array) for array in bind_equation(eqn, [value.array for value in args])]
        if OTHER not in dependences and _is_affine(eqn, dependences):
            return self.run_affine(eqn, args)
        arrays = [self.leave_prefix(value) if value.dependence == AFFINE else value.array for value in args]
        return self.run_other(eqn, arrays)

    def run_affine(self, eqn: Any, args: list[_Value]) -> list[_Value]:
        return [_Value(AFFINE, array) for array in bind_equation(eqn, [value.array for value in args])]

    def run_other(self, eqn: Any, arrays: list[Any]) -> list[_Value]:
        return [_Value(OTHER) for _ in eqn.outvars]

    def leave_prefix(self, value: _Value) -> Any:
        """Return the array of a value that the rest of the function needs; an affine one becomes one of the ends."""
        if value.dependence != AFFINE:
            return value.array
        if id(value) not in self.places:
            self.places[id(value)] = len(self.places)
            self.values.append(value)
            self.add_end(value)
        return self.ends[self.places[id(value)]]

    def add_end(self, value: _Value) -> None:
        self.ends.append(value.array)


class _Rest(_Prefix):
    """Evaluation of all else, which finds the affine values among `ends`."""

    def input_array(self, x: Any) -> Any:
        return None

    def run_affine(self, eqn: Any, args: list[_Value]) -> list[_Value]:
        return [_Value(AFFINE) for _ in eqn.outvars]

    def run_other(self, eqn: Any, arrays: list[Any]) -> list[_Value]:
        return [_Value(OTHER, array) for array in bind_equation(eqn, arrays)]

    def add_end(self, value: _Value) -> None:
        pass


def _is_affine(eqn: Any, dependences: Sequence[int]) -> bool:
    """Return True if the results are affine in the input, given that each argument is affine or constant."""
    name = eqn.primitive.name
    if name in MOVEMENT or name in SUMS:
        return True
    if name == "convert_element_type":  # rounding to fewer bits is no affine function
        return _holds(eqn.outvars[0].aval.dtype, eqn.invars[0].aval.dtype)
    if name == "div":
        return dependences[1] == CONSTANT
    return (name == "mul" or is_linear_layer(eqn)) and dependences.count(AFFINE) == 1


def _holds(wide: Any, narrow: Any) -> bool:
    """Return True if each number of the floating-point type `narrow` is one of `wide`."""
    if not jnp.issubdtype(wide, jnp.floating):
        return False
    a, b = jnp.finfo(wide), jnp.finfo(narrow)
    return a.nmant >= b.nmant and a.maxexp >= b.maxexp
