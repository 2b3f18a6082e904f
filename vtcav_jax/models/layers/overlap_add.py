"""Gradients of convolutions of few channels for their inputs: products that are added where they overlap.

XLA's own gradient of a stem, a large kernel over three channels with a stride, reaches a tenth of the speed of its
matrix products. Here, each block of rows is one product of the output's gradient and all positions of the kernel, with
pixels last, so that the additions are vectorised and both fit in the cache.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.models.layers.column_products import Padding, for_each_block

CACHED_VALUES = 400_000  # of one block's product


def overlap_add_input_gradient(
    shape: Sequence[int],
    kernel: Float[Array, "kt kh kw c d"],
    cotangent: Float[Array, "b t2 h2 w2 d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t h w c"]:
    """Return the gradient of a convolution for its input of this shape (b, t, h, w, c)."""
    b, t, h, w, c = shape
    (kt, kh, kw), (st, sh, sw) = kernel.shape[:3], strides
    taps, below, right = -(-kt // st), (kh - 1) // sh, (kw - 1) // sw  # reach of the kernel in strides, less the first
    height, width = -(-(h + padding[1][0]) // sh), -(-(w + padding[2][0]) // sw)  # of the padded input, in strides
    blocks = -(-height // max(1, CACHED_VALUES // (kh * kw * c * (width + right)) - below))
    rows = -(-height // blocks)

    last_frame = (t - 1 + padding[0][0]) // st
    y = _pad_or_crop(
        cotangent,
        (taps - 1, last_frame + 1 - cotangent.shape[1]),
        (below, blocks * rows - cotangent.shape[2]),
        (right, width - cotangent.shape[3]),
    )
    k = jnp.pad(kernel, ((0, taps * st - kt), *[(0, 0)] * 4)).reshape(taps, st, kh, kw, c, -1)[::-1]
    matrices = k.transpose(1, 2, 3, 4, 0, 5).reshape(st, kh * kw * c, -1)

    def write_block(i: Array, x: Array) -> Array:
        clip, frame, block = i // (t * blocks), i // blocks % t, i % blocks
        position = frame + padding[0][0]
        start = (clip, position // st, block * rows, 0, 0)
        z = jax.lax.dynamic_slice(y, start, (1, taps, rows + below, width + right, y.shape[-1]))[0]
        z = jnp.concatenate(list(z.reshape(taps, -1, y.shape[-1])), -1)
        z = jnp.einsum("kd,pd->kp", matrices[position % st], z).reshape(kh, kw, c, rows + below, width + right)
        phases = [[_sum_overlaps(z[i::sh, j::sw], rows, width) for j in range(sw)] for i in range(sh)]
        values = jnp.stack([jnp.stack(line, -1) for line in phases], 2)  # (c, rows, sh, width, sw)
        values = values.reshape(c, 1, 1, rows * sh, width * sw).transpose(1, 2, 3, 4, 0)
        return jax.lax.dynamic_update_slice(x, values, (clip, frame, block * rows * sh, 0, 0))

    x = jnp.zeros((b, t, blocks * rows * sh, width * sw, c), cotangent.dtype)
    x = for_each_block(b * t * blocks, write_block, x)
    first, left = padding[1][0], padding[2][0]
    return x[:, :, first : first + h, left : left + w]


def _sum_overlaps(z: Float[Array, "i j c r w"], rows: int, width: int) -> Float[Array, "c rows width"]:
    """Return the sum of all positions of a kernel, each moved down and right by its own place."""
    down, right = z.shape[3] - rows, z.shape[4] - width
    places = np.ndindex(*z.shape[:2])
    terms = [z[i, j, :, down - i : down - i + rows, right - j : right - j + width] for i, j in places]
    # A stride longer than the kernel skips pixels
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros((z.shape[2], rows, width), z.dtype)


def _pad_or_crop(y: Array, *sides: tuple[int, int]) -> Array:
    return jax.lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *((*side, 0) for side in sides), (0, 0, 0)))
