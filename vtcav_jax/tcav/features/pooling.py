"""Pooling of activations at a stage (layer), and the matching pooling of gradients.

A step along a pooled vector is a step at every position, so that the gradient by a mean activation is the sum of the
gradients over the same positions.
"""

import numpy as np
from jaxtyping import Array, Float

POOLS = "none", "space", "time", "all"


def pooled_axes(shape: tuple[int, ...], pool: str) -> tuple[int, ...]:
    """Return the pooled axes of one clip's activation (channels last); pooling space or time needs (t, h, w, c)."""
    if pool == "none" or len(shape) == 1:
        return ()
    if pool == "all":
        return tuple(range(len(shape) - 1))
    if len(shape) != 4:
        raise ValueError(
            f"an activation of shape {shape} per clip has no space and time axes; declare them with grids= of the"
            " adapter, or use pool all or none"
        )
    return (0,) if pool == "time" else (1, 2)


def pool_activations(value: Array, pool: str) -> Array:
    """Average over the positions of each clip; the first axis is clips."""
    return value.mean(tuple(1 + i for i in pooled_axes(value.shape[1:], pool)))


def sum_gradients(gradient: Array, pool: str) -> Array:
    """Sum gradients over the pooled positions; the first two axes are classes and clips."""
    return gradient.sum(tuple(2 + i for i in pooled_axes(gradient.shape[2:], pool)))


def broadcast_vector(vector: Float[np.ndarray, "..."], shape: tuple[int, ...], pool: str) -> Float[np.ndarray, "..."]:
    """Return a pooled vector with axes of length 1 for the pooled ones, so that it broadcasts to the stage's shape."""
    return np.expand_dims(vector, pooled_axes(shape, pool))
