"""3D ResNet-18 to -152 and 3D ResNeXt-101: residual networks with 3D kernels.

Kensho Hara, Hirokatsu Kataoka, Yutaka Satoh, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?",
2018, arXiv 1711.09577. Attributes are named as in 3D-ResNets-PyTorch. Each convolution is followed by its batch norm; a
block's shortcut is the identity or, where the size changes, a 1 x 1 x 1 convolution ("B") or subsampling with zero
channels appended ("A", without parameters).

Stages (layers): `layer1.0.conv2` is the output of that convolution after normalisation and, except for a block's last,
ReLU; `layer1.0.downsample` is a shortcut other than the identity, `layer1.0.sum` the block's sum and `layer1.0` its
ReLU.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.batch_norm import BatchNorm
from vtcav_jax.models.layers.convolution import ONES, THREES, same_padded_conv
from vtcav_jax.models.layers.pooling import max_pool
from vtcav_jax.models.layers.residual_network import ResidualNetwork
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.tap import Tap, identity_tap

ShortcutType = Literal["A", "B"]


class ResNet3d(ResidualNetwork):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,  # channels of the first convolution
        expansion: int = 1,  # of a bottleneck's output over its width; 1: blocks of two convolutions
        groups: int = 1,
        shortcut: ShortcutType = "B",
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, normalisation and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.conv1, self.bn1 = same_padded_conv(3, stem, (7, 7, 7), (1, 2, 2), **make), BatchNorm(stem, **make)
        channels = stem
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                stride: Triple = (2, 2, 2) if i > 0 and j == 0 else ONES
                blocks.append(ResNet3dBlock(channels, width, expansion, groups, stride, shortcut, **make))
                channels = width * expansion
            setattr(self, f"layer{i + 1}", nnx.List(blocks))
        self.head = nnx.Linear(channels, num_classes, dtype=wide, param_dtype=wide, rngs=rngs)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("conv1", "maxpool", *self.block_stages(), "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = tap("conv1", jax.nn.relu(self.bn1(self.conv1(video))))
        x = tap("maxpool", max_pool(x, THREES, (2, 2, 2), ONES))
        for name, block in self.blocks().items():
            x = block(x, tap, name)
        x = tap("pool", x.mean((1, 2, 3)))
        return self.head(x.astype(self.head.kernel.dtype))


class ResNet3dBlock(nnx.Module):
    """Two convolutions of size 3, or a bottleneck: sizes 1, 3 (grouped in a ResNeXt) and 1."""

    def __init__(
        self, inputs: int, width: int, expansion: int, groups: int, stride: Triple, shortcut: ShortcutType, **make
    ):
        outputs = width * expansion
        self.outputs, self.stride = outputs, stride
        self.changes = stride != ONES or inputs != outputs
        if expansion == 1:
            convs = [
                same_padded_conv(inputs, width, THREES, stride, **make),
                same_padded_conv(width, width, THREES, **make),
            ]
        else:
            convs = [
                same_padded_conv(inputs, width, ONES, **make),
                same_padded_conv(width, width, THREES, stride, groups=groups, **make),
                same_padded_conv(width, outputs, ONES, **make),
            ]
        self.depth = len(convs)
        for i, conv in enumerate(convs, 1):
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", BatchNorm(conv.out_features, **make))
        projected = self.changes and shortcut == "B"
        parts = (
            [same_padded_conv(inputs, outputs, ONES, stride, **make), BatchNorm(outputs, **make)] if projected else []
        )
        self.downsample = nnx.List(parts)

    @property
    def stages(self) -> tuple[str, ...]:
        convs = (f"conv{i}" for i in range(1, self.depth + 1))
        return (*convs, *(["downsample"] if self.changes else []), "sum")

    def __call__(self, x: Float[Array, "b t h w c"], tap: Tap, name: str) -> Float[Array, "b t2 h2 w2 d"]:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = tap(f"{name}.conv{i}", jax.nn.relu(y) if i < self.depth else y)
        if self.changes:
            x = tap(f"{name}.downsample", self.shortcut(x))
        return tap(name, jax.nn.relu(tap(f"{name}.sum", y + x)))

    def shortcut(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
        if self.downsample:
            conv, norm = self.downsample
            return norm(conv(x))
        t, h, w = self.stride
        return jnp.pad(x[:, ::t, ::h, ::w], [(0, 0)] * 4 + [(0, self.outputs - x.shape[-1])])
