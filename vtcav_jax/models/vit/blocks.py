"""Parts of plain video transformers: multi-head attention, pre-norm blocks, and attention in pieces.

Attributes are named as in transformers, whose `attention.attention`, `attention.output.dense`, `intermediate.dense` and
`output.dense` are the parts of a block. On a CPU, attention and the MLP process the tokens in pieces that fit the
cache, as in `video_swin`. On an accelerator, kernels keep the scores on the chip; where kernels do not apply, pieces
limit the memory of the scores.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionParts, Tokens
from vtcav_jax.models.layers.token_attention import join_heads, split_heads, token_attention, token_kernels_apply
from vtcav_jax.models.mvit import concat_tokens
from vtcav_jax.models.video_swin import (
    SCORE_BYTES_PER_CHUNK,
    Triple,
    at_least_float32,
    cores,
    largest_divisor,
)
from vtcav_jax.platforms import on_cpu

SCORE_BYTES_ON_ACCELERATOR = 1 << 30
MLP_BYTES_PER_CHUNK = 3 << 20  # of hidden activations, per CPU core
Activation = Literal["gelu", "gelu_fast"]
Qkv = tuple[Float[Array, "b heads n d"], Float[Array, "b heads m d"], Float[Array, "b heads m d"]]


class Encoder(nnx.Module):
    """Blocks of a transformer, as `encoder.layer`."""

    def __init__(self, blocks: Iterable[nnx.Module]):
        self.layer = nnx.List(blocks)


class Dense(nnx.Module):
    """Linear layer as a module of its own, for its name."""

    def __init__(self, inputs: int, outputs: int, **make):
        self.dense = nnx.Linear(inputs, outputs, **make)

    def __call__(self, x: Array) -> Array:
        return self.dense(x)


class SeparateQkv(nnx.Module):
    """Queries, keys and values of three linear layers; `biases` lists which of them have a bias."""

    def __init__(self, c: int, heads: int, biases: tuple[bool, bool, bool], **make):
        self.heads = heads
        self.query, self.key, self.value = (nnx.Linear(c, c, use_bias=bias, **make) for bias in biases)

    def __call__(self, x: Float[Array, "b n c"]) -> Qkv:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        return q, k, v


class JointQkv(nnx.Module):
    """Queries, keys and values of one linear layer."""

    def __init__(self, c: int, heads: int, bias: bool, **make):
        self.heads = heads
        self.qkv = nnx.Linear(c, 3 * c, use_bias=bias, **make)

    def __call__(self, x: Float[Array, "b n c"]) -> Qkv:
        q, k, v = (split_heads(part, self.heads) for part in jnp.split(self.qkv(x), 3, -1))
        return q, k, v


class Attention(nnx.Module):
    """Multi-head attention of all tokens to each other."""

    def __init__(self, qkv: SeparateQkv | JointQkv, c: int, **make):
        self.attention = qkv
        self.output = Dense(c, c, **make)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return self.output(join_heads(attend(*self.attention(x))))

    def weights(self, x: Float[Array, "b n c"]) -> Float[Array, "b heads n n"]:
        queries, keys, _ = self.attention(x)
        return attention_weights(queries, keys)


class BlockParts(nnx.Module):
    """Attention, an MLP per token, and a layer norm before each."""

    def __init__(
        self, attention: Attention, c: int, hidden: int, epsilon: float, activation: Activation = "gelu", **make
    ):
        self.activation: Activation = activation
        self.attention = attention
        self.intermediate, self.output = Dense(c, hidden, **make), Dense(hidden, c, **make)
        self.layernorm_before, self.layernorm_after = (token_norm(c, epsilon, **make) for _ in range(2))

    def add_mlp(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        def mlp(x: Array) -> Array:
            return x + self.output(activate(self.intermediate(self.layernorm_after(x)), self.activation))

        return in_token_chunks(mlp, x)


class VitBlock(BlockParts):
    """Attention of all tokens and an MLP per token, each after a layer norm and with a residual connection."""

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return self.add_mlp(x + self.attention(self.layernorm_before(x)))

    def attention_weights(self, x: Float[Array, "b n c"]) -> Float[Array, "b heads n n"]:
        """Return the attention weights for the block's input `x`; rows are queries and sum to 1."""
        return self.attention.weights(self.layernorm_before(x))

    def attention_parts(self, *inputs: Array) -> list[AttentionParts]:
        """Return the attention operation of the block; the inputs are a class token, if there is one, and a grid."""
        x = join_tokens(*inputs)

        def finish(mixed: Float[Array, "b n c"]) -> Tokens:
            return like_inputs(self.add_mlp(x + self.attention.output(mixed)))

        def like_inputs(tokens: Float[Array, "b n c"]) -> Tokens:
            return split_tokens(tokens, *inputs)

        return [AttentionParts(*self.attention.attention(self.layernorm_before(x)), join_tokens, like_inputs, finish)]


def join_tokens(*inputs: Array) -> Float[Array, "b n c"]:
    """Return the tokens of a grid, after the class token if there is one."""
    *_, grid = inputs
    return concat_tokens(*inputs) if len(inputs) == 2 else grid.reshape(len(grid), -1, grid.shape[-1])


def split_tokens(tokens: Float[Array, "b n c"], *inputs: Array) -> Tokens:
    """Reverse `join_tokens(*inputs)`, for any number of channels."""
    grid = tokens[:, len(inputs) - 1 :].reshape(*inputs[-1].shape[:-1], -1)
    return (tokens[:, 0], grid) if len(inputs) == 2 else (grid,)


@jax.jit  # blocks of the same shape are traced once
def call_block(block: Any, *inputs: Array) -> Any:
    return block(*inputs)


def block_runner(remat: bool) -> Callable[..., Any]:
    return jax.checkpoint(call_block) if remat else call_block


def attention_weights(q: Float[Array, "b heads n d"], k: Float[Array, "b heads m d"]) -> Float[Array, "b heads n m"]:
    wide = at_least_float32(q.dtype)
    return jax.nn.softmax(jnp.einsum("bhnd,bhmd->bhnm", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide))


def attend(
    q: Float[Array, "b heads n d"], k: Float[Array, "b heads m d"], v: Float[Array, "b heads m d"]
) -> Float[Array, "b heads n d"]:
    """Return `softmax(q k' / sqrt(d)) v` for each head, on accelerators by kernels where they apply."""
    if not on_cpu() and token_kernels_apply(q, k, v):
        return token_attention(q, k, v, attend_in_pieces)
    return attend_in_pieces(q, k, v)


def attend_in_pieces(
    q: Float[Array, "b heads n d"], k: Float[Array, "b heads m d"], v: Float[Array, "b heads m d"]
) -> Float[Array, "b heads n d"]:
    """Return `softmax(q k' / sqrt(d)) v` for each head, in pieces: groups of heads, or some of the queries of one.

    The softmax divides last, as in `video_swin`. The backward pass recomputes the scores and their exponentials; their
    maximum, their sum and their product with the values, which have one row per query, are stored.
    """
    b, heads, n, d = q.shape
    m = k.shape[2]
    wide = at_least_float32(q.dtype)
    score_bytes = SCORE_BYTES_PER_CHUNK * cores() if on_cpu() else SCORE_BYTES_ON_ACCELERATOR
    max_scores = score_bytes // 4
    group = largest_divisor(b * heads, max_scores // (n * m))
    pieces = -(-n * m // max_scores) if group == 1 else 1
    rows = -(-n // pieces)
    q = jnp.pad(q.reshape(-1, group, n, d), ((0, 0), (0, 0), (0, pieces * rows - n), (0, 0)))
    q = q.reshape(-1, group, pieces, rows, d).swapaxes(1, 2)
    k, v = (x.reshape(-1, group, m, d) for x in (k, v))

    def reduces_scores(primitive: Any, *inputs: Any, **_: Any) -> bool:
        reductions = ("dot_general", "reduce_max", "reduce_sum")
        return primitive.name in reductions and max(x.size for x in inputs) == group * rows * m

    @partial(jax.checkpoint, policy=reduces_scores)
    def attend_piece(q: Array, k: Array, v: Array) -> Array:
        scores = jnp.einsum("gnd,gmd->gnm", q * d**-0.5, k, preferred_element_type=wide)
        e = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        y = jnp.einsum("gnm,gmd->gnd", e.astype(v.dtype), v, preferred_element_type=wide)
        return (y / e.sum(-1, keepdims=True)).astype(v.dtype)

    def attend_group(qkv: tuple[Array, Array, Array]) -> Array:
        q, k, v = qkv
        return map_first_axis(lambda q: attend_piece(q, k, v), q)

    y = map_first_axis(attend_group, (q, k, v))
    return y.swapaxes(1, 2).reshape(b, heads, pieces * rows, d)[:, :, :n]


def map_first_axis(f: Callable[[Any], Array], xs: Any) -> Array:
    """Return `jax.lax.map(f, xs)`, without a loop if the first axis has one entry."""
    if len(jax.tree.leaves(xs)[0]) == 1:
        return f(jax.tree.map(lambda x: x[0], xs))[None]
    return jax.lax.map(f, xs)


def in_token_chunks(f: Callable[[Array], Array], x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
    """Return `f` of all tokens, an MLP, on a CPU in chunks, which are padded: with a class token, nothing divides."""
    tokens = x.reshape(-1, x.shape[-1])
    max_rows = MLP_BYTES_PER_CHUNK * cores() // (4 * 4 * x.shape[-1])  # float32, four times as wide as the tokens
    chunks = -(-len(tokens) // max_rows) if on_cpu() else 1
    padded = jnp.pad(tokens, ((0, -len(tokens) % chunks), (0, 0))).reshape(chunks, -1, x.shape[-1])
    run = jax.checkpoint(f, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    return map_first_axis(run, padded).reshape(-1, x.shape[-1])[: len(tokens)].reshape(x.shape)


def activate(x: Array, activation: Activation) -> Array:
    """Return the GELU of `x`: exact, or for `gelu_fast` the approximation with tanh."""
    if activation == "gelu_fast":
        return jax.nn.gelu(x, approximate=True)
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))  # nnx.gelu's erfc is three times slower


def token_norm(c: int, epsilon: float, **make) -> nnx.LayerNorm:
    return nnx.LayerNorm(c, epsilon=epsilon, use_fast_variance=False, **make)


def embedding(*shape: int, rngs: nnx.Rngs, param_dtype: Any, **_: Any) -> nnx.Param:
    """Return a learnt token or table of positions."""
    return nnx.Param(jax.nn.initializers.truncated_normal(0.02)(rngs.params(), shape, param_dtype))


def grid_of(clip: Triple, patch: Triple) -> Triple:
    """Return the number of patches along time, height and width; ValueError if a patch does not divide the clip."""
    if any(n % size or not n for n, size in zip(clip, patch)):
        raise ValueError(f"expected frames, height and width divisible by a patch of {patch}, got a clip of {clip}")
    return (clip[0] // patch[0], clip[1] // patch[1], clip[2] // patch[2])


def check_clip(video: Array, clip: Triple) -> None:
    """Raise ValueError if the video is not of the size for which the network stores positions."""
    if video.shape[1:4] != clip:
        raise ValueError(f"this network reads clips of {clip}, got {video.shape[1:4]}; change frames and size")
