"""Measures of discovered concepts, as arrays of draws: the estimate, then bootstrap resamples of the scored clips."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vtcav_jax import tap as taps
from vtcav_jax.discovery.importance import predicted_lead
from vtcav_jax.evaluation.discovery_benchmark.concepts import (
    CLIPS_PER_BATCH,
    VALUES_PER_FACTOR,
    Grids,
    fit_readout,
)
from vtcav_jax.evaluation.tcav_benchmark.table import weighted_auroc
from vtcav_jax.models import Network
from vtcav_jax.stats.roc import area_under_roc

Draws = Float[np.ndarray, " draws"]
Weights = Float[np.ndarray, "draws n"]
CHANCE = 1 / VALUES_PER_FACTOR  # accuracy of each head


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
    values = [weighted_auroc(*args, weights) for args in zip(scores.T, is_value, (~p for p in is_value), strict=True)]
    return np.nanmean(values, 0)


def readout_draws(
    scores: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, " n"],
    is_right: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws half"],
) -> Draws:
    """Return the accuracy of a linear readout of the scores over that of the head, both above chance.

    The readout is fitted to the first half of the clips, and both accuracies are those of the second half, which
    `weights` resamples.
    """
    half = len(scores) // 2
    slopes, intercepts = fit_readout(scores[:half], labels[:half], VALUES_PER_FACTOR)
    predicted = (scores[half:] @ slopes + intercepts).argmax(1)
    total = weights.sum(1)
    readout, head = (weights @ right / total - CHANCE for right in (predicted == labels[half:], is_right[half:]))
    return readout / head


def one_to_one_cosines(first: Float[np.ndarray, "k c"], second: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
    """Return the cosine of each direction with its partner in the other dictionary, with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    cosines = first @ second.T
    return cosines[linear_sum_assignment(cosines, maximize=True)]


def importance_by_clip(
    codes: Float[np.ndarray, "n t h w k"], gradients: Float[np.ndarray, "heads n t h w c"], directions: np.ndarray
) -> Float[np.ndarray, "heads n k"]:
    """Return the importance of `concept_importance`, from gradients that all dictionaries of a stage share."""
    k = len(directions)
    products = [
        (codes * (head @ directions.T)).reshape(len(codes), -1, k).sum(1) for head in gradients.astype(np.float32)
    ]
    return np.stack(products)


def lead_gradients(
    network: Network, video: Float[np.ndarray, "n frames height width 3"], stages: tuple[str, ...], batch_size: int
) -> dict[str, Float[np.ndarray, "heads n t h w c"]]:
    """Return the gradients of the lead of each head's predicted class, by stage."""
    by_stage: dict[str, list[np.ndarray]] = {stage: [] for stage in stages}
    for where in network.head_slices.values():
        score = jax.tree_util.Partial(partial(predicted_lead, where.start, where.stop))
        parts = [
            taps.activations_and_gradients(network.model, video[i : i + batch_size], score, stages).gradients
            for i in range(0, len(video), batch_size)
        ]
        for stage in stages:
            by_stage[stage].append(np.concatenate([np.asarray(part[stage]) for part in parts]))
    return {stage: np.stack(values) for stage, values in by_stage.items()}


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
