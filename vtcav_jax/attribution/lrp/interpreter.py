"""Any jax function with relevance instead of gradients: its own trace, run again with the rules for a backward pass.

The trace (jaxpr) is read operation by operation. Layers with weights take the rule of `rules.linear`, together with the
shifts and scales that follow (biases, a batch norm); what moves or adds values stays as it is. The result is a function
to differentiate: the gradient by a value, times the value, is its relevance. Written once, for every network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array

from vtcav_jax.attribution.lrp import rules as backward
from vtcav_jax.attribution.lrp.rules import Rules

PARAMETER, DETACHED, ACTIVE, PRODUCT = range(4)  # made of no input; of it but constant; of it; of two such
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
         "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")  # fmt: skip
MOVES = ("reshape", "transpose", "squeeze", "convert_element_type", "copy", "expand_dims", "reduce_precision")
MORE_MOVES = (*MOVES, "pad", "concatenate", "slice", "broadcast_in_dim", "rev", "copy_p")
GATES = ("erf", "erfc", "logistic", "rsqrt", "sqrt", "stop_gradient")  # their value is a factor, not a cause
CURVES = ("tanh", "integer_pow", "square", "sin", "log1p")


@dataclass(frozen=True)
class Value:
    """An array, what it is made of and, for the input before its first layer, its bounds."""

    array: Any
    kind: int
    low: Any = None
    high: Any = None

    @property
    def active(self) -> bool:
        return self.kind >= ACTIVE


@dataclass(frozen=True)
class Pending:
    """A layer that is not computed yet, since the shift or scale of the next operation may belong to it."""

    f: Callable[[Array, Array], Array]
    x: Value
    w: Array
    s: Array
    b: Array

    kind = ACTIVE
    active = True


class Reading:
    """One run through a trace; `relus` counts what guided backpropagation needs at least one of."""

    def __init__(self, rules: Rules, low: Any = None, high: Any = None):
        self.rules, self.low, self.high, self.relus = rules, low, high, 0

    def function(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f` with the backward pass of the rules; its first argument is the video, the others are active as well."""

        def run(*args: Any) -> Any:
            closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
            flat = jax.tree.leaves(args)
            values = [Value(a, ACTIVE) for a in flat]
            if self.low is not None:
                ends = (
                    jnp.broadcast_to(jnp.asarray(end, flat[0].dtype), flat[0].shape) for end in (self.low, self.high)
                )
                values[0] = Value(flat[0], ACTIVE, *ends)
            out = [self.done(v).array for v in self.closed(closed, values)]
            return jax.tree.unflatten(jax.tree.structure(shape), out)

        return run

    def closed(self, closed: ClosedJaxpr, args: Sequence[Value | Pending]) -> list[Value | Pending]:
        return self.trace(closed.jaxpr, [Value(c, PARAMETER) for c in closed.consts], args)

    def trace(self, jaxpr: Jaxpr, consts: Sequence[Value], args: Sequence[Value | Pending]) -> list[Value | Pending]:
        known: dict[Any, Value | Pending] = {}

        def read(atom: Any) -> Value | Pending:
            return Value(atom.val, PARAMETER) if isinstance(atom, Literal) else known[atom]

        for names, values in ((jaxpr.constvars, consts), (jaxpr.invars, args)):
            known |= dict(zip(names, values, strict=True))
        for eqn in jaxpr.eqns:
            out = self.operation(eqn, [read(atom) for atom in eqn.invars])
            known |= dict(zip(eqn.outvars, out, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def operation(self, eqn: Any, args: list[Value | Pending]) -> Sequence[Value | Pending]:
        name = eqn.primitive.name
        if not any(a.active for a in args):
            out = _bind(eqn, [self.done(a).array for a in args])
            return [Value(a, max((v.kind for v in args), default=PARAMETER)) for a in out]
        if name in CALLS:
            inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
            return self.closed(inner, args) if isinstance(inner, ClosedJaxpr) else self.trace(inner, [], args)
        if name == "scan":
            return self.scan(eqn, [self.done(a) for a in args])
        if name in ("while", "cond", "shard_map", "pallas_call"):
            raise ValueError(
                f"relevance cannot be read through {name!r}; write the network without it, or use a gradient"
            )
        if not self.rules.guided:
            if (fused := _fused(eqn, args)) is not None:
                return [fused]
            if name in ("dot_general", "conv_general_dilated") and {a.kind for a in args} & {PARAMETER}:
                return [_layer(eqn, [self.done(a) for a in args])]
        return self.rest(eqn, name, [self.done(a) for a in args])

    def rest(self, eqn: Any, name: str, args: list[Value]) -> list[Value]:
        if any(a.low is not None for a in args):
            return [self.moved(eqn, name, args)]
        arrays = [a.array for a in args]
        out_kind = PRODUCT if name in MOVES and args[0].kind == PRODUCT else ACTIVE
        if name == "max" and any(isinstance(v, Literal) and v.val == 0 for v in eqn.invars):
            self.relus += 1
            x, floor = sorted(args, key=lambda a: not a.active)
            floor = jnp.broadcast_to(floor.array, x.array.shape)
            return [Value(backward.relu(x.array, floor, self.rules.guided), ACTIVE)]
        if not self.rules.guided:
            if name in GATES or (name == "exp" and self.rules.attention == "cp"):
                return [Value(jax.lax.stop_gradient(a), DETACHED) for a in _bind(eqn, arrays)]
            if name in CURVES:
                return [Value(backward.by_slope(lambda x: _bind(eqn, [x])[0], arrays[0]), ACTIVE)]
            if name in ("mul", "dot_general") and all(a.active for a in args):
                kind = PRODUCT if name == "dot_general" else ACTIVE
                return [Value(a, kind) for a in _bind(eqn, [backward.half(a) for a in arrays])]
            if name == "div" and args[0].kind == PRODUCT and args[1].active:
                arrays = [arrays[0], backward.half(arrays[1])]  # a softmax that divides after its product with values
        return [Value(a, out_kind) for a in _bind(eqn, arrays)]

    def moved(self, eqn: Any, name: str, args: list[Value]) -> Value:
        """Input and bounds go the same way to the first layer."""
        if name not in MORE_MOVES or any(a.active and a.low is None for a in args):
            raise ValueError(f"bounds are for a network that begins with a linear layer; this one begins with {name!r}")
        ends = [[getattr(a, end) if a.active else a.array for a in args] for end in ("array", "low", "high")]
        array, low, high = (_bind(eqn, arrays)[0] for arrays in ends)
        return Value(array, ACTIVE, low, high)

    def scan(self, eqn: Any, args: list[Value]) -> list[Value | Pending]:
        """A loop whose body follows the rules; what the carry is made of is found by going round until it stays."""
        if any(a.low is not None for a in args):
            raise ValueError("bounds are for a network that begins with a linear layer; this one begins with a loop")
        p = eqn.params
        fixed, carried = p["num_consts"], p["num_carry"]
        kinds = [a.kind for a in args]
        arrays = [a.array for a in args]
        found: list[int] = []

        def body(carry, xs):
            inside = [Value(a, k) for a, k in zip([*arrays[:fixed], *carry, *xs], kinds, strict=True)]
            out = [self.done(v) for v in self.closed(p["jaxpr"], inside)]
            found[:] = [v.kind for v in out]
            return tuple(v.array for v in out[:carried]), tuple(v.array for v in out[carried:])

        def loop(*rest):
            options = dict(length=p["length"], reverse=p["reverse"], unroll=p["unroll"])
            return jax.lax.scan(body, tuple(rest[:carried]), tuple(rest[carried:]), **options)

        while True:
            relus = self.relus
            jax.eval_shape(loop, *arrays[fixed:])
            self.relus = relus
            new = [max(a, b) for a, b in zip(kinds[fixed : fixed + carried], found)]
            if new == kinds[fixed : fixed + carried]:
                break
            kinds[fixed : fixed + carried] = new
        carry, ys = loop(*arrays[fixed:])
        return [Value(a, k) for a, k in zip([*carry, *ys], found, strict=True)]

    def done(self, value: Value | Pending) -> Value:
        """A layer that waited, computed."""
        if isinstance(value, Value):
            return value
        x, parameters = value.x, (value.w, value.s, value.b)
        if x.low is not None:
            return Value(backward.bounded(value.f, self.rules, x.array, *parameters, x.low, x.high), ACTIVE)
        return Value(backward.linear(value.f, self.rules, x.array, *parameters), ACTIVE)


def _bind(eqn: Any, arrays: Sequence[Any]) -> list[Any]:
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)  # newer jax has no functions here
    out = eqn.primitive.bind(*functions, *arrays, **parameters)
    return list(out) if eqn.primitive.multiple_results else [out]


def _layer(eqn: Any, args: list[Value]) -> Value | Pending:
    """A product of what depends on the input with parameters."""
    swapped = not args[0].active
    x, w = args[::-1] if swapped else args
    if not x.active or w.kind != PARAMETER:
        return Value(_bind(eqn, [a.array for a in args])[0], ACTIVE)

    def f(x: Array, w: Array) -> Array:
        return _bind(eqn, [w, x] if swapped else [x, w])[0]

    shape, dtype = eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype
    return Pending(f, x, w.array, jnp.ones(shape, dtype), jnp.zeros(shape, dtype))


def _fused(eqn: Any, args: list[Value | Pending]) -> Pending | None:
    """The waiting layer with this operation, if it is a shift or scale by parameters, or moves values."""
    name, first = eqn.primitive.name, args[0]
    if isinstance(first, Pending) and len(args) == 1 and name in MOVES:
        f = first.f
        s, b = (_bind(eqn, [a])[0] for a in (first.s, first.b))
        return replace(first, f=lambda x, w: _bind(eqn, [f(x, w)])[0], s=s, b=b)
    if name not in ("add", "sub", "mul", "div") or len(args) != 2:
        return None
    second = args[1]
    if isinstance(second, Pending) and name in ("add", "mul"):
        first, second = second, first
    if not isinstance(first, Pending) or not isinstance(second, Value) or second.kind != PARAMETER:
        return None
    other = jnp.broadcast_to(second.array, first.s.shape)
    if name in ("add", "sub"):
        return replace(first, b=first.b + other if name == "add" else first.b - other)
    factor = other if name == "mul" else 1 / other
    return replace(first, s=first.s * factor, b=first.b * factor)
