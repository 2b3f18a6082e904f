"""Metrics of single removals: without the top cells, with only these, or with the clip dimmed by its map."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.sanity_checks import pearson
from vtcav_jax.evaluation.faithfulness.insertion_deletion import REMOVAL_LEVELS, PerMapAndClip, RemovalCurves
from vtcav_jax.evaluation.faithfulness.masked_inference import MaskedClips, blend_cells, dim_by_map
from vtcav_jax.evaluation.faithfulness.partition import NamedMaps, name_maps, pool_to_cells
from vtcav_jax.evaluation.faithfulness.robustness import Explainer

DROP_COST = 1  # forward passes per clip and map


def comprehensiveness(curves: RemovalCurves, levels: tuple[float, ...] = REMOVAL_LEVELS) -> PerMapAndClip:
    """Return the mean drop of the probability without the top cells (DeYoung et al., 2020): high if needed."""
    return _falls(curves.shown_probability[..., -1:], curves.removed_probability, curves, levels)


def sufficiency(curves: RemovalCurves, levels: tuple[float, ...] = REMOVAL_LEVELS) -> PerMapAndClip:
    """Return the mean drop of the probability with only the top cells: low if they suffice."""
    return _falls(curves.shown_probability[..., -1:], curves.shown_probability, curves, levels)


@dataclass(frozen=True, eq=False)
class Drop:
    """Effect of multiplying the clip by its map, scaled to 0 to 1 (Chattopadhay et al., 2018).

    `drop` is the relative loss of probability, `increase` whether it rises instead, `gain` its rise relative to 1 minus
    the probability of the clip. A constant map dims nothing and loses nothing, so read these together with
    `complexity`, the mean of the scaled map.
    """

    names: tuple[str, ...]
    drop: PerMapAndClip
    increase: PerMapAndClip
    gain: PerMapAndClip
    complexity: PerMapAndClip


def average_drop(masked: MaskedClips, maps: NamedMaps) -> Drop:
    """Compute the effect of dimming each clip by each map; a constant map leaves the whole clip."""
    shares = min_max_normalise(pool_to_cells(maps, masked.partition, masked.n_clips))
    m, b, n = shares.shape
    scores = blend_cells(masked, np.tile(np.arange(b), m), shares.reshape(m * b, n))
    after, before = scores.probability.reshape(m, b), masked.full_scores.probability[None]
    rise = after - before
    known = np.where(np.isfinite(rise), 1, np.nan).astype(np.float32)
    return Drop(
        tuple(name_maps(maps)),
        np.maximum(-rise, 0) / before,
        (rise > 0) * known,
        np.maximum(rise, 0) / np.maximum(1 - before, np.finfo(np.float32).eps),
        np.average(shares, axis=-1, weights=np.broadcast_to(masked.partition.volumes, shares.shape)).astype(np.float32),
    )


def min_max_normalise(values: Float[np.ndarray, "m b n"]) -> Float[np.ndarray, "m b n"]:
    """Scale values to 0 to 1 in each clip; constant values become 1."""
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    return np.where(high > low, (values - low) / np.where(high > low, high - low, 1), 1).astype(np.float32)


def coherency(explainer: Explainer, masked: MaskedClips, attribution: Attribution) -> Float[np.ndarray, " b"]:
    """Return the correlation, scaled to 0 to 1, of a map with the map of the clip dimmed by it.

    `explainer` is the method that computed `attribution`.
    """
    shares = min_max_normalise(pool_to_cells([attribution], masked.partition, masked.n_clips))[0]
    second_attribution = explainer(
        masked.context.score_model.model, dim_by_map(masked, shares), masked.context.score_model.target
    )
    return ((1 + pearson(attribution.map, second_attribution.map)) / 2).astype(np.float32)


def adcc(coherency: PerMapAndClip, complexity: PerMapAndClip, drop: PerMapAndClip) -> PerMapAndClip:
    """Return the harmonic mean of coherency, 1 - complexity and 1 - drop (Poppi et al., 2021); 0 if one of them is."""
    parts = np.stack([coherency, 1 - complexity, 1 - drop])
    if (parts < 0).any() or (parts > 1).any():
        raise ValueError(
            "coherency, complexity and drop must be within 0 and 1; convert a correlation r to (1 + r) / 2"
        )
    with np.errstate(divide="ignore"):
        return (3 / (1 / parts).sum(0)).astype(np.float32)


def _falls(
    before: Float[np.ndarray, "m b 1"],
    after: Float[np.ndarray, "m b g"],
    curves: RemovalCurves,
    levels: tuple[float, ...],
) -> PerMapAndClip:
    return (before - after[..., [curves.column(level) for level in levels]]).mean(-1).astype(np.float32)
