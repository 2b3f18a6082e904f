"""Convolutions of few channels with a large kernel and a stride over the frame, the stems of networks, as products.

The pixels of a row that an output sees are put side by side once; rows of these are the columns of a product. One
product has the results of each frame of the kernel, which are moved in time and added (as in `column_products`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vtcav_jax.models.layers.column_products import Padding, for_each_block, output_sizes, sum_taps

CACHED_VALUES = 1_500_000  # of one block's product
MAX_WIDTH, MIN_KERNEL = 96, 7  # outputs of a row and sizes of a kernel beyond which XLA's own convolution is as fast


def prefer_row_products(shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Padding) -> bool:
    """Return true for large kernels over several frames, with a stride over the frame only, on small frames."""
    width = output_sizes(shape, kernel, strides, padding)[2]
    has_stride_in_frame = strides[0] == 1 and min(strides[1:]) > 1
    return has_stride_in_frame and kernel[0] > 1 and min(kernel[1:]) >= MIN_KERNEL and width <= MAX_WIDTH


def row_products_conv(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute a convolution without a stride over time, in blocks of all frames of a few rows."""
    taps, height, width, c, d = kernel.shape
    b, (t, h, w) = x.shape[0], output_sizes(x.shape, kernel.shape[:3], strides, padding)
    matrix = kernel.transpose(1, 2, 3, 0, 4).reshape(-1, taps * d)
    frames, step = x.shape[1], strides[1]
    blocks = -(-h // max(1, CACHED_VALUES // (frames * w * taps * d)))
    rows = -(-h // blocks)
    below = (blocks * rows - 1) * step + height - x.shape[2] - padding[1][0]  # negative where rows are not seen
    x = jnp.pad(x, ((0, 0), (0, 0), (padding[1][0], max(0, below)), padding[2], (0, 0)))
    x = _stack_pixels(x, width, strides[2], w)

    def write_block(i: Array, y: Array) -> Array:
        clip, first = i // blocks, i % blocks * rows
        start, length = (clip, 0, first * step, 0, 0), (rows - 1) * step + 1
        z = jax.lax.dynamic_slice(x, start, (1, frames, length + height - 1, w, width * c))[0]
        columns = jnp.concatenate([z[:, k : k + length : step] for k in range(height)], -1)
        product = (columns.reshape(-1, len(matrix)) @ matrix).reshape(frames, rows, w, taps, d)
        values = sum_taps(jnp.moveaxis(product, 3, 0), 0, padding[0][0], t)
        return jax.lax.dynamic_update_slice(y, values[None], (clip, 0, first, 0, 0))

    y = for_each_block(b * blocks, write_block, jnp.zeros((b, t, blocks * rows, w, d), x.dtype))
    return y[:, :, :h]


def _stack_pixels(x: Float[Array, "b t h w c"], count: int, step: int, outputs: int) -> Float[Array, "b t h w2 k"]:
    """Return `count` pixels of a row, every `step`, side by side as channels."""
    groups, c = -(-count // step), x.shape[-1]
    length = (outputs - 1 + groups) * step
    x = jnp.pad(x, ((0, 0),) * 3 + ((0, max(0, length - x.shape[3])), (0, 0)))[:, :, :, :length]
    x = x.reshape(*x.shape[:3], -1, step * c)
    return jnp.concatenate([x[:, :, :, i : i + outputs] for i in range(groups)], -1)[..., : count * c]
