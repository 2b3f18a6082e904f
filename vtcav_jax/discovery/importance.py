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
from vtcav_jax.models import Network

HeadRange = tuple[int, int]


def head_ranges(network: Network) -> tuple[HeadRange, ...]:
    """Return the range of logits of each head."""
    return tuple((where.start, where.stop) for where in network.head_slices.values())


def predicted_lead(start: int, stop: int, logits: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Return the logit of the predicted class of a head, minus the mean of the head's logits."""
    head = logits[:, start:stop]
    return head.max(-1) - head.mean(-1)


@partial(jax.jit, static_argnames=("heads", "stages"))
def lead_gradients(
    model: Any, video: Float[Array, "b t h w 3"], heads: Sequence[HeadRange], stages: Sequence[str]
) -> tuple[dict[str, Float[Array, "b t2 h2 w2 c"]], dict[str, Float[Array, "heads b t2 h2 w2 c"]]]:
    """Return activations, and the gradients of the lead of each head's predicted class, by stage."""
    results = [
        taps.activations_and_gradients(model, video, Partial(partial(predicted_lead, *head)), stages) for head in heads
    ]
    grids = {stage: as_grid(results[0].activations[stage]) for stage in stages}
    return grids, {stage: jnp.stack([as_grid(result.gradients[stage]) for result in results]) for stage in stages}


@jax.jit
def importance_of_codes(
    codes: Float[Array, "b t h w k"], gradients: Float[Array, "heads b t h w c"], directions: Float[Array, "k c"]
) -> Float[Array, "heads b k"]:
    """Return the importance of each concept in each clip, for each head."""
    return (codes[None] * (gradients @ directions.T)).sum((2, 3, 4))


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
    grids, gradients = lead_gradients(model, video, heads, stages)
    if motion_only:
        still = taps.activations(model, freeze_clips(video), stages)[1]
        grids = {stage: grid - as_grid(still[stage]) for stage, grid in grids.items()}
    by_stage = {}
    for stage, dictionary in dictionaries.items():
        codes = encode_tokens(method, dictionary, grids[stage] - means[stage][None])
        by_stage[stage] = importance_of_codes(codes, gradients[stage], dictionary.directions)
    return by_stage
