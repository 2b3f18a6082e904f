"""C3D: eight convolutions of 3 x 3 x 3 and three linear layers, each but the last with a ReLU; no normalisation.

Du Tran, Lubomir Bourdev, Rob Fergus, Lorenzo Torresani, Manohar Paluri, "Learning Spatiotemporal Features with 3D
Convolutional Networks", 2015, arXiv 1412.0767. Attributes are named as in c3d-pytorch, except that the last layer is
`head`, as in all networks here. The linear layers read a grid of 1 x 4 x 4 positions, so the clip size is fixed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.layers.convolution import THREES, same_padded_conv
from vtcav_jax.models.layers.pooling import max_pool
from vtcav_jax.models.video_swin import at_least_float32
from vtcav_jax.tap import Tap, identity_tap

C3D_CONVOLUTIONS = {
    **{"conv1": (3, 64), "conv2": (64, 128), "conv3a": (128, 256), "conv3b": (256, 256)},
    **{"conv4a": (256, 512), "conv4b": (512, 512), "conv5a": (512, 512), "conv5b": (512, 512)},
}
C3D_POOLS = {"conv1": "pool1", "conv2": "pool2", "conv3b": "pool3", "conv4b": "pool4", "conv5b": "pool5"}
C3D_GRID = (1, 4, 4)


class C3d(nnx.Module):
    """Network from normalised clips of 16 frames of 112 x 112 pixels to class scores."""

    def __init__(
        self,
        *,
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        for name, (inputs, outputs) in C3D_CONVOLUTIONS.items():
            setattr(self, name, same_padded_conv(inputs, outputs, THREES, use_bias=True, **make))
        self.fc6 = nnx.Linear(512 * 16, 4096, kernel_init=nnx.initializers.he_normal(), **make)
        self.fc7 = nnx.Linear(4096, 4096, kernel_init=nnx.initializers.he_normal(), **make)
        self.head = nnx.Linear(4096, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        grids = (name for conv in C3D_CONVOLUTIONS for name in (conv, C3D_POOLS.get(conv)) if name)
        return (*grids, "fc6", "fc7")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        x = video
        for name in C3D_CONVOLUTIONS:
            x = tap(name, jax.nn.relu(getattr(self, name)(x)))
            if pool := C3D_POOLS.get(name):
                window = (1, 2, 2) if pool == "pool1" else (2, 2, 2)
                side = 1 if pool == "pool5" else 0
                x = tap(pool, max_pool(x, window, window, (0, side, side)))
        if x.shape[1:4] != C3D_GRID:
            raise ValueError(
                f"C3D reads clips of 16 frames of 112 x 112 (last grid {C3D_GRID}); got {video.shape[1:4]} (last grid"
                f" {x.shape[1:4]}); change frames and size"
            )
        x = tap("fc6", jax.nn.relu(self.fc6(x.reshape(len(x), -1))))
        x = tap("fc7", jax.nn.relu(self.fc7(x)))
        return self.head(x.astype(self.head.kernel.dtype))
