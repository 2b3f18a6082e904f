"""Relevance propagation for any JAX function: its trace is evaluated with the rules as custom backward passes.

The trace (jaxpr) is evaluated operation by operation. Layers with weights follow `rules.linear`, fused with the shifts
and scales after them (biases, batch norm); operations that move or add values are unchanged. The gradient of the
resulting function for a value, times the value, is its relevance. One implementation serves every network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array

from vtcav_jax.attribution.jaxprs.equations import CALL_PRIMITIVES, bind_equation, called_jaxpr, is_linear_layer
from vtcav_jax.attribution.lrp import rules as backward
from vtcav_jax.attribution.lrp.rules import LrpRules
from vtcav_jax.platforms import use_kernels

# Dependence of a value on the input: none; treated as constant; dependent; product of two dependent values
FROM_PARAMETERS, FROM_DETACHED_INPUT, FROM_INPUT, FROM_INPUT_PRODUCT = range(4)
DATA_MOVEMENT = ("reshape", "transpose", "squeeze", "convert_element_type", "copy", "expand_dims", "reduce_precision")
BOUND_PRESERVING_MOVEMENT = (*DATA_MOVEMENT, "pad", "concatenate", "slice", "broadcast_in_dim", "rev", "copy_p")
DETACHED_ELEMENTWISE = ("erf", "erfc", "logistic", "rsqrt", "sqrt", "stop_gradient")  # treated as constant factors
ELEMENTWISE = ("tanh", "integer_pow", "square", "sin", "log1p")


@dataclass(frozen=True)
class TracedValue:
    """An array, its dependence on the input and, before the first layer, the bounds of the input."""

    array: Any
    dependence: int
    low: Any = None
    high: Any = None

    @property
    def active(self) -> bool:
        return self.dependence >= FROM_INPUT


@dataclass(frozen=True)
class FusedLayer:
    """A layer `s * f(x, w) + b`, not computed yet because the next operation may add a shift or scale."""

    f: Callable[[Array, Array], Array]
    x: TracedValue
    w: Array
    s: Array
    b: Array

    dependence = FROM_INPUT
    active = True


class LrpInterpreter:
    """Evaluation of one trace; `relus` counts ReLUs, of which guided backpropagation needs at least one."""

    def __init__(self, rules: LrpRules, low: Any = None, high: Any = None):
        self.rules, self.low, self.high, self.relus = rules, low, high, 0

    def transform(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return `f` with the backward pass of the rules; the first argument is the video, all arguments are active."""

        def run(*args: Any) -> Any:
            with use_kernels(False):
                closed_jaxpr, shape = jax.make_jaxpr(f, return_shape=True)(*args)
            flat = jax.tree.leaves(args)
            values = [TracedValue(a, FROM_INPUT) for a in flat]
            if self.low is not None:
                ends = (
                    jnp.broadcast_to(jnp.asarray(end, flat[0].dtype), flat[0].shape) for end in (self.low, self.high)
                )
                values[0] = TracedValue(flat[0], FROM_INPUT, *ends)
            out = [self.force(v).array for v in self.run_closed(closed_jaxpr, values)]
            return jax.tree.unflatten(jax.tree.structure(shape), out)

        return run

    def run_closed(
        self, closed_jaxpr: ClosedJaxpr, args: Sequence[TracedValue | FusedLayer]
    ) -> list[TracedValue | FusedLayer]:
        return self.run_jaxpr(closed_jaxpr.jaxpr, [TracedValue(c, FROM_PARAMETERS) for c in closed_jaxpr.consts], args)

    def run_jaxpr(
        self, jaxpr: Jaxpr, consts: Sequence[TracedValue], args: Sequence[TracedValue | FusedLayer]
    ) -> list[TracedValue | FusedLayer]:
        known: dict[Any, TracedValue | FusedLayer] = {}

        def read(atom: Any) -> TracedValue | FusedLayer:
            return TracedValue(atom.val, FROM_PARAMETERS) if isinstance(atom, Literal) else known[atom]

        for names, values in ((jaxpr.constvars, consts), (jaxpr.invars, args)):
            known |= dict(zip(names, values, strict=True))
        gates = _gates(jaxpr)
        for eqn in jaxpr.eqns:
            out = self.run_equation(eqn, [read(atom) for atom in eqn.invars], not gates.isdisjoint(eqn.outvars))
            known |= dict(zip(eqn.outvars, out, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def run_equation(
        self, eqn: Any, args: list[TracedValue | FusedLayer], is_gate: bool
    ) -> Sequence[TracedValue | FusedLayer]:
        name = eqn.primitive.name
        if not any(a.active for a in args):
            out = bind_equation(eqn, [self.force(a).array for a in args])
            return [TracedValue(a, max((v.dependence for v in args), default=FROM_PARAMETERS)) for a in out]
        if name in CALL_PRIMITIVES and not is_linear_layer(eqn):
            inner = called_jaxpr(eqn)
            return self.run_closed(inner, args) if isinstance(inner, ClosedJaxpr) else self.run_jaxpr(inner, [], args)
        if name == "scan":
            return self.run_scan(eqn, [self.force(a) for a in args])
        if name in ("while", "cond", "shard_map", "pallas_call"):
            raise ValueError(
                f"relevance cannot be propagated through {name!r}; rewrite the network without it, or use a gradient"
            )
        if not self.rules.guided:
            if is_gate:
                return self.detach(eqn, [self.force(a) for a in args])
            if (fused := _fuse(eqn, args)) is not None:
                return [fused]
            if is_linear_layer(eqn) and {a.dependence for a in args} & {FROM_PARAMETERS}:
                return [_linear_layer(eqn, [self.force(a) for a in args])]
        return self.other_primitive(eqn, name, [self.force(a) for a in args])

    def other_primitive(self, eqn: Any, name: str, args: list[TracedValue]) -> list[TracedValue]:
        if any(a.low is not None for a in args):
            return [self.move_bounds(eqn, name, args)]
        arrays = [a.array for a in args]
        out_dependence = (
            FROM_INPUT_PRODUCT if name in DATA_MOVEMENT and args[0].dependence == FROM_INPUT_PRODUCT else FROM_INPUT
        )
        if name == "max" and any(isinstance(v, Literal) and v.val == 0 for v in eqn.invars):
            self.relus += 1
            x, floor = sorted(args, key=lambda a: not a.active)
            floor = jnp.broadcast_to(floor.array, x.array.shape)
            return [TracedValue(backward.relu_rule(x.array, floor, self.rules.guided), FROM_INPUT)]
        if not self.rules.guided:
            if name in DETACHED_ELEMENTWISE or (name == "exp" and self.rules.attention == "cp"):
                return self.detach(eqn, args)
            if name in ELEMENTWISE:
                return [TracedValue(backward.slope_rule(lambda x: bind_equation(eqn, [x])[0], arrays[0]), FROM_INPUT)]
            if name in ("mul", "dot_general") and all(a.active for a in args):
                dependence = FROM_INPUT_PRODUCT if name == "dot_general" else FROM_INPUT
                return [
                    TracedValue(a, dependence)
                    for a in bind_equation(eqn, [backward.halve_relevance(a) for a in arrays])
                ]
            if name == "div" and args[0].dependence == FROM_INPUT_PRODUCT and args[1].active:
                arrays = [
                    arrays[0],
                    backward.halve_relevance(arrays[1]),
                ]  # a softmax normalised after its product with the values
        return [TracedValue(a, out_dependence) for a in bind_equation(eqn, arrays)]

    def detach(self, eqn: Any, args: list[TracedValue]) -> list[TracedValue]:
        """Treat the result as a constant factor."""
        results = bind_equation(eqn, [a.array for a in args])
        return [TracedValue(jax.lax.stop_gradient(a), FROM_DETACHED_INPUT) for a in results]

    def move_bounds(self, eqn: Any, name: str, args: list[TracedValue]) -> TracedValue:
        """Apply an operation before the first layer to the input and its bounds."""
        if name not in BOUND_PRESERVING_MOVEMENT or any(a.active and a.low is None for a in args):
            raise ValueError(f"bounds need a network that begins with a linear layer; this one begins with {name!r}")
        ends = [[getattr(a, end) if a.active else a.array for a in args] for end in ("array", "low", "high")]
        array, low, high = (bind_equation(eqn, arrays)[0] for arrays in ends)
        return TracedValue(array, FROM_INPUT, low, high)

    def run_scan(self, eqn: Any, args: list[TracedValue]) -> list[TracedValue | FusedLayer]:
        """Evaluate a loop whose body follows the rules; retrace it until the dependence of the carry is stable."""
        if any(a.low is not None for a in args):
            raise ValueError("bounds need a network that begins with a linear layer; this one begins with a loop")
        p = eqn.params
        n_consts, n_carry = p["num_consts"], p["num_carry"]
        dependences = [a.dependence for a in args]
        arrays = [a.array for a in args]
        out_dependences: list[int] = []

        def body(carry, xs):
            values = [TracedValue(a, k) for a, k in zip([*arrays[:n_consts], *carry, *xs], dependences, strict=True)]
            out = [self.force(v) for v in self.run_closed(p["jaxpr"], values)]
            out_dependences[:] = [v.dependence for v in out]
            return tuple(v.array for v in out[:n_carry]), tuple(v.array for v in out[n_carry:])

        def loop(*carry_and_inputs):
            options = dict(length=p["length"], reverse=p["reverse"], unroll=p["unroll"])
            return jax.lax.scan(body, tuple(carry_and_inputs[:n_carry]), tuple(carry_and_inputs[n_carry:]), **options)

        while True:
            relus = self.relus
            jax.eval_shape(loop, *arrays[n_consts:])
            self.relus = relus
            carry_dependences = [max(a, b) for a, b in zip(dependences[n_consts : n_consts + n_carry], out_dependences)]
            if carry_dependences == dependences[n_consts : n_consts + n_carry]:
                break
            dependences[n_consts : n_consts + n_carry] = carry_dependences
        carry, ys = loop(*arrays[n_consts:])
        return [TracedValue(a, k) for a, k in zip([*carry, *ys], out_dependences, strict=True)]

    def force(self, value: TracedValue | FusedLayer) -> TracedValue:
        """Compute `value` if it is a fused layer."""
        if isinstance(value, TracedValue):
            return value
        x, parameters = value.x, (value.w, value.s, value.b)
        if x.low is not None:
            return TracedValue(backward.z_b_rule(value.f, self.rules, x.array, *parameters, x.low, x.high), FROM_INPUT)
        return TracedValue(backward.linear_rule(value.f, self.rules, x.array, *parameters), FROM_INPUT)


def _gates(jaxpr: Jaxpr) -> set[Any]:
    """Return each `tanh(u)` that is only used as `1 + tanh(u)`: twice a logistic function, as in a GELU with tanh.

    Like a logistic function it is a constant factor; a plain tanh is an activation.
    """
    uses: dict[Any, list[bool]] = {}
    for eqn in jaxpr.eqns:
        adds_one = eqn.primitive.name == "add" and any(isinstance(v, Literal) and v.val == 1 for v in eqn.invars)
        for variable in eqn.invars:
            if not isinstance(variable, Literal):
                uses.setdefault(variable, []).append(adds_one)
    tanh_results = [eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive.name == "tanh"]
    return {v for v in tanh_results if v not in jaxpr.outvars and all(uses.get(v, [False]))}


def _linear_layer(eqn: Any, args: list[TracedValue]) -> TracedValue | FusedLayer:
    """Return a fused layer for a product of an input-dependent value with parameters; compute other products."""
    swapped = not args[0].active
    x, w = args[::-1] if swapped else args
    if not x.active or w.dependence != FROM_PARAMETERS:
        return TracedValue(bind_equation(eqn, [a.array for a in args])[0], FROM_INPUT)

    def f(x: Array, w: Array) -> Array:
        return bind_equation(eqn, [w, x] if swapped else [x, w])[0]

    shape, dtype = eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype
    return FusedLayer(f, x, w.array, jnp.ones(shape, dtype), jnp.zeros(shape, dtype))


def _fuse(eqn: Any, args: list[TracedValue | FusedLayer]) -> FusedLayer | None:
    """Extend a fused layer by this operation if it shifts or scales by parameters or moves values, else None."""
    name, first = eqn.primitive.name, args[0]
    if isinstance(first, FusedLayer) and len(args) == 1 and name in DATA_MOVEMENT:
        f = first.f
        s, b = (bind_equation(eqn, [a])[0] for a in (first.s, first.b))
        return replace(first, f=lambda x, w: bind_equation(eqn, [f(x, w)])[0], s=s, b=b)
    if name not in ("add", "sub", "mul", "div") or len(args) != 2:
        return None
    second = args[1]
    if isinstance(second, FusedLayer) and name in ("add", "mul"):
        first, second = second, first
    if not isinstance(first, FusedLayer) or not isinstance(second, TracedValue) or second.dependence != FROM_PARAMETERS:
        return None
    other = jnp.broadcast_to(second.array, first.s.shape)
    if name in ("add", "sub"):
        return replace(first, b=first.b + other if name == "add" else first.b - other)
    factor = other if name == "mul" else 1 / other
    return replace(first, s=first.s * factor, b=first.b * factor)
