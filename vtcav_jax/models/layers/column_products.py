"""Convolutions of any kernel and stride as matrix products of blocks that stay in the cache, where they can.

The inputs that an output sees are put side by side as the columns of one product. A kernel over time alone needs no
copies of its input: all its frames are one product of each frame, whose results are moved in time and added.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.models.video_swin import largest_divisor

CACHED_COLUMNS = 2_000_000  # values of a block
MIN_ROWS = 512  # of a block of columns, even if it leaves the cache: each block reads the whole kernel again
CACHED_PRODUCTS = 4_000_000  # values of a block of a kernel over time, whose results are read several times
MIN_PLANE, MAX_PLANE_CHANNELS = 144, 12  # positions of a frame and channels of a group
MIN_POSITIONS = 512  # from which products of frames are faster without a stride
Padding = tuple[tuple[int, int], ...]  # before and after, along time, height and width


def output_sizes(shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Padding) -> list[int]:
    """Return (t, h, w) of the output for an input (b, t, h, w, c)."""
    return [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(shape[1:4], padding, kernel, strides)]


def column_products_conv(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute a convolution in blocks of a few frames, or of all frames of a few clips."""
    b, sizes, d = x.shape[0], kernel.shape[:3], kernel.shape[-1]
    t, h, w = output_sizes(x.shape, sizes, strides, padding)
    matrix = kernel.reshape(-1, d)
    rows = max(MIN_ROWS, CACHED_COLUMNS // len(matrix))
    frames = largest_divisor(t, rows // (h * w))
    clips = largest_divisor(b, rows // (t * h * w)) if frames == t else 1
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    length = (frames - 1) * strides[0] + sizes[0]

    def write_block(i: Array, y: Array) -> Array:
        clip, frame = i // (t // frames) * clips, i % (t // frames) * frames
        z = jax.lax.dynamic_slice(x, (clip, frame * strides[0], 0, 0, 0), (clips, length, *x.shape[2:]))
        product = _columns(z, sizes, strides, (frames, h, w)).reshape(-1, len(matrix)) @ matrix
        return jax.lax.dynamic_update_slice(y, product.reshape(clips, frames, h, w, d), (clip, frame, 0, 0, 0))

    return for_each_block(b // clips * (t // frames), write_block, jnp.zeros((b, t, h, w, d), x.dtype))


def _columns(x: Array, kernel: Sequence[int], strides: Sequence[int], sizes: Sequence[int]) -> Array:
    """Return the inputs that each of the outputs (t, h, w) sees, side by side as channels."""
    b, c = x.shape[0], x.shape[-1]
    lengths = [(n - 1) * s + 1 for n, s in zip(sizes, strides)]
    columns = [
        jax.lax.slice(x, (0, *tap, 0), (b, *(a + n for a, n in zip(tap, lengths, strict=True)), c), (1, *strides, 1))
        for tap in np.ndindex(*kernel)
    ]
    return jnp.concatenate(columns, -1)


def group_conv(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute the convolution of one group, whose few channels make copies cost more than products.

    Columns are made of positions only, one product has the results of each frame of the kernel, and these are moved in
    time and added. That needs all frames in the cache and no stride over time.
    """
    taps, *sizes, c, d = kernel.shape
    (b, frames), (t, h, w) = x.shape[:2], output_sizes(x.shape, kernel.shape[:3], strides, padding)
    per_clip = frames * h * w * math.prod(sizes) * c
    if strides[0] > 1 or per_clip > CACHED_COLUMNS:
        return column_products_conv(x, kernel, strides, padding)
    clips = largest_divisor(b, CACHED_COLUMNS // per_clip)
    matrix = kernel.transpose(1, 2, 3, 0, 4).reshape(-1, taps * d)
    x = jnp.pad(x, ((0, 0), (0, 0), *padding[1:], (0, 0)))

    def write_block(i: Array, y: Array) -> Array:
        z = jax.lax.dynamic_slice_in_dim(x, i * clips, clips)
        product = _columns(z, (1, *sizes), (1, *strides[1:]), (frames, h, w)).reshape(-1, len(matrix)) @ matrix
        values = sum_taps(jnp.moveaxis(product.reshape(clips, frames, h, w, taps, d), 4, 0), 1, padding[0][0], t)
        return jax.lax.dynamic_update_slice_in_dim(y, values, i * clips, 0)

    return for_each_block(b // clips, write_block, jnp.zeros((b, t, h, w, d), x.dtype))


def prefer_group_planes(shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Padding) -> bool:
    """Return true for groups of few channels on large frames, with a stride over time or over the frame, not both."""
    frames, (_, h, w) = shape[1], output_sizes(shape, kernel[:3], strides, padding)
    columns = frames * h * w * math.prod(kernel[1:4])
    has_both_strides = strides[0] > 1 and max(strides[1:]) > 1
    return kernel[3] <= MAX_PLANE_CHANNELS and h * w >= MIN_PLANE and columns <= CACHED_COLUMNS and not has_both_strides


def group_planes_conv(
    groups: int,
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw g d"],
    strides: Sequence[int],
    padding: Padding,
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute a convolution in groups like `group_conv`, with positions last, so that copies are long."""
    taps, *sizes, c, d = kernel.shape
    (b, frames), (t, h, w) = x.shape[:2], output_sizes(x.shape, kernel.shape[:3], strides, padding)
    ends = [(n - 1) * step + 1 for n, step in zip((h, w), strides[1:])]
    x = x.reshape(*x.shape[:4], groups, c).transpose(0, 4, 5, 1, 2, 3)
    planes = jnp.pad(x, ((0, 0),) * 4 + padding[1:])
    planes = planes.reshape(-1, *planes.shape[2:])
    matrices = kernel.reshape(*kernel.shape[:4], groups, -1).transpose(4, 0, 5, 1, 2, 3)
    matrices = matrices.reshape(groups, -1, math.prod(sizes) * c)

    def convolve_group(i: Array) -> Array:
        columns = [
            jax.lax.slice(planes[i], (0, 0, j, k), (c, frames, j + ends[0], k + ends[1]), (1, 1, *strides[1:]))
            for j, k in np.ndindex(*sizes)
        ]
        product = matrices[i % groups] @ jnp.concatenate(columns).reshape(matrices.shape[2], -1)
        return sum_taps(product.reshape(taps, -1, frames, h * w), 1, padding[0][0], t, strides[0])

    y = jax.lax.map(convolve_group, jnp.arange(b * groups)).reshape(b, groups, -1, t, h * w)
    return y.transpose(0, 3, 4, 1, 2).reshape(b, t, h, w, d)


def prefer_frame_products(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Padding
) -> bool:
    """Return true for kernels over time alone, if copies of the input cost more than products that a stride drops."""
    if tuple(kernel[1:3]) != (1, 1) or tuple(strides[1:]) != (1, 1) or any(map(any, padding[1:])):
        return False
    _, t, h, w, c = shape
    are_columns_large = h * w * kernel[0] * c > CACHED_COLUMNS
    return are_columns_large or (strides[0] == 1 and t * h * w >= MIN_POSITIONS)


def frame_products_conv(
    x: Float[Array, "b t h w c"], kernel: Float[Array, "kt 1 1 c d"], strides: Sequence[int], padding: Padding
) -> Float[Array, "b t2 h2 w2 d"]:
    """Compute a convolution over time, in blocks of all frames of a few positions."""
    b, t, h, w, c = x.shape
    taps, d, step = len(kernel), kernel.shape[-1], strides[0]
    matrix, frames = (
        kernel.reshape(taps, c, d).swapaxes(0, 1).reshape(c, -1),
        output_sizes(x.shape, kernel.shape, strides, padding)[0],
    )
    positions = largest_divisor(h * w, CACHED_PRODUCTS // (t * taps * d))
    per_clip = h * w // positions
    x = x.reshape(b, t, h * w, c)

    def write_block(i: Array, y: Array) -> Array:
        clip, first = i // per_clip, i % per_clip * positions
        z = jax.lax.dynamic_slice(x, (clip, 0, first, 0), (1, t, positions, c)).reshape(-1, c) @ matrix
        values = sum_taps(jnp.moveaxis(z.reshape(t, positions, taps, d), 2, 0), 0, padding[0][0], frames, step)
        return jax.lax.dynamic_update_slice(y, values[None], (clip, 0, first, 0))

    return for_each_block(b * per_clip, write_block, jnp.zeros((b, frames, h * w, d), x.dtype)).reshape(
        b, frames, h, w, d
    )


def sum_taps(results: Float[Array, "taps ..."], axis: int, before: int, outputs: int, step: int = 1) -> Array:
    """Return the sum of the results of each frame of a kernel, moved to its place along the axis of time.

    `before` is the padding of the input, which is never made; `step` the stride.
    """
    end = (outputs - 1) * step + 1

    def move(k: int) -> Array:
        sides = [(0, 0, 0)] * (results.ndim - 1)
        sides[axis] = (before - k, end - (before - k) - results.shape[axis + 1], 0)
        return jax.lax.slice_in_dim(jax.lax.pad(results[k], jnp.zeros((), results.dtype), sides), 0, end, step, axis)

    return functools.reduce(jnp.add, map(move, range(len(results))))


def for_each_block(count: int, write_block: Callable[[Array, Array], Array], value: Array) -> Array:
    return jax.lax.fori_loop(0, count, write_block, value) if count > 1 else write_block(jnp.asarray(0), value)
