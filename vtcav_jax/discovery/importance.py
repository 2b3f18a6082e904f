"""Importance of concepts: how much the predicted classes' scores lose without a concept, to first order.

A concept contributes `z * direction` to the activation at each place. Its importance for a head is the sum over places
of that contribution times the gradient of the lead of the predicted class (its logit minus the mean of its head), so it
is the lead that the clip would lose without the concept if the network were linear from the stage on.

Any direction changes the class scores of any network, also of one with random weights, so the interval of an importance
says nothing about whether the network uses the concept. `random_direction_p` compares it with random directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vtcav_jax import tap as taps
from vtcav_jax.console import progress
from vtcav_jax.data.loader import stream
from vtcav_jax.discovery.activation_grids import as_grid, freeze_clips
from vtcav_jax.discovery.dictionaries import Dictionary, encode_tokens
from vtcav_jax.discovery.passes import VideoPasses
from vtcav_jax.models import Network

HeadRange = tuple[int, int]


@dataclass(frozen=True)
class ConceptImportance:
    """Importance of the concepts of one stage in clips of different source videos."""

    by_head: Float[np.ndarray, "heads n k"]
    random_p: Float[np.ndarray, " k"]  # of the sum over heads, against random directions
    videos: list[str]


def measure_importance(
    passes: VideoPasses,
    positions: Sequence[int],
    dictionaries: Mapping[str, Dictionary],
    means: Mapping[str, Float[np.ndarray, "t h w c"]],
) -> dict[str, ConceptImportance]:
    """Return the importance of each concept in the first readable videos at `positions`, by stage."""
    network, config = passes.reader.network, passes.config
    sampling = replace(passes.sampling, normalise=False, clips_per_video=1)
    reads = stream(passes.source, network.clip_spec, sampling, positions=positions, num_workers=0)
    readable = list(islice((read for read in reads if read.clip is not None), config.importance_videos))
    videos = [read.item.source_video for read in readable]
    parts: dict[str, list[np.ndarray]] = {stage: [] for stage in dictionaries}
    batches = [readable[i : i + passes.batch_size] for i in range(0, len(readable), passes.batch_size)]
    for batch in progress(batches, len(readable), "videos to measure importance"):
        frames = np.stack([read.clip.video[0] for read in batch if read.clip is not None])
        frames = np.concatenate([frames, np.repeat(frames[-1:], passes.batch_size - len(frames), 0)])
        result = weighted_gradients(
            network.model,
            passes.reader.place(frames),
            dict(dictionaries),
            dict(means),
            head_ranges(network),
            config.discovery,
            config.motion_only,
        )
        for stage, values in result.items():
            parts[stage].append(np.asarray(values)[:, : len(batch)])
    out = {}
    for stage, dictionary in dictionaries.items():
        weighted, directions = np.concatenate(parts[stage], 1), np.asarray(dictionary.directions)
        p = random_direction_p(weighted.sum(0).mean(0), directions)
        out[stage] = ConceptImportance(importance_of(weighted, directions), p, videos)
    return out


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


@partial(jax.jit, static_argnames=("heads", "method", "motion_only"))
def weighted_gradients(
    model: Any,
    video: Float[Array, "b t h w 3"],
    dictionaries: Mapping[str, Dictionary],
    means: Mapping[str, Float[Array, "t2 h2 w2 c"]],
    heads: Sequence[HeadRange],
    method: str,
    motion_only: bool,
) -> dict[str, Float[Array, "heads b k c"]]:
    """Return `weigh_by_codes` of each head and concept in each clip, by stage."""
    stages = tuple(dictionaries)
    grids, gradients = lead_gradients(model, video, heads, stages)
    if motion_only:
        still = taps.activations(model, freeze_clips(video), stages)[1]
        grids = {stage: grid - as_grid(still[stage]) for stage, grid in grids.items()}
    by_stage = {}
    for stage, dictionary in dictionaries.items():
        codes = encode_tokens(method, dictionary, grids[stage] - means[stage][None])
        by_stage[stage] = weigh_by_codes(codes, gradients[stage])
    return by_stage


@jax.jit
def weigh_by_codes(
    codes: Float[Array, "b t h w k"], gradients: Float[Array, "heads b t h w c"]
) -> Float[Array, "heads b k c"]:
    """Return the sum of the gradients over places, weighted by the codes of each concept."""
    return jnp.einsum("bthwk,pbthwc->pbkc", codes, gradients)


def importance_of(
    weighted: Float[np.ndarray, "heads b k c"], directions: Float[np.ndarray, "k c"]
) -> Float[np.ndarray, "heads b k"]:
    """Return the importance of each concept in each clip, for each head."""
    return (weighted * directions).sum(-1)


def random_direction_p(
    gradients: Float[np.ndarray, "k c"], directions: Float[np.ndarray, "k c"]
) -> Float[np.ndarray, " k"]:
    """Return the probability that a random direction has at least a concept's importance, with the same codes.

    `gradients` are the mean weighted gradients. The cosine of a vector with a random direction in c dimensions is
    2 B - 1, where B has a beta distribution with both parameters (c - 1) / 2. NaN with one channel.
    """
    from scipy.stats import beta

    lengths = np.linalg.norm(gradients, axis=1) * np.linalg.norm(directions, axis=1)
    cosines = (gradients * directions).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    half = (directions.shape[1] - 1) / 2
    return beta.sf((1 + cosines) / 2, half, half)
