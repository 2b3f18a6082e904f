"""Multi-fiber network: units of grouped convolutions, each preceded by two 1 x 1 x 1 convolutions that mix the groups.

Yunpeng Chen, Yannis Kalantidis, Jianshu Li, Shuicheng Yan, Jiashi Feng, "Multi-Fiber Networks for Video Recognition",
2018, arXiv 1807.11195. Attributes are named as in PyTorch-MFNet. All but the first convolution are pre-activated (batch
norm, ReLU, convolution), so a stage (layer) is the output of a convolution before the next normalisation and ReLU.

Stages of a unit: `conv_i1`, `conv_i2`, `x_in` (its sum with the unit's input), `conv_m1`, `conv_m2`, `conv_w1` (the
shortcut, in the first unit of a layer), and the unit's name for its output.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.convolution import ONES, THREES, same_padded_conv
from vtcav_jax.models.layers.pooling import max_pool
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.tap import Tap, identity_tap

MFNET_GROUPS = 16


class MfNet(nnx.Module):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, normalisation and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.conv1 = MfNetStem(**make)
        channels = 16
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), 2):
            stride: Triple = (2, 1, 1) if i == 2 else (1, 2, 2)
            units = {"B01": MultiFiberUnit(channels, width, stride, **make)}
            units |= {f"B{j:02}": MultiFiberUnit(width, width, None, **make) for j in range(2, depth + 1)}
            setattr(self, f"conv{i}", nnx.Dict(units))
            channels = width
        self.tail = nnx.Dict({"bn": BatchNorm(channels, **make)})
        self.head = nnx.Linear(channels, num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    def units(self) -> dict[str, "MultiFiberUnit"]:
        layers = {f"conv{i}": getattr(self, f"conv{i}") for i in range(2, 6)}
        return {f"{name}.{key}": units[key] for name, units in layers.items() for key in sorted(units)}

    @property
    def stages(self) -> tuple[str, ...]:
        names = ["conv1", "maxpool"]
        for name, unit in self.units().items():
            names += [f"{name}.{part}" for part in unit.stages] + [name]
        return (*names, "tail", "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = tap("conv1", self.conv1(video))
        x = tap("maxpool", max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
        for name, unit in self.units().items():
            x = unit(x, tap, name)
        x = tap("tail", jax.nn.relu(self.tail["bn"](x)))
        x = tap("pool", x.mean((1, 2, 3)))
        return self.head(x.astype(self.head.kernel.dtype))


class MfNetStem(nnx.Module):
    """Convolution, batch norm, ReLU; the only part in this order."""

    def __init__(self, **make):
        self.conv, self.bn = same_padded_conv(3, 16, (3, 5, 5), (1, 2, 2), **make), BatchNorm(16, **make)

    def __call__(self, x: Float[Array, "b t h w 3"]) -> Float[Array, "b t h2 w2 16"]:
        return jax.nn.relu(self.bn(self.conv(x)))


class Preactivated(nnx.Module):
    """Batch norm, ReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, strides: Triple = ONES, *, groups: int = 1, **make):
        self.bn = BatchNorm(inputs, **make)
        self.conv = same_padded_conv(inputs, outputs, kernel, strides, groups=groups, **make)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
        return self.conv(jax.nn.relu(self.bn(x)))


class MultiFiberUnit(nnx.Module):
    """Multi-fiber unit; the first of a layer has a stride and changes the number of channels."""

    def __init__(self, inputs: int, width: int, stride: Triple | None, **make):
        self.conv_i1 = Preactivated(inputs, width // 4, ONES, **make)
        self.conv_i2 = Preactivated(width // 4, inputs, ONES, **make)
        self.conv_m1 = Preactivated(inputs, width, THREES, stride or ONES, groups=MFNET_GROUPS, **make)
        if stride:
            self.conv_m2 = Preactivated(width, width, ONES, **make)
        else:
            self.conv_m2 = Preactivated(width, width, (1, 3, 3), groups=MFNET_GROUPS, **make)
        self.conv_w1 = Preactivated(inputs, width, ONES, stride, **make) if stride else None

    @property
    def stages(self) -> tuple[str, ...]:
        names = ("conv_i1", "conv_i2", "x_in", "conv_m1", "conv_m2")
        return names if self.conv_w1 is None else (*names, "conv_w1")

    def __call__(self, x: Float[Array, "b t h w c"], tap: Tap, name: str) -> Float[Array, "b t2 h2 w2 d"]:
        y = tap(f"{name}.conv_i2", self.conv_i2(tap(f"{name}.conv_i1", self.conv_i1(x))))
        y = tap(f"{name}.conv_m1", self.conv_m1(tap(f"{name}.x_in", x + y)))
        y = tap(f"{name}.conv_m2", self.conv_m2(y))
        if self.conv_w1 is not None:
            x = tap(f"{name}.conv_w1", self.conv_w1(x))  # of x, not of x_in
        return tap(name, y + x)
