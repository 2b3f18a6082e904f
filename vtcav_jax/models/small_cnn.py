"""Small 3D convolutional network for the synthetic worlds.

Three convolutions with ReLU, a mean over space and time, and one linear layer. Without normalisation, every value of a
layer depends on its receptive field only, so that a map of a layer can be read as a map of positions.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.convolution import Conv3d
from vtcav_jax.models.video_swin import at_least_float32
from vtcav_jax.tap import Tap, identity_tap


class SmallCnn(nnx.Module):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        widths: Sequence[int],
        kernels: Sequence[tuple[int, int, int]],
        strides: Sequence[tuple[int, int, int]],
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters and head are at least float32
        remat: bool = False,  # accepted for uniformity; without effect
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        inputs = (3, *widths)
        self.convs = nnx.List(
            [
                Conv3d(a, b, kernel, strides=stride, dtype=dtype, param_dtype=wide, rngs=rngs)
                for a, b, kernel, stride in zip(inputs, widths, kernels, strides)
            ]
        )
        self.head = nnx.Linear(widths[-1], num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    @property
    def stages(self) -> tuple[str, ...]:
        return (*(f"convs.{i}" for i in range(len(self.convs))), "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = video
        for i, conv in enumerate(self.convs):
            x = tap(f"convs.{i}", jax.nn.relu(conv(x)))
        x = tap("pool", x.mean((1, 2, 3)))
        return self.head(x.astype(self.head.kernel.dtype))
