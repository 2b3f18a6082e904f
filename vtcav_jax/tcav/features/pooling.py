"""Pooling at a stage: a vector of means has no position, and a step along it is a step at every position.

Hence means of activations go with sums of gradients over the same positions.
"""

import numpy as np
from jaxtyping import Array, Float

POOLS = "none", "space", "time", "all"


def pooled_axes(shape: tuple[int, ...], pool: str) -> tuple[int, ...]:
    """Which axes of one clip's activation are pooled: channels are last, and only (t, h, w, c) has axes with names."""
    if pool == "none" or len(shape) == 1:
        return ()
    if pool == "all":
        return tuple(range(len(shape) - 1))
    if len(shape) != 4:
        raise ValueError(
            f"an activation of shape {shape} per clip has no axes known as space and time; pool all or none"
        )
    return (0,) if pool == "time" else (1, 2)


def pool_activations(value: Array, pool: str) -> Array:
    """Means over the positions of each clip; the first axis is the clips'."""
    return value.mean(tuple(1 + i for i in pooled_axes(value.shape[1:], pool)))


def sum_gradients(gradient: Array, pool: str) -> Array:
    """What a gradient by an activation says about its means; the first two axes are classes and clips."""
    return gradient.sum(tuple(2 + i for i in pooled_axes(gradient.shape[2:], pool)))


def broadcast_vector(vector: Float[np.ndarray, "..."], shape: tuple[int, ...], pool: str) -> Float[np.ndarray, "..."]:
    """A pooled vector with axes of length 1 where there were positions, so that it broadcasts to the stage's shape."""
    return np.expand_dims(vector, pooled_axes(shape, pool))
