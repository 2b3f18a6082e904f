"""Window attention on GPUs: Triton kernels that go through queries or keys in blocks.

The backward pass has two kernels: the first computes the slopes of a block of queries, and the row statistics that the
second needs for those of a block of keys and values.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

BLOCK = 64  # queries or keys
PADDING = -1e30  # score of keys after the last


def gpu_forward(
    qkv: Float[Array, "m n c3"],
    offset: Float[Array, " c3"],
    bias: Float[Array, "heads n n"],
    regions: Float[Array, "m n"] | None,
    *,
    interpret: bool = False,
) -> Float[Array, "m n c"]:
    m, n, c3 = qkv.shape
    out = jax.ShapeDtypeStruct((m, n, c3 // 3), qkv.dtype)
    return _call(_forward_kernel, (qkv, offset), bias, regions, out, 2, interpret)


def gpu_backward(
    qkv: Float[Array, "m n c3"],
    offset: Float[Array, " c3"],
    bias: Float[Array, "heads n n"],
    regions: Float[Array, "m n"] | None,
    slopes: Float[Array, "m n c"],
    *,
    interpret: bool = False,
) -> Float[Array, "m n c3"]:
    m, n, _ = qkv.shape
    statistic = jax.ShapeDtypeStruct((m, len(bias), n), jnp.float32)
    arrays, out = (qkv, offset, slopes), jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    partly, *statistics = _call(_query_kernel, arrays, bias, regions, (out, statistic, statistic), 5, interpret)
    arrays = (*arrays, *statistics, partly)  # the first kernel writes a third of the result, the second the rest
    return _call(_key_kernel, arrays, bias, regions, out, 4, interpret, input_output_aliases={5: 0})


def _call(
    kernel: Any, arrays: Any, bias: Array, regions: Array | None, out: Any, products: int, interpret: bool, **options
):
    m, n, c3 = arrays[0].shape
    heads = len(bias)
    inputs = (*arrays, bias) if regions is None else (*arrays, bias, regions)
    written = jax.tree.leaves(out)
    cost = pl.CostEstimate(
        flops=2 * products * m * n * n * (c3 // 3),
        transcendentals=m * heads * n * n,
        bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*arrays[:3], bias, *written)),
    )
    return pl.pallas_call(
        partial(kernel, heads=heads, n=n, d=c3 // 3 // heads, is_masked=regions is not None),
        out_shape=out,
        grid=(m, heads, pl.cdiv(n, BLOCK)),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        cost_estimate=cost,
        interpret=interpret,
        **options,
    )(*inputs)


class _Reader:
    """Reads and writes blocks of one head of one window."""

    def __init__(self, qkv_ref: Any, offset_ref: Any, bias_ref: Any, regions_ref: Any, heads: int, n: int, d: int):
        self.window, self.head = pl.program_id(0), pl.program_id(1)
        self.qkv_ref, self.offset_ref, self.bias_ref, self.regions_ref = qkv_ref, offset_ref, bias_ref, regions_ref
        self.heads, self.n, self.d = heads, n, d

    def qkv(self, start: Any, part: int) -> Array:
        """Return a block of queries (`part` 0), keys (1) or values (2)."""
        return self.rows(self.qkv_ref, start, part) + triton.load(self.offset_ref.at[self._columns(part)])[None]

    def rows(self, ref: Any, start: Any, part: int = 0) -> Array:
        area = ref.at[self.window, pl.ds(start, BLOCK), self._columns(part)]
        return triton.load(area, mask=self._inside(start)[:, None], other=0.0)

    def _columns(self, part: int) -> Any:
        return pl.ds((part * self.heads + self.head) * self.d, self.d)

    def scores(self, query_start: Any, key_start: Any, q: Array, k: Array) -> Array:
        """Return the scores of a block of queries and a block of keys."""
        rows, columns = self._inside(query_start), self._inside(key_start)
        area = self.bias_ref.at[self.head, pl.ds(query_start, BLOCK), pl.ds(key_start, BLOCK)]
        bias = triton.load(area, mask=rows[:, None] & columns[None], other=0.0).astype(jnp.float32)
        scores = _dot(q * self.d**-0.5, k.T) + bias
        if self.regions_ref is not None:
            a, b = (
                triton.load(self.regions_ref.at[self.window, pl.ds(start, BLOCK)], mask=self._inside(start), other=0.0)
                for start in (query_start, key_start)
            )
            scores = scores - jnp.minimum(100 * jnp.abs(a[:, None] - b[None]), 100)
        return jnp.where(columns[None], scores, PADDING)

    def write(self, ref: Any, start: Any, values: Array, part: int = 0) -> None:
        area = ref.at[self.window, pl.ds(start, BLOCK), self._columns(part)]
        triton.store(area, values.astype(ref.dtype), mask=self._inside(start)[:, None])

    def statistic(self, ref: Any, start: Any, padding: float) -> Array:
        area = ref.at[self.window, self.head, pl.ds(start, BLOCK)]
        return triton.load(area, mask=self._inside(start), other=padding)

    def write_statistic(self, ref: Any, start: Any, values: Array) -> None:
        area = ref.at[self.window, self.head, pl.ds(start, BLOCK)]
        triton.store(area, values, mask=self._inside(start))

    def _inside(self, start: Any) -> Array:
        return start + jnp.arange(BLOCK) < self.n


def _dot(a: Array, b: Array) -> Array:
    return jax.lax.dot(a, b, preferred_element_type=jnp.float32)


def _softmax_rows(reader: _Reader, start: Any, q: Array) -> tuple[Array, Array, Array]:
    """Return maximum, sum of exponentials and sum of the values weighted by them, for a block of queries."""

    def add_keys(j: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        maximum, total, weighted = carry
        k, v = (reader.qkv(j * BLOCK, part) for part in (1, 2))
        scores = reader.scores(start, j * BLOCK, q, k)
        higher = jnp.maximum(maximum, scores.max(1))
        e, scale = jnp.exp(scores - higher[:, None]), jnp.exp(maximum - higher)
        return higher, total * scale + e.sum(1), weighted * scale[:, None] + _dot(e.astype(v.dtype), v)

    zero = jnp.zeros(BLOCK, jnp.float32)
    first = (zero + PADDING, zero, jnp.zeros((BLOCK, reader.d), jnp.float32))
    return jax.lax.fori_loop(0, pl.cdiv(reader.n, BLOCK), add_keys, first)


def _forward_kernel(qkv_ref, offset_ref, bias_ref, *refs, is_masked, **sizes):
    reader = _Reader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    start = pl.program_id(2) * BLOCK
    _, total, weighted = _softmax_rows(reader, start, reader.qkv(start, 0))
    reader.write(refs[-1], start, weighted / total[:, None])


def _query_kernel(qkv_ref, offset_ref, slopes_ref, bias_ref, *refs, is_masked, **sizes):
    out_ref, shift_ref, mean_ref = refs[-3:]
    reader = _Reader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    start = pl.program_id(2) * BLOCK
    q, g = reader.qkv(start, 0), reader.rows(slopes_ref, start)
    maximum, total, weighted = _softmax_rows(reader, start, q)
    shift = maximum + jnp.log(total)
    mean = (weighted / total[:, None] * g.astype(jnp.float32)).sum(1)

    def add_keys(j: Any, slopes: Array) -> Array:
        k, v = (reader.qkv(j * BLOCK, part) for part in (1, 2))
        p = jnp.exp(reader.scores(start, j * BLOCK, q, k) - shift[:, None])
        return slopes + _dot((p * (_dot(g, v.T) - mean[:, None])).astype(k.dtype), k)

    zero = jnp.zeros((BLOCK, reader.d), jnp.float32)
    slopes = jax.lax.fori_loop(0, pl.cdiv(reader.n, BLOCK), add_keys, zero)
    reader.write(out_ref, start, slopes * reader.d**-0.5)
    reader.write_statistic(shift_ref, start, shift)
    reader.write_statistic(mean_ref, start, mean)


def _key_kernel(qkv_ref, offset_ref, slopes_ref, shift_ref, mean_ref, partly_ref, bias_ref, *refs, is_masked, **sizes):
    del partly_ref  # the same memory as the result
    reader = _Reader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    start = pl.program_id(2) * BLOCK
    k, v = (reader.qkv(start, part) for part in (1, 2))

    def add_queries(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        key_slopes, value_slopes = carry
        q, g = reader.qkv(i * BLOCK, 0), reader.rows(slopes_ref, i * BLOCK)
        shift, mean = reader.statistic(shift_ref, i * BLOCK, -PADDING), reader.statistic(mean_ref, i * BLOCK, 0.0)
        p = jnp.exp(reader.scores(i * BLOCK, start, q, k) - shift[:, None])  # 0 for queries after the last
        ds = p * (_dot(g, v.T) - mean[:, None])
        return key_slopes + _dot(ds.T.astype(q.dtype), q), value_slopes + _dot(p.T.astype(g.dtype), g)

    zero = jnp.zeros((BLOCK, reader.d), jnp.float32)
    key_slopes, value_slopes = jax.lax.fori_loop(0, pl.cdiv(reader.n, BLOCK), add_queries, (zero, zero))
    reader.write(refs[-1], start, key_slopes * reader.d**-0.5, 1)
    reader.write(refs[-1], start, value_slopes, 2)
