"""R3D-18, MC3-18 and R(2+1)D-18: residual networks with 18 layers and three types of temporal kernels.

Du Tran, Heng Wang, Lorenzo Torresani, Jamie Ray, Yann LeCun, Manohar Paluri, "A Closer Look at Spatiotemporal
Convolutions for Action Recognition", 2018, arXiv 1711.11248, as in torchvision: a stem without pooling, and the same
attribute names. Lists include ReLUs, so that numbers in names are torchvision's.

A stage (layer) is the output of the part it is named after, with its normalisation and activation; `sum` is a block's
sum before its ReLU.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.convolution import ONES, THREES, same_padded_conv
from vtcav_jax.models.layers.residual_network import ResidualNetwork
from vtcav_jax.models.video_swin import at_least_float32
from vtcav_jax.tap import Tap, identity_tap

# 3 x 3 x 3; 1 x 3 x 3; 1 x 3 x 3 followed by 3 x 1 x 1
TemporalKernel = Literal["whole", "none", "apart"]
Layers = Sequence[Callable[[Array], Array]]


class VideoResNet(ResidualNetwork):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        times: Sequence[TemporalKernel],  # of each of the four layers
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, normalisation and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        if times[0] == "apart":
            first, second = (
                same_padded_conv(3, 45, (1, 7, 7), (1, 2, 2), **make),
                same_padded_conv(45, 64, (3, 1, 1), **make),
            )
            parts = [first, BatchNorm(45, **make), jax.nn.relu, second, BatchNorm(64, **make), jax.nn.relu]
        else:
            parts = [same_padded_conv(3, 64, (3, 7, 7), (1, 2, 2), **make), BatchNorm(64, **make), jax.nn.relu]
        self.stem = nnx.List(parts)
        widths = (64, 64, 128, 256, 512)
        for i, time in enumerate(times):
            first = VideoResNetBlock(widths[i], widths[i + 1], time, 1 if i == 0 else 2, **make)
            second = VideoResNetBlock(widths[i + 1], widths[i + 1], time, 1, **make)
            setattr(self, f"layer{i + 1}", nnx.List([first, second]))
        self.head = nnx.Linear(512, num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    @property
    def stages(self) -> tuple[str, ...]:
        stem = ("stem.0", "stem") if len(self.stem) > 3 else ("stem",)
        return (*stem, *self.block_stages(), "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = video
        if len(self.stem) > 3:
            x = tap("stem.0", apply_layers(self.stem[:3], x))
        x = tap("stem", apply_layers(self.stem[-3:], x))
        for name, block in self.blocks().items():
            x = block(x, tap, name)
        x = tap("pool", x.mean((1, 2, 3)))
        return self.head(x.astype(self.head.kernel.dtype))


class VideoResNetBlock(nnx.Module):
    """Two convolutions with a shortcut, which is a convolution where the size changes."""

    def __init__(self, inputs: int, outputs: int, time: TemporalKernel, stride: int, **make):
        middle = 27 * inputs * outputs // (9 * inputs + 3 * outputs)  # as many parameters as 3 x 3 x 3
        self.apart = time == "apart"
        self.conv1 = nnx.List(
            [spatiotemporal_conv(time, inputs, outputs, middle, stride, **make), BatchNorm(outputs, **make)]
        )
        self.conv2 = nnx.List(
            [spatiotemporal_conv(time, outputs, outputs, middle, 1, **make), BatchNorm(outputs, **make)]
        )
        strides = (1 if time == "none" else stride, stride, stride)
        parts = (
            [same_padded_conv(inputs, outputs, ONES, strides, **make), BatchNorm(outputs, **make)] if stride > 1 else []
        )
        self.downsample = nnx.List(parts)

    @property
    def stages(self) -> tuple[str, ...]:
        names = ("conv1.0.0", "conv1", "conv2.0.0", "conv2") if self.apart else ("conv1", "conv2")
        return (*names, *(["downsample"] if self.downsample else []), "sum")

    def __call__(self, x: Float[Array, "b t h w c"], tap: Tap, name: str) -> Float[Array, "b t2 h2 w2 d"]:
        y = tap(f"{name}.conv1", jax.nn.relu(self.apply_convolution(self.conv1, x, tap, f"{name}.conv1")))
        y = tap(f"{name}.conv2", self.apply_convolution(self.conv2, y, tap, f"{name}.conv2"))
        if self.downsample:
            x = tap(f"{name}.downsample", apply_layers(self.downsample, x))
        return tap(name, jax.nn.relu(tap(f"{name}.sum", y + x)))

    def apply_convolution(self, conv: Any, x: Array, tap: Tap, name: str) -> Array:
        convolution, norm = conv
        if self.apart:
            x = tap(f"{name}.0.0", apply_layers(convolution[:3], x))
            return norm(convolution[3](x))
        return norm(convolution(x))


def spatiotemporal_conv(time: TemporalKernel, inputs: int, outputs: int, middle: int, stride: int, **make) -> Any:
    if time == "whole":
        return same_padded_conv(inputs, outputs, THREES, (stride, stride, stride), **make)
    if time == "none":
        return same_padded_conv(inputs, outputs, (1, 3, 3), (1, stride, stride), **make)
    space = same_padded_conv(inputs, middle, (1, 3, 3), (1, stride, stride), **make)
    return nnx.List(
        [
            space,
            BatchNorm(middle, **make),
            jax.nn.relu,
            same_padded_conv(middle, outputs, (3, 1, 1), (stride, 1, 1), **make),
        ]
    )


def apply_layers(layers: Layers, x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x
