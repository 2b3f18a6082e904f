"""Gradients of convolutions of any kernel and stride from one matrix product per tap (position of the kernel).

The padded input is cut into the phases of the strides, so that each tap reads a block without gaps.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vtcav_jax.models.layers.column_products import Padding, output_sizes


class TapPlan:
    """Sizes of a convolution, and phase and offset of each tap.

    Phases and offsets are computed: from a table of them, XLA's CPU compiler (jaxlib 0.10.2) made programs that it then
    refused ("Failed to translate module to LLVM IR").
    """

    def __init__(self, shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Padding):
        self.b, *sizes, _ = shape
        self.strides = strides
        self.out = output_sizes(shape, kernel, strides, padding)
        self.phase_sizes = [n + (k - 1) // s for n, k, s in zip(self.out, kernel, strides)]
        self.pads = [(p[0], n * s - p[0] - size) for p, n, s, size in zip(padding, self.phase_sizes, strides, sizes)]
        self.kernel, self.taps = kernel, math.prod(kernel)

    def place(self, k: Any) -> tuple[Any, ...]:
        """Return the phase of tap `k`, a number or an array, and its offsets along time, height and width within it."""
        _, height, width = self.kernel
        tap = (k // (height * width), k // width % height, k % width)
        first, second, third = (i % step for i, step in zip(tap, self.strides))
        phase = (first * self.strides[1] + second) * self.strides[2] + third
        return phase, *(i // step for i, step in zip(tap, self.strides))

    def split_phases(self, x: Array) -> Array:
        """Return (phases, b, t, h, w, c) of (b, t, h, w, c)."""
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in self.pads), (0, 0, 0)))
        if np.prod(self.strides) == 1:
            return x[None]
        (t, h, w), (st, sh, sw) = self.phase_sizes, self.strides
        x = x.reshape(self.b, t, st, h, sh, w, sw, -1)
        return x.transpose(2, 4, 6, 0, 1, 3, 5, 7).reshape(-1, self.b, t, h, w, x.shape[-1])

    def merge_phases(self, phases: Array) -> Array:
        """Return (b, t, h, w, c) of (phases, b, t, h, w, c)."""
        (t, h, w), (st, sh, sw) = self.phase_sizes, self.strides
        x = phases.reshape(st, sh, sw, self.b, t, h, w, -1).transpose(3, 4, 0, 5, 1, 6, 2, 7)
        x = x.reshape(self.b, t * st, h * sh, w * sw, -1)
        crop = ((0, 0, 0), *((-before, -after, 0) for before, after in self.pads), (0, 0, 0))
        return jax.lax.pad(x, jnp.zeros((), x.dtype), crop)


def tap_products_input_gradient(
    x: Array, kernel: Array, cotangent: Array, strides: Sequence[int], padding: Padding
) -> Array:
    """Return the gradient for `x`, of which only the shape is used."""
    plan = TapPlan(x.shape, kernel.shape[:3], strides, padding)
    c, d = kernel.shape[3:]
    matrices, rows = kernel.reshape(-1, c, d), cotangent.reshape(-1, d)

    def add_tap(k: Array, total: Array) -> Array:
        phase, *offset = plan.place(k)
        start, shape = (phase, 0, *offset, 0), (1, plan.b, *plan.out, c)
        z = jnp.einsum("md,cd->mc", rows, matrices[k]).reshape(shape)
        return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, start, shape) + z, start)

    total = jnp.zeros((int(np.prod(plan.strides)), plan.b, *plan.phase_sizes, c), cotangent.dtype)
    return plan.merge_phases(jax.lax.fori_loop(0, plan.taps, add_tap, total))


def tap_products_kernel_gradient(
    x: Array, kernel: Array, cotangent: Array, strides: Sequence[int], padding: Padding
) -> Array:
    """Return the gradient for `kernel`, of which only the shape is used."""
    plan = TapPlan(x.shape, kernel.shape[:3], strides, padding)
    c, d = kernel.shape[3:]
    phases, rows = plan.split_phases(x), cotangent.reshape(-1, d)

    def gradient_of_tap(k: Array) -> Array:
        phase, *offset = plan.place(k)
        z = jax.lax.dynamic_slice(phases, (phase, 0, *offset, 0), (1, plan.b, *plan.out, c))
        return jnp.einsum("mc,md->cd", z.reshape(-1, c), rows)

    return jax.lax.map(gradient_of_tap, jnp.arange(plan.taps)).reshape(kernel.shape)
