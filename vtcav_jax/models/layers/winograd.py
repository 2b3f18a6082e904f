"""Convolutions of 3 x 3 positions as products in Winograd's basis: 2.25 or 4 times fewer multiplications.

`row_products` uses this basis over time.

Andrew Lavin, Scott Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, arXiv 1509.09308: a tile of m x m
outputs is a linear map of (m + 2)^2 products of transformed inputs and kernels. Kernels of three frames are summed over
time within the product or, for few channels, after it. XLA's CPU compiler is fast at batched products and at sums of
shifted arrays, so everything here consists of these, in a loop over clips or parts of them.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax.models.layers.column_products import for_each_block, sum_taps
from vtcav_jax.models.video_swin import largest_divisor

# Where the polynomials are evaluated, besides infinity: the first n - 1 for n products. With five points, 2 and -1/2
# have a third of the rounding error of 2 and -2.
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5, -2.0)
MIN_CHANNELS, MIN_SIZE, LARGE_SIZE = 16, 12, 24
MAX_VALUES, VALUES_OF_PARTS = 2**25, 2**23  # transformed ones of a clip, above which it is cut into parts of its rows


@dataclass(frozen=True)
class WinogradPlan:
    """Blocks into which a convolution is cut: all frames and columns of `tile_rows` rows of tiles of `clips` clips."""

    tile: int  # m: outputs along height and width
    tile_rows: int
    clips: int
    sum_after: bool  # frames of the kernel are summed after the product, else within it


@functools.cache
def transform_matrices(m: int, taps: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices A' (m, n), G (n, taps) and B' (n, n) of m outputs y = A' [(G kernel) * (B' x)] in 1D.

    n = m + taps - 1 is the number of inputs that the outputs see, and of products.
    """
    n = m + taps - 1
    points = np.array(POINTS[: n - 1])
    output, kernel, inputs = np.zeros((m, n)), np.zeros((n, taps)), np.zeros((n, n))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        output[:, j] = point ** np.arange(m)
        kernel[j] = point ** np.arange(taps) / np.prod(point - others)
        inputs[j, : n - 1] = np.poly(others)[::-1]
    output[m - 1, n - 1] = kernel[n - 1, taps - 1] = 1
    inputs[n - 1] = np.poly(points)[::-1]
    return output, kernel, inputs


def plan_winograd(shape: Sequence[int], kernel: Sequence[int]) -> WinogradPlan | None:
    """Return a plan for inputs (b, t, h, w, c) and a kernel (kt, kh, kw, c, d), or None if direct products are faster.

    Products of whole clips are large enough for several cores; very large clips are cut, for the cache.
    """
    b, t, h, w, c = shape
    taps, *sizes, _, d = kernel
    if (*sizes,) != (3, 3) or taps not in (1, 3) or min(h, w) < MIN_SIZE or c < MIN_CHANNELS:
        return None
    tile = 4 if min(h, w) >= LARGE_SIZE else 2
    if tile == 2 and taps == 3:
        return None
    sum_after = taps == 3 and c <= 64 and t >= 8
    rows = -(-h // tile)
    per_row = -(-w // tile) * t * (tile + 2) ** 2 * (c + taps * d if sum_after else taps * c + d)
    if rows * per_row <= MAX_VALUES:
        return WinogradPlan(tile, rows, largest_divisor(b, VALUES_OF_PARTS // (rows * per_row)), sum_after)
    parts = -(-rows // max(1, VALUES_OF_PARTS // per_row))
    return WinogradPlan(tile, -(-rows // parts), 1, sum_after)


def winograd_conv(
    x: Float[Array, "b t h w c"], kernel: Float[Array, "kt 3 3 c d"], plan: WinogradPlan
) -> Float[Array, "b t h w d"]:
    """Compute a convolution with stride 1, padded by half the kernel's size."""
    taps, _, _, c, d = kernel.shape
    blocks, n = _Blocks(x.shape, plan), plan.tile + 2
    output_matrix, kernel_matrix, _ = transform_matrices(plan.tile)
    kernel = multiply_parts(kernel_matrix, [kernel[:, i] for i in range(3)])  # (nh, kt, 3, c, d)
    kernel = multiply_parts(kernel_matrix, [kernel[:, :, i] for i in range(3)])  # (nw, nh, kt, c, d)
    kernel = kernel.swapaxes(2, 3).reshape(n * n, c, -1) if plan.sum_after else kernel.reshape(n * n, -1, d)
    padded = blocks.pad(x, 1, 0 if plan.sum_after else taps // 2)

    def write_block(i: Array, y: Array) -> Array:
        v = blocks.transform_inputs(padded, i)
        if plan.sum_after:
            p = jnp.einsum("fmk,fkn->fmn", v.reshape(n * n, -1, c), kernel).reshape(*v.shape[:-1], taps, d)
            p = sum_taps(jnp.moveaxis(p, -2, 0), 3, taps // 2, blocks.t)
        else:
            v = _stack_frames(v, taps, blocks.t)
            p = jnp.einsum("fmk,fkn->fmn", v.reshape(n * n, -1, taps * c), kernel).reshape(*v.shape[:-1], d)
        p = multiply_parts(output_matrix, list(p))  # (mw, nh, clips, t, rows, columns, d)
        p = multiply_parts(output_matrix, [p[:, k] for k in range(n)])  # (mh, mw, clips, t, rows, columns, d)
        p = p.transpose(2, 3, 4, 0, 5, 1, 6).reshape(blocks.clips, blocks.t, blocks.rows, blocks.width, d)
        return jax.lax.dynamic_update_slice(y, p, blocks.start(i))

    y = jnp.zeros((blocks.b, blocks.t, blocks.height, blocks.width, d), x.dtype)
    return for_each_block(blocks.count, write_block, y)[:, :, : blocks.h, : blocks.w]


def winograd_kernel_gradient(
    x: Float[Array, "b t h w c"], cotangent: Float[Array, "b t h w d"], taps: int, plan: WinogradPlan
) -> Float[Array, "kt 3 3 c d"]:
    """Compute the gradient of `winograd_conv` for its kernel of `taps` frames."""
    c, d = x.shape[-1], cotangent.shape[-1]
    m, n, blocks = plan.tile, plan.tile + 2, _Blocks(x.shape, plan)
    output_matrix, kernel_matrix, _ = transform_matrices(m)
    padded, cotangent = blocks.pad(x, 1, taps // 2), blocks.pad(cotangent, 0, 0)

    def add_block(i: Array, total: Array) -> Array:
        v = _stack_frames(blocks.transform_inputs(padded, i), taps, blocks.t)
        q = multiply_parts(output_matrix.T, _shifted_views(blocks.cut(cotangent, i, 0), 2, m, m, blocks.tile_rows))
        q = multiply_parts(output_matrix.T, _shifted_views(q, 4, m, m, blocks.columns))
        return total + jnp.einsum("fmk,fmn->fkn", v.reshape(n * n, -1, taps * c), q.reshape(n * n, -1, d))

    total = for_each_block(blocks.count, add_block, jnp.zeros((n * n, taps * c, d), x.dtype))
    total = multiply_parts(kernel_matrix.T, list(total.reshape(n, n, taps, c, d)))  # (3w, nh, kt, c, d)
    return multiply_parts(kernel_matrix.T, [total[:, i] for i in range(n)]).transpose(2, 0, 1, 3, 4)


class _Blocks:
    """Sizes of the blocks of a plan, and their places in inputs and outputs."""

    def __init__(self, shape: Sequence[int], plan: WinogradPlan):
        self.b, self.t, self.h, self.w, _ = shape
        self.tile, self.columns = plan.tile, -(-self.w // plan.tile)
        self.tile_rows = min(plan.tile_rows, -(-self.h // plan.tile))
        self.rows, self.width = self.tile_rows * plan.tile, self.columns * plan.tile
        self.per_clip = -(-self.h // self.rows)
        self.height = self.per_clip * self.rows
        self.clips = plan.clips
        self.count = self.b // self.clips * self.per_clip

    def pad(self, x: Array, edge: int, time: int) -> Array:
        below, right = edge + self.height - self.h, edge + self.width - self.w
        return jnp.pad(x, ((0, 0), (time, time), (edge, below), (edge, right), (0, 0)))

    def start(self, i: Array) -> tuple:
        return i // self.per_clip * self.clips, 0, i % self.per_clip * self.rows, 0, 0

    def cut(self, x: Array, i: Array, edge: int) -> Array:
        sizes = (self.clips, x.shape[1], self.rows + 2 * edge, self.width + 2 * edge, x.shape[4])
        return jax.lax.dynamic_slice(x, self.start(i), sizes)

    def transform_inputs(self, padded: Array, i: Array) -> Array:
        """Return the transformed tiles of block `i`, (nw, nh, clips, t, rows, columns, c)."""
        matrix = transform_matrices(self.tile)[2]
        z = multiply_parts(matrix, _shifted_views(self.cut(padded, i, 1), 2, self.tile + 2, self.tile, self.tile_rows))
        return multiply_parts(matrix, _shifted_views(z, 4, self.tile + 2, self.tile, self.columns))


def _shifted_views(x: Array, axis: int, size: int, step: int, count: int) -> list[Array]:
    return [jax.lax.slice_in_dim(x, i, i + (count - 1) * step + 1, step, axis) for i in range(size)]


def _stack_frames(v: Array, taps: int, t: int) -> Array:
    """Put the frames that a kernel spans side by side as channels."""
    return v if taps == 1 else jnp.concatenate([v[:, :, :, k : k + t] for k in range(taps)], -1)


def multiply_parts(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
    """Return the matrix times the parts, stacked on a new first axis, without products with 0 and 1."""

    def multiply_row(factors: np.ndarray) -> Array:
        total = None
        for factor, part in zip(factors, parts, strict=True):
            if factor:
                term = part if abs(factor) == 1 else part * jnp.asarray(abs(factor), part.dtype)
                if total is None:
                    total = term if factor > 0 else -term
                else:
                    total = total + term if factor > 0 else total - term
        assert total is not None
        return total

    return jnp.stack([multiply_row(factors) for factors in matrix])
