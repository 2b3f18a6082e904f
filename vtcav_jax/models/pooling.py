"""The pools that networks name: the largest value of each window, and the mean."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.video_swin import Triple

ONE = (1, 1, 1)


class MaxPool(nnx.Module):
    """`max_pool` as a layer without parameters."""

    def __init__(self, window: Triple, strides: Triple, padding: Triple = (0, 0, 0)):
        self.window, self.strides, self.padding = window, strides, padding

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 c"]:
        return max_pool(x, self.window, self.strides, self.padding)


def max_pool(
    x: Float[Array, "b t h w c"], window: Triple, strides: Triple, padding: Triple | Literal["SAME"] = (0, 0, 0)
) -> Float[Array, "b t2 h2 w2 c"]:
    """The largest value of each window; `padding` places on either side of an axis never win."""
    pads = padding if isinstance(padding, str) else [(0, 0), *((n, n) for n in padding), (0, 0)]
    lowest = np.asarray(-np.inf, x.dtype)  # of numpy: jax knows the gradient only if it sees the value while tracing
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, *window, 1), (1, *strides, 1), pads)


def mean_pool(x: Float[Array, "b t h w c"], window: Triple) -> Float[Array, "b t2 h2 w2 c"]:
    """The mean of each window, at every place where it fits; on an axis that is shorter, of the axis."""
    t, h, w = map(min, window, x.shape[1:4])
    sums = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, t, h, w, 1), (1, *ONE, 1), "VALID")
    return sums / jnp.asarray(t * h * w, x.dtype)
