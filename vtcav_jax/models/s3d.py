"""S3D: Inception-v1 over time with separable kernels, first over space and then over time.

Saining Xie, Chen Sun, Jonathan Huang, Zhuowen Tu, Kevin Murphy, "Rethinking Spatiotemporal Feature Learning:
Speed-Accuracy Trade-offs in Video Classification", 2018, arXiv 1712.04851, as in torchvision: no gating, an epsilon of
0.001, and the same attribute numbers (lists include layers without parameters for that).

A stage (layer) is the output of the convolution it is named after, with its normalisation and ReLU; `features.5` is the
concatenation of the four branches.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.convolution import ONES, THREES, same_padded_conv
from vtcav_jax.models.layers.pooling import MaxPool, mean_pool
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.tap import Tap, identity_tap


class S3d(nnx.Module):
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
        self.features = nnx.List(
            [
                separable_conv(3, 64, 7, 2, **make),
                MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1)),
                conv_unit(64, 64, ONES, **make),
                separable_conv(64, 192, 3, 1, **make),
                MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1)),
                SeparableInceptionBlock(192, (64, 96, 128, 16, 32, 32), **make),
                SeparableInceptionBlock(256, (128, 128, 192, 32, 96, 64), **make),
                MaxPool(THREES, (2, 2, 2), ONES),
                SeparableInceptionBlock(480, (192, 96, 208, 16, 48, 64), **make),
                SeparableInceptionBlock(512, (160, 112, 224, 24, 64, 64), **make),
                SeparableInceptionBlock(512, (128, 128, 256, 24, 64, 64), **make),
                SeparableInceptionBlock(512, (112, 144, 288, 32, 64, 64), **make),
                SeparableInceptionBlock(528, (256, 160, 320, 32, 128, 128), **make),
                MaxPool((2, 2, 2), (2, 2, 2)),
                SeparableInceptionBlock(832, (256, 160, 320, 32, 128, 128), **make),
                SeparableInceptionBlock(832, (384, 192, 384, 48, 128, 128), **make),
            ]
        )
        self.head = nnx.Linear(1024, num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    @property
    def stages(self) -> tuple[str, ...]:
        names = [name for i, part in enumerate(self.features) for name in part_stages(part, f"features.{i}")]
        return (*names, "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = video
        for i, part in enumerate(self.features):
            x = run_part(part, x, tap, f"features.{i}")
        x = tap("pool", mean_pool(x, (2, 7, 7)).mean((1, 2, 3)))  # equals averaging logits: the head is linear
        return self.head(x.astype(self.head.kernel.dtype))


class SeparableInceptionBlock(nnx.Module):
    """Four parallel branches: one unit; twice a unit and a separable one; and a pool with one unit."""

    def __init__(self, inputs: int, widths: Sequence[int], **make):
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.branch0 = conv_unit(inputs, b0, ONES, **make)
        self.branch1 = nnx.List([conv_unit(inputs, b1a, ONES, **make), separable_conv(b1a, b1b, 3, 1, **make)])
        self.branch2 = nnx.List([conv_unit(inputs, b2a, ONES, **make), separable_conv(b2a, b2b, 3, 1, **make)])
        self.branch3 = nnx.List([MaxPool(THREES, ONES, ONES), conv_unit(inputs, b3b, ONES, **make)])

    def branches(self) -> Iterator[tuple[str, Any]]:
        return ((f"branch{i}", getattr(self, f"branch{i}")) for i in range(4))


def conv_unit(inputs: int, outputs: int, kernel: Triple, strides: Triple = ONES, **make) -> Sequence[Any]:
    """Return a unit of convolution and batch norm; `run_part` adds the ReLU."""
    return nnx.List(
        [same_padded_conv(inputs, outputs, kernel, strides, **make), BatchNorm(outputs, epsilon=1e-3, **make)]
    )


def separable_conv(inputs: int, outputs: int, size: int, stride: int, **make) -> Sequence[Any]:
    """Return a unit over space followed by one over time."""
    space = conv_unit(inputs, outputs, (1, size, size), (1, stride, stride), **make)
    return nnx.List([space, conv_unit(outputs, outputs, (size, 1, 1), (stride, 1, 1), **make)])


def is_unit(part: Any) -> bool:
    return isinstance(part, nnx.List) and isinstance(part[1], BatchNorm)


def part_stages(part: Any, name: str) -> list[str]:
    """Return the stages of a unit or pool, of a list of them, or of a mixed block."""
    if isinstance(part, SeparableInceptionBlock):
        return [stage for key, branch in part.branches() for stage in part_stages(branch, f"{name}.{key}")] + [name]
    if isinstance(part, MaxPool) or is_unit(part):
        return [name]
    return [stage for i, inner in enumerate(part) for stage in part_stages(inner, f"{name}.{i}")]


def run_part(part: Any, x: Array, tap: Tap, name: str) -> Array:
    """Run a unit or pool, a list of them, or a mixed block, with a tap at each stage."""
    if isinstance(part, SeparableInceptionBlock):
        return tap(name, jnp.concatenate([run_part(b, x, tap, f"{name}.{key}") for key, b in part.branches()], -1))
    if isinstance(part, MaxPool):
        return tap(name, part(x))
    if is_unit(part):
        convolution, norm = part
        return tap(name, jax.nn.relu(norm(convolution(x))))
    for i, inner in enumerate(part):
        x = run_part(inner, x, tap, f"{name}.{i}")
    return x
