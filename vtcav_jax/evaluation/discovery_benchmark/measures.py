"""Measures of discovered concepts, as arrays of draws: the estimate, then bootstrap resamples of the scored clips."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vtcav_jax.discovery.completeness import above_chance, reproduced
from vtcav_jax.evaluation.discovery_benchmark.concepts import CLIPS_PER_BATCH, Grids
from vtcav_jax.models import Network
from vtcav_jax.stats.roc import area_under_roc, weighted_area_under_roc

Draws = Float[np.ndarray, " draws"]
Weights = Float[np.ndarray, "draws n"]


def match_concepts(
    scores: Float[np.ndarray, "n k"], is_value: Sequence[Bool[np.ndarray, " n"]]
) -> Int[np.ndarray, " values"]:
    """Return the concept of each value, one to one, with the largest sum of AUROCs; there are at least as many."""
    from scipy.optimize import linear_sum_assignment

    auroc = np.array([[area_under_roc(column, positive) for column in scores.T] for positive in is_value])
    return linear_sum_assignment(np.nan_to_num(auroc, nan=0.5), maximize=True)[1]


def auroc_draws(
    scores: Float[np.ndarray, "n values"], is_value: Sequence[Bool[np.ndarray, " n"]], weights: Weights
) -> Draws:
    """Return the AUROC of each value's score, averaged over values."""
    values = [weighted_area_under_roc(score, p, ~p, weights) for score, p in zip(scores.T, is_value, strict=True)]
    return np.nanmean(values, 0)


def readout_draws(
    scores: Float[np.ndarray, "n k"], predictions: Int[np.ndarray, " n"], weights: Float[np.ndarray, "draws half"]
) -> Draws:
    """Return the share of a head's predictions above chance that a linear readout of the scores reproduces.

    The readout is fitted to the first half of the clips and tested on the second, which `weights` resamples.
    """
    first = np.arange(len(scores)) < len(scores) // 2
    hits = reproduced(scores, predictions, first, ~first)
    return above_chance(weights @ hits / weights.sum(1), predictions[~first])


def one_to_one_cosines(first: Float[np.ndarray, "k c"], second: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
    """Return the cosine of each direction with its partner in the other dictionary, with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    cosines = first @ second.T
    return cosines[linear_sum_assignment(cosines, maximize=True)]


@partial(jax.jit, static_argnames="stage")
def logits_without(
    model: Any,
    stage: str,
    grids: Float[Array, "n t h w c"],
    codes: Float[Array, "k n t h w"],
    directions: Float[Array, "k _ 1 1 1 c"],
    video: Float[Array, "n frames height width 3"],
) -> Float[Array, "k n logits"]:
    """Return the logits after each concept's contribution, codes times direction, is subtracted at the stage.

    The network before the stage does not run: the compiled program contains only what the logits depend on.
    """

    def run(concept: tuple[Array, Array]) -> Array:
        code, direction = concept
        value = grids - code[..., None] * direction
        return model(video, lambda name, x: value.astype(x.dtype) if name == stage else x)

    return jax.lax.map(run, (codes, directions))


def lead_losses(
    network: Network,
    stage: str,
    grids: Grids,
    codes: Float[np.ndarray, "k n t h w"],
    directions: Float[np.ndarray, "k ..."],
    logits: Float[np.ndarray, "n logits"],
) -> Float[np.ndarray, "heads n k"]:
    """Return what the lead of each head's predicted class loses without each concept.

    Directions are `(k, c)`, or `(k, n, 1, 1, 1, c)` if they differ between clips.
    """
    after = []
    directions = directions[:, None, None, None, None] if directions.ndim == 2 else directions
    for start in range(0, len(grids), CLIPS_PER_BATCH):
        rows = slice(start, start + CLIPS_PER_BATCH)
        batch_directions = directions[:, rows] if directions.shape[1] > 1 else directions
        zeros = np.zeros((len(grids[rows]), *network.clip_spec.shape), np.float32)
        after.append(logits_without(network.model, stage, grids[rows], codes[:, rows], batch_directions, zeros))
    remaining = head_leads(network, np.concatenate(after, 1), logits)
    return np.moveaxis(head_leads(network, logits[None], logits) - remaining, 1, 2)


def head_leads(
    network: Network, values: Float[np.ndarray, "k n logits"], logits: Float[np.ndarray, "n logits"]
) -> Float[np.ndarray, "heads k n"]:
    """Return the lead in `values` of the classes that `logits` predict, by head."""
    leads, clips = [], np.arange(len(logits))
    for where in network.head_slices.values():
        head = values[..., where]
        leads.append(head[:, clips, logits[:, where].argmax(1)] - head.mean(-1))
    return np.stack(leads)


def rank_draws(
    importance: Float[np.ndarray, "n k"],
    losses: Float[np.ndarray, "m k"],
    weights: tuple[Weights, Float[np.ndarray, "draws m"]],
) -> Draws:
    """Return the Spearman correlation over concepts of importance in some clips with losses in other clips."""
    from scipy.stats import rankdata

    ranks = [rankdata(w @ values, axis=1) for w, values in zip(weights, (importance, losses), strict=True)]
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
