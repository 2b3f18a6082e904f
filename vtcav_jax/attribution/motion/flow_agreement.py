"""Agreement of the motion part of a map with the moving pixels of its clip.

The precision of a motion part against flow comes from the code that followed selective relevance (2021); here flow is
measured in pixels, camera motion is subtracted, and maps are compared at their own resolution.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.attribution.motion.selective_relevance import MotionSplit
from vtcav_jax.attribution.resample import area_resize


@dataclass(frozen=True, eq=False)
class FlowAgreement:
    """Agreement of a map's motion part with the moving pixels, per clip; a cell counts by its share of moving pixels.

    `energy` is the share of the absolute relevance on moving pixels, without a threshold on relevance; `area` is its
    value for uniform relevance.
    """

    precision: Float[np.ndarray, " b"]
    recall: Float[np.ndarray, " b"]
    iou: Float[np.ndarray, " b"]
    energy: Float[np.ndarray, " b"]
    area: Float[np.ndarray, " b"]


def flow_agreement(split: MotionSplit, moving_masks: Bool[np.ndarray, "n t h w"]) -> FlowAgreement:
    """Compare the motion part of maps with the moving pixels of their clips; NaN where one of the two is empty."""
    b, t, h, w = split.mask.shape
    if len(moving_masks) != b:
        raise ValueError(f"expected moving masks of {b} clips, got {len(moving_masks)}")
    moving_share = area_resize(moving_masks.astype(np.float32), (t, h, w))
    mask, energy = split.mask.astype(np.float32), np.abs(split.motion + split.static)
    common_mass, selected_mass, moving_mass, total_energy = (
        x.sum((1, 2, 3), dtype=np.float64) for x in (mask * moving_share, mask, moving_share, energy)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return FlowAgreement(
            precision=common_mass / selected_mass,
            recall=common_mass / moving_mass,
            iou=common_mass / (selected_mass + moving_mass - common_mass),
            energy=(energy * moving_share).sum((1, 2, 3)) / total_energy,
            area=moving_share.mean((1, 2, 3)),
        )
