"""Multiscale Vision Transformers: global attention with pooled queries, keys and values.

Version 1: Haoqi Fan, Bo Xiong, Karttikeya Mangalam, Yanghao Li, Zhicheng Yan, Jitendra Malik, Christoph Feichtenhofer,
"Multiscale Vision Transformers", 2021, arXiv 2104.11227. Version 2: Yanghao Li, Chao-Yuan Wu, Haoqi Fan, Karttikeya
Mangalam, Bo Xiong, Jitendra Malik, Christoph Feichtenhofer, "MViTv2: Improved Multiscale Vision Transformers for
Classification and Detection", 2021, arXiv 2112.01526. Both follow torchvision, including attribute names except
`mlp.fc1`, `mlp.fc2`, `project`, `norm` of a pool and `head`.

The head reads a class token, which accompanies the grid of tokens. Each block therefore has two stages (layers), its
grid (`blocks.3`) and the class token (`blocks.3.class_token`); the last block has the class token only, because its
grid is not used. `attn` and `mlp` are the outputs of a block's branches and `sum` is the value between them, all as
grids.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionParts, AttentionStep, Tokens, class_token_path
from vtcav_jax.models.layers.convolution import THREES, same_padded_conv
from vtcav_jax.models.layers.pooling import max_pool, mean_of_windows
from vtcav_jax.models.video_swin import Mlp, Triple, at_least_float32, in_chunks
from vtcav_jax.tap import Tap, identity_tap

HEAD_CHANNELS = 96  # per attention head
PATCH_STRIDES: Triple = (2, 4, 4)
MvitVersion = Literal[1, 2]


class Mvit(nnx.Module):
    """Network from normalised clips of one size, for which positions are learnt, to class scores."""

    def __init__(
        self,
        *,
        version: MvitVersion,
        clip: Triple = (16, 224, 224),
        heads: Sequence[int] = (1, 2, 2, *(4,) * 11, 8, 8),  # of each block; an increase halves the query grid
        num_classes: int,
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        t, h, w = clip
        if t % 2 or h % 32 or h != w:
            raise ValueError(f"MViT reads an even number of square frames, a multiple of 32 pixels wide; got {clip}")
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.clip = clip
        grid: Triple = (t // PATCH_STRIDES[0], h // PATCH_STRIDES[1], w // PATCH_STRIDES[2])
        width = HEAD_CHANNELS * heads[0]
        self.conv_proj = same_padded_conv(3, width, (3, 7, 7), PATCH_STRIDES, use_bias=True, **make)
        self.pos_encoding = PositionEncoding(width, grid, absolute=version == 1, **make)
        self.blocks = nnx.List([])
        for i, number in enumerate(heads):
            after = heads[min(i + 1, len(heads) - 1)]
            outputs = HEAD_CHANNELS * (after if version == 1 else number)
            stride = 2 if i > 0 and number > heads[i - 1] else 1
            self.blocks.append(MvitBlock(version, grid, width, outputs, number, stride, heads[-1] // number, **make))
            grid, width = (grid[0], grid[1] // stride, grid[2] // stride), outputs
        self.norm = token_norm(width, **make)
        self.head = nnx.Linear(width, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        names = ["conv_proj", "tokens"]
        for i in range(len(self.blocks)):
            name = f"blocks.{i}"
            names += [f"{name}.attn", f"{name}.sum", f"{name}.mlp", name, f"{name}.class_token"]
        last = f"blocks.{len(self.blocks) - 1}"
        unread = {f"{last}.{part}" for part in ("attn", "sum", "mlp")} | {last}
        return (*(name for name in names if name not in unread), "norm")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        if video.shape[1:4] != self.clip:
            raise ValueError(f"this MViT reads clips of {self.clip}, got {video.shape[1:4]}; change frames and size")
        x = tap("conv_proj", self.conv_proj(video))
        token, x = self.pos_encoding(x)
        x = tap("tokens", x)
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            token, x = block(token, x, identity_tap if last else tap, f"blocks.{i}")
            token = tap(f"blocks.{i}.class_token", token)
        return self.head(tap("norm", self.norm(token)))

    def attention_path(self) -> list[AttentionStep]:
        return class_token_path(self.pos_encoding.class_token_of, self.blocks, "tokens", "blocks")


class PositionEncoding(nnx.Module):
    """Class token, and in version 1 learnt vectors for each time step, each position and the class token."""

    def __init__(self, c: int, grid: Triple, absolute: bool, *, dtype, param_dtype, rngs):
        def random_parameter(*shape: int) -> nnx.Param:
            return nnx.Param(jax.nn.initializers.truncated_normal(0.02)(rngs.params(), shape, param_dtype))

        self.dtype, self.absolute = dtype, absolute
        self.class_token = random_parameter(c)
        if absolute:
            self.spatial_pos, self.temporal_pos = random_parameter(grid[1] * grid[2], c), random_parameter(grid[0], c)
            self.class_pos = random_parameter(c)

    def __call__(self, x: Float[Array, "b t h w c"]) -> tuple[Float[Array, "b c"], Float[Array, "b t h w c"]]:
        _, t, h, w, c = x.shape
        if self.absolute:
            places = self.temporal_pos[...][:, None] + self.spatial_pos[...][None]
            x = x + places.reshape(1, t, h, w, c).astype(self.dtype)
        return self.class_token_of(x), x

    def class_token_of(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b c"]:
        """Return the class token with its position, for each clip of the grid `x`."""
        token = self.class_token[...]
        token = token + self.class_pos[...] if self.absolute else token
        return jnp.broadcast_to(token.astype(self.dtype)[None], (len(x), x.shape[-1]))


class MvitBlock(nnx.Module):
    """Pooled attention and MLP, each with a residual connection, which is projected where the width changes.

    Version 1 changes the width in the MLP, version 2 in the attention.
    """

    def __init__(
        self, version: MvitVersion, grid: Triple, inputs: int, outputs: int, heads: int, stride: int, keys: int, **make
    ):
        self.early, self.stride = version == 2, stride
        self.pooling: tuple[Triple, Triple] = ((1, 3, 3), (1, stride, stride))  # window and strides, if the stride is 2
        c = outputs if self.early else inputs
        self.norm1, self.norm2 = token_norm(inputs, **make), token_norm(c, **make)
        self.attn = PooledAttention(version, grid, inputs, c, heads, stride, keys, **make)
        self.mlp = Mlp(c, 4 * c, outputs, **make)
        self.project = nnx.Linear(inputs, outputs, **make) if inputs != outputs else None

    def __call__(
        self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"], tap: Tap, name: str
    ) -> tuple[Float[Array, "b d"], Float[Array, "b t2 h2 w2 d"]]:
        token1, x1 = self.norm1(token), self.norm1(x)
        attended = self.attn(token1, x1)
        token, x = self.shortcut(token, x, token1, x1)
        token1, x1 = split_tokens(attended, x)
        return self.add_mlp(token + token1, tap(f"{name}.sum", x + tap(f"{name}.attn", x1)), tap, name)

    def shortcut(
        self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"],
        token1: Float[Array, "b c"], x1: Float[Array, "b t h w c"],
    ) -> tuple[Float[Array, "b d"], Float[Array, "b t2 h2 w2 d"]]:  # fmt: skip
        """Return the attention's residual connection, from the inputs and their layer norms `token1` and `x1`."""
        if self.project is not None and self.early:
            token, x = self.project(token1), self.project(x1)
        return token, max_pool(x, *self.pooling, (0, 1, 1)) if self.stride > 1 else x

    def add_mlp(
        self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"], tap: Tap = identity_tap, name: str = ""
    ) -> tuple[Float[Array, "b d"], Float[Array, "b t h w d"]]:
        token2, x2 = self.norm2(token), self.norm2(x)
        if self.project is not None and not self.early:
            token, x = self.project(token2), self.project(x2)
        y = in_chunks(self.mlp, x2.reshape(-1, x2.shape[-1]), 1).reshape(x.shape)
        return token + self.mlp(token2), tap(name, x + tap(f"{name}.mlp", y))

    def attention_parts(self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"]) -> list[AttentionParts]:
        """Return the attention of pooled queries to pooled keys and values.

        A pooled token counts as the mean of the tokens that its convolution or max pool reads. The query that version 2
        adds to the attention's result is not followed besides the residual connection.
        """
        token1, x1 = self.norm1(token), self.norm1(x)
        queries, keys, values, bias = self.attn.parts(token1, x1)
        short_token, short = self.shortcut(token, x, token1, x1)

        def split(token: Array, x: Array) -> Float[Array, "b m c"]:
            return concat_tokens(token, mean_of_windows(x, THREES, self.attn.key_strides))

        def bypass(token: Array, x: Array) -> Tokens:
            return token, mean_of_windows(x, *self.pooling) if self.stride > 1 else x

        def finish(mixed: Float[Array, "b n c"]) -> Tokens:
            token1, x1 = split_tokens(self.attn.output(mixed, queries), short)
            return self.add_mlp(short_token + token1, short + x1)

        merge = partial(split_tokens, x=short)
        return [AttentionParts(queries, keys, values, split, merge, finish, bias, bypass=bypass)]


class PooledAttention(nnx.Module):
    """Multi-head attention of pooled queries to pooled keys and values.

    Version 2 adds a relative position score per axis, computed from the query, to each attention score, and adds the
    query to the result; neither applies to the class token.
    """

    def __init__(
        self, version: MvitVersion, grid: Triple, inputs: int, c: int, heads: int, stride: int, keys: int,
        *, dtype: Any, param_dtype: Any, rngs: nnx.Rngs,
    ):  # fmt: skip
        make = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.heads, self.dtype, self.relative = heads, dtype, version == 2
        self.key_strides: Triple = (1, keys, keys)
        self.qkv, self.project = nnx.Linear(inputs, 3 * c, **make), nnx.Linear(c, c, **make)
        self.pool_q = HeadPool((1, stride, stride), **make) if version == 2 or stride > 1 else None
        self.pool_k, self.pool_v = HeadPool(self.key_strides, **make), HeadPool(self.key_strides, **make)
        if self.relative:
            initial = jax.nn.initializers.truncated_normal(0.02)
            side = 2 * max(grid[1] // stride, grid[1] // keys) - 1
            self.rel_pos_h = nnx.Param(initial(rngs.params(), (side, HEAD_CHANNELS), param_dtype))
            self.rel_pos_w = nnx.Param(initial(rngs.params(), (side, HEAD_CHANNELS), param_dtype))
            self.rel_pos_t = nnx.Param(initial(rngs.params(), (2 * grid[0] - 1, HEAD_CHANNELS), param_dtype))

    def __call__(self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"]) -> Float[Array, "b n d"]:
        queries, keys, values, bias = self.parts(token, x)
        wide = at_least_float32(self.dtype)
        scores = jnp.einsum("bhqc,bhkc->bhqk", queries * HEAD_CHANNELS**-0.5, keys, preferred_element_type=wide)
        attention = jax.nn.softmax(scores if bias is None else scores + bias, -1).astype(values.dtype)
        mixed = jnp.einsum("bhqk,bhkc->bqhc", attention, values)
        return self.output(mixed.reshape(*mixed.shape[:2], -1), queries)

    def parts(
        self, token: Float[Array, "b c"], x: Float[Array, "b t h w c"]
    ) -> tuple[
        Float[Array, "b heads n d"], Float[Array, "b heads m d"], Float[Array, "b heads m d"],
        Float[Array, "b heads n m"] | None,
    ]:  # fmt: skip
        """Return queries, keys and values, the class token first, and the relative position score of each pair."""
        tokens = jnp.split(self.qkv(token), 3, -1)
        grids = jnp.split(self.qkv(x), 3, -1)
        pools = (self.pool_q, self.pool_k, self.pool_v)
        # q, k, v are each a class token (m c) and a grid (m t h w c), m = b heads
        (q0, q), (k0, k), (v0, v) = (
            pool_tokens(pool, self.split_heads(class_token), self.split_heads(grid))
            for pool, class_token, grid in zip(pools, tokens, grids)
        )
        queries, keys, values = (
            concat_tokens(*pair).reshape(len(x), self.heads, -1, HEAD_CHANNELS) for pair in ((q0, q), (k0, k), (v0, v))
        )
        if not self.relative:
            return queries, keys, values, None
        bias = jnp.pad(self.relative_position_scores(q, k.shape[1:4]), ((0, 0), (1, 0), (1, 0)))
        return queries, keys, values, bias.reshape(len(x), self.heads, *bias.shape[1:])

    def output(self, mixed: Float[Array, "b n c"], queries: Float[Array, "b heads n d"]) -> Float[Array, "b n c"]:
        """Return the attention's output from its result for all heads."""
        if self.relative:
            grid = mixed[:, 1:] + queries.swapaxes(1, 2).reshape(mixed.shape)[:, 1:]
            mixed = jnp.concatenate([mixed[:, :1], grid], 1)
        return self.project(mixed)

    def split_heads(self, x: Array) -> Array:
        """Move the heads of a token or grid to the batch axis."""
        x = jnp.moveaxis(x.reshape(*x.shape[:-1], self.heads, HEAD_CHANNELS), -2, 1)
        return x.reshape(-1, *x.shape[2:])

    def relative_position_scores(self, q: Float[Array, "m t h w c"], keys: tuple[int, ...]) -> Float[Array, "m n k"]:
        """Return the relative position score of each query and key: the sum of one product per axis."""
        along = []
        for axis, table in enumerate((self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)):
            index = relative_offsets(q.shape[axis + 1], keys[axis])
            rows = table[...].astype(q.dtype)[index]  # per query and key
            wide = at_least_float32(self.dtype)
            along.append(jnp.einsum(f"mthwc,{'thw'[axis]}kc->mthwk", q, rows, preferred_element_type=wide))
        t, h, w = along
        distance_scores = t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]
        return distance_scores.reshape(len(q), math.prod(q.shape[1:4]), math.prod(keys))


class HeadPool(nnx.Module):
    """Depthwise 3 x 3 x 3 convolution of the grid, then layer norm of the grid and the class token per head."""

    def __init__(self, strides: Triple, **make):
        self.pool = same_padded_conv(HEAD_CHANNELS, HEAD_CHANNELS, THREES, strides, groups=HEAD_CHANNELS, **make)
        self.norm = token_norm(HEAD_CHANNELS, **make)


def pool_tokens(pool: HeadPool | None, token: Float[Array, "m c"], x: Float[Array, "m t h w c"]) -> tuple[Array, Array]:
    return (token, x) if pool is None else (pool.norm(token), pool.norm(pool.pool(x)))


def token_norm(features: int, **make) -> nnx.LayerNorm:
    return nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, **make)


def concat_tokens(token: Float[Array, "m c"], x: Float[Array, "m t h w c"]) -> Float[Array, "m n c"]:
    return jnp.concatenate([token[:, None], x.reshape(len(x), -1, x.shape[-1])], 1)


def split_tokens(tokens: Float[Array, "b n d"], x: Float[Array, "b t h w _"]) -> tuple[Array, Array]:
    """Return the class token, and a grid of the size of `x` with all other tokens."""
    return tokens[:, 0], tokens[:, 1:].reshape(*x.shape[:4], -1)


def relative_offsets(queries: int, keys: int) -> np.ndarray:
    """Return the row of the distance table for each query and key of one axis, in units of the finer grid."""
    q, k = np.arange(queries)[:, None], np.arange(keys)[None]
    return (q * max(keys // queries, 1) - (k + 1 - keys) * max(queries // keys, 1)).astype(np.int32)
