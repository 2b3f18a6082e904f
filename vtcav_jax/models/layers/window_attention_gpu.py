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

from vtcav_jax.models.layers.attention_blocks_gpu import HeadReader, key_slopes, query_slopes, softmax_rows

BLOCK = 64  # queries or keys


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


class _WindowReader(HeadReader):
    """Reads blocks of one head of one window: queries, keys and values of one array, with bias and regions."""

    def __init__(self, qkv_ref: Any, offset_ref: Any, bias_ref: Any, regions_ref: Any, heads: int, n: int, d: int):
        super().__init__(n, n, heads, d, BLOCK)
        self.qkv_ref, self.offset_ref, self.bias_ref, self.regions_ref = qkv_ref, offset_ref, bias_ref, regions_ref

    def queries(self, start: Any) -> Array:
        return self._part(start, 0)

    def keys(self, start: Any) -> Array:
        return self._part(start, 1)

    def values(self, start: Any) -> Array:
        return self._part(start, 2)

    def _part(self, start: Any, part: int) -> Array:
        return self.rows(self.qkv_ref, start, part) + triton.load(self.offset_ref.at[self.columns(part)])[None]

    def add_bias(self, scores: Array, query_start: Any, key_start: Any) -> Array:
        rows, columns = (self.inside(start, self.num_keys) for start in (query_start, key_start))
        area = self.bias_ref.at[self.head, pl.ds(query_start, BLOCK), pl.ds(key_start, BLOCK)]
        bias = triton.load(area, mask=rows[:, None] & columns[None], other=0.0).astype(jnp.float32)
        if self.regions_ref is None:
            return scores + bias
        a, b = (
            triton.load(self.regions_ref.at[self.batch, pl.ds(start, BLOCK)], mask=mask, other=0.0)
            for start, mask in ((query_start, rows), (key_start, columns))
        )
        return scores + bias - jnp.minimum(100 * jnp.abs(a[:, None] - b[None]), 100)


def _forward_kernel(qkv_ref, offset_ref, bias_ref, *refs, is_masked, **sizes):
    reader = _WindowReader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    y, _ = softmax_rows(reader, reader.queries(reader.start))
    reader.write(refs[-1], reader.start, y)


def _query_kernel(qkv_ref, offset_ref, slopes_ref, bias_ref, *refs, is_masked, **sizes):
    out_ref, shift_ref, mean_ref = refs[-3:]
    reader = _WindowReader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    q, g = reader.queries(reader.start), reader.rows(slopes_ref, reader.start)
    y, shift = softmax_rows(reader, q)
    mean = (y * g.astype(jnp.float32)).sum(1)
    reader.write(out_ref, reader.start, query_slopes(reader, q, g, shift, mean))
    reader.write_statistic(shift_ref, reader.start, shift)
    reader.write_statistic(mean_ref, reader.start, mean)


def _key_kernel(qkv_ref, offset_ref, slopes_ref, shift_ref, mean_ref, partly_ref, bias_ref, *refs, is_masked, **sizes):
    del partly_ref  # the same memory as the result
    reader = _WindowReader(qkv_ref, offset_ref, bias_ref, refs[0] if is_masked else None, **sizes)
    of_keys, of_values = key_slopes(reader, slopes_ref, shift_ref, mean_ref)
    reader.write(refs[-1], reader.start, of_keys, 1)
    reader.write(refs[-1], reader.start, of_values, 2)
