"""Operations of the matrix products and convolutions of a function, counted in its jaxpr.

Each multiplication with its addition counts as two. These are the operations of which a chip's peak speaks; all others
are left out. Loops count once per iteration, and results that nobody uses not at all.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_operations(function: Callable[..., Any], *args: Any) -> int:
    """Return the operations of `function(*args)`; the arguments may be shapes."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return jaxpr_operations(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def jaxpr_operations(jaxpr: Any) -> int:
    return sum(equation_operations(equation) for equation in jaxpr.eqns)


def equation_operations(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if operations := product_operations(equation):
        return operations
    inner = [jaxpr_operations(jaxpr) for jaxpr in inner_jaxprs(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "while" and any(inner):
        raise ValueError("the function has a loop whose number of iterations depends on data; use jax.lax.scan")
    if name == "cond":  # of the implementations for several platforms, the one with the least recomputation
        return min(inner) if params.get("branches_platforms") else max(inner)
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid) * sum(inner)
    return sum(inner)


def product_operations(equation: Any) -> int:
    """Return the operations of one matrix product or convolution, 0 for other equations."""
    numbers = equation.params.get("dimension_numbers")
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    return 0


def inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    """Return the jaxprs among the parameters of an equation."""
    values = [item for value in params.values() for item in (value if isinstance(value, list | tuple) else [value])]
    return [
        value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        for value in values
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr)
    ]
