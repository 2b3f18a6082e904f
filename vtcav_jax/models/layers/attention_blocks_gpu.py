"""Attention of one head in blocks of queries and keys, as Triton kernels on GPUs compute it.

The scores of a block of queries and a block of keys exist only within a kernel. The forward pass keeps the maximum and
the sum of the exponentials of each query so far, and rescales both when the maximum grows. The backward pass computes
each weight again from the score and the logarithm of the sum of exponentials.
"""

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

PADDING = -1e30  # score of keys after the last


class HeadReader(ABC):
    """Reads and writes blocks of the head that a program of the grid (batch, heads, blocks) computes.

    Arrays are `(batch, tokens, channels)`, with the channels of one head after those of another, once or for several
    parts. Blocks are `width` channels wide, a power of two, and 0 after the first `d`.
    """

    def __init__(self, queries: int, keys: int, heads: int, d: int, block: int):
        self.batch, self.head = pl.program_id(0), pl.program_id(1)
        self.start = pl.program_id(2) * block
        self.num_query_blocks, self.num_key_blocks = pl.cdiv(queries, block), pl.cdiv(keys, block)
        self.num_keys, self.heads, self.d, self.block = keys, heads, d, block
        self.width = pl.next_power_of_2(d)

    @abstractmethod
    def queries(self, start: Any) -> Array:
        """Return a block of queries, 0 after the last."""

    @abstractmethod
    def keys(self, start: Any) -> Array:
        """Return a block of keys, 0 after the last."""

    @abstractmethod
    def values(self, start: Any) -> Array:
        """Return a block of values, 0 after the last."""

    def add_bias(self, scores: Array, query_start: Any, key_start: Any) -> Array:
        """Return the scores with what is added to them before the softmax: nothing."""
        del query_start, key_start
        return scores

    def scores(self, query_start: Any, key_start: Any, q: Array, k: Array) -> Array:
        """Return the scores of a block of queries and a block of keys."""
        scores = self.add_bias(dot(q * self.d**-0.5, k.T), query_start, key_start)
        return jnp.where(self.inside(key_start, self.num_keys)[None], scores, PADDING)

    def rows(self, ref: Any, start: Any, part: int = 0) -> Array:
        return triton.load(self._area(ref, start, part), mask=self._mask(ref, start), other=0.0)

    def write(self, ref: Any, start: Any, values: Array, part: int = 0) -> None:
        triton.store(self._area(ref, start, part), values.astype(ref.dtype), mask=self._mask(ref, start))

    def statistic(self, ref: Any, start: Any, padding: float) -> Array:
        """Return one number per query, of an array (batch, heads, queries)."""
        area = ref.at[self.batch, self.head, pl.ds(start, self.block)]
        return triton.load(area, mask=self.inside(start, ref.shape[2]), other=padding)

    def write_statistic(self, ref: Any, start: Any, values: Array) -> None:
        area = ref.at[self.batch, self.head, pl.ds(start, self.block)]
        triton.store(area, values, mask=self.inside(start, ref.shape[2]))

    def columns(self, part: int) -> Any:
        return pl.ds((part * self.heads + self.head) * self.d, self.width)

    def inside(self, start: Any, count: int) -> Array:
        return start + jnp.arange(self.block) < count

    def _area(self, ref: Any, start: Any, part: int) -> Any:
        return ref.at[self.batch, pl.ds(start, self.block), self.columns(part)]

    def _mask(self, ref: Any, start: Any) -> Array:
        rows = self.inside(start, ref.shape[1])[:, None]
        return rows if self.width == self.d else rows & (jnp.arange(self.width) < self.d)[None]


def dot(a: Array, b: Array) -> Array:
    return jax.lax.dot(a, b, preferred_element_type=jnp.float32)


def softmax_rows(reader: HeadReader, q: Array) -> tuple[Array, Array]:
    """Return the attention of a block of queries, and the logarithm of the sum of exponentials of their scores."""

    def add_keys(j: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        maximum, total, weighted = carry
        k, v = reader.keys(j * reader.block), reader.values(j * reader.block)
        scores = reader.scores(reader.start, j * reader.block, q, k)
        higher = jnp.maximum(maximum, scores.max(1))
        e, scale = jnp.exp(scores - higher[:, None]), jnp.exp(maximum - higher)
        return higher, total * scale + e.sum(1), weighted * scale[:, None] + dot(e.astype(v.dtype), v)

    zero = jnp.zeros(reader.block, jnp.float32)
    first = (zero + PADDING, zero, jnp.zeros((reader.block, reader.width), jnp.float32))
    maximum, total, weighted = jax.lax.fori_loop(0, reader.num_key_blocks, add_keys, first)
    return weighted / total[:, None], maximum + jnp.log(total)


def query_slopes(reader: HeadReader, q: Array, g: Array, shift: Array, mean: Array) -> Array:
    """Return the slopes of a block of queries.

    `g` are those of their attention; `mean` is the product of `g` and the attention of each query, the mean of the
    weights' slopes; `shift` is the logarithm of the sum of exponentials.
    """

    def add_keys(j: Any, slopes: Array) -> Array:
        k, v = reader.keys(j * reader.block), reader.values(j * reader.block)
        p = jnp.exp(reader.scores(reader.start, j * reader.block, q, k) - shift[:, None])
        return slopes + dot((p * (dot(g, v.T) - mean[:, None])).astype(k.dtype), k)

    zero = jnp.zeros((reader.block, reader.width), jnp.float32)
    return jax.lax.fori_loop(0, reader.num_key_blocks, add_keys, zero) * reader.d**-0.5


def key_slopes(reader: HeadReader, slopes_ref: Any, shift_ref: Any, mean_ref: Any) -> tuple[Array, Array]:
    """Return the slopes of a block of keys and of their values."""
    k, v = reader.keys(reader.start), reader.values(reader.start)

    def add_queries(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        of_keys, of_values = carry
        start = i * reader.block
        q, g = reader.queries(start), reader.rows(slopes_ref, start)
        shift, mean = reader.statistic(shift_ref, start, -PADDING), reader.statistic(mean_ref, start, 0.0)
        p = jnp.exp(reader.scores(start, reader.start, q, k) - shift[:, None])  # 0 for queries after the last
        ds = p * (dot(g, v.T) - mean[:, None])
        return of_keys + dot(ds.T.astype(q.dtype), q), of_values + dot(p.T.astype(g.dtype), g)

    zero = jnp.zeros((reader.block, reader.width), jnp.float32)
    of_keys, of_values = jax.lax.fori_loop(0, reader.num_query_blocks, add_queries, (zero, zero))
    return of_keys * reader.d**-0.5, of_values
