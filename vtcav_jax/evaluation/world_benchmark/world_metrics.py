"""Metrics of maps against the true map of a network: 0 is a random order of the cells, 1 that of the true map.

The true map spreads the network's loss of score without each object evenly over the object. Only the order of a map's
cells counts: its values are replaced by those of the true map in the same order, ties at random. So no monotone change
of a map, such as sharpening, changes its scores, no map scores above the true one, and an empty map scores at chance.

Each metric compares quantities of the reordered map, such as the mass on the cause, with those of the true map. It
yields the agreement between 0 and 1 per clip, and its mean over random orders. Skill is computed from their means over
clips: the mean of skills per clip would not be 0 for an uninformative map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.evaluation.faithfulness.localisation import dilate, score_localisation, score_temporal_localisation

Mass = Float[np.ndarray, "n t h w"]
WorldMetricPerClip = Float[np.ndarray, " n"]
Parts = Float[np.ndarray, "parts 2 n"]  # agreement and chance level of each part of a metric; NaN if undefined
Quantities = dict[str, list[WorldMetricPerClip]]  # by metric

READINGS = ("net", "gross")  # smoothed before and after the negative part is removed, or only after
WORLD_SIZE = 32  # pixels of the worlds with cells of CELL_SHAPE
CELL_SHAPE = (2, 4, 4)  # frames and pixels of a cell in a world of this size
SMOOTHING = (0.75, 1.5)  # standard deviations in frames and in pixels of such a world
RANDOM_ORDERS = 5
TIE_DIGITS = 6  # of the largest value: smaller differences are rounding
CLEAR_CONTRAST = 0.01  # least difference of a mask's mean rank, as a share of all cells, in the true maps of two heads


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Known cause of one question in each clip, on the grid of cells.

    `true_map` has the network's true effects, with sum 1; `other_true_maps` are those of other heads. `core` are the
    cells of the cause and `rest` those clear of it; cells in neither are next to the cause and do not count.
    `target_boxes` and `distractor_boxes` are the shares of each cell under the boxes of the question's object and of
    the distracting one. `event` are the steps at which the cause is visible. `areas` are the shares under each
    removable entity, the scene last. `contrast_masks` are pairs of another head and the shares of cells to which the
    maps of both heads should give different ranks; NaN in clips to which this does not apply.
    """

    true_map: Mass
    core: Bool[np.ndarray, "n t h w"]
    rest: Bool[np.ndarray, "n t h w"]
    areas: Float[np.ndarray, "n e t h w"]
    target_boxes: Mass | None = None
    distractor_boxes: Mass | None = None
    event: Bool[np.ndarray, "n t"] | None = None
    contrast_masks: tuple[tuple[str, Mass], ...] = ()
    other_true_maps: Mapping[str, Mass] = field(default_factory=dict)

    @cached_property
    def true_quantities(self) -> Quantities:
        return map_quantities(self.true_map, self)

    @cached_property
    def chance(self) -> Quantities:
        """Mean agreement of random maps, smoothed like all maps, with the true map."""
        n, *cells = self.true_map.shape
        voxels = tuple(count * size for count, size in zip(cells, CELL_SHAPE))
        random = np.random.default_rng(0)
        maps = (random.random((n, *voxels), np.float32) for _ in range(RANDOM_ORDERS))
        return self._expected_agreement([read_map(m, voxels, tuple(cells), "net") for m in maps], self.true_map)

    @cached_property
    def chance_in_time(self) -> Quantities:
        """Mean agreement of random orders of the steps with the true map, for maps that only vary over time."""
        true_map, random = self.true_map.sum((2, 3), keepdims=True), np.random.default_rng(0)
        return self._expected_agreement([random.random(true_map.shape) for _ in range(RANDOM_ORDERS)], true_map)

    def _expected_agreement(self, maps: Sequence[Mass], true_map: Mass) -> Quantities:
        orders = (reorder(cells, true_map) for cells in maps)
        agreements = [agreement(map_quantities(order, self), self.true_quantities) for order in orders]
        return {
            name: [np.mean([other[name][i] for other in agreements], 0) for i in range(len(parts))]
            for name, parts in agreements[0].items()
        }


def read_map(
    maps: Float[np.ndarray, "n t1 h1 w1"], voxels: tuple[int, int, int], cells: tuple[int, int, int], reading: str
) -> Mass:
    """Return the maps on a grid of `cells`, smoothed at the size of `voxels`, with values of at least 0.

    All maps are smoothed a little, by less than a cell, so that smoothing a map before it is scored gains nothing.
    """
    from scipy.ndimage import gaussian_filter

    pixels = SMOOTHING[1] * voxels[1] / WORLD_SIZE

    def smooth(values: Mass) -> Mass:
        in_time = gaussian_filter(values, SMOOTHING[0], axes=(1,), mode="nearest")
        return gaussian_filter(in_time, pixels, axes=(2, 3), mode="wrap")

    values = area_resize(maps, voxels).astype(np.float64)
    values = np.maximum(smooth(values) if reading == "net" else values, 0)
    return area_resize(smooth(values), cells).astype(np.float64)


def normalise_mass(cells: Mass) -> Mass:
    """Return the cells of each clip with sum 1; all 0 for an empty map."""
    total = cells.sum((1, 2, 3), keepdims=True)
    return np.divide(cells, total, out=np.zeros_like(cells, dtype=np.float64), where=total > 0)


def reorder(cells: Mass, true_map: Mass) -> Mass:
    """Return the values of the true map in the order of the cells of each clip; ties are in random order."""
    values = _round_ties(cells)
    places = np.lexsort((np.random.default_rng(0).random(values.shape), values), axis=-1)
    out = np.empty(values.shape)
    np.put_along_axis(out, places, np.sort(true_map.reshape(len(true_map), -1), 1), 1)
    return out.reshape(cells.shape)


def _round_ties(cells: Mass) -> Float[np.ndarray, "n cells"]:
    values = cells.reshape(len(cells), -1)
    largest = np.abs(values).max(1, keepdims=True)
    return np.round(np.divide(values, largest, out=np.zeros_like(values), where=largest > 0), TIE_DIGITS)


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


def compute_world_metrics(cells: Mass, ground_truth: GroundTruth, other_cells: Mapping[str, Mass]) -> dict[str, Parts]:
    """Return the metrics that apply; `other_cells` are maps of the same clips for other heads."""
    in_time = cells.shape[2:] == (1, 1)
    true_map = ground_truth.true_map.sum((2, 3), keepdims=True) if in_time else ground_truth.true_map
    values = agreement(map_quantities(reorder(cells, true_map), ground_truth), ground_truth.true_quantities)
    chance = ground_truth.chance_in_time if in_time else ground_truth.chance
    parts_by_metric = {name: np.stack([values[name], chance[name]], 1) for name in values}
    if not in_time:
        contrasts = [
            target_contrast((cells, other_cells[head]), (true_map, ground_truth.other_true_maps[head]), mask)
            for head, mask in ground_truth.contrast_masks
            if head in other_cells
        ]
        if contrasts := [parts for parts in contrasts if not np.isnan(parts).all()]:
            parts_by_metric["WHAT-FOR"] = np.stack(contrasts)
    return parts_by_metric


def agreement(quantities: Quantities, true_quantities: Quantities) -> Quantities:
    """Return 1 minus the absolute difference of each quantity; EFFECT is an agreement already."""
    return {
        name: [1 - np.abs(value - true) for value, true in zip(values, true_quantities[name])]
        for name, values in quantities.items()
    }


def map_quantities(mass: Mass, ground_truth: GroundTruth) -> Quantities:
    """Return what the metrics WHERE, WHO, WHEN and EFFECT compare, between 0 and 1 per clip.

    WHERE: AUROC, mass on the core, and the share of the top cells (as many) in it. WHO: mass density on the target box
    over the sum of both boxes' densities; NaN if a box is not visible. WHEN: AUROC and mass of the event's steps, and
    whether the strongest step is one of them. EFFECT: 1 minus half the distance between the entities' shares of mass.
    """
    out: Quantities = {}
    if mass.shape[2:] != (1, 1):
        values, core, rest = (m.reshape(len(m), -1) for m in (mass, ground_truth.core, ground_truth.rest))
        located = score_localisation(values, core, core | rest).scores
        out["WHERE"] = [located[name].astype(np.float64) for name in ("auroc", "mass", "rank")]
        if ground_truth.target_boxes is not None and ground_truth.distractor_boxes is not None:
            out["WHO"] = [_target_share(mass, ground_truth.target_boxes, ground_truth.distractor_boxes)]
        shares, true_shares = (entity_shares(m, ground_truth.areas) for m in (mass, ground_truth.true_map))
        out["EFFECT"] = [1 - np.abs(shares - true_shares).sum(1) / 2]
    if ground_truth.event is not None:
        timed = score_temporal_localisation(mass, ground_truth.event).scores
        out["WHEN"] = [timed[name].astype(np.float64) for name in ("auroc", "mass", "hit")]
    return out


def _target_share(mass: Mass, target_boxes: Mass, distractor_boxes: Mass) -> WorldMetricPerClip:
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = ((mass * box).sum((1, 2, 3)) / box.sum((1, 2, 3)) for box in (target_boxes, distractor_boxes))
        share = np.where(a + b > 0, a / (a + b), 0.5)
    return np.where(np.isnan(a) | np.isnan(b), np.nan, share)


def entity_shares(mass: Mass, areas: Float[np.ndarray, "n e t h w"]) -> Float[np.ndarray, "n e"]:
    """Return the share of the mass on each entity."""
    shares = np.einsum("nthw,nethw->ne", mass, areas)
    return shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)


def target_contrast(maps: tuple[Mass, Mass], true_maps: tuple[Mass, Mass], mask: Mass) -> Float[np.ndarray, "2 n"]:
    """Return 1 if maps for two heads differ in the mean rank of the mask's cells as the true maps do, 0 if contrarily.

    Equal ranks, such as those of a map that ignores the head, yield 1/2, which is chance. Clips in which the true maps
    hardly differ do not count.
    """
    difference, true_difference = (mean_rank(a, mask) - mean_rank(b, mask) for a, b in (maps, true_maps))
    same = np.where(np.isclose(difference, 0, atol=1e-9), 0.5, np.sign(difference) == np.sign(true_difference))
    is_clear = np.abs(true_difference) > CLEAR_CONTRAST  # False where NaN
    return with_chance(np.where(is_clear, same, np.nan), 0.5)


def mean_rank(cells: Mass, mask: Mass) -> WorldMetricPerClip:
    """Return the mean rank of the mask's cells among all, from 0 to 1; ties have their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(_round_ties(cells), axis=1).reshape(cells.shape) / cells[0].size
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))


def stable_parts(mass: Mass, redrawn: Mass, core: Bool[np.ndarray, "n t h w"]) -> Parts:
    """Return 1 minus the relative change of the mass on the core, both maps reordered."""
    a, b = ((m * core).sum((1, 2, 3)) for m in (mass, redrawn))
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
