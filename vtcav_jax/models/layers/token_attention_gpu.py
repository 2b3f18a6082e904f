"""Attention of all tokens on GPUs: Triton kernels that go through queries or keys in blocks.

The backward pass has two kernels: the first computes the slopes of a block of queries, the second those of a block of
keys and values.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from vtcav_jax.models.layers.attention_blocks_gpu import PADDING, HeadReader, key_slopes, query_slopes, softmax_rows

BLOCK = 64  # queries or keys
MAX_BYTES_PER_ROW = 256  # of a block of this size; a wider one has half the rows, so that several fit the chip


def gpu_token_forward(
    q: Float[Array, "b n c"],
    k: Float[Array, "b m c"],
    v: Float[Array, "b m c"],
    *,
    heads: int,
    interpret: bool = False,
) -> tuple[Float[Array, "b n c"], Float[Array, "b heads n"]]:
    """Return the attention, and for each query the logarithm of the sum of exponentials of its scores."""
    out = (jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((len(q), heads, q.shape[1]), jnp.float32))
    return _call(_forward_kernel, (q, k, v), out, q.shape[1], 2, heads, interpret)


def gpu_token_backward(
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
    out = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (q, shift))
    of_queries, mean = _call(_query_kernel, (q, k, v, y, shift, slopes), out, q.shape[1], 3, heads, interpret)
    out = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (k, v))
    of_keys, of_values = _call(_key_kernel, (q, k, v, shift, mean, slopes), out, k.shape[1], 4, heads, interpret)
    return of_queries, of_keys, of_values


def _call(kernel: Any, arrays: Sequence[Array], out: Any, tokens: int, products: int, heads: int, interpret: bool):
    (b, n, c), m = arrays[0].shape, arrays[1].shape[1]
    d = c // heads
    block = BLOCK if pl.next_power_of_2(d) * arrays[0].dtype.itemsize <= MAX_BYTES_PER_ROW else BLOCK // 2
    cost = pl.CostEstimate(
        flops=2 * products * b * n * m * c,
        transcendentals=b * heads * n * m,
        # Each array once: blocks that several programs read are in the cache
        bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*arrays, *out)),
    )
    return pl.pallas_call(
        partial(kernel, sizes=(n, m, heads, d, block)),
        out_shape=out,
        grid=(b, heads, pl.cdiv(tokens, block)),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        cost_estimate=cost,
        interpret=interpret,
    )(*arrays)


class _TokenReader(HeadReader):
    """Reads blocks of one head of one clip, whose queries, keys and values are three arrays."""

    def __init__(self, q_ref: Any, k_ref: Any, v_ref: Any, sizes: tuple[int, int, int, int, int]):
        super().__init__(*sizes)
        self.q_ref, self.k_ref, self.v_ref = q_ref, k_ref, v_ref

    def queries(self, start: Any) -> Array:
        return self.rows(self.q_ref, start)

    def keys(self, start: Any) -> Array:
        return self.rows(self.k_ref, start)

    def values(self, start: Any) -> Array:
        return self.rows(self.v_ref, start)


def _forward_kernel(q_ref, k_ref, v_ref, y_ref, shift_ref, *, sizes):
    reader = _TokenReader(q_ref, k_ref, v_ref, sizes)
    y, shift = softmax_rows(reader, reader.queries(reader.start))
    reader.write(y_ref, reader.start, y)
    reader.write_statistic(shift_ref, reader.start, shift)


def _query_kernel(q_ref, k_ref, v_ref, y_ref, shift_ref, slopes_ref, out_ref, mean_ref, *, sizes):
    reader = _TokenReader(q_ref, k_ref, v_ref, sizes)
    q, y, g = (reader.rows(ref, reader.start) for ref in (q_ref, y_ref, slopes_ref))
    mean = (y.astype(jnp.float32) * g.astype(jnp.float32)).sum(1)
    shift = reader.statistic(shift_ref, reader.start, -PADDING)
    reader.write(out_ref, reader.start, query_slopes(reader, q, g, shift, mean))
    reader.write_statistic(mean_ref, reader.start, mean)


def _key_kernel(q_ref, k_ref, v_ref, shift_ref, mean_ref, slopes_ref, keys_ref, values_ref, *, sizes):
    reader = _TokenReader(q_ref, k_ref, v_ref, sizes)
    of_keys, of_values = key_slopes(reader, slopes_ref, shift_ref, mean_ref)
    reader.write(keys_ref, reader.start, of_keys)
    reader.write(values_ref, reader.start, of_values)
