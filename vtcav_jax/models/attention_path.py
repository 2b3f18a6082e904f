"""The path of attention through a network, which attention maps follow backwards.

A network with attention has a method `attention_path`, which returns its steps in forward order. A block on the path
has a method `attention_parts`, which takes the block's inputs and returns its attention operations in forward order.
Inputs and outputs are a grid of tokens `(b, t, h, w, c)`, or a class token `(b, c)` and a grid.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Float

Tokens = tuple[Array, ...]


def same_tokens(*values: Array) -> Tokens:
    return values


class AttentionParts(NamedTuple):
    """An attention operation in groups of tokens, `softmax(queries keys' / sqrt(d) + bias + mask) values`.

    Three functions are linear and take any number of channels: `split` brings a block's inputs into groups of keys,
    `merge` brings groups of queries into the form of its outputs, and `bypass` brings inputs to outputs as the residual
    connection does. Where a block pools tokens, `split` and `bypass` take their mean. `finish` computes the block's
    outputs from the attention's result for all heads.
    """

    queries: Float[Array, "g heads n d"]
    keys: Float[Array, "g heads m d"]
    values: Float[Array, "g heads m d"]
    split: Callable[..., Float[Array, "g m c"]]
    merge: Callable[[Float[Array, "g n c"]], Tokens]
    finish: Callable[[Float[Array, "g n heads*d"]], Tokens]
    bias: Float[Array, "#g heads n m"] | None = None
    mask: Float[Array, "g n m"] | None = None
    bypass: Callable[..., Tokens] | None = same_tokens  # None if the queries are not tokens of the clip


class AttentionStep(NamedTuple):
    """A block with attention, or a layer without that takes the mean of neighbouring tokens (`mean`)."""

    block: Any  # has `attention_parts`; None if there is a `mean`
    before: tuple[str, ...]  # stages of the block's inputs, the grid last
    after: tuple[str, ...]  # stages of the block's outputs; what the head reads first
    inputs: Callable[..., Tokens] = same_tokens  # from the values at `before` to the block's inputs
    mean: Callable[[Float[Array, "b t h w"]], Float[Array, "b t2 h2 w2"]] | None = None
    window: tuple[int, int] | None = None  # height and width of a group of tokens; None: the whole frame


def class_token_path(
    class_token: Callable[[Array], Array], blocks: Sequence[Any], embeddings: str, prefix: str
) -> list[AttentionStep]:
    """Return the path through blocks of a class token, which `class_token` returns for a grid, and a grid.

    `embeddings` is the first grid, and `prefix` the name of a block without its number.
    """

    def with_token(x: Array) -> Tokens:
        return class_token(x), x

    names = [f"{prefix}.{i}" for i in range(len(blocks))]
    outputs: list[tuple[str, ...]] = [(f"{name}.class_token", name) for name in names]
    outputs[-1] = outputs[-1][:1]  # nothing reads the last grid
    first = AttentionStep(blocks[0], (embeddings,), outputs[0], with_token)
    return [first, *(AttentionStep(*step) for step in zip(blocks[1:], outputs[:-1], outputs[1:], strict=True))]
