"""Convolution over time, height and width that is fast on a CPU too.

XLA's CPU compiler has no good kernel for the gradient of a convolution with three axes: it was 30 times slower than the
same sum written as one convolution with two axes, in which the frames that a kernel spans are stacked as channels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.video_swin import on_cpu


class Conv3d(nnx.Conv):
    """`nnx.Conv` over (t, h, w) with padding to the same size; parameters and numbers are the same, to rounding."""

    def __call__(self, x: Float[Array, "b t h w c"], out_sharding: Any = None) -> Float[Array, "b t2 h2 w2 d"]:
        return stacked(x, self) if on_cpu() else super().__call__(x, out_sharding)


def stacked(x: Float[Array, "b t h w c"], conv: nnx.Conv) -> Float[Array, "b t2 h2 w2 d"]:
    kernel = conv.kernel[...]
    strides: Sequence[int] = conv.strides  # type: ignore[assignment]
    taps, step = kernel.shape[0], strides[0]
    b, t = x.shape[:2]
    after = -(-t // step)
    missing = max((after - 1) * step + taps - t, 0)
    x = jnp.pad(x, ((0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)))
    frames = [x[:, k : k + (after - 1) * step + 1 : step] for k in range(taps)]
    x = jnp.concatenate(frames, -1).reshape(b * after, *x.shape[2:4], -1)
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    if conv.dtype is not None:
        x, kernel = x.astype(conv.dtype), kernel.astype(conv.dtype)
    y = jax.lax.conv_general_dilated(x, kernel, strides[1:], "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if conv.bias is not None:
        y = y + conv.bias[...].astype(y.dtype)[None, None, None]
    return y.reshape(b, after, *y.shape[1:])
