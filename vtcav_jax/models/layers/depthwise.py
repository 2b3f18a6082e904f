"""Convolutions of each channel by itself, as sums of shifted inputs that XLA computes in one pass over memory."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.models.layers.column_products import Padding, output_sizes
from vtcav_jax.models.layers.tap_products import TapPlan


def depthwise_conv(
    x: Float[Array, "b t h w c"], kernel: Float[Array, "kt kh kw 1 c"], strides: Sequence[int], padding: Padding
) -> Float[Array, "b t2 h2 w2 c"]:
    out, padded = output_sizes(x.shape, kernel.shape, strides, padding), _pad(x, padding)
    y = jnp.zeros((x.shape[0], *out, x.shape[-1]), x.dtype)
    for tap in np.ndindex(kernel.shape[:3]):
        y = y + _view(padded, tap, out, strides) * _factor(kernel, tap)
    return y


def depthwise_input_gradient(
    x: Array, kernel: Array, cotangent: Array, strides: Sequence[int], padding: Padding
) -> Float[Array, "b t h w c"]:
    """Compute the gradient for `x`, phase by phase of the strides: a sum of shifted cotangents each."""
    plan = TapPlan(x.shape, kernel.shape[:3], strides, padding)
    places = [plan.place(k) for k in range(plan.taps)]
    farthest = [max(offset) for offset in list(zip(*places))[1:]]
    padded = _pad(cotangent, tuple((n, n) for n in farthest))
    phases = [jnp.zeros((plan.b, *plan.phase_sizes, x.shape[-1]), x.dtype)] * int(np.prod(strides))
    for tap, (phase, *offset) in zip(np.ndindex(kernel.shape[:3]), places, strict=True):
        start = [far - shift for far, shift in zip(farthest, offset)]
        phases[phase] = phases[phase] + _view(padded, start, plan.phase_sizes, (1, 1, 1)) * kernel[tap].reshape(
            1, 1, 1, 1, -1
        )
    return plan.merge_phases(jnp.stack(phases))


def depthwise_kernel_gradient(
    x: Array, kernel: Array, cotangent: Array, strides: Sequence[int], padding: Padding
) -> Float[Array, "kt kh kw 1 c"]:
    padded, out = _pad(x, padding), cotangent.shape[1:4]
    sums = [(_view(padded, tap, out, strides) * cotangent).sum((0, 1, 2, 3)) for tap in np.ndindex(kernel.shape[:3])]
    return jnp.stack(sums).reshape(kernel.shape)


def _pad(x: Array, padding: Padding) -> Array:
    """Return the padded array; the barrier keeps XLA from padding again for each view."""
    return jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))


def _view(x: Array, start: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> Array:
    ends = [i + (n - 1) * s + 1 for i, n, s in zip(start, shape, strides)]
    return jax.lax.slice(x, (0, *start, 0), (x.shape[0], *ends, x.shape[-1]), (1, *strides, 1))


def _factor(kernel: Array, tap: tuple[int, ...]) -> Array:
    return kernel[tap].reshape(1, 1, 1, 1, -1)
