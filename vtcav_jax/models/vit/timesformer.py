"""TimeSformer with divided attention: in each block first along time, then within each frame.

Gedas Bertasius, Heng Wang, Lorenzo Torresani, "Is Space-Time Attention All You Need for Video Understanding?", 2021,
arXiv 2102.05095. Attributes are named as in transformers, without the prefix `timesformer.` and with `head` for
`classifier`.

The head reads a class token, which attends to each frame, but not along time. As in `vivit`, a block has a stage
(layer) for its grid of tokens and one for the class token (`encoder.layer.3.class_token`); the last block has the class
token only.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionParts, AttentionStep, class_token_path
from vtcav_jax.models.mvit import concat_tokens
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.models.vit.blocks import (
    Attention,
    BlockParts,
    Encoder,
    JointQkv,
    block_runner,
    check_clip,
    embedding,
    grid_of,
    split_tokens,
    token_norm,
)
from vtcav_jax.models.vit.videomae import PatchEmbeddings
from vtcav_jax.models.vit.vivit import class_token_stages
from vtcav_jax.tap import Tap, identity_tap

Token = Float[Array, "b c"]
Grid = Float[Array, "b t h w c"]


class TimeSformer(nnx.Module):
    """Network from normalised clips of one size, for which positions are learnt, to class scores."""

    def __init__(
        self,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        num_classes: int,
        clip: Triple = (8, 224, 224),
        patch: tuple[int, int] = (16, 16),  # of one frame
        qkv_bias: bool = True,
        epsilon: float = 1e-6,  # of all layer norms
        remat: bool = False,  # store only each block's input for the backward pass; XLA undoes it on a CPU
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        c, wide = hidden_size, at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.clip, self.remat = clip, remat
        self.embeddings = FrameEmbeddings(patch, grid_of(clip, (1, *patch)), c, **make)
        self.encoder = Encoder(
            DividedBlock(c, heads, intermediate_size, qkv_bias, epsilon, **make) for _ in range(layers)
        )
        self.layernorm = token_norm(c, epsilon, **make)
        self.head = nnx.Linear(c, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        return class_token_stages(len(self.encoder.layer))

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        check_clip(video, self.clip)
        run = block_runner(self.remat)
        token, x = self.embeddings(video)
        x = tap("embeddings", x)
        for i, block in enumerate(self.encoder.layer):
            token, x = run(block, token, x)
            if i < len(self.encoder.layer) - 1:
                x = tap(f"encoder.layer.{i}", x)
            token = tap(f"encoder.layer.{i}.class_token", token)
        return self.head(tap("layernorm", self.layernorm(token)))

    def attention_path(self) -> list[AttentionStep]:
        return class_token_path(self.embeddings.class_token, self.encoder.layer, "embeddings", "encoder.layer")


class FrameEmbeddings(nnx.Module):
    """Class token and tokens of patches, with learnt positions in the frame (also of the class token) and in time."""

    def __init__(self, patch: tuple[int, int], grid: Triple, c: int, **make):
        self.patch_embeddings = PatchEmbeddings(patch, c, **make)
        self.cls_token = embedding(1, 1, c, **make)
        self.position_embeddings = embedding(1, 1 + grid[1] * grid[2], c, **make)
        self.time_embeddings = embedding(1, grid[0], c, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> tuple[Token, Float[Array, "b t h2 w2 c"]]:
        x = self.patch_embeddings(video)
        _, t, h, w, c = x.shape
        places, times = (table[...].astype(x.dtype) for table in (self.position_embeddings, self.time_embeddings))
        x = x + places[:, 1:].reshape(1, 1, h, w, c) + times.reshape(1, t, 1, 1, c)
        return self.class_token(x), x

    def class_token(self, x: Grid) -> Token:
        """Return the class token with its position, for each clip of the grid `x`."""
        token, place = (table[...][:, 0].astype(x.dtype) for table in (self.cls_token, self.position_embeddings))
        return jnp.repeat(token + place, len(x), 0)


class DividedBlock(BlockParts):
    """Attention along time, attention within each frame and an MLP per token, each with a residual connection."""

    def __init__(self, c: int, heads: int, hidden: int, bias: bool, epsilon: float, **make):
        super().__init__(Attention(JointQkv(c, heads, bias, **make), c, **make), c, hidden, epsilon, **make)
        self.temporal_attention = Attention(JointQkv(c, heads, bias, **make), c, **make)
        self.temporal_layernorm = token_norm(c, epsilon, **make)
        self.temporal_dense = nnx.Linear(c, c, **make)

    def __call__(self, token: Token, x: Grid) -> tuple[Token, Grid]:
        x = self.add_temporal_attention(x)
        y = self.attention(self.layernorm_before(tokens_of_frames(token, x)))
        return self.finish(token, x, y)

    def finish(self, token: Token, x: Grid, y: Float[Array, "bt n c"]) -> tuple[Token, Grid]:
        """Add the result of attention within frames, then the MLP."""
        mean, y = mean_over_frames(y, x)
        token, x = split_tokens(self.add_mlp(concat_tokens(token + mean, x + y)), token, x)
        return token, x

    def add_temporal_attention(self, x: Grid) -> Grid:
        y = self.temporal_attention(self.temporal_layernorm(tokens_of_places(x)))
        return x + grid_of_places(self.temporal_dense(y), x)

    def attention_weights(
        self, token: Token, x: Grid
    ) -> tuple[Float[Array, "b h w heads t t"], Float[Array, "b t heads n n"]]:
        """Return the attention weights along time and within frames for the block's input.

        Rows are queries and sum to 1. Within frames, the first of the n tokens is the class token; its queries of all
        frames are averaged after attention.
        """
        b, t, h, w, _ = x.shape
        along_time = self.temporal_attention.weights(self.temporal_layernorm(tokens_of_places(x)))
        frames = tokens_of_frames(token, self.add_temporal_attention(x))
        within_frames = self.attention.weights(self.layernorm_before(frames))
        return along_time.reshape(b, h, w, -1, t, t), within_frames.reshape(b, t, *within_frames.shape[1:])

    def attention_parts(self, token: Token, x: Grid) -> list[AttentionParts]:
        """Return the attention along time, in which the class token has no part, and the attention within frames."""
        mixed_in_time = self.add_temporal_attention(x)

        def temporal(mixed: Float[Array, "bhw t c"]) -> tuple[Token, Grid]:
            later = x + grid_of_places(self.temporal_dense(self.temporal_attention.output(mixed)), x)
            y = self.attention(self.layernorm_before(tokens_of_frames(token, later)))
            return self.finish(token, later, y)

        def spatial(mixed: Float[Array, "bt n c"]) -> tuple[Token, Grid]:
            return self.finish(token, mixed_in_time, self.attention.output(mixed))

        def merge_places(y: Float[Array, "bhw t c"]) -> tuple[Token, Grid]:
            return jnp.zeros((len(x), y.shape[-1]), y.dtype), grid_of_places(y, x)

        places = self.temporal_attention.attention(self.temporal_layernorm(tokens_of_places(x)))
        frames = self.attention.attention(self.layernorm_before(tokens_of_frames(token, mixed_in_time)))
        return [
            AttentionParts(*places, lambda token, x: tokens_of_places(x), merge_places, temporal),
            AttentionParts(*frames, tokens_of_frames, lambda y: mean_over_frames(y, x), spatial),
        ]


def tokens_of_places(x: Grid) -> Float[Array, "bhw t c"]:
    """Return the tokens of all times at each place of the frame."""
    return x.transpose(0, 2, 3, 1, 4).reshape(-1, x.shape[1], x.shape[-1])


def grid_of_places(y: Float[Array, "bhw t c"], x: Float[Array, "b t h w _"]) -> Grid:
    """Return the grid, of the size of `x`, of tokens at each place."""
    b, t, h, w, _ = x.shape
    return y.reshape(b, h, w, t, -1).transpose(0, 3, 1, 2, 4)


def tokens_of_frames(token: Token, x: Grid) -> Float[Array, "bt n c"]:
    """Return the class token and the grid's tokens of each frame."""
    b, t, h, w, c = x.shape
    return concat_tokens(jnp.repeat(token, t, 0), x.reshape(b * t, 1, h, w, c))


def mean_over_frames(y: Float[Array, "bt n c"], x: Float[Array, "b t h w _"]) -> tuple[Token, Grid]:
    """Return the mean over frames of the class tokens, and the grid, of the size of `x`, of all other tokens."""
    return y[:, 0].reshape(len(x), -1, y.shape[-1]).mean(1), y[:, 1:].reshape(*x.shape[:-1], -1)
