"""Attention of all tokens to each other as kernels for TPUs and GPUs: the scores stay on the chip.

Written to memory, the scores of VideoMAE-B and their exponentials are most of the traffic of a forward pass on a GPU.
The kernels go through them in blocks. Of the forward pass, its result and one number per query are stored; the
backward pass computes the scores again.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vtcav_jax.models.layers.token_attention_gpu import gpu_token_backward, gpu_token_forward
from vtcav_jax.models.layers.token_attention_tpu import tpu_token_backward, tpu_token_forward
from vtcav_jax.platforms import kernels_apply

MIN_TOKENS = 128  # queries and keys; with fewer, the scores are no more than the tokens themselves
MIN_CHANNELS, MAX_CHANNELS = 16, 128  # per head

Attend = Callable[[Array, Array, Array], Array]


def token_kernels_apply(
    q: Float[Array, "b heads n d"], k: Float[Array, "b heads m d"], v: Float[Array, "b heads m d"]
) -> bool:
    """Return True if `token_attention` may be used: for many tokens in float32 or bfloat16, where kernels apply."""
    is_suited = min(q.shape[2], k.shape[2]) >= MIN_TOKENS and MIN_CHANNELS <= q.shape[3] <= MAX_CHANNELS
    return is_suited and q.dtype == k.dtype == v.dtype and q.dtype in (jnp.float32, jnp.bfloat16) and kernels_apply()


def token_attention(
    q: Float[Array, "b heads n d"], k: Float[Array, "b heads m d"], v: Float[Array, "b heads m d"], plain: Attend
) -> Float[Array, "b heads n d"]:
    """Return `plain(q, k, v)`, the attention, by the kernels of the platform; elsewhere by `plain` itself."""
    heads = q.shape[1]
    return split_heads(_fused_attention(plain, heads, *map(join_heads, (q, k, v))), heads)


def split_heads(x: Float[Array, "b n c"], heads: int) -> Float[Array, "b heads n d"]:
    b, n, c = x.shape
    return x.reshape(b, n, heads, c // heads).swapaxes(1, 2)


def join_heads(x: Float[Array, "b heads n d"]) -> Float[Array, "b n c"]:
    b, heads, n, d = x.shape
    return x.swapaxes(1, 2).reshape(b, n, heads * d)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused_attention(plain: Attend, heads: int, q: Array, k: Array, v: Array) -> Array:
    return _forward(plain, heads, q, k, v)[0]


def _forward(plain: Attend, heads: int, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    def plain_forward(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        y = _plain_joined(plain, heads, q, k, v)
        return y, jnp.zeros((len(q), heads, q.shape[1]), jnp.float32)  # its backward pass needs no statistics

    tpu, cuda = (partial(kernel, heads=heads) for kernel in (tpu_token_forward, gpu_token_forward))
    return jax.lax.platform_dependent(q, k, v, tpu=tpu, cuda=cuda, default=plain_forward)


def _plain_joined(plain: Attend, heads: int, *qkv: Array) -> Array:
    return join_heads(plain(*(split_heads(x, heads) for x in qkv)))


def _store_inputs(plain: Attend, heads: int, q: Array, k: Array, v: Array):
    y, shift = _forward(plain, heads, q, k, v)
    return y, (q, k, v, y, shift)


def _backward(plain: Attend, heads: int, stored: tuple[Array, ...], slopes: Array):
    def plain_backward(q: Array, k: Array, v: Array, y: Array, shift: Array, slopes: Array):
        del y, shift
        return jax.vjp(partial(_plain_joined, plain, heads), q, k, v)[1](slopes)

    tpu, cuda = (partial(kernel, heads=heads) for kernel in (tpu_token_backward, gpu_token_backward))
    return jax.lax.platform_dependent(*stored, slopes, tpu=tpu, cuda=cuda, default=plain_backward)


_fused_attention.defvjp(_store_inputs, _backward)
