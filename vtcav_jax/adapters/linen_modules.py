"""Networks from `flax.linen` modules; every submodule is a stage, by its name in the parameters."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen
from jaxtyping import Array

from vtcav_jax.adapters.stages import (
    Classes,
    Tokens,
    adapt,
    axes_of,
    make_layout,
    number_calls,
    source_identity,
    stable_repr,
    tap_output,
)
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Tap

WEIGHTS_SUFFIX = ".weights"  # stage of the attention probabilities of a module


def from_linen(
    module: linen.Module,
    variables: Mapping[str, Any],
    *,
    clip: ClipSpec,
    classes: Classes | None = None,
    layout: str = "bthwc",
    arguments: Mapping[str, Any] | None = None,
    logits: Callable[[Any], Array] = lambda output: output,
    grids: Mapping[str, Tokens | str] | None = None,
    name: str | None = None,
) -> Network:
    """Return the network of a linen module with its variables.

    Stages are the submodules by their path, such as `encoder.block_1.conv`, in the order in which they run; a further
    call of the same submodule is `encoder.block_1.conv#2`. Attention modules also have `attention.weights`, the
    probabilities (b, heads, queries, keys). Submodules inside `nn.scan`, `nn.remat` or `nn.jit` are no stages.

    Args:
        variables: as for `module.apply`, with batch statistics.
        arguments: further arguments of the module's call, such as `{"train": False}`.
        logits: selects the logits of the output.
        classes: class names, or for several heads the names by head; by default the numbers of the logits.
        layout: axes of the video, bthwc, bcthw or btchw. Clips of the package are always (b, t, h, w, c).
        grids: for stages (b, n, c), by name or pattern, where their tokens are.
    """
    axes, stage_layout, further = axes_of(layout), make_layout(grids), dict(arguments or {})

    def run(variables: Any, video: Array, tap: Tap) -> Any:
        stage_tap = number_calls(lambda stage, value: stage_layout.apply(tap, stage, value))

        def intercept(next_call, args, kwargs, context):
            stage = ".".join(context.module.path)
            if not stage or context.method_name != "__call__":
                return next_call(*args, **kwargs)
            if isinstance(context.module, linen.MultiHeadDotProductAttention):
                output = _call_attention(next_call, args, kwargs, context.module, stage, stage_tap)
            else:
                output = next_call(*args, **kwargs)
            return tap_output(output, partial(stage_tap, stage))

        with linen.intercept_methods(intercept):
            return logits(module.apply(variables, jnp.transpose(video, axes), **further))

    return adapt(
        run,
        dict(variables),
        identity=source_identity(type(module)) + stable_repr(module) + layout + stable_repr(further),
        clip=clip,
        classes=classes,
        name=name or type(module).__name__,
        grids=grids,
    )


def _call_attention(
    next_call: Callable[..., Array],
    args: tuple,
    kwargs: dict[str, Any],
    module: linen.MultiHeadDotProductAttention,
    stage: str,
    tap: Tap,
) -> Array:
    """Run an attention module whose probabilities pass the tap, if it uses linen's own attention."""
    if module.attention_fn is not linen.dot_product_attention:
        return next_call(*args, **kwargs)

    def attention(query: Array, key: Array, value: Array, bias=None, mask=None, **options: Any) -> Array:
        weights = linen.dot_product_attention_weights(query, key, bias, mask, **options)
        return jnp.einsum("...hqk,...khd->...qhd", tap(f"{stage}{WEIGHTS_SUFFIX}", weights), value)

    # A bound module is frozen; the attribute is restored before anybody else sees it
    object.__setattr__(module, "attention_fn", attention)
    try:
        return next_call(*args, **kwargs)
    finally:
        object.__setattr__(module, "attention_fn", linen.dot_product_attention)
