"""What one removal at a stroke does: the cells that matter taken away, left alone, or the clip dimmed by its map."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.sanity_checks import pearson
from vtcav_jax.evaluation.faithfulness.insertion_deletion import LEVELS, Curves, Each
from vtcav_jax.evaluation.faithfulness.masked_inference import Shown, blended, dimmed
from vtcav_jax.evaluation.faithfulness.partition import Maps, named, on_cells
from vtcav_jax.evaluation.faithfulness.robustness import Explainer

DROP_COST = 1  # passes of each clip for each map


def comprehensiveness(found: Curves, levels: tuple[float, ...] = LEVELS) -> Each:
    """The mean fall of the probability without the top cells (DeYoung et al., 2020): high if they were needed."""
    return _falls(found.shown_probability[..., -1:], found.removed_probability, found, levels)


def sufficiency(found: Curves, levels: tuple[float, ...] = LEVELS) -> Each:
    """The mean fall of the probability with the top cells alone: low if they were enough."""
    return _falls(found.shown_probability[..., -1:], found.shown_probability, found, levels)


@dataclass(frozen=True, eq=False)
class Drop:
    """The clip dimmed by its map, its values stretched to 0 to 1, against the clip (Chattopadhay et al., 2018).

    `drop` is the share of the probability that is lost, `increase` whether it rises instead, `gain` how much of what
    was missing to 1 it gains. A flat map dims nothing and loses nothing: no number here means anything without
    `complexity`, the mean of the stretched map.
    """

    names: tuple[str, ...]
    drop: Each
    increase: Each
    gain: Each
    complexity: Each


def average_drop(shown: Shown, maps: Maps) -> Drop:
    """A map that is the same everywhere shows the whole clip."""
    shares = stretched(on_cells(maps, shown.cells, shown.clips))
    m, b, n = shares.shape
    found = blended(shown, np.tile(np.arange(b), m), shares.reshape(m * b, n))
    after, before = found.probability.reshape(m, b), shown.whole.probability[None]
    rise = after - before
    known = np.where(np.isfinite(rise), 1, np.nan).astype(np.float32)
    return Drop(
        tuple(named(maps)),
        np.maximum(-rise, 0) / before,
        (rise > 0) * known,
        np.maximum(rise, 0) / np.maximum(1 - before, np.finfo(np.float32).eps),
        np.average(shares, axis=-1, weights=np.broadcast_to(shown.cells.volumes, shares.shape)).astype(np.float32),
    )


def stretched(values: Float[np.ndarray, "m b n"]) -> Float[np.ndarray, "m b n"]:
    """From 0 to 1 in each clip; 1 where all is the same."""
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    return np.where(high > low, (values - low) / np.where(high > low, high - low, 1), 1).astype(np.float32)


def coherency(explainer: Explainer, shown: Shown, one: Attribution) -> Float[np.ndarray, " b"]:
    """Is the map of the clip dimmed by its map the same map? Their correlation, as 0 to 1.

    `explainer` is what made `one`; it is asked once more.
    """
    shares = stretched(on_cells([one], shown.cells, shown.clips))[0]
    again = explainer(shown.what.score_model.model, dimmed(shown, shares), shown.what.score_model.target)
    return ((1 + pearson(one.map, again.map)) / 2).astype(np.float32)


def adcc(coherency: Each, complexity: Each, drop: Each) -> Each:
    """The harmonic mean of coherency, simplicity and what is not lost (Poppi et al., 2021); 0 where one of them is.

    `coherency` is a number of this name, for each map.
    """
    parts = np.stack([coherency, 1 - complexity, 1 - drop])
    if (parts < 0).any() or (parts > 1).any():
        raise ValueError("coherency, complexity and drop must be within 0 and 1; a correlation r is (1 + r) / 2 of it")
    with np.errstate(divide="ignore"):
        return (3 / (1 / parts).sum(0)).astype(np.float32)


def _falls(
    before: Float[np.ndarray, "m b 1"], after: Float[np.ndarray, "m b g"], found: Curves, levels: tuple[float, ...]
) -> Each:
    return (before - after[..., [found.column(level) for level in levels]]).mean(-1).astype(np.float32)
