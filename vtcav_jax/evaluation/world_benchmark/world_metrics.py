"""Metrics of maps against the known cause: 0 is chance, 1 is perfect, negative is worse than chance.

Only the positive part of a map counts, as mass on a grid of cells. An empty map scores like a uniform one, and ties are
resolved as by chance.

Each metric yields values between 0 and 1 per clip, and their chance level. Skill is computed from their means over
clips: the mean of skills per clip would not be 0 for an uninformative map if chance differs from 1/2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.evaluation.faithfulness.localisation import (
    LocalisationScores,
    dilate,
    score_localisation,
    score_temporal_localisation,
)

Mass = Float[np.ndarray, "n t h w"]
WorldMetricPerClip = Float[np.ndarray, " n"]
Parts = Float[np.ndarray, "parts 2 n"]  # values and chance levels of each part of a metric; NaN if undefined


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Known cause of one question in each clip, on the grid of cells.

    `core` are the cells of the cause and `rest` those clear of it; cells in neither are next to the cause and do not
    count. `target_boxes` and `distractor_boxes` are the shares of each cell under the boxes of the question's object
    and of the distracting one. `event` are the steps at which the cause is visible. `areas` are the shares under each
    removable entity, the scene last, and `effects` the entities' shares of the total loss of score. `contrast_masks`
    are pairs of another head and the shares of cells where maps for that head should have less mass; NaN in clips to
    which this does not apply.
    """

    core: Bool[np.ndarray, "n t h w"]
    rest: Bool[np.ndarray, "n t h w"]
    areas: Float[np.ndarray, "n e t h w"]
    effects: Float[np.ndarray, "n e"]
    target_boxes: Mass | None = None
    distractor_boxes: Mass | None = None
    event: Bool[np.ndarray, "n t"] | None = None
    contrast_masks: tuple[tuple[str, Mass], ...] = ()


def normalise_map(maps: Float[np.ndarray, "n t1 h1 w1"], sizes: tuple[int, int, int]) -> Mass:
    """Return the positive part of each map on a grid of `sizes`, with sum 1; all 0 for an empty map."""
    cells = area_resize(np.maximum(maps, 0).astype(np.float64), sizes).astype(np.float64)
    total = cells.sum((1, 2, 3), keepdims=True)
    return np.divide(cells, total, out=np.zeros_like(cells), where=total > 0)


def core_and_rest(
    mask: Float[np.ndarray, "n t h w"], *, everywhere: bool, halo: int = 1
) -> tuple[Bool[np.ndarray, "n t h w"], Bool[np.ndarray, "n t h w"]]:
    """Return the core and the rest of a cause, from the share of each cell that it covers.

    The core of a small cause are all cells that it touches; `halo` cells around it are in neither. There is no halo in
    time, so that maps which smear over time lose. If the cause is `everywhere`, the core are the cells that it covers
    entirely, and the rest those that it covers by less than half.
    """
    if everywhere:
        return mask >= 1 - 1e-6, mask < 0.5
    core = mask > 0
    return core, ~dilate(core, halo)


def compute_world_metrics(maps: Mass, ground_truth: GroundTruth, other_maps: Mapping[str, Mass]) -> dict[str, Parts]:
    """Return the metrics that apply; `other_maps` are maps of the same clips for other heads."""
    parts_by_metric = {}
    space = maps.shape[2:] != (1, 1)
    if space:
        parts_by_metric["WHERE"] = where_parts(maps, ground_truth)
    if ground_truth.target_boxes is not None and ground_truth.distractor_boxes is not None and space:
        parts_by_metric["WHO"] = who_parts(maps, ground_truth.target_boxes, ground_truth.distractor_boxes)
    if ground_truth.event is not None:
        parts_by_metric["WHEN"] = when_parts(maps, ground_truth.event)
    if space and (
        contrasts := [(mask, other_maps[name]) for name, mask in ground_truth.contrast_masks if name in other_maps]
    ):
        parts_by_metric["WHAT-FOR"] = np.stack([target_contrast(maps, other, mask) for mask, other in contrasts])
    if space:
        parts_by_metric["EFFECT"] = effect_parts(maps, ground_truth)
    return parts_by_metric


def where_parts(maps: Mass, ground_truth: GroundTruth) -> Parts:
    """Return the parts of WHERE: AUROC, mass on the core, and the share of the top cells (as many) in the core."""
    values, core, rest = (m.reshape(len(m), -1) for m in (maps, ground_truth.core, ground_truth.rest))
    return _parts(score_localisation(values, core, core | rest), "auroc", "mass", "rank")


def who_parts(maps: Mass, target_boxes: Mass, distractor_boxes: Mass) -> Parts:
    """Return the mass density on the target box over the sum of both boxes' densities; NaN if a box is not visible."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = ((maps * box).sum((1, 2, 3)) / box.sum((1, 2, 3)) for box in (target_boxes, distractor_boxes))
        share = np.where(a + b > 0, a / (a + b), 0.5)
    return with_chance(np.where(np.isnan(a) | np.isnan(b), np.nan, share), 0.5)[None]


def when_parts(maps: Mass, event: Bool[np.ndarray, "n t"]) -> Parts:
    """Return the parts of WHEN: AUROC, mass on the event, and whether the strongest step is in it."""
    return _parts(score_temporal_localisation(maps, event), "auroc", "mass", "hit")


def _parts(result: LocalisationScores, *names: str) -> Parts:
    return np.stack([[result.scores[name], result.chance[name]] for name in names]).astype(np.float64)


def target_contrast(maps: Mass, other_maps: Mass, mask: Mass) -> Float[np.ndarray, "2 n"]:
    """Return 1 if the mask has more mass of the map than of the other head's map, 0 if less, 1/2 if equal."""
    a, b = (mass_inside(m, mask) for m in (maps, other_maps))
    comparison = np.where(np.isclose(a, b, rtol=1e-5, atol=1e-9), 0.5, a > b)
    return with_chance(np.where(np.isnan(a), np.nan, comparison), 0.5)


def mass_inside(maps: Mass, mask: Mass) -> WorldMetricPerClip:
    """Return the share of the mass in the mask; for an empty map, that of a uniform map."""
    empty = maps.sum((1, 2, 3)) == 0
    return np.where(empty, mask.mean((1, 2, 3)), (maps * mask).sum((1, 2, 3)))


def effect_parts(maps: Mass, ground_truth: GroundTruth) -> Parts:
    """Return the agreement of each entity's share of mass with its share of the loss; chance is a uniform map."""
    even = ground_truth.areas.mean((2, 3, 4))
    share = np.einsum("nthw,nethw->ne", maps, ground_truth.areas)
    share = np.where(share.sum(1, keepdims=True) > 0, share, even)
    near = [1 - np.abs(s / s.sum(1, keepdims=True) - ground_truth.effects).sum(1) / 2 for s in (share, even)]
    return np.stack(near)[None]


def stable_parts(maps: Mass, redrawn: Mass, core: Bool[np.ndarray, "n t h w"]) -> Parts:
    """Return 1 minus the relative change of the mass on the core; an empty map counts as a uniform one."""
    a, b = (mass_inside(m, core.astype(np.float64)) for m in (maps, redrawn))
    largest = np.maximum(a, b)
    return with_chance(1 - np.divide(np.abs(a - b), largest, out=np.zeros_like(largest), where=largest > 0), 0.0)[None]


def with_chance(values: WorldMetricPerClip, chance: float) -> Float[np.ndarray, "2 n"]:
    values = np.asarray(values, np.float64)
    return np.stack([values, np.where(np.isnan(values), np.nan, chance)])


def chance_corrected(value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return the skill: 0 at chance, 1 at best, at least -1.

    A loss is divided by the same range as a gain, so that an uninformative map has mean 0; except if chance > 1/2,
    where it is divided by chance, which bounds it by -1.
    """
    gain = value - chance
    left = np.where(gain > 0, 1 - chance, np.maximum(chance, 1 - chance))
    return np.divide(gain, left, out=np.zeros_like(gain), where=left > 0)
