"""Attention maps of Video Swin, propagated from the pooled features back to the patches.

The network does not store its attention, so weights are recomputed from each block's input. Only the row of the pooled
features is propagated, as a vector, through windows, shifts and merges: a matrix over all tokens would take gigabytes
per block.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.score_model import ExplainContext, PassResult, prepare_explanation, run_pass, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.video_swin import (
    SwinBlock,
    Triple,
    VideoSwin,
    from_windows,
    pad_to_multiple,
    region_of_token,
    relative_position_bias,
    to_windows,
)
from vtcav_jax.tap import Model

TokenRow = Float[Array, "b t h w"]  # share of the pooled features that each token contributes


class RolloutStep(NamedTuple):
    """A block between two stages, or the merge after a layer if `block` is None."""

    block: SwinBlock | None
    before: str
    after: str


def rollout(model: Model, clips: ArrayLike, target: Target = 0, stage: str | None = None) -> Attribution:
    """Compute attention rollout: `row = (row + row @ A) / 2` per block, from the pooled features back to `stage`.

    `row` is each token's share of the pooled features, at first uniform; A is the attention, averaged over heads;
    `stage` is a block's input, by default "patch_embed". The map does not depend on the target. `completeness_gap` is
    the share of the initial sum of 1 that is lost to the padding of windows.

    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, arXiv:2005.00928.
    """
    context = prepare_explanation(model, clips, target)
    return rollout_from_pass(context, run_pass(context, attention_stages(context, stage)), stage)


def gradient_rollout(model: Model, clips: ArrayLike, target: Target, stage: str | None = None) -> Attribution:
    """Compute gradient rollout: `row = row + row @ mean_heads(relu(A * dscore/dA))` per block, back to `stage`.

    The path without attention is subtracted: it is equal for all tokens and would hide the rest.

    Reference: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", 2021, arXiv:2103.15679.
    """
    context = prepare_explanation(model, clips, target)
    return gradient_rollout_from_pass(context, run_pass(context, attention_stages(context, stage)), stage)


def last_attention(model: Model, clips: ArrayLike, target: Target = 0) -> Attribution:
    """Average the last block's attention over tokens and heads: a baseline that does not depend on the target."""
    context = prepare_explanation(model, clips, target)
    *_, last_step = _steps(context)
    pass_result = run_pass(context, [last_step.before])
    assert last_step.block is not None
    x = pass_result.activations[last_step.before]
    values = _attend(last_step.block, x, _uniform_row(x))
    return Attribution(to_numpy(values), last_step.after, False, 1, "last_attention")


def rollout_from_pass(context: ExplainContext, pass_result: PassResult, stage: str | None) -> Attribution:
    steps, x = _path(context, stage), pass_result.activations
    row = _uniform_row(x[steps[-1].before])
    for block, before, _ in reversed(steps):
        row = _split_merged(row, x[before].shape[1:4]) if block is None else (row + _attend(block, x[before], row)) / 2
    values = to_numpy(row)
    return Attribution(values, steps[0].before, False, 1, "rollout", 1 - values.sum((1, 2, 3)))


def gradient_rollout_from_pass(context: ExplainContext, pass_result: PassResult, stage: str | None) -> Attribution:
    steps, x = _path(context, stage), pass_result.activations
    row = identity_row = _uniform_row(x[steps[-1].before])
    for block, before, after in reversed(steps):
        if block is None:
            row, identity_row = (_split_merged(r, x[before].shape[1:4]) for r in (row, identity_row))
        else:
            row = row + _attend(block, x[before], row, pass_result.gradients[after])
    return Attribution(to_numpy(row - identity_row), steps[0].before, False, 3, "gradient_rollout")


def attention_stages(context: ExplainContext, stage: str | None) -> list[str]:
    """Return the inputs and outputs of all blocks from `stage` to the pooled features."""
    return list(dict.fromkeys(name for step in _path(context, stage) for name in (step.before, step.after)))


def globally_mixed_stages(context: ExplainContext) -> list[str]:
    """Return the stages of a Video Swin after the first block whose windows span the whole frame; empty otherwise.

    Each token there may contain information from the whole frame, so a token map need not locate the cause.
    """
    if not isinstance(context.score_model.model, VideoSwin):
        return []
    order = [name for name, shape in context.shapes.items() if len(shape) == 5]
    spanning_stages = [
        step.after
        for step in _steps(context)
        if step.block is not None
        and all(w >= n for w, n in zip(step.block.window[1:], context.shapes[step.before][2:4]))
    ]
    return order[order.index(spanning_stages[0]) :] if spanning_stages else []


def attention_weights(block: SwinBlock, x: Float[Array, "b t h w c"]) -> Float[Array, "m heads n n"]:
    """Return the attention weights of each window of `block` for input `x`; rows are queries and sum to 1."""
    return _weights_and_values(block, *_windows(block, block.norm1(x)))[0]


def _steps(context: ExplainContext) -> list[RolloutStep]:
    model = context.score_model.model
    if not isinstance(model, VideoSwin):
        raise ValueError(
            f"attention maps need a VideoSwin, got a {type(model).__name__}; attn_lrp works for any network"
        )
    steps, before = [], "patch_embed"
    for i, layer in enumerate(model.layers):
        for j, block in enumerate(layer.blocks):
            steps.append(RolloutStep(block, before, after := f"layers.{i}.blocks.{j}"))
            before = after
        if layer.downsample is not None:
            steps.append(RolloutStep(None, before, before := f"layers.{i}.downsample"))
    return steps


def _path(context: ExplainContext, stage: str | None) -> list[RolloutStep]:
    steps = _steps(context)
    starts = [step.before for step in steps]
    if stage is not None and stage not in starts:
        raise ValueError(f"attention maps need a block's input as stage, one of {', '.join(starts)}; got {stage}")
    return steps if stage is None else steps[starts.index(stage) :]


@jax.jit
def _uniform_row(x: Float[Array, "b t h w c"]) -> TokenRow:
    shape = x.shape[:4]
    return jnp.full(shape, 1 / (shape[1] * shape[2] * shape[3]))


@partial(jax.jit, static_argnames="sizes")
def _split_merged(row: TokenRow, sizes: tuple[int, int, int]) -> Float[Array, "b t h2 w2"]:
    """Divide each merged token's value evenly among its tokens: four, or fewer at the border."""
    repeated = row.repeat(2, 2).repeat(2, 3)[:, :, : sizes[1], : sizes[2]]
    counts = [jnp.minimum(2, n - jnp.arange(n) // 2 * 2).astype(row.dtype) for n in sizes[1:]]
    return repeated / (counts[0][:, None] * counts[1][None, :])[None, None]


@jax.jit
def _attend(block: SwinBlock, x: Array, row: TokenRow, gradient: Array | None = None) -> TokenRow:
    """Return `row @ A`, averaged over heads; with the gradient at the block's output, `row @ relu(A * dscore/dA)`."""
    b, t, h, w = row.shape
    windows, regions, grid, window, shift = _windows(block, block.norm1(x))
    weights, values = _weights_and_values(block, windows, regions, grid, window, shift)
    if gradient is not None:
        weights = jax.nn.relu(weights * _gradient_of_weights(block, x, gradient, weights, values))
    parts = _windows(block, row[..., None])[0][..., 0]
    parts = jnp.einsum("mn,mhnk->mk", parts, weights) / block.attn.heads
    back = jnp.roll(from_windows(parts[..., None], b, grid, window), shift, (1, 2, 3))
    return back[:, :t, :h, :w, 0]


def _windows(block: SwinBlock, x: Array) -> tuple[Array, Array | None, Triple, Triple, Triple]:
    """Return the block's windows of x, the regions of their tokens, and the padded grid, window and shift."""
    sizes = [(min(n, w), s if n > w else 0) for n, w, s in zip(x.shape[1:4], block.window, block.shift)]
    (p, a), (q, b), (r, c) = sizes
    window, shift = (p, q, r), (a, b, c)
    x = pad_to_multiple(x, window)
    grid = (x.shape[1], x.shape[2], x.shape[3])
    regions = jnp.tile(region_of_token(grid, window, shift), (len(x), 1)) if any(shift) else None
    return to_windows(jnp.roll(x, [-s for s in shift], (1, 2, 3)), window), regions, grid, window, shift


def _weights_and_values(block: SwinBlock, x: Array, regions: Array | None, *_) -> tuple[Array, Array]:
    attn = block.attn
    m, n, c = x.shape
    q, k, v = attn.qkv(x).reshape(m, n, 3, attn.heads, -1).transpose(2, 0, 3, 1, 4)
    table = attn.relative_position_bias_table[...].T
    scores = jnp.einsum("mhnd,mhkd->mhnk", q * (c // attn.heads) ** -0.5, k)
    scores = scores + relative_position_bias(table, attn.window, n)[None]
    if regions is not None:
        r = regions[:, None]
        scores = scores - jnp.minimum(100 * jnp.abs(r[..., :, None] - r[..., None, :]), 100)
    return jax.nn.softmax(scores), v


def _gradient_of_weights(block: SwinBlock, x: Array, gradient: Array, weights: Array, values: Array) -> Array:
    """Return dscore/dA, from the gradient at the block's output back through its MLP and projection."""
    m, heads, n, d = values.shape
    mixed = jnp.einsum("mhnk,mhkd->mnhd", weights, values).reshape(m, n, heads * d)
    _, _, grid, window, shift = _windows(block, x)
    b, t, h, w, c = x.shape

    def after_attention(mixed: Array) -> Array:
        y = from_windows(block.attn.proj(mixed), b, grid, window)
        y = x + jnp.roll(y, shift, (1, 2, 3))[:, :t, :h, :w]
        return y + block.mlp(block.norm2(y).reshape(-1, c)).reshape(y.shape)

    mixed_gradient = jax.vjp(after_attention, mixed)[1](gradient)[0].reshape(m, n, heads, d)
    return jnp.einsum("mnhd,mhkd->mhnk", mixed_gradient, values)
