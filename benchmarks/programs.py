"""Functions of a model and clips that several benchmarks run."""

from typing import Any

import jax

TARGET = 7  # class of gradients


def forward(model: Any, video: jax.Array) -> jax.Array:
    return model(video)


def input_gradient(model: Any, video: jax.Array) -> jax.Array:
    """Compute the gradient of one class for the video."""
    return jax.grad(lambda video: model(video)[:, TARGET].sum())(video)
