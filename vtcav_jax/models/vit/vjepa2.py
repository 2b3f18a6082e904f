"""V-JEPA 2: a vision transformer with rotary positions in three dimensions, and an attentive classifier on top.

Mido Assran, Adrien Bardes, David Fan, Quentin Garrido, Russell Howes, and others, "V-JEPA 2: Self-Supervised Video
Models Enable Understanding, Prediction and Planning", 2025, arXiv 2506.09985. Attributes are named as in transformers,
without the prefix `vjepa2.` and with `head` for `classifier`. The predictor of the pre-training is not part of the
classifier.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionParts, AttentionStep, Tokens
from vtcav_jax.models.layers.token_attention import join_heads, split_heads
from vtcav_jax.models.video_swin import Mlp, Triple, at_least_float32, project_patches
from vtcav_jax.models.vit.blocks import (
    Qkv,
    attend,
    attention_weights,
    block_runner,
    embedding,
    grid_of,
    in_token_chunks,
    join_tokens,
    split_tokens,
    token_norm,
)
from vtcav_jax.models.vit.videomae import grid_path
from vtcav_jax.tap import Tap, identity_tap

Grid = Float[Array, "b t h w c"]


class Vjepa2(nnx.Module):
    """Network from normalised clips of any number of frames and any size to class scores."""

    def __init__(
        self,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        num_classes: int,
        pooler_layers: int = 3,
        patch: Triple = (2, 16, 16),
        qkv_bias: bool = True,  # of the encoder; the pooler's layers always have one
        epsilon: float = 1e-6,  # of all layer norms
        remat: bool = False,  # store only each block's input for the backward pass; XLA undoes it on a CPU
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        c, wide = hidden_size, at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.patch, self.remat = patch, remat
        blocks = (RotaryBlock(c, heads, intermediate_size, qkv_bias, epsilon, **make) for _ in range(layers))
        self.encoder = RotaryEncoder(patch, c, blocks, epsilon, **make)
        self.pooler = AttentivePooler(c, heads, pooler_layers, epsilon, **make)
        self.head = nnx.Linear(c, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages in forward order: grids of tokens, and last `pooler`, the input of the head."""
        blocks = [f"encoder.layer.{i}" for i in range(len(self.encoder.layer))]
        pooler_blocks = [f"pooler.self_attention_layers.{i}" for i in range(len(self.pooler.self_attention_layers))]
        return ("encoder.embeddings", *blocks, "encoder.layernorm", *pooler_blocks, "pooler")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        grid_of((video.shape[1], video.shape[2], video.shape[3]), self.patch)
        run = block_runner(self.remat)
        x = tap("encoder.embeddings", self.encoder.embeddings(video))
        for i, block in enumerate(self.encoder.layer):
            x = tap(f"encoder.layer.{i}", run(block, x))
        x = tap("encoder.layernorm", self.encoder.layernorm(x))
        for i, block in enumerate(self.pooler.self_attention_layers):
            tokens = x.reshape(len(x), -1, x.shape[-1])
            x = tap(f"pooler.self_attention_layers.{i}", run(block, tokens).reshape(x.shape))
        pooled = self.pooler.cross_attention_layer(self.pooler.queries(x), join_tokens(x))
        return self.head(tap("pooler", pooled[:, 0]))

    def attention_path(self) -> list[AttentionStep]:
        layers, stages = len(self.encoder.layer), self.stages
        pooling = AttentionStep(self.pooler, (stages[-2],), (stages[-1],))
        return [
            *grid_path(stages[: layers + 1], self.encoder.layer),
            *grid_path(stages[layers + 1 : -1], self.pooler.self_attention_layers),  # from the encoder's layer norm
            pooling,
        ]


class RotaryEncoder(nnx.Module):
    """Embeddings, blocks and the last layer norm."""

    def __init__(self, patch: Triple, c: int, blocks, epsilon: float, **make):
        self.embeddings = TubeletProjection(patch, c, **make)
        self.layer = nnx.List(blocks)
        self.layernorm = token_norm(c, epsilon, **make)


class TubeletProjection(nnx.Module):
    """Tokens of tubelets, without positions: attention rotates queries and keys instead."""

    def __init__(self, patch: Triple, c: int, **make):
        self.patch_embeddings = Projection(patch, c, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b t2 h2 w2 c"]:
        return project_patches(self.patch_embeddings.proj, video)


class Projection(nnx.Module):
    """Linear layer of non-overlapping tubelets, for its name."""

    def __init__(self, patch: Triple, c: int, **make):
        self.proj = nnx.Conv(3, c, patch, strides=patch, **make)


class RotaryBlock(nnx.Module):
    """Attention with rotary positions and an MLP per token, each after a layer norm and with a residual connection."""

    def __init__(self, c: int, heads: int, hidden: int, bias: bool, epsilon: float, **make):
        self.norm1, self.norm2 = (token_norm(c, epsilon, **make) for _ in range(2))
        self.attention = RotaryAttention(c, heads, bias, **make)
        self.mlp = Mlp(c, hidden, c, **make)

    def __call__(self, x: Grid) -> Grid:
        return self.add_mlp(x + self.attention(self.norm1(x)))

    def add_mlp(self, x: Grid) -> Grid:
        return in_token_chunks(lambda x: x + self.mlp(self.norm2(x)), join_tokens(x)).reshape(x.shape)

    def attention_weights(self, x: Grid) -> Float[Array, "b heads n n"]:
        """Return the attention weights for the block's input `x`; rows are queries and sum to 1."""
        queries, keys, _ = self.attention.qkv(self.norm1(x))
        return attention_weights(queries, keys)

    def attention_parts(self, x: Grid) -> list[AttentionParts]:
        def finish(mixed: Float[Array, "b n c"]) -> Tokens:
            return (self.add_mlp(x + self.attention.proj(mixed).reshape(x.shape)),)

        return [AttentionParts(*self.attention.qkv(self.norm1(x)), join_tokens, lambda y: split_tokens(y, x), finish)]


class RotaryAttention(nnx.Module):
    """Multi-head attention of all tokens, whose queries and keys are rotated by their place in the grid."""

    def __init__(self, c: int, heads: int, bias: bool, **make):
        self.heads = heads
        self.query, self.key, self.value = (nnx.Linear(c, c, use_bias=bias, **make) for _ in range(3))
        self.proj = nnx.Linear(c, c, **make)

    def __call__(self, x: Grid) -> Grid:
        return self.proj(join_heads(attend(*self.qkv(x)))).reshape(x.shape)

    def qkv(self, x: Grid) -> Qkv:
        tokens = join_tokens(x)
        queries, keys, values = (split_heads(f(tokens), self.heads) for f in (self.query, self.key, self.value))
        angles = rotary_angles((x.shape[1], x.shape[2], x.shape[3]), queries.shape[-1])
        return rotate(queries, angles), rotate(keys, angles), values


def rotary_angles(grid: Triple, d: int) -> Float[Array, "n d"]:
    """Return the angle of each token and channel: a third of the channels per axis of the grid, 0 for the rest.

    Each axis has an even number of channels. Channel j of an axis has frequency j modulo half of them, although
    neighbouring channels are rotated together: the published weights were trained so.
    """
    part = 2 * (d // 3 // 2)
    axes = []
    for axis, size in enumerate(grid):
        shape = [size if i == axis else 1 for i in range(3)] + [part]
        axes.append(jnp.broadcast_to(jnp.asarray(axis_angles(size, part)).reshape(shape), (*grid, part)))
    return jnp.concatenate([*axes, jnp.zeros((*grid, d - 3 * part), axes[0].dtype)], -1).reshape(-1, d)


def axis_angles(size: int, part: int) -> np.ndarray:
    frequencies = 1 / 10000 ** (np.arange(part // 2) / (part / 2))
    return np.tile(np.arange(size)[:, None] * frequencies, 2)


def rotate(x: Float[Array, "b heads n d"], angles: Float[Array, "n d"]) -> Float[Array, "b heads n d"]:
    """Rotate each pair of neighbouring channels; the two channels of a pair may have different angles."""
    wide = at_least_float32(x.dtype)
    pairs = x.astype(wide).reshape(*x.shape[:-1], -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(x.shape)
    cos, sin = (f(angles).astype(wide)[None, None] for f in (jnp.cos, jnp.sin))
    return (x.astype(wide) * cos + turned * sin).astype(x.dtype)


class AttentivePooler(nnx.Module):
    """Blocks over the tokens, then one query token that attends to all of them."""

    def __init__(self, c: int, heads: int, layers: int, epsilon: float, **make):
        self.query_tokens = embedding(1, 1, c, **make)
        self.cross_attention_layer = CrossAttentionBlock(c, heads, epsilon, **make)
        self.self_attention_layers = nnx.List([PoolerBlock(c, heads, epsilon, **make) for _ in range(layers)])

    def queries(self, x: Grid) -> Float[Array, "b 1 c"]:
        return jnp.repeat(self.query_tokens[...].astype(x.dtype), len(x), 0)

    def attention_parts(self, x: Grid) -> list[AttentionParts]:
        """Return the attention of the query token to the grid."""
        block, queries = self.cross_attention_layer, self.queries(x)

        def finish(mixed: Float[Array, "b 1 c"]) -> Tokens:
            return (block.add_mlp(queries + mixed)[:, 0],)

        parts = block.cross_attn.qkv(queries, block.layer_norm1(join_tokens(x)))
        return [AttentionParts(*parts, join_tokens, lambda y: (y[:, 0],), finish, bypass=None)]


class ProjectedAttention(nnx.Module):
    """Multi-head attention of queries to tokens; the linear layer after it is left out if there is no `out_proj`."""

    def __init__(self, c: int, heads: int, output: bool, **make):
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nnx.Linear(c, c, **make) for _ in range(3))
        self.out_proj = nnx.Linear(c, c, **make) if output else None

    def __call__(self, queries: Float[Array, "b m c"], tokens: Float[Array, "b n c"]) -> Float[Array, "b m c"]:
        return self.output(join_heads(attend(*self.qkv(queries, tokens))))

    def output(self, mixed: Float[Array, "b m c"]) -> Float[Array, "b m c"]:
        return mixed if self.out_proj is None else self.out_proj(mixed)

    def qkv(self, queries: Float[Array, "b n c"], tokens: Float[Array, "b m c"]) -> Qkv:
        q, k, v = self.q_proj(queries), self.k_proj(tokens), self.v_proj(tokens)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)


class PoolerBlock(nnx.Module):
    """Attention of all tokens and an MLP per token, each after a layer norm and with a residual connection."""

    def __init__(self, c: int, heads: int, epsilon: float, **make):
        self.layer_norm1, self.layer_norm2 = (token_norm(c, epsilon, **make) for _ in range(2))
        self.self_attn = ProjectedAttention(c, heads, output=True, **make)
        self.mlp = Mlp(c, 4 * c, c, **make)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        y = self.layer_norm1(x)
        return self.add_mlp(x + self.self_attn(y, y))

    def add_mlp(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return in_token_chunks(lambda x: x + self.mlp(self.layer_norm2(x)), x)

    def attention_weights(self, x: Float[Array, "b n c"]) -> Float[Array, "b heads n n"]:
        """Return the attention weights for the block's input `x`; rows are queries and sum to 1."""
        y = self.layer_norm1(x)
        queries, keys, _ = self.self_attn.qkv(y, y)
        return attention_weights(queries, keys)

    def attention_parts(self, grid: Grid) -> list[AttentionParts]:
        x = join_tokens(grid)
        y = self.layer_norm1(x)

        def finish(mixed: Float[Array, "b n c"]) -> Tokens:
            return split_tokens(self.add_mlp(x + self.self_attn.output(mixed)), grid)

        return [AttentionParts(*self.self_attn.qkv(y, y), join_tokens, lambda y: split_tokens(y, grid), finish)]


class CrossAttentionBlock(nnx.Module):
    """Attention of queries to the normalised tokens and an MLP, each with a residual connection of the queries."""

    def __init__(self, c: int, heads: int, epsilon: float, **make):
        self.layer_norm1, self.layer_norm2 = (token_norm(c, epsilon, **make) for _ in range(2))
        self.cross_attn = ProjectedAttention(c, heads, output=False, **make)
        self.mlp = Mlp(c, 4 * c, c, **make)

    def __call__(self, queries: Float[Array, "b m c"], tokens: Float[Array, "b n c"]) -> Float[Array, "b m c"]:
        return self.add_mlp(queries + self.cross_attn(queries, self.layer_norm1(tokens)))

    def add_mlp(self, x: Float[Array, "b m c"]) -> Float[Array, "b m c"]:
        return x + self.mlp(self.layer_norm2(x).reshape(-1, x.shape[-1])).reshape(x.shape)

    def attention_weights(
        self, queries: Float[Array, "b m c"], tokens: Float[Array, "b n c"]
    ) -> Float[Array, "b heads m n"]:
        """Return the attention weights of the queries to the tokens; rows are queries and sum to 1."""
        q, k, _ = self.cross_attn.qkv(queries, self.layer_norm1(tokens))
        return attention_weights(q, k)
