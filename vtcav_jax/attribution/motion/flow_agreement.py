"""Agreement of the motion part of a map, and of the map itself, with the moving pixels of its clip.

The precision of a motion part against flow comes from the code that followed selective relevance (2021); here flow is
measured in pixels, camera motion is subtracted, and maps are compared at their own resolution. Any selection of strong
cells can be more precise than a whole map, so the motion part is compared with as many of the map's strongest cells.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from vtcav_jax.attribution.motion.map_split import MotionSplit, smooth_in_space
from vtcav_jax.attribution.resample import area_resize

ClipShares = Float[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class FlowAgreement:
    """Shares of cells and of relevance on moving pixels, per clip; a cell counts by its share of moving pixels.

    `precision`, `recall` and `iou` are those of the cells of the motion part. `precision_map` is the precision of as
    many cells, those with the largest absolute values of the map; `precision_smoothed` likewise of the absolute map
    smoothed in space as the derivative is, and `precision_difference` of the difference between frames, which needs no
    network. `energy` is the share of the motion part's absolute relevance on moving
    pixels, `energy_top` that of the strongest cells of the map, `energy_map` that of the whole map. `area` is the share
    of moving pixels: the precision of random cells, and the energy of uniform relevance.
    """

    precision: ClipShares
    precision_map: ClipShares
    precision_smoothed: ClipShares
    precision_difference: ClipShares
    recall: ClipShares
    iou: ClipShares
    energy: ClipShares
    energy_top: ClipShares
    energy_map: ClipShares
    area: ClipShares


def flow_agreement(
    split: MotionSplit,
    moving_masks: Bool[np.ndarray, "n t h w"],
    frames: Shaped[np.ndarray, "n t h w c"] | None = None,
) -> FlowAgreement:
    """Compare a motion part and its map with the moving pixels of their clips; NaN where one of the two is empty.

    `precision_difference` is NaN without the `frames` of the clips.
    """
    b, t, h, w = split.mask.shape
    if len(moving_masks) != b:
        raise ValueError(f"expected moving masks of {b} clips, got {len(moving_masks)}")
    moving_share = area_resize(moving_masks.astype(np.float32), (t, h, w))
    mask, full, motion = split.mask.astype(np.float32), np.abs(split.motion + split.static), np.abs(split.motion)
    counts = split.mask.sum((1, 2, 3))
    top = strongest_cells(full, counts)

    def precision(weights: np.ndarray) -> ClipShares:
        return _total(weights * moving_share) / _total(weights)

    selected_mass, moving_mass, common_mass = map(_total, (mask, moving_share, mask * moving_share))
    difference_precision = np.full(b, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        if frames is not None:
            difference_precision = precision(strongest_cells(area_resize(frame_difference(frames), (t, h, w)), counts))
        return FlowAgreement(
            precision=precision(mask),
            precision_map=precision(top),
            precision_smoothed=precision(strongest_cells(smooth_in_space(full), counts)),
            precision_difference=difference_precision,
            recall=common_mass / moving_mass,
            iou=common_mass / (selected_mass + moving_mass - common_mass),
            energy=precision(motion),
            energy_top=precision(top * full),
            energy_map=precision(full),
            area=moving_share.mean((1, 2, 3)),
        )


def strongest_cells(
    values: Float[np.ndarray, "b t h w"], counts: Int[np.ndarray, " b"]
) -> Float[np.ndarray, "b t h w"]:
    """Return weights that select the `counts` largest values of each clip; values tied for the last places share."""
    weights = np.zeros(values.shape, np.float32)
    for clip, count, weight in zip(values, counts, weights):
        if count:
            last = np.partition(clip, clip.size - count, axis=None)[clip.size - count]
            tied = clip == last
            above = clip > last
            weight[:] = above + tied * ((count - above.sum()) / tied.sum())
    return weights


def frame_difference(frames: Shaped[np.ndarray, "b t h w c"]) -> Float[np.ndarray, "b t h w"]:
    """Return the mean absolute difference to the previous and next frames (one of them at the ends)."""
    change = np.abs(np.diff(frames.astype(np.float32), axis=1)).mean(-1)
    beside = np.pad(change, ((0, 0), (1, 1), (0, 0), (0, 0)))
    neighbours = np.array([min(t, 1) + min(frames.shape[1] - 1 - t, 1) for t in range(frames.shape[1])])
    return (beside[:, :-1] + beside[:, 1:]) / np.maximum(neighbours, 1).astype(np.float32)[:, None, None]


def _total(values: np.ndarray) -> ClipShares:
    return values.sum((1, 2, 3), dtype=np.float64)
