"""Equations of jaxprs: which contain others, which are linear layers, and how to evaluate them."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

from vtcav_jax.models.layers.convolution import LINEAR_LAYER_NAME

CALL_PRIMITIVES = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
         "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")  # fmt: skip
LINEAR_PRIMITIVES = ("dot_general", "conv_general_dilated")


def is_linear_layer(eqn: Any) -> bool:
    """Return True for operations that are linear in each of two arguments: products and convolutions."""
    return eqn.primitive.name in LINEAR_PRIMITIVES or eqn.params.get("name") == LINEAR_LAYER_NAME


def called_jaxpr(eqn: Any) -> ClosedJaxpr | Jaxpr:
    """Return what an equation of one of the `CALL_PRIMITIVES` calls."""
    return next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)


def bind_equation(eqn: Any, arrays: Sequence[Any]) -> list[Any]:
    """Return the results of the equation for `arrays`."""
    bind_params = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = (
        bind_params if isinstance(bind_params, tuple) else ((), bind_params)
    )  # newer jax returns no functions
    out = eqn.primitive.bind(*functions, *arrays, **parameters)
    return list(out) if eqn.primitive.multiple_results else [out]
