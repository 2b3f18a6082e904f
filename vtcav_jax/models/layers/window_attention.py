"""Attention within windows as one kernel per platform: the scores stay on the chip.

Written to memory, the scores of Video Swin-T and their exponentials are three quarters of the traffic of a forward
pass. On a TPU, a kernel holds one window and the scores of one head at a time in vector memory; on a GPU, it goes
through the keys in blocks and rescales its sums. Elsewhere, and where a kernel does not apply, the same arithmetic is
plain JAX. The backward pass recomputes the scores from queries, keys and values.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vtcav_jax.models.layers.window_attention_gpu import gpu_backward, gpu_forward
from vtcav_jax.models.layers.windows import region_penalty
from vtcav_jax.platforms import kernels_apply

LANES = 128  # of a TPU's vector registers
REGIONS = 32  # at least the number of regions that a shift makes, 27
VMEM_LIMIT = 100 << 20
MAX_TOKENS = 512  # of a window, whose scores fit the 16 MiB of older TPUs
MAX_BIAS_BYTES = 16 << 20
MAX_BIAS_BYTES_PER_CALL = 5 << 20
MIN_CHANNELS = 16  # per head


def window_attention(
    qkv: Float[Array, "m n c3"],
    offset: Float[Array, " c3"],
    bias: Float[Array, "heads n n"],
    regions: Float[Array, "m n"] | None,
) -> Float[Array, "m n c"]:
    """Return the attention within `m` windows of `n` tokens; tokens of different `regions` do not attend to each other.

    The channels of `qkv` are queries, keys and values, each with one head after the other; `offset` is added to them.
    """
    n, d = qkv.shape[1], qkv.shape[2] // (3 * len(bias))
    is_suited = n <= MAX_TOKENS and d >= MIN_CHANNELS and d & (d - 1) == 0 and bias.size * 2 <= MAX_BIAS_BYTES
    if is_suited and qkv.dtype in (jnp.float32, jnp.bfloat16) and kernels_apply():
        return _fused_attention(qkv, offset, bias, regions)
    return plain_attention(qkv, offset, bias, regions)


@jax.custom_vjp
def _fused_attention(qkv, offset, bias, regions):
    branches = dict(tpu=tpu_forward, cuda=gpu_forward, default=plain_attention)
    return jax.lax.platform_dependent(qkv, offset, bias, regions, **branches)


def _fused_attention_backward(inputs, slopes):
    qkv, offset, bias, regions = inputs
    branches = dict(tpu=tpu_backward, cuda=gpu_backward, default=_plain_backward)
    qkv_slopes = jax.lax.platform_dependent(*inputs, slopes, **branches)
    # Only training needs the slopes of the parameters; elsewhere, the compiler removes their computation
    offset_slopes = qkv_slopes.sum((0, 1), dtype=jnp.float32).astype(offset.dtype)
    (bias_slopes,) = jax.vjp(lambda bias: plain_attention(qkv, offset, bias, regions), bias)[1](slopes)
    return qkv_slopes, offset_slopes, bias_slopes, None if regions is None else jnp.zeros_like(regions)


def _plain_backward(qkv, offset, bias, regions, slopes):
    return jax.vjp(lambda qkv: plain_attention(qkv, offset, bias, regions), qkv)[1](slopes)[0]


_fused_attention.defvjp(lambda *inputs: (_fused_attention(*inputs), inputs), _fused_attention_backward)


def plain_attention(
    qkv: Float[Array, "m n c3"],
    offset: Float[Array, " c3"],
    bias: Float[Array, "heads n n"],
    regions: Float[Array, "m n"] | None,
) -> Float[Array, "m n c"]:
    """Return what the kernels compute."""
    m, n, _ = qkv.shape
    heads = len(bias)
    wide = jnp.promote_types(qkv.dtype, jnp.float32)
    q, k, v = (qkv + offset[None, None]).reshape(m, n, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("mhnd,mhkd->mhnk", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide)
    scores = scores + bias[None].astype(wide)
    if regions is not None:
        scores = scores - region_penalty(regions)[:, None]
    e = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    y = jnp.einsum("mhnk,mhkd->mhnd", e.astype(v.dtype), v, preferred_element_type=wide)
    return (y / e.sum(-1, keepdims=True)).astype(v.dtype).swapaxes(1, 2).reshape(m, n, -1)


def tpu_forward(qkv, offset, bias, regions, *, interpret: bool = False):
    return _in_head_groups(_tpu_forward, qkv, offset, bias, regions, interpret=interpret)


def tpu_backward(qkv, offset, bias, regions, slopes, *, interpret: bool = False):
    return _in_head_groups(_tpu_backward, qkv, offset, bias, regions, slopes, interpret=interpret)


def _tpu_forward(qkv, offset, bias, regions, interpret):
    kernel = partial(_tpu_forward_kernel, heads=len(bias), is_masked=regions is not None)
    return _call_tpu_kernel(kernel, (qkv,), offset, bias, regions, qkv.shape[-1] // 3, interpret)


def _tpu_backward(qkv, offset, bias, regions, slopes, interpret):
    kernel = partial(_tpu_backward_kernel, heads=len(bias), is_masked=regions is not None)
    return _call_tpu_kernel(kernel, (qkv, slopes), offset, bias, regions, qkv.shape[-1], interpret)


def _in_head_groups(function, qkv, offset, bias, regions, *slopes, interpret):
    """Call `function` with as many heads at a time as have a bias that fits the vector memory."""
    heads, c = len(bias), qkv.shape[-1] // 3
    groups = [g for g in range(1, heads + 1) if heads % g == 0 and (g == 1 or c // g % LANES == 0)]
    count = next((g for g in groups if stored_bytes(bias) <= g * MAX_BIAS_BYTES_PER_CALL), groups[-1])
    if count == 1:
        return function(qkv, offset, bias, regions, *slopes, interpret=interpret)

    width = c // count

    def channels(x, i):
        """Return those of group `i`, of each of queries, keys and values if `x` has all three."""
        return jnp.concatenate([x[..., start : start + width] for start in range(i * width, x.shape[-1], c)], -1)

    arrays = (qkv, offset, *slopes)
    results = []
    for i, bias_of_group in enumerate(jnp.split(bias, count)):
        x, b, *g = (channels(a, i) for a in arrays)
        results.append(function(x, b, bias_of_group, regions, *g, interpret=interpret))
    pieces = range(0, results[0].shape[-1], width)
    return jnp.concatenate([y[..., start : start + width] for start in pieces for y in results], -1)


def _call_tpu_kernel(kernel, arrays, offset, bias, regions, width, interpret):
    m, n, c3 = arrays[0].shape
    heads = len(bias)
    inputs = (*arrays, offset[None], bias) + (() if regions is None else (regions[:, None],))
    specs = [pl.BlockSpec((1, n, a.shape[-1]), lambda i: (i, 0, 0)) for a in arrays]
    specs.append(pl.BlockSpec((1, c3), lambda i: (0, 0)))
    specs.append(pl.BlockSpec((heads, n, n), lambda i: (0, 0, 0)))
    specs += [pl.BlockSpec((1, 1, n), lambda i: (i, 0, 0))] if regions is not None else []
    products = 2 if width < c3 else 5
    cost = pl.CostEstimate(
        flops=2 * products * m * n * n * (c3 // 3),
        transcendentals=m * heads * n * n,
        bytes_accessed=sum(stored_bytes(a) for a in (*arrays, bias))
        + stored_bytes(jax.ShapeDtypeStruct((m, n, width), arrays[0].dtype)),
    )
    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((m, n, width), arrays[0].dtype),
        grid=(m,),
        in_specs=specs,
        out_specs=pl.BlockSpec((1, n, width), lambda i: (i, 0, 0)),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=VMEM_LIMIT),
        cost_estimate=cost,
        interpret=interpret,
    )(*inputs)


def stored_bytes(a) -> int:
    *rest, minor = a.shape
    return math.prod(rest) * -(-minor // LANES) * LANES * a.dtype.itemsize


def _penalty(regions):
    """Return 100 for pairs of different regions, else 0, from a row of region numbers."""
    numbers = jax.lax.broadcasted_iota(jnp.int32, (REGIONS, regions.shape[1]), 0).astype(jnp.float32)
    members = (numbers == regions).astype(jnp.float32).astype(jnp.bfloat16)
    same = jax.lax.dot_general(members, members, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return 100 * (1 - same)


def _dot(a, b, contract):
    return jax.lax.dot_general(a, b, ((contract[:1], contract[1:]), ((), ())), preferred_element_type=jnp.float32)


def _exponentials(q, k, bias, penalty):
    scores = _dot(q, k, (1, 1)) + bias.astype(jnp.float32)
    if penalty is not None:
        scores = scores - penalty
    e = jnp.exp(scores - scores.max(-1, keepdims=True))
    return e, e.sum(-1, keepdims=True)


def _tpu_forward_kernel(qkv_ref, offset_ref, bias_ref, *refs, heads, is_masked):
    out_ref = refs[-1]
    penalty = _penalty(refs[0][0]) if is_masked else None

    def attend(q, k, v, head):
        e, total = _exponentials(q * q.shape[-1] ** -0.5, k, bias_ref[head], penalty)
        return (_dot(e.astype(v.dtype), v, (1, 0)) / total,)

    _for_each_head(attend, (qkv_ref,), offset_ref, out_ref, heads)


def _tpu_backward_kernel(qkv_ref, slopes_ref, offset_ref, bias_ref, *refs, heads, is_masked):
    out_ref = refs[-1]
    penalty = _penalty(refs[0][0]) if is_masked else None

    def slopes_of_head(q, k, v, g, head):
        scale = q.shape[-1] ** -0.5
        e, total = _exponentials(q * scale, k, bias_ref[head], penalty)
        p = e / total
        dp = _dot(g, v, (1, 1))
        ds = (p * (dp - (p * dp).sum(-1, keepdims=True))).astype(q.dtype)
        return _dot(ds, k, (1, 0)) * scale, _dot(ds, q, (0, 0)) * scale, _dot(p.astype(g.dtype), g, (0, 0))

    _for_each_head(slopes_of_head, (qkv_ref, slopes_ref), offset_ref, out_ref, heads)


def _for_each_head(function, inputs, offset_ref, out_ref, heads):
    """Write the results of `function` for each head; a loop over groups of heads keeps the program small.

    Inputs and results have the channels of all heads, once or for each of queries, keys and values.
    """
    c = inputs[0].shape[-1] // 3
    d = c // heads
    group = LANES // d if c % LANES == 0 and LANES % d == 0 else heads

    def run_group(i, _):
        def lanes(part):
            start = part * c + i * group * d
            return pl.ds(pl.multiple_of(start, LANES) if group < heads else start, group * d)

        blocks = [ref[0, :, lanes(part)] for ref in inputs for part in range(ref.shape[-1] // c)]
        blocks[:3] = [block + offset_ref[:, lanes(part)] for part, block in enumerate(blocks[:3])]
        results = [function(*(block[:, h * d : (h + 1) * d] for block in blocks), i * group + h) for h in range(group)]
        for part, values in enumerate(zip(*results)):
            out_ref[0, :, lanes(part)] = jnp.concatenate(values, -1).astype(out_ref.dtype)
        return 0

    jax.lax.fori_loop(0, heads // group, run_group, 0) if group < heads else run_group(0, 0)
