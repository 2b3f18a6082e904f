"""ViViT with joint attention in space and time (model 1 of the paper).

Anurag Arnab, Mostafa Dehghani, Georg Heigold, Chen Sun, Mario Lucic, Cordelia Schmid, "ViViT: A Video Vision
Transformer", 2021, arXiv 2103.15691. Attributes are named as in the published weights of transformers, without the
prefix `vivit.` and with `head` for `classifier`.

The head reads a class token, which accompanies the grid of tokens. Each block therefore has two stages (layers), its
grid (`encoder.layer.3`) and the class token (`encoder.layer.3.class_token`); the last block has the class token only,
because its grid is not used. A block's input is the class token followed by the tokens of the grid.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionStep, class_token_path
from vtcav_jax.models.mvit import concat_tokens
from vtcav_jax.models.video_swin import Triple, at_least_float32
from vtcav_jax.models.vit.blocks import (
    Activation,
    Attention,
    Encoder,
    SeparateQkv,
    VitBlock,
    block_runner,
    check_clip,
    embedding,
    grid_of,
    token_norm,
)
from vtcav_jax.models.vit.videomae import PatchEmbeddings
from vtcav_jax.tap import Tap, identity_tap


class Vivit(nnx.Module):
    """Network from normalised clips of one size, for which positions are learnt, to class scores."""

    def __init__(
        self,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        num_classes: int,
        clip: Triple = (32, 224, 224),
        patch: Triple = (2, 16, 16),
        qkv_bias: bool = True,
        activation: Activation = "gelu_fast",
        epsilon: float = 1e-6,  # of all layer norms
        remat: bool = False,  # store only each block's input for the backward pass; XLA undoes it on a CPU
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        c, wide = hidden_size, at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.clip, self.remat = clip, remat
        self.embeddings = ClassTokenEmbeddings(patch, grid_of(clip, patch), c, **make)
        self.encoder = Encoder(
            VitBlock(
                Attention(SeparateQkv(c, heads, (qkv_bias, qkv_bias, qkv_bias), **make), c, **make),
                c, intermediate_size, epsilon, activation, **make,
            )
            for _ in range(layers)
        )  # fmt: skip
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
            tokens = run(block, concat_tokens(token, x))
            token, x = tokens[:, 0], tokens[:, 1:].reshape(x.shape)
            if i < len(self.encoder.layer) - 1:
                x = tap(f"encoder.layer.{i}", x)
            token = tap(f"encoder.layer.{i}.class_token", token)
        return self.head(tap("layernorm", self.layernorm(token)))

    def attention_path(self) -> list[AttentionStep]:
        return class_token_path(self.embeddings.class_token, self.encoder.layer, "embeddings", "encoder.layer")


def class_token_stages(layers: int) -> tuple[str, ...]:
    """Return the stages of a network whose head reads a class token; `layernorm` is that token after the last block."""
    names = [name for i in range(layers) for name in (f"encoder.layer.{i}", f"encoder.layer.{i}.class_token")]
    return ("embeddings", *names[:-2], names[-1], "layernorm")


class ClassTokenEmbeddings(nnx.Module):
    """Class token and tokens of tubelets, each with a learnt position."""

    def __init__(self, patch: Triple, grid: Triple, c: int, **make):
        self.patch_embeddings = PatchEmbeddings(patch, c, **make)
        self.cls_token = embedding(1, 1, c, **make)
        self.position_embeddings = embedding(1, 1 + grid[0] * grid[1] * grid[2], c, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> tuple[Float[Array, "b c"], Float[Array, "b t2 h2 w2 c"]]:
        x = self.patch_embeddings(video)
        places = self.position_embeddings[...].astype(x.dtype)
        return self.class_token(x), x + places[:, 1:].reshape(1, *x.shape[1:])

    def class_token(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b c"]:
        """Return the class token with its position, for each clip of the grid `x`."""
        token, place = (table[...][:, 0].astype(x.dtype) for table in (self.cls_token, self.position_embeddings))
        return jnp.repeat(token + place, len(x), 0)
