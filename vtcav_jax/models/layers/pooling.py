"""Max and mean pooling over time, height and width."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.convolution import ONES
from vtcav_jax.models.video_swin import Triple


class MaxPool(nnx.Module):
    """`max_pool` as a layer without parameters."""

    def __init__(self, window: Triple, strides: Triple, padding: Triple = (0, 0, 0)):
        self.window, self.strides, self.padding = window, strides, padding

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 c"]:
        return max_pool(x, self.window, self.strides, self.padding)


def max_pool(
    x: Float[Array, "b t h w c"], window: Triple, strides: Triple, padding: Triple | Literal["SAME"] = (0, 0, 0)
) -> Float[Array, "b t2 h2 w2 c"]:
    """Return the maximum of each window; the gradient goes to the first of equal values, as in torch.

    Computed axis by axis as comparisons of slices, because the gradient of XLA's own pooling is slow on a CPU.
    `padding` positions on both sides of an axis are never selected.
    """
    pads = [(n, n) for n in padding] if not isinstance(padding, str) else None
    for axis in (3, 2, 1):
        taps, step = window[axis - 1], strides[axis - 1]
        if pads is None:
            (pad,) = jax.lax.padtype_to_pads(x.shape[axis : axis + 1], [taps], [step], "SAME")
        else:
            pad = pads[axis - 1]
        x = _max_along_axis(x, axis, taps, step, pad)
    return x


def _max_along_axis(x: Array, axis: int, taps: int, step: int, pad: tuple[int, int]) -> Array:
    if any(pad):
        places = [(0, 0, 0)] * x.ndim
        places[axis] = (*pad, 0)
        x = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), places)
    last = (x.shape[axis] - taps) // step * step + 1
    best = jax.lax.slice_in_dim(x, 0, last, step, axis)
    for k in range(1, taps):
        other = jax.lax.slice_in_dim(x, k, k + last, step, axis)
        best = jnp.where((other > best) | (other != other), other, best)  # propagates NaN
    return best


def mean_of_windows(x: Float[Array, "b t h w c"], window: Triple, strides: Triple) -> Float[Array, "b t2 h2 w2 c"]:
    """Return the mean of each window that a convolution or pooling layer of odd size reads, without its padding."""

    def sums(x: Array) -> Array:
        pads = [(0, 0), *((size // 2, size // 2) for size in window), (0, 0)]
        return jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, *window, 1), (1, *strides, 1), pads)

    return sums(x) / sums(jnp.ones_like(x))


def mean_pool(x: Float[Array, "b t h w c"], window: Triple) -> Float[Array, "b t2 h2 w2 c"]:
    """Return the mean of each window at stride 1, without padding; a window longer than an axis is cut to it."""
    t, h, w = map(min, window, x.shape[1:4])
    sums = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, t, h, w, 1), (1, *ONES, 1), "VALID")
    return sums / jnp.asarray(t * h * w, x.dtype)
