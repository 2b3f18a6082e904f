"""Small networks with random parameters: biases of 0 hide mistakes, and the norm of a zero vector has no gradient."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vtcav_jax.models.small_cnn import SmallCnn
from vtcav_jax.models.video_swin import VideoSwin


def with_random_parameters(make, biases=True):
    graph, state = nnx.split(nnx.eval_shape(make))
    random = np.random.default_rng(0)

    def draw(x):
        matrix = len(x.shape) > 1
        scale = math.prod(x.shape[:-1]) ** -0.5 if matrix else 0.2
        values = scale * random.normal(size=x.shape) + 0.2 * (not matrix)  # positive biases keep ReLUs active
        return jnp.asarray(values * (biases or matrix), x.dtype)

    return nnx.merge(graph, jax.tree.map(draw, state))


def small_cnn(biases=True):
    sizes: dict[str, Any] = dict(widths=(5, 8, 6), kernels=((3, 3, 3),) * 3, strides=((1, 2, 2), (2, 1, 1), (1, 1, 1)))
    return with_random_parameters(lambda: SmallCnn(**sizes, num_classes=4, rngs=nnx.Rngs(0)), biases)


def small_swin():
    sizes: dict[str, Any] = dict(embed_dim=8, depths=(2, 1), num_heads=(2, 2), window=(2, 2, 2), num_classes=4)
    return with_random_parameters(lambda: VideoSwin(**sizes, rngs=nnx.Rngs(0)))
