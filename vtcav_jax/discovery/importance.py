"""Importance of concepts: how much the predicted classes' scores lose without a concept, to first order.

A concept contributes `z * direction` to the activation at each place. Its importance for a head is the sum over places
of that contribution times the gradient of the lead of the predicted class (its logit minus the mean of its head), so it
is the lead that the clip would lose without the concept if the network were linear from the stage on.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vtcav_jax import tap as taps
from vtcav_jax.discovery.activation_grids import as_grid, freeze_clips
from vtcav_jax.discovery.dictionaries import Dictionary, encode_tokens

HeadRange = tuple[int, int]


def predicted_lead(start: int, stop: int, logits: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Return the logit of the predicted class of a head, minus the mean of the head's logits."""
    head = logits[:, start:stop]
    return head.max(-1) - head.mean(-1)


@partial(jax.jit, static_argnames=("heads", "method", "motion_only"))
def concept_importance(
    model: Any,
    video: Float[Array, "b t h w 3"],
    dictionaries: Mapping[str, Dictionary],
    means: Mapping[str, Float[Array, "t2 h2 w2 c"]],
    heads: Sequence[HeadRange],
    method: str,
    motion_only: bool,
) -> dict[str, Float[Array, "heads b k"]]:
    """Return the importance of each concept in each clip, for each head, by stage."""
    stages = tuple(dictionaries)
    still = taps.activations(model, freeze_clips(video), stages)[1] if motion_only else None
    by_stage: dict[str, list[Array]] = {stage: [] for stage in stages}
    for start, stop in heads:
        result = taps.activations_and_gradients(model, video, Partial(partial(predicted_lead, start, stop)), stages)
        for stage, dictionary in dictionaries.items():
            grid, gradient = as_grid(result.activations[stage]), as_grid(result.gradients[stage])
            if still is not None:
                grid = grid - as_grid(still[stage])
            codes = encode_tokens(method, dictionary, grid - means[stage][None])
            by_stage[stage].append((codes * (gradient @ dictionary.directions.T)).sum((1, 2, 3)))
    return {stage: jnp.stack(values) for stage, values in by_stage.items()}
