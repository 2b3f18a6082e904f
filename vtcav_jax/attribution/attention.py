"""Attention maps, propagated from what the head reads back to the patches, for networks with an `attention_path`.

Networks do not store their attention, so weights are recomputed from each block's input, head by head. Only the row of
the head's input is propagated, as one value per token, through windows, frames and merges: a matrix over all tokens
would take gigabytes per block.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.score_model import ExplainContext, PassResult, prepare_explanation, run_pass, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.attention_path import AttentionParts, AttentionStep, Tokens
from vtcav_jax.models.video_swin import at_least_float32
from vtcav_jax.tap import Model

TokenRow = tuple[Array, ...]  # share of what the head reads that comes from each token: a grid, or class token and grid


def rollout(model: Model, clips: ArrayLike, target: Target = 0, stage: str | None = None) -> Attribution:
    """Compute attention rollout: `row = (row + row @ A) / 2` per attention, from what the head reads back to `stage`.

    `row` is each token's share of what the head reads: at first 1 for a class token or pooled query, or uniform if the
    network takes the mean of its tokens; A is the attention, averaged over heads; `stage` is the grid that a block
    reads, by default the first. The map does not depend on the target. `completeness_gap` is the share of the initial
    sum of 1 that is lost to the padding of windows or belongs to the class token.

    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, arXiv:2005.00928.
    """
    context = prepare_explanation(model, clips, target)
    return rollout_from_pass(context, run_pass(context, attention_stages(context, stage)), stage)


def gradient_rollout(model: Model, clips: ArrayLike, target: Target, stage: str | None = None) -> Attribution:
    """Compute gradient rollout: `row = row + row @ mean_heads(relu(A * dscore/dA))` per attention, back to `stage`.

    The path without attention is subtracted: where the network takes the mean of its tokens it is equal for all of
    them and would hide the rest.

    Reference: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", 2021, arXiv:2103.15679.
    """
    context = prepare_explanation(model, clips, target)
    return gradient_rollout_from_pass(context, run_pass(context, attention_stages(context, stage)), stage)


def last_attention(model: Model, clips: ArrayLike, target: Target = 0) -> Attribution:
    """Return the last block's attention from what the head reads, averaged over heads: independent of the target.

    If the network takes the mean of its tokens, this is the mean over queries. Attention within frames and along time
    is multiplied.
    """
    context = prepare_explanation(model, clips, target)
    *_, step = _steps(context)
    row = _row_before_block(step.block, _inputs(step, run_pass(context, step.before)), _initial_row(context, step))
    stage = next(name for name in (*reversed(step.after), step.before[-1]) if len(context.shapes[name]) == 5)
    return Attribution(to_numpy(row[-1]), stage, False, 1, "last_attention")


def rollout_from_pass(context: ExplainContext, pass_result: PassResult, stage: str | None) -> Attribution:
    steps = _path(context, stage)
    row = _initial_row(context, steps[-1])
    for step in reversed(steps):
        if step.mean is not None:
            row = _row_before_mean(context, step, row)
        else:
            row = _rollout_before_block(step.block, _inputs(step, pass_result), row)
    values = to_numpy(row[-1])
    return Attribution(values, steps[0].before[-1], False, 1, "rollout", 1 - values.sum((1, 2, 3)))


def gradient_rollout_from_pass(context: ExplainContext, pass_result: PassResult, stage: str | None) -> Attribution:
    steps = _path(context, stage)
    row = identity_row = _initial_row(context, steps[-1])
    for step in reversed(steps):
        if step.mean is not None:
            row, identity_row = (_row_before_mean(context, step, r) for r in (row, identity_row))
        else:
            gradients = tuple(pass_result.gradients[name] for name in step.after)
            inputs = _inputs(step, pass_result)
            row, identity_row = _gradient_rows_before_block(step.block, inputs, row, identity_row, gradients)
    values = to_numpy(row[-1] - identity_row[-1])
    return Attribution(values, steps[0].before[-1], False, 3, "gradient_rollout")


def attention_stages(context: ExplainContext, stage: str | None) -> list[str]:
    """Return the stages of the inputs and outputs of all blocks from `stage` on."""
    return list(dict.fromkeys(name for step in _path(context, stage) for name in (*step.before, *step.after)))


def globally_mixed_stages(context: ExplainContext) -> list[str]:
    """Return the stages after the first attention that spans the whole frame; empty if the network has none.

    Each token there may contain information from the whole frame, so a token map need not locate the cause.
    """
    if not hasattr(context.score_model.model, "attention_path"):
        return []
    order = [name for name, shape in context.shapes.items() if len(shape) == 5]
    spanning_stages = [
        name
        for step in _steps(context)
        if step.mean is None
        and all(w >= n for w, n in zip(step.window or (math.inf,) * 2, context.shapes[step.before[-1]][2:4]))
        for name in step.after
        if name in order
    ]
    return order[order.index(spanning_stages[0]) :] if spanning_stages else []


def _steps(context: ExplainContext) -> list[AttentionStep]:
    model = context.score_model.model
    if not hasattr(model, "attention_path"):
        raise ValueError(
            "attention maps need a network with a method attention_path, such as Video Swin or VideoMAE, and this one "
            "has none; use attn_lrp, which works for any network"
        )
    return model.attention_path()


def _path(context: ExplainContext, stage: str | None) -> list[AttentionStep]:
    steps = _steps(context)
    starts = [step.before[-1] for step in steps]
    if stage is not None and stage not in starts:
        raise ValueError(f"attention maps need a block's input as stage, one of {', '.join(starts)}; got {stage}")
    return steps if stage is None else steps[starts.index(stage) :]


def _inputs(step: AttentionStep, pass_result: PassResult) -> Tokens:
    return step.inputs(*(pass_result.activations[name] for name in step.before))


def _initial_row(context: ExplainContext, step: AttentionStep) -> TokenRow:
    """Return 1 for the class token or pooled query that the head reads, or a uniform row over the grid."""
    b, *grid, _ = context.shapes[step.after[0]]
    return (jnp.full((b, *grid), 1 / math.prod(grid), at_least_float32(context.video.dtype)),)


def _row_before_mean(context: ExplainContext, step: AttentionStep, row: TokenRow) -> TokenRow:
    """Divide each merged token's value evenly among its tokens."""
    assert step.mean is not None
    before = jax.ShapeDtypeStruct(context.shapes[step.before[0]][:4], row[0].dtype)
    return jax.linear_transpose(step.mean, before)(*row)


@jax.jit
def _row_before_block(block: Any, inputs: Tokens, row: TokenRow) -> TokenRow:
    for parts in reversed(block.attention_parts(*inputs)):
        row = _times_attention(parts, inputs, _complete(row, parts))
    return row


@jax.jit
def _rollout_before_block(block: Any, inputs: Tokens, row: TokenRow) -> TokenRow:
    for parts in reversed(block.attention_parts(*inputs)):
        row = _complete(row, parts)
        if parts.bypass is not None:
            # A class token without part in attention along time keeps its value, all others divide it
            taking_part = _without_channels(parts.merge)(jnp.ones(parts.queries.shape[::2], row[0].dtype))
            row = tuple(value / (1 + part) for value, part in zip(row, taking_part, strict=True))
            row = _sum(_transpose(parts.bypass, inputs, row), _times_attention(parts, inputs, row))
        else:
            row = _times_attention(parts, inputs, row)
    return row


@jax.jit
def _gradient_rows_before_block(
    block: Any, inputs: Tokens, row: TokenRow, identity_row: TokenRow, gradients: Tokens
) -> tuple[TokenRow, TokenRow]:
    for parts in reversed(block.attention_parts(*inputs)):
        row, identity_row = (_complete(r, parts) for r in (row, identity_row))
        attended = _times_attention(parts, inputs, row, gradients)
        if parts.bypass is None:
            row, identity_row = attended, jax.tree.map(jnp.zeros_like, attended)
        else:
            row, identity_row = (_transpose(parts.bypass, inputs, r) for r in (row, identity_row))
            row = _sum(row, attended)
    return row, identity_row


def _times_attention(parts: AttentionParts, inputs: Tokens, row: TokenRow, gradients: Tokens | None = None) -> TokenRow:
    """Return `row @ A`, averaged over heads; with gradients at the block's outputs, `row @ relu(A * dscore/dA)`."""
    groups, heads, n, d = parts.queries.shape
    wide = row[0].dtype
    (group_row,) = jax.linear_transpose(_without_channels(parts.merge), jax.ShapeDtypeStruct((groups, n), wide))(row)
    per_head = (parts.queries, parts.keys, parts.values, parts.bias)
    by_head = [None if a is None else jnp.moveaxis(a, 1, 0) for a in per_head]

    def weights_of(q: Array, k: Array, bias: Array | None) -> Float[Array, "g n m"]:
        scores = jnp.einsum("gnd,gmd->gnm", q * d**-0.5, k, preferred_element_type=wide)
        scores = scores if bias is None else scores + bias
        return jax.nn.softmax(scores if parts.mask is None else scores + parts.mask)

    slopes = None
    if gradients is not None:
        mixed = jax.lax.map(lambda head: weights_of(head[0], head[1], head[3]) @ head[2], by_head)
        mixed = jnp.moveaxis(mixed, 0, 2).reshape(groups, n, heads * d).astype(parts.values.dtype)
        outputs, pullback = jax.vjp(parts.finish, mixed)
        missing = tuple(jnp.zeros_like(output) for output in outputs[len(gradients) :])
        slopes = jnp.moveaxis(pullback((*gradients, *missing))[0].reshape(groups, n, heads, d), 2, 0)

    def add_head(total: Array, head: tuple[Any, ...]) -> tuple[Array, None]:
        q, k, v, bias, slope = head
        weights = weights_of(q, k, bias)
        if slope is not None:
            weights = jax.nn.relu(weights * jnp.einsum("gnd,gmd->gnm", slope, v, preferred_element_type=wide))
        return total + jnp.einsum("gn,gnm->gm", group_row, weights), None

    total, _ = jax.lax.scan(add_head, jnp.zeros(parts.keys.shape[::2], wide), (*by_head, slopes))
    return _transpose(parts.split, inputs, total / heads)


def _transpose(f: Callable[..., Any], inputs: Tokens, values: Any) -> TokenRow:
    """Return the product of `values`, one per output of the linear function `f`, with the matrix of `f`."""
    shapes = [jax.ShapeDtypeStruct(x.shape[:-1], jax.tree.leaves(values)[0].dtype) for x in inputs]
    return jax.linear_transpose(_without_channels(f), *shapes)(values)


def _without_channels(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return `f` for values without the axis of channels."""
    return lambda *values: jax.tree.map(lambda y: y[..., 0], f(*(x[..., None] for x in values)))


def _complete(row: TokenRow, parts: AttentionParts) -> TokenRow:
    """Add zeros for outputs of the block that nothing reads: the grid after the last block of a class token."""
    shape = jax.ShapeDtypeStruct(parts.queries.shape[::2], row[0].dtype)
    outputs = jax.eval_shape(_without_channels(parts.merge), shape)
    return (*row, *(jnp.zeros(output.shape, output.dtype) for output in outputs[len(row) :]))


def _sum(a: TokenRow, b: TokenRow) -> TokenRow:
    return jax.tree.map(jnp.add, a, b)
