"""Cost of a network's forward pass, estimated from its trace and from the speed of one matrix product."""

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtcav_jax.ahead_of_time.operations import inner_jaxprs, product_operations
from vtcav_jax.platforms import use_kernels

REACHED_EFFICIENCIES = 0.6, 0.15  # speed of large and of small networks relative to a large matrix product


@dataclass(frozen=True)
class ForwardCost:
    """Floating-point operations of products and convolutions and bytes of all intermediate results, for one clip."""

    flop: float
    bytes: float


def forward_cost(model: Any, clip_shape: tuple[int, ...]) -> ForwardCost:
    video = jax.ShapeDtypeStruct((1, *clip_shape), np.float32)
    with use_kernels(False):  # of which a trace holds one for each platform
        return _jaxpr_cost(jax.make_jaxpr(lambda model, video: model(video))(model, video).jaxpr)


def matmul_flops() -> float:
    """Measure the floating-point operations per second of a float32 product on the default device."""
    a = jnp.ones((1024, 1024))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds)


def _jaxpr_cost(jaxpr: Any) -> ForwardCost:
    flop = size = 0.0
    for equation in jaxpr.eqns:
        out = [v.aval for v in equation.outvars if hasattr(v.aval, "shape")]
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if inner := inner_jaxprs(equation.params):
            parts = [_jaxpr_cost(part) for part in inner]
            flop += repeats * sum(part.flop for part in parts)
            size += max(part.bytes for part in parts)  # a loop holds one iteration at a time
            continue
        size += sum(math.prod(a.shape) * a.dtype.itemsize for a in out)
        flop += product_operations(equation)
    return ForwardCost(flop, size)
