"""Attention of all tokens on TPUs: Mosaic kernels that hold the scores of a block of queries in vector memory.

A program of the grid computes a group of heads, as many as fill the lanes. Where the keys of a group fit the vector
memory, they are one block, which is read once for all queries. Otherwise, the forward pass goes through blocks of keys
for each block of queries, with the maximum and the sum of exponentials so far; the backward pass goes through the
queries for each block of keys and writes the slopes of queries once per block, to be added.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vtcav_jax.models.layers.window_attention import LANES, VMEM_LIMIT

SUBLANES = 16  # rows of a tile in bfloat16
PADDING = -1e30  # score of keys after the last
MAX_SCORES = 1 << 18  # of a head in a block
MAX_QUERIES, MAX_QUERIES_OF_MANY_KEYS = 256, 1024  # of a block; many keys are read once per block of queries
MAX_QUERY_BYTES = 1 << 19  # of a block
MAX_RESIDENT_KEYS, MAX_RESIDENT_KEY_BYTES = 4096, 5 << 19  # of the forward pass, if all keys are one block
MAX_KEYS = 256  # of one of many blocks of the forward pass
MAX_BACKWARD_KEYS = 1 << 18  # numbers of a block; their slopes are added in float32


@dataclass(frozen=True)
class Blocks:
    """Division of the arrays of an attention: channels in groups of heads, queries and keys in blocks of rows."""

    width: int  # channels of a group
    d: int  # channels of a head
    groups: int
    num_queries: int
    num_keys: int
    queries: int  # of a block
    keys: int

    @property
    def heads(self) -> int:
        return self.width // self.d

    @property
    def query_blocks(self) -> int:
        return pl.cdiv(self.num_queries, self.queries)

    @property
    def key_blocks(self) -> int:
        return pl.cdiv(self.num_keys, self.keys)


def divide_forward(c: int, heads: int, num_queries: int, num_keys: int, itemsize: int) -> Blocks:
    width = group_width(c, heads)
    is_resident = num_keys <= min(MAX_RESIDENT_KEYS, MAX_RESIDENT_KEY_BYTES // (width * itemsize))
    keys = num_keys if is_resident else block_size(num_keys, MAX_KEYS)
    max_queries = MAX_QUERIES if is_resident else MAX_QUERIES_OF_MANY_KEYS
    max_queries = min(max_queries, MAX_QUERY_BYTES // (width * itemsize), MAX_SCORES // keys)
    return Blocks(width, c // heads, c // width, num_queries, num_keys, block_size(num_queries, max_queries), keys)


def divide_backward(c: int, heads: int, num_queries: int, num_keys: int, itemsize: int) -> Blocks:
    width = group_width(c, heads)
    keys = block_size(num_keys, MAX_BACKWARD_KEYS // width)
    queries = block_size(num_queries, min(MAX_QUERIES, MAX_QUERY_BYTES // 2 // (width * itemsize), MAX_SCORES // keys))
    return Blocks(width, c // heads, c // width, num_queries, num_keys, queries, keys)


def group_width(c: int, heads: int) -> int:
    """Return the channels of the fewest heads that fill the lanes; all, if such groups do not divide them."""
    width = math.lcm(c // heads, LANES)
    return width if c % width == 0 else c


def block_size(count: int, max_size: int) -> int:
    """Return the rows of the fewest blocks of equal size: all, or a multiple of the rows of a tile."""
    blocks = pl.cdiv(count, max_size)
    return count if blocks == 1 else pl.cdiv(pl.cdiv(count, blocks), SUBLANES) * SUBLANES


def tpu_token_forward(
    q: Float[Array, "b n c"],
    k: Float[Array, "b m c"],
    v: Float[Array, "b m c"],
    *,
    heads: int,
    interpret: bool = False,
) -> tuple[Float[Array, "b n c"], Float[Array, "b heads n"]]:
    """Return the attention, and for each query the logarithm of the sum of exponentials of its scores."""
    blocks = divide_forward(q.shape[2], heads, q.shape[1], k.shape[1], q.dtype.itemsize)
    grid = (len(q), blocks.groups, blocks.query_blocks, blocks.key_blocks)
    rows = pl.BlockSpec((1, blocks.queries, blocks.width), lambda b, g, i, j: (b, i, g))
    columns = pl.BlockSpec((1, blocks.keys, blocks.width), lambda b, g, i, j: (b, j, g))
    statistic = pl.BlockSpec((1, 1, 1, blocks.heads, blocks.queries), lambda b, g, i, j: (b, g, i, 0, 0))
    shape = (*grid[:3], blocks.heads, blocks.queries)
    key_reads = blocks.query_blocks if blocks.key_blocks > 1 else 1
    y, shift = _call(
        partial(_forward_kernel, blocks=blocks),
        (q, k, v),
        out=(jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct(shape, jnp.float32)),
        grid=grid,
        in_specs=[rows, columns, columns],
        out_specs=[rows, statistic],
        scratch=[(blocks.heads, blocks.queries, 1), (blocks.heads, blocks.queries, 1), (blocks.queries, blocks.width)],
        products=2,
        reads=(1, key_reads, key_reads),
        interpret=interpret,
    )
    shift = shift.swapaxes(2, 3).reshape(len(q), heads, -1)
    return y, shift[:, :, : q.shape[1]]


def tpu_token_backward(
    q: Float[Array, "b n c"],
    k: Float[Array, "b m c"],
    v: Float[Array, "b m c"],
    y: Float[Array, "b n c"],
    shift: Float[Array, "b heads n"],
    slopes: Float[Array, "b n c"],
    *,
    heads: int,
    interpret: bool = False,
) -> tuple[Float[Array, "b n c"], Float[Array, "b m c"], Float[Array, "b m c"]]:
    """Return the slopes of queries, keys and values, from those of the attention `y`."""
    b, n, _ = q.shape
    blocks = divide_backward(q.shape[2], heads, n, k.shape[1], q.dtype.itemsize)
    grid = (b, blocks.groups, blocks.key_blocks, blocks.query_blocks)
    rows = pl.BlockSpec((1, blocks.queries, blocks.width), lambda b, g, j, i: (b, i, g))
    columns = pl.BlockSpec((1, blocks.keys, blocks.width), lambda b, g, j, i: (b, j, g))
    statistic = pl.BlockSpec((1, 1, 1, blocks.heads, blocks.queries), lambda b, g, j, i: (b, g, i, 0, 0))
    partial_rows = pl.BlockSpec((1, 1, blocks.queries, blocks.width), lambda b, g, j, i: (j, b, i, g))
    # In float32 if parts are to be added
    partial_slopes = jax.ShapeDtypeStruct((blocks.key_blocks, *q.shape), q.dtype if grid[2] == 1 else jnp.float32)
    padded = jnp.pad(shift, ((0, 0), (0, 0), (0, blocks.query_blocks * blocks.queries - n)))
    shift = padded.reshape(b, blocks.groups, blocks.heads, blocks.query_blocks, blocks.queries).swapaxes(2, 3)
    of_queries, of_keys, of_values = _call(
        partial(_backward_kernel, blocks=blocks),
        (q, slopes, y, k, v, shift),
        out=(partial_slopes, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (k, v))),
        grid=grid,
        in_specs=[rows, rows, rows, columns, columns, statistic],
        out_specs=[partial_rows, columns, columns],
        scratch=[(blocks.keys, blocks.width)] * 2,
        products=5,
        reads=(grid[2], grid[2], grid[2], 1, 1, grid[2]),
        interpret=interpret,
    )
    return of_queries[0] if grid[2] == 1 else of_queries.sum(0).astype(q.dtype), of_keys, of_values


def _call(
    kernel: Any,
    arrays: Sequence[Array],
    *,
    out: tuple[Any, ...],
    grid: tuple[int, ...],
    in_specs: list[Any],
    out_specs: list[Any],
    scratch: list[tuple[int, ...]],
    products: int,
    reads: tuple[int, ...],
    interpret: bool,
) -> Any:
    blocks: Blocks = kernel.keywords["blocks"]
    pairs = grid[0] * blocks.num_queries * blocks.num_keys
    cost = pl.CostEstimate(
        flops=2 * products * pairs * blocks.groups * blocks.width,
        transcendentals=pairs * blocks.groups * blocks.heads,
        bytes_accessed=sum(n * a.size * a.dtype.itemsize for n, a in zip((*reads, *[1] * len(out)), (*arrays, *out))),
    )
    return pl.pallas_call(
        kernel,
        out_shape=out,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT
        ),
        cost_estimate=cost,
        interpret=interpret,
    )(*arrays)


def _forward_kernel(q_ref, k_ref, v_ref, y_ref, shift_ref, maximum_ref, total_ref, sum_ref, *, blocks: Blocks):
    j = pl.program_id(3)

    @pl.when(j == 0)
    def start():
        maximum_ref[...] = jnp.full(maximum_ref.shape, PADDING, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    q = q_ref[0] * blocks.d**-0.5
    k, v = (_zero_after(ref[0], blocks.num_keys - j * blocks.keys, blocks.num_keys) for ref in (k_ref, v_ref))
    for h in range(blocks.heads):
        lanes = slice(h * blocks.d, (h + 1) * blocks.d)
        scores = _mask_keys(_dot(q[:, lanes], k[:, lanes], (1, 1)), j, blocks)
        maximum = maximum_ref[h]
        higher = jnp.maximum(maximum, scores.max(-1, keepdims=True))
        e, scale = jnp.exp(scores - higher), jnp.exp(maximum - higher)
        maximum_ref[h] = higher
        total_ref[h] = total_ref[h] * scale + e.sum(-1, keepdims=True)
        sum_ref[:, lanes] = sum_ref[:, lanes] * scale + _dot(e.astype(v.dtype), v[:, lanes], (1, 0))

    @pl.when(j == blocks.key_blocks - 1)
    def finish():
        y = [sum_ref[:, h * blocks.d : (h + 1) * blocks.d] / total_ref[h] for h in range(blocks.heads)]
        y_ref[0] = jnp.concatenate(y, -1).astype(y_ref.dtype)
        for h in range(blocks.heads):
            shift_ref[0, 0, 0, h : h + 1] = _as_row(maximum_ref[h] + jnp.log(total_ref[h]))


def _backward_kernel(
    q_ref, g_ref, y_ref, k_ref, v_ref, shift_ref, queries_ref, keys_ref, values_ref, *scratch, blocks: Blocks
):
    keys_sum_ref, values_sum_ref = scratch
    j, i = pl.program_id(2), pl.program_id(3)

    @pl.when(i == 0)
    def start():
        for ref in scratch:
            ref[...] = jnp.zeros(ref.shape, jnp.float32)

    rows = blocks.num_queries - i * blocks.queries
    scale = blocks.d**-0.5
    q, g, y = (_zero_after(ref[0], rows, blocks.num_queries) for ref in (q_ref, g_ref, y_ref))
    k, v = (_zero_after(ref[0], blocks.num_keys - j * blocks.keys, blocks.num_keys) for ref in (k_ref, v_ref))
    means = g.astype(jnp.float32) * y.astype(jnp.float32)
    slopes_of_queries = []
    for h in range(blocks.heads):
        lanes = slice(h * blocks.d, (h + 1) * blocks.d)
        scores = _mask_keys(_dot(q[:, lanes] * scale, k[:, lanes], (1, 1)), j, blocks)
        p = jnp.exp(scores - _as_column(shift_ref[0, 0, 0, h : h + 1]))
        ds = p * (_dot(g[:, lanes], v[:, lanes], (1, 1)) - means[:, lanes].sum(-1, keepdims=True))
        ds = ds.astype(q.dtype)
        slopes_of_queries.append(_dot(ds, k[:, lanes], (1, 0)) * scale)
        keys_sum_ref[:, lanes] += _dot(ds, q[:, lanes], (0, 0)) * scale
        values_sum_ref[:, lanes] += _dot(p.astype(g.dtype), g[:, lanes], (0, 0))
    queries_ref[0, 0] = jnp.concatenate(slopes_of_queries, -1).astype(queries_ref.dtype)

    @pl.when(i == blocks.query_blocks - 1)
    def finish():
        keys_ref[0] = keys_sum_ref[...].astype(keys_ref.dtype)
        values_ref[0] = values_sum_ref[...].astype(values_ref.dtype)


def _zero_after(rows: Array, count: Any, total: int) -> Array:
    """Return the rows of a block with 0 in place of those after the first `count`, which belong to no array.

    Nothing is to be done if blocks divide the `total` number of rows.
    """
    if total % len(rows) == 0:
        return rows
    index = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    return jnp.where(index < count, rows, jnp.zeros_like(rows))


def _mask_keys(scores: Array, j: Any, blocks: Blocks) -> Array:
    """Return the scores with `PADDING` for keys after the last."""
    if blocks.num_keys % blocks.keys == 0:
        return scores
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jnp.where(index < blocks.num_keys - j * blocks.keys, scores, PADDING)


def _as_row(column: Array) -> Array:
    """Return a row with the numbers of a column; older TPUs only transpose whole tiles."""
    return jnp.broadcast_to(column, (len(column), LANES)).T[:1]


def _as_column(row: Array) -> Array:
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T[:, :1]


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    return jax.lax.dot_general(a, b, ((contract[:1], contract[1:]), ((), ())), preferred_element_type=jnp.float32)
