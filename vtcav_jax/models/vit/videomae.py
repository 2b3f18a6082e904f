"""VideoMAE: a plain vision transformer over the tubelets of a clip, pre-trained by masked autoencoding.

Zhan Tong, Yibing Song, Jue Wang, Limin Wang, "VideoMAE: Masked Autoencoders are Data-Efficient Learners for
Self-Supervised Video Pre-Training", 2022, arXiv 2203.12602. Attributes are named as in transformers, without the prefix
`videomae.` and with `head` for `classifier`. Only the classifier is here, without the decoder of the pre-training.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionStep
from vtcav_jax.models.video_swin import Triple, at_least_float32, project_patches
from vtcav_jax.models.vit.blocks import (
    Attention,
    Encoder,
    SeparateQkv,
    VitBlock,
    block_runner,
    check_clip,
    grid_of,
    token_norm,
)
from vtcav_jax.tap import Tap, identity_tap


class VideoMae(nnx.Module):
    """Network from normalised clips of one size to class scores."""

    def __init__(
        self,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        num_classes: int,
        clip: Triple = (16, 224, 224),
        patch: Triple = (2, 16, 16),
        qv_bias: bool = True,  # keys never have one
        epsilon: float = 1e-12,  # of the layer norms of blocks
        remat: bool = False,  # store only each block's input for the backward pass; XLA undoes it on a CPU
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        c, wide = hidden_size, at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.clip, self.grid, self.remat = clip, grid_of(clip, patch), remat
        self.embeddings = TubeletEmbeddings(patch, c, **make)
        self.encoder = Encoder(
            VitBlock(
                Attention(SeparateQkv(c, heads, (qv_bias, False, qv_bias), **make), c, **make),
                c, intermediate_size, epsilon, **make,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.fc_norm = token_norm(c, 1e-5, **make)
        self.head = nnx.Linear(c, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages in forward order: grids of tokens, and last `fc_norm`, the layer norm of their mean."""
        return ("embeddings", *(f"encoder.layer.{i}" for i in range(len(self.encoder.layer))), "fc_norm")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        check_clip(video, self.clip)
        run = block_runner(self.remat)
        x = tap("embeddings", self.embeddings(video))
        for i, block in enumerate(self.encoder.layer):
            tokens = x.reshape(len(x), -1, x.shape[-1])
            x = tap(f"encoder.layer.{i}", run(block, tokens).reshape(x.shape))
        return self.head(tap("fc_norm", self.fc_norm(x.mean((1, 2, 3)))))

    def attention_path(self) -> list[AttentionStep]:
        return grid_path(self.stages[:-1], self.encoder.layer)


def grid_path(stages: Sequence[str], blocks: Iterable[Any]) -> list[AttentionStep]:
    """Return the path through blocks whose inputs and outputs are grids at consecutive stages."""
    return [
        AttentionStep(block, (before,), (after,))
        for block, (before, after) in zip(blocks, pairwise(stages), strict=True)
    ]


class PatchEmbeddings(nnx.Module):
    """Linear layer of non-overlapping patches, of one frame (2D) or several (3D)."""

    def __init__(self, patch: tuple[int, ...], c: int, **make):
        self.projection = nnx.Conv(3, c, patch, strides=patch, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b t2 h2 w2 c"]:
        return project_patches(self.projection, video)


class TubeletEmbeddings(nnx.Module):
    """Tokens of tubelets plus fixed sinusoidal positions."""

    def __init__(self, patch: Triple, c: int, **make):
        self.patch_embeddings = PatchEmbeddings(patch, c, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b t2 h2 w2 c"]:
        x = self.patch_embeddings(video)
        _, t, h, w, c = x.shape
        return x + jnp.asarray(sinusoidal_positions(t * h * w, c), x.dtype).reshape(1, t, h, w, c)


@cache
def sinusoidal_positions(n: int, c: int) -> np.ndarray:
    """Return the table of sines (even channels) and cosines (odd channels) of each position, as float32."""
    channel = np.arange(c)
    angle = np.arange(n)[:, None] / 10000 ** (2 * (channel // 2) / c)
    return np.where(channel % 2, np.cos(angle), np.sin(angle)).astype(np.float32)
