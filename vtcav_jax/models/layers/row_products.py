"""Convolutions of few channels with a large kernel and a stride over the frame, the stems of networks, as products.

The pixels of a row that an output sees are put side by side once; rows of these are the columns of a product. Over
time, the products are made in Winograd's basis (`winograd`): for four successive outputs 14 in place of 28 with a
kernel of 7 frames, and 6 in place of 12 with one of 3. Rounding errors are relative to the largest value in the frames
that these outputs see.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vtcav_jax.models.layers.column_products import Padding, for_each_block, output_sizes
from vtcav_jax.models.layers.winograd import multiply_parts, transform_matrices

CACHED_VALUES = 450_000  # of one block's products
# Outputs, and frames of the kernel, of one transformation; rounding errors grow with both. Windows of the parts of a
# longer kernel are those of other tiles, so that PART is a multiple of TILE.
TILE, PART = 4, 4
MIN_KERNEL = 7  # height and width below which XLA's own convolution is faster


def prefer_row_products(kernel: Sequence[int], strides: Sequence[int]) -> bool:
    """Return true for large kernels over several frames, with a stride over the frame only."""
    return kernel[0] > 1 and min(kernel[1:]) >= MIN_KERNEL and strides[0] == 1 and min(strides[1:]) > 1


def row_products_conv(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute a convolution without a stride over time, in blocks of all frames of a few rows."""
    height, width, channels, d = kernel.shape[1:]
    b, (t, h, w), step = len(x), output_sizes(x.shape, kernel.shape[:3], strides, padding), strides[1]
    times = _TimeTiles(len(kernel), t)
    matrices = times.transform_kernel(kernel.reshape(len(kernel), height * width * channels, d))

    blocks = -(-h // max(1, CACHED_VALUES // (times.products * times.tiles * w * d)))
    rows = -(-h // blocks)
    below = (blocks * rows - 1) * step + height - x.shape[2] - padding[1][0]  # negative where rows are not seen
    x = jnp.pad(x, ((0, 0), (0, 0), (padding[1][0], max(0, below)), padding[2], (0, 0)))
    x = times.transform_inputs(x, padding[0][0])
    span, length = (rows - 1) * step + height, (rows - 1) * step + 1

    def write_clip(clip: Array, y: Array) -> Array:
        pixels = _stack_pixels(jax.lax.dynamic_index_in_dim(x, clip, 1, keepdims=False), width, strides[2], w)

        def write_block(i: Array, y: Array) -> Array:
            z = jax.lax.dynamic_slice_in_dim(pixels, i * rows * step, span, 2)
            columns = [part[:, :, k : k + length : step] for part in times.parts_of(z) for k in range(height)]
            columns = jnp.concatenate(columns, -1).reshape(times.products, -1, matrices.shape[1])
            product = jnp.einsum("nmk,nkd->nmd", columns, matrices).reshape(times.products, times.tiles, rows, w, d)
            return jax.lax.dynamic_update_slice(y, times.transform_outputs(product)[None], (clip, 0, i * rows, 0, 0))

        return for_each_block(blocks, write_block, y)

    y = for_each_block(b, write_clip, jnp.zeros((b, times.tiles * times.tile, blocks * rows, w, d), x.dtype))
    return y[:, :t, :h]


class _TimeTiles:
    """Tiles of outputs over time, each a linear map of products of transformed frames and parts of the kernel."""

    def __init__(self, taps: int, outputs: int):
        self.tile, self.part = 2 if outputs <= 2 else TILE, min(PART, taps)
        self.parts, self.tiles = -(-taps // self.part), -(-outputs // self.tile)
        self.shift = self.part // self.tile  # tiles between the frames that two parts of the kernel see
        self.windows = self.tiles + (self.parts - 1) * self.shift
        self.matrices = transform_matrices(self.tile, self.part)
        self.products = self.tile + self.part - 1

    def transform_kernel(self, kernel: Float[Array, "kt k d"]) -> Float[Array, "n j d"]:
        kernel = jnp.pad(kernel, ((0, self.parts * self.part - len(kernel)), (0, 0), (0, 0)))
        kernel = kernel.reshape(self.parts, self.part, *kernel.shape[1:])
        kernel = multiply_parts(self.matrices[1], [kernel[:, i] for i in range(self.part)])
        return kernel.reshape(self.products, -1, kernel.shape[-1])

    def transform_inputs(self, x: Float[Array, "b t h w c"], before: int) -> Float[Array, "n b windows h w c"]:
        frames = (self.windows - 1) * self.tile + self.products
        x = jnp.pad(x, ((0, 0), (before, max(0, frames - before - x.shape[1])), (0, 0), (0, 0), (0, 0)))
        last = (self.windows - 1) * self.tile + 1
        return multiply_parts(self.matrices[2], [x[:, i : i + last : self.tile] for i in range(self.products)])

    def parts_of(self, z: Float[Array, "n windows ..."]) -> list[Array]:
        """Return the windows that each part of the kernel sees."""
        return [z[:, i * self.shift : i * self.shift + self.tiles] for i in range(self.parts)]

    def transform_outputs(self, products: Float[Array, "n tiles ..."]) -> Float[Array, "t ..."]:
        y = multiply_parts(self.matrices[0], list(products)).swapaxes(0, 1)
        return y.reshape(-1, *y.shape[2:])


def _stack_pixels(x: Float[Array, "... w c"], count: int, step: int, outputs: int) -> Float[Array, "... w2 k"]:
    """Return `count` pixels of a row, every `step`, side by side as channels."""
    groups, c = -(-count // step), x.shape[-1]
    length = (outputs - 1 + groups) * step
    x = jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, max(0, length - x.shape[-2])), (0, 0)))[..., :length, :]
    x = x.reshape(*x.shape[:-2], -1, step * c)
    return jnp.concatenate([x[..., i : i + outputs, :] for i in range(groups)], -1)[..., : count * c]
