"""I3D: Inception-v1 with all kernels inflated over time.

João Carreira, Andrew Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", 2017,
arXiv 1705.07750. Attribute names are those of pytorch-i3d, which follow the published TensorFlow network, as do the
padding ("SAME", with the larger part at the end of an axis) and the epsilon of 0.001.

Stages (layers) are that network's end points and, within a mixed block, each unit and pool: `Mixed_3b.b1a`, then
`Mixed_3b`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.convolution import ONES, THREES, Conv3d
from vtcav_jax.models.layers.pooling import max_pool, mean_pool
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.tap import Tap, identity_tap

# Input channels; output channels of the units b0, b1a, b1b, b2a, b2b, b3b
I3D_MIXED: dict[str, tuple[int, tuple[int, ...]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
# Name, window and strides of each pool, by the part that follows it
I3D_POOLS: dict[str, tuple[str, Triple, Triple]] = {
    "Conv3d_2b_1x1": ("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ("MaxPool3d_4a_3x3", THREES, (2, 2, 2)),
    "Mixed_5b": ("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
}
I3D_BRANCHES = ("b0", "b1a", "b1b", "b2a", "b2b", "b3a", "b3b")


class I3d(nnx.Module):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, normalisation and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.Conv3d_1a_7x7 = ConvUnit(3, 64, (7, 7, 7), (2, 2, 2), **make)
        self.Conv3d_2b_1x1 = ConvUnit(64, 64, ONES, **make)
        self.Conv3d_2c_3x3 = ConvUnit(64, 192, THREES, **make)
        for name, (inputs, widths) in I3D_MIXED.items():
            setattr(self, name, InceptionBlock(inputs, widths, **make))
        self.head = nnx.Linear(1024, num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    def parts(self) -> dict[str, "ConvUnit | InceptionBlock"]:
        names = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *I3D_MIXED)
        return {name: getattr(self, name) for name in names}

    @property
    def stages(self) -> tuple[str, ...]:
        names = []
        for name in self.parts():
            names += [I3D_POOLS[name][0]] if name in I3D_POOLS else []
            names += [f"{name}.{branch}" for branch in I3D_BRANCHES] if name in I3D_MIXED else []
            names.append(name)
        return (*names, "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = video
        for name, part in self.parts().items():
            if name in I3D_POOLS:
                pool, window, strides = I3D_POOLS[name]
                x = tap(pool, max_pool(x, window, strides, "SAME"))
            x = part(x, tap, name) if isinstance(part, InceptionBlock) else tap(name, part(x))
        x = tap("pool", mean_pool(x, (2, 7, 7)).mean((1, 2, 3)))  # equals averaging logits: the head is linear
        return self.head(x.astype(self.head.kernel.dtype))


class ConvUnit(nnx.Module):
    """Unit of convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, strides: Triple = ONES, **make):
        initial = nnx.initializers.he_normal()
        self.conv3d = Conv3d(inputs, outputs, kernel, strides, use_bias=False, kernel_init=initial, **make)
        self.bn = BatchNorm(outputs, epsilon=1e-3, **make)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
        return jax.nn.relu(self.bn(self.conv3d(x)))


class InceptionBlock(nnx.Module):
    """Four parallel branches: one unit, two units, two units, and a pool with one unit."""

    def __init__(self, inputs: int, widths: Sequence[int], **make):
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = ConvUnit(inputs, b0, ONES, **make)
        self.b1a, self.b1b = ConvUnit(inputs, b1a, ONES, **make), ConvUnit(b1a, b1b, THREES, **make)
        self.b2a, self.b2b = ConvUnit(inputs, b2a, ONES, **make), ConvUnit(b2a, b2b, THREES, **make)
        self.b3b = ConvUnit(inputs, b3b, ONES, **make)

    def __call__(self, x: Float[Array, "b t h w c"], tap: Tap, name: str) -> Float[Array, "b t h w d"]:
        b0 = tap(f"{name}.b0", self.b0(x))
        b1 = tap(f"{name}.b1b", self.b1b(tap(f"{name}.b1a", self.b1a(x))))
        b2 = tap(f"{name}.b2b", self.b2b(tap(f"{name}.b2a", self.b2a(x))))
        b3 = tap(f"{name}.b3a", max_pool(x, THREES, ONES, "SAME"))
        b3 = tap(f"{name}.b3b", self.b3b(b3))
        return tap(name, jnp.concatenate([b0, b1, b2, b3], -1))
