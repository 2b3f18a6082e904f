"""The path of attention through a network, which attention maps follow backwards.

A network with attention has a method `attention_path`, which returns its steps in forward order. A block on the path
has a method `attention_parts`, which takes the block's inputs and returns its attention operations in forward order.
Inputs and outputs are a grid of tokens `(b, t, h, w, c)`, or a class token `(b, c)` and a grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

Tokens = tuple[Array, ...]


class AttentionParts(NamedTuple):
    """An attention operation in groups of tokens, `softmax(queries keys' / sqrt(d) + bias + mask) values`.

    `split` brings a block's inputs, with any number of channels, into groups, and `merge` brings groups into the form
    of its outputs. `finish` computes the block's outputs from the attention's result for all heads.
    """

    queries: Float[Array, "g heads n d"]
    keys: Float[Array, "g heads m d"]
    values: Float[Array, "g heads m d"]
    split: Callable[..., Float[Array, "g m c"]]
    merge: Callable[[Float[Array, "g n c"]], Tokens]
    finish: Callable[[Float[Array, "g n heads*d"]], Tokens]
    bias: Float[Array, "heads n m"] | None = None
    mask: Float[Array, "g n m"] | None = None
    residual: bool = True  # False if the queries are not tokens of the clip, so that nothing bypasses the attention


def same_tokens(*values: Array) -> Tokens:
    return values


class AttentionStep(NamedTuple):
    """A block with attention, or a layer without that takes the mean of neighbouring tokens (`mean`)."""

    block: Any  # has `attention_parts`; None if there is a `mean`
    before: tuple[str, ...]  # stages of the block's inputs, the grid last
    after: tuple[str, ...]  # stages of the block's outputs; what the head reads first
    inputs: Callable[..., Tokens] = same_tokens  # from the values at `before` to the block's inputs
    mean: Callable[[Float[Array, "b t h w"]], Float[Array, "b t2 h2 w2"]] | None = None
    window: tuple[int, int] | None = None  # height and width of a group of tokens; None: the whole frame
