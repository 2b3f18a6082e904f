"""What a map gets right against what is known of the clips: 0 is chance, 1 all there is to get, less than 0 is worse.

Maps count by their positive part, as mass on a grid of cells. A map without any mass says nothing, and gets what an
even one gets; ties count as chance would have them.

Of each clip an axis has values between 0 and 1 and what chance gives; only their means over clips become a skill. Skill
clip by clip would not be 0 on average for a map that knows nothing, where chance is far from a half.
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
Parts = Float[np.ndarray, "parts 2 n"]  # of each part of an axis the values and those of chance; NaN: cannot be told


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is known of clips about one question, on the grid of cells.

    `core` holds the cause and `rest` nothing of it; what is in neither is next to the cause and does not count.
    `own` and `other` are the shares of each cell under the boxes of what is asked about and of its double. `event`
    are the steps in which something happens. `areas` are the shares under everything that can be taken out, the scene
    last, and `effects` the shares of the score that go with each. `unlike` are, by the name of another question, the
    shares of cells of which its maps must show less; NaN in clips where they need not.
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
    """The positive part on a grid of `sizes`, of each map summing to 1, and 0 everywhere where there is none."""
    cells = area_resize(np.maximum(maps, 0).astype(np.float64), sizes).astype(np.float64)
    total = cells.sum((1, 2, 3), keepdims=True)
    return np.divide(cells, total, out=np.zeros_like(cells), where=total > 0)


def core_and_rest(
    mask: Float[np.ndarray, "n t h w"], *, everywhere: bool, halo: int = 1
) -> tuple[Bool[np.ndarray, "n t h w"], Bool[np.ndarray, "n t h w"]]:
    """Core and rest of a cause, from the share of each cell that shows it.

    What is small is at the core of each cell that it touches, and `halo` cells around that do not count; there is no
    halo in time, as maps that smear over time are to be told from those that do not. Of what is `everywhere` those
    cells are the core that show nothing else, and the rest those that show more of something else.
    """
    if everywhere:
        return mask >= 1 - 1e-6, mask < 0.5
    core = mask > 0
    return core, ~dilate(core, halo)


def compute_world_metrics(maps: Mass, ground_truth: GroundTruth, other_maps: Mapping[str, Mass]) -> dict[str, Parts]:
    """Every axis that applies; `others` are the maps for other questions about the same clips."""
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
    """By order (AUROC), by mass, and of the strongest cells, as many as the core has."""
    values, core, rest = (m.reshape(len(m), -1) for m in (maps, ground_truth.core, ground_truth.rest))
    return _parts(score_localisation(values, core, core | rest), "auroc", "mass", "rank")


def who_parts(maps: Mass, target_boxes: Mass, distractor_boxes: Mass) -> Parts:
    """The share of what is asked about in its density and its double's; NaN where one of them is not seen."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = ((maps * box).sum((1, 2, 3)) / box.sum((1, 2, 3)) for box in (target_boxes, distractor_boxes))
        share = np.where(a + b > 0, a / (a + b), 0.5)
    return with_chance(np.where(np.isnan(a) | np.isnan(b), np.nan, share), 0.5)[None]


def when_parts(maps: Mass, event: Bool[np.ndarray, "n t"]) -> Parts:
    """By order, by mass, and of the strongest step."""
    return _parts(score_temporal_localisation(maps, event), "auroc", "mass", "hit")


def _parts(result: LocalisationScores, *names: str) -> Parts:
    return np.stack([[result.scores[name], result.chance[name]] for name in names]).astype(np.float64)


def target_contrast(maps: Mass, other_maps: Mass, mask: Mass) -> Float[np.ndarray, "2 n"]:
    """1 where the mask has more of the map than of the other question's, 0 where less, a half where as much."""
    a, b = (mass_inside(m, mask) for m in (maps, other_maps))
    comparison = np.where(np.isclose(a, b, rtol=1e-5, atol=1e-9), 0.5, a > b)
    return with_chance(np.where(np.isnan(a), np.nan, comparison), 0.5)


def mass_inside(maps: Mass, mask: Mass) -> WorldMetricPerClip:
    """The share of the mass in the mask; of an empty map what an even one has."""
    empty = maps.sum((1, 2, 3)) == 0
    return np.where(empty, mask.mean((1, 2, 3)), (maps * mask).sum((1, 2, 3)))


def effect_parts(maps: Mass, ground_truth: GroundTruth) -> Parts:
    """How near the mass of everything in the clip is to what the score loses without it; chance is an even map."""
    even = ground_truth.areas.mean((2, 3, 4))
    share = np.einsum("nthw,nethw->ne", maps, ground_truth.areas)
    share = np.where(share.sum(1, keepdims=True) > 0, share, even)
    near = [1 - np.abs(s / s.sum(1, keepdims=True) - ground_truth.effects).sum(1) / 2 for s in (share, even)]
    return np.stack(near)[None]


def stable_parts(maps: Mass, redrawn: Mass, core: Bool[np.ndarray, "n t h w"]) -> Parts:
    """1 less the relative change of the mass at the cause; a map that says nothing is as stable as can be."""
    a, b = (mass_inside(m, core.astype(np.float64)) for m in (maps, redrawn))
    largest = np.maximum(a, b)
    return with_chance(1 - np.divide(np.abs(a - b), largest, out=np.zeros_like(largest), where=largest > 0), 0.0)[None]


def with_chance(values: WorldMetricPerClip, chance: float) -> Float[np.ndarray, "2 n"]:
    values = np.asarray(values, np.float64)
    return np.stack([values, np.where(np.isnan(values), np.nan, chance)])


def chance_corrected(value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """0 at chance, 1 at the best.

    A loss is measured as a gain is, so that what knows nothing has 0 on average; but where there is more to lose than
    to gain, by all that there is to lose, so that no loss outweighs every gain.
    """
    gain = value - chance
    left = np.where(gain > 0, 1 - chance, np.maximum(chance, 1 - chance))
    return np.divide(gain, left, out=np.zeros_like(gain), where=left > 0)
