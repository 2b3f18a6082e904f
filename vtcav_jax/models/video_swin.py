"""Video Swin Transformer: attention within shifted windows of space and time, on grids that are halved three times.

Ze Liu, Jia Ning, Yue Cao, Yixuan Wei, Zheng Zhang, Stephen Lin, Han Hu, "Video Swin Transformer", 2021,
arXiv 2106.13230. Attributes are named as in the reference implementation, so that weights and stages (layers) share
names. Dropout and stochastic depth are omitted, since explanations run without them.

On a CPU, attention and the MLP process the clip in chunks that fit the cache (`in_chunks`); an accelerator processes
the whole clip at once. The results are equal up to rounding.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vtcav_jax.models.attention_path import AttentionParts, AttentionStep, Tokens
from vtcav_jax.models.layers.window_attention import window_attention
from vtcav_jax.models.layers.windows import (
    Triple,
    from_windows,
    mean_of_neighbours,
    pad_to_multiple,
    region_of_token,
    region_penalty,
    relative_position_bias,
    to_windows,
)
from vtcav_jax.platforms import on_cpu, platform
from vtcav_jax.tap import Tap, identity_tap

# Per CPU core: rows of a linear layer, and bytes of attention scores, in one chunk.
TOKENS_PER_CHUNK = 1024
SCORE_BYTES_PER_CHUNK = 5 << 19


class VideoSwin(nnx.Module):
    """Network from normalised video of any length and size to class scores."""

    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window: Triple,
        num_classes: int,
        patch: Triple = (2, 4, 4),
        mlp_ratio: float = 4.0,
        remat: bool = False,  # store only each block's input for the backward pass; XLA undoes it on a CPU
        dtype: Any = jnp.float32,  # of the arithmetic; parameters, statistics, softmax and head are at least float32
        rngs: nnx.Rngs,
    ):
        wide = at_least_float32(dtype)
        make = dict(dtype=dtype, param_dtype=wide, rngs=rngs)
        self.remat = remat
        self.patch_embed = PatchEmbed(patch, embed_dim, **make)
        self.layers = nnx.List([])
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            merging = i < len(depths) - 1
            self.layers.append(SwinLayer(embed_dim << i, depth, heads, window, mlp_ratio, merging, **make))
        features = embed_dim << (len(depths) - 1)
        self.norm = layer_norm(features, **make)
        self.head = nnx.Linear(features, num_classes, **(make | {"dtype": wide}))

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages in forward order; `layers.i` is the grid before merging, `layers.i.downsample` after it."""
        names = ["patch_embed"]
        for i, layer in enumerate(self.layers):
            names += [f"layers.{i}.blocks.{j}" for j in range(len(layer.blocks))] + [f"layers.{i}"]
            if layer.downsample is not None:
                names.append(f"layers.{i}.downsample")
        return (*names, "norm", "pool")

    def __call__(self, video: Float[Array, "b t h w 3"], tap: Tap = identity_tap) -> Float[Array, "b k"]:
        run = jax.checkpoint(_call) if self.remat else _call
        x = tap("patch_embed", self.patch_embed(video))
        for i, layer in enumerate(self.layers):
            for j, block in enumerate(layer.blocks):
                x = tap(f"layers.{i}.blocks.{j}", run(block, x))
            x = tap(f"layers.{i}", x)
            if layer.downsample is not None:
                x = tap(f"layers.{i}.downsample", layer.downsample(x))
        x = tap("norm", self.norm(x))
        x = tap("pool", x.mean((1, 2, 3)))
        return self.head(x)

    def attention_path(self) -> list[AttentionStep]:
        steps, before = [], "patch_embed"
        for i, layer in enumerate(self.layers):
            for j, block in enumerate(layer.blocks):
                after = f"layers.{i}.blocks.{j}"
                steps.append(AttentionStep(block, (before,), (after,), window=block.window[1:]))
                before = after
            if layer.downsample is not None:
                after = f"layers.{i}.downsample"
                steps.append(AttentionStep(None, (before,), (after,), mean=mean_of_neighbours))
                before = after
        return steps


@jax.jit  # blocks of the same shape are traced once
def _call(block, x):
    return block(x)


class PatchEmbed(nnx.Module):
    """Linear layer of non-overlapping patches, with zero padding of the last ones, and a layer norm."""

    def __init__(self, patch: Triple, features: int, **make):
        self.patch = patch
        self.proj = nnx.Conv(3, features, patch, strides=patch, **make)
        self.norm = layer_norm(features, **make)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b t2 h2 w2 c"]:
        return self.norm(project_patches(self.proj, pad_to_multiple(video, self.patch)))


def project_patches(conv: nnx.Conv, video: Float[Array, "b t h w 3"]) -> Float[Array, "b t2 h2 w2 c"]:
    """Apply a convolution of non-overlapping patches, 2D (per frame) or 3D, to a video that its kernel divides.

    Computed as a matrix product: on a CPU, XLA's 3D convolution takes four times as long, and its gradient with respect
    to the video a thousand times. On a TPU, the product's operand has 12 channels that are padded to 128; there it is a
    2D convolution with the frames of a patch as channels.
    """
    assert conv.bias is not None
    x = video.astype(conv.dtype)
    kernel, bias = (part[...].astype(x.dtype) for part in (conv.kernel, conv.bias))
    p, q, r = (1, *kernel.shape[:-2])[-3:]
    b, t, h, w, colours = x.shape
    if platform() == "tpu":
        x = jnp.concatenate([x[:, i::p] for i in range(p)], -1).reshape(-1, h, w, p * colours)
        kernel = kernel.reshape(p, q, r, colours, -1).transpose(1, 2, 0, 3, 4).reshape(q, r, p * colours, -1)
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (q, r), "VALID", dimension_numbers=layout)
        return (x + bias[None, None, None]).reshape(b, t // p, h // q, w // r, -1)
    x = x.reshape(b, t // p, p, h // q, q, w // r, r * colours).transpose(0, 1, 3, 5, 2, 4, 6)
    x = x.reshape(-1, p * q * r * colours) @ kernel.reshape(-1, len(bias)) + bias[None]
    return x.reshape(b, t // p, h // q, w // r, -1)


class SwinLayer(nnx.Module):
    """Blocks of one grid size, and the reduction to the next size: `downsample`, None in the last layer."""

    def __init__(self, c: int, depth: int, heads: int, window: Triple, mlp_ratio: float, merging: bool, **make):
        half: Triple = (window[0] // 2, window[1] // 2, window[2] // 2)
        shifts = [half if j % 2 else (0, 0, 0) for j in range(depth)]
        self.blocks = nnx.List([SwinBlock(c, heads, window, shift, mlp_ratio, **make) for shift in shifts])
        self.downsample = PatchMerging(c, **make) if merging else None


class SwinBlock(nnx.Module):
    """Window attention and an MLP per token, each with a residual connection."""

    def __init__(self, c: int, heads: int, window: Triple, shift: Triple, mlp_ratio: float, **make):
        self.window, self.shift = window, shift
        self.norm1 = layer_norm(c, **make)
        self.attn = WindowAttention(c, heads, window, **make)
        self.norm2 = layer_norm(c, **make)
        self.mlp = Mlp(c, int(c * mlp_ratio), c, **make)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        split, merge, regions = self.windows(x)
        return self.add_mlp(x + merge(self.attn(split(self.norm1(x)), regions)))

    def add_mlp(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        return in_chunks(lambda x: x + self.mlp(self.norm2(x)), x.reshape(-1, x.shape[-1]), 1).reshape(x.shape)

    def windows(
        self, x: Float[Array, "b t h w c"]
    ) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Float[Array, "m n"] | None]:
        """Return functions from grids of the size of `x` to windows and back, and the regions of the windows' tokens.

        Regions are None if windows are not shifted.
        """
        b, t, h, w, _ = x.shape
        # An axis that is not longer than the window is one window and is not shifted.
        sizes = [(min(n, size), s if n > size else 0) for n, size, s in zip((t, h, w), self.window, self.shift)]
        window, shift = zip(*sizes)
        grid = [-(-n // size) * size for n, size in zip((t, h, w), window)]

        def split(x: Float[Array, "b t h w c"]) -> Float[Array, "m n c"]:
            return to_windows(jnp.roll(pad_to_multiple(x, window), [-s for s in shift], (1, 2, 3)), window)

        def merge(y: Float[Array, "m n c"]) -> Float[Array, "b t h w c"]:
            return jnp.roll(from_windows(y, b, grid, window), shift, (1, 2, 3))[:, :t, :h, :w]

        return split, merge, jnp.tile(region_of_token(grid, window, shift), (b, 1)) if any(shift) else None

    def attention_parts(self, x: Float[Array, "b t h w c"]) -> list[AttentionParts]:
        split, merge, regions = self.windows(x)
        (queries, keys, values), bias = self.attn.parts(split(self.norm1(x)))
        mask = None if regions is None else -region_penalty(regions)

        def finish(mixed: Float[Array, "m n c"]) -> Tokens:
            return (self.add_mlp(x + merge(self.attn.proj(mixed))),)

        return [AttentionParts(queries, keys, values, split, lambda y: (merge(y),), finish, bias[None], mask)]


class WindowAttention(nnx.Module):
    """Multi-head attention within each window, with a learnt bias per head and relative position."""

    def __init__(self, c: int, heads: int, window: Triple, *, dtype, param_dtype, rngs):
        self.heads, self.window, self.dtype = heads, window, dtype
        self.qkv = nnx.Linear(c, 3 * c, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.proj = nnx.Linear(c, c, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        offsets = math.prod(2 * size - 1 for size in window)
        table = jax.nn.initializers.truncated_normal(0.02)(rngs.params(), (offsets, heads), param_dtype)
        self.relative_position_bias_table = nnx.Param(table)

    def __call__(self, x: Float[Array, "m n c"], regions: Float[Array, "m n"] | None) -> Float[Array, "m n c"]:
        """Attend within `m` windows of `n` tokens; tokens of different `regions` do not attend to each other."""
        if regions is None:
            return in_chunks(lambda x: self.attend(x, None), x, x.shape[1])
        return in_chunks(lambda xr: self.attend(*xr), (x, regions), x.shape[1])

    def attend(self, x: Float[Array, "m n c"], regions: Float[Array, "m n"] | None) -> Float[Array, "m n c"]:
        m, n, c = x.shape
        if not on_cpu():
            assert self.qkv.bias is not None
            kernel, offset, table = (
                parameter[...].astype(self.dtype)
                for parameter in (self.qkv.kernel, self.qkv.bias, self.relative_position_bias_table)
            )
            bias = relative_position_bias(table.T, self.window, n)
            return self.proj(window_attention(x.astype(self.dtype) @ kernel, offset, bias, regions))
        d = c // self.heads
        # One unit is `mu` windows by `hu` heads; the scores of one head in one window are n x n.
        max_pairs = SCORE_BYTES_PER_CHUNK * cores() // (4 * n * n)
        mu = largest_divisor(m, max_pairs)
        hu = largest_divisor(self.heads, max_pairs // mu)
        units, groups = m // mu, self.heads // hu
        qkv = self.qkv(x).reshape(units, mu, n, 3, groups, hu, d).transpose(3, 0, 4, 1, 5, 2, 6)
        qkv = qkv.reshape(3, units * groups, mu, hu, n, d)
        wide = at_least_float32(self.dtype)
        tables = self.relative_position_bias_table[...].astype(wide).T.reshape(groups, hu, -1)

        @jax.checkpoint  # recomputing the scores costs less than writing and reading them
        def attention(unit):
            i, q, k, v = unit
            scores = jnp.einsum("mhnd,mhkd->mhnk", q * d**-0.5, k, preferred_element_type=wide)
            scores = scores + relative_position_bias(tables[i % groups], self.window, n)[None]
            if regions is not None:
                scores = scores - region_penalty(regions.reshape(units, mu, 1, n)[i // groups])
            # Divide after the product with v: fewer divisions, and the backward pass needs no row sums.
            e = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
            y = jnp.einsum("mhnk,mhkd->mhnd", e.astype(v.dtype), v, preferred_element_type=wide)
            return (y / e.sum(-1, keepdims=True)).astype(v.dtype)

        if units * groups == 1:
            y = attention((0, *qkv[:, 0]))
        else:
            y = jax.lax.map(attention, (jnp.arange(units * groups), *qkv))
        y = y.reshape(units, groups, mu, hu, n, d).transpose(0, 2, 4, 1, 3, 5)
        return self.proj(y.reshape(m, n, c))

    def parts(self, x: Float[Array, "m n c"]) -> tuple[Float[Array, "3 m heads n d"], Float[Array, "heads n n"]]:
        """Return queries, keys and values, and the bias of each head."""
        m, n, _ = x.shape
        table = self.relative_position_bias_table[...].T
        qkv = self.qkv(x).reshape(m, n, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        return qkv, relative_position_bias(table, self.window, n)


class Mlp(nnx.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, c: int, hidden: int, outputs: int, **make):
        self.fc1 = nnx.Linear(c, hidden, **make)
        self.fc2 = nnx.Linear(hidden, outputs, **make)

    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n d"]:
        x = self.fc1(x)
        return self.fc2(x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)))  # nnx.gelu's erfc is three times slower


class PatchMerging(nnx.Module):
    """Merging of 2 x 2 neighbours in space into one token with twice the features."""

    def __init__(self, c: int, **make):
        self.norm = layer_norm(4 * c, **make)
        self.reduction = nnx.Linear(4 * c, 2 * c, use_bias=False, **make)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h2 w2 c2"]:
        x = pad_to_multiple(x, (1, 2, 2))
        b, t, h, w, c = x.shape
        x = x.reshape(b, t, h // 2, 2, w // 2, 2, c).transpose(0, 1, 2, 4, 5, 3, 6)  # the column varies slowest
        return self.reduction(self.norm(x.reshape(b, t, h // 2, w // 2, 4 * c)))


def layer_norm(features: int, **make) -> nnx.LayerNorm:
    return nnx.LayerNorm(features, epsilon=1e-5, use_fast_variance=False, **make)


def at_least_float32(dtype: Any) -> Any:
    return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.float32


def in_chunks(f: Callable[[Any], Array], xs: Any, tokens: int) -> Array:
    """Return `f(xs)` for an `f` that treats rows independently; on a CPU, in chunks of rows of `tokens` each.

    Values that do not fit the cache cost more to write and read than to compute. Only the results of linear layers are
    stored for the backward pass.
    """
    f = jax.checkpoint(f, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    rows = len(jax.tree.leaves(xs)[0])
    chunk_rows = largest_divisor(rows, TOKENS_PER_CHUNK * cores() // tokens) if on_cpu() else rows
    if chunk_rows == rows:
        return f(xs)
    ys = jax.lax.map(f, jax.tree.map(lambda x: x.reshape(-1, chunk_rows, *x.shape[1:]), xs))
    return ys.reshape(rows, *ys.shape[2:])


def largest_divisor(n: int, max_divisor: int) -> int:
    return max((d for d in range(1, min(n, max_divisor) + 1) if n % d == 0), default=1)


def cores() -> int:
    return os.cpu_count() or 1
