"""Moving pixels of a clip by optical flow, and their agreement with the motion part of a map. Needs OpenCV.

The precision of a motion part against flow comes from the code that followed selective relevance (2021); here flow is
measured in pixels, camera motion is subtracted, and maps are compared at their own resolution.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vtcav_jax.attribution.motion.selective_relevance import MotionSplit
from vtcav_jax.attribution.resample import area_resize

FlowAlgorithm = Literal["farneback", "dis"]


def import_cv2():
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ValueError("optical flow needs OpenCV; install it: pip install 'vtcav-jax[flow]'") from error
    return cv2


def flow(
    frames: UInt8[np.ndarray, "t h w 3"], algorithm: FlowAlgorithm = "farneback", *, backwards: bool = False
) -> Float[np.ndarray, "t1 h w 2"]:
    """Return the motion (x, y) in pixels from each frame to the next; `backwards`, to each frame from the previous."""
    cv2 = import_cv2()
    if frames.ndim != 4 or len(frames) < 2 or min(frames.shape[1:3]) < 12:  # DIS has no coarse level below
        raise ValueError(f"optical flow needs at least two frames of at least 12 x 12 pixels, got {frames.shape}")
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        empty = np.zeros((*a.shape, 2), np.float32)
        if algorithm == "dis":
            return np.asarray(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, empty))
        return np.asarray(cv2.calcOpticalFlowFarneback(a, b, empty, 0.5, 3, 15, 3, 5, 1.2, 0))

    pairs = itertools.pairwise(grey)
    return np.stack([-between(b, a) if backwards else between(a, b) for a, b in pairs])


def moving_pixels(
    frames: UInt8[np.ndarray, "t h w 3"],
    *,
    min_speed: float = 0.5,
    subtract_camera: bool = True,
    algorithm: FlowAlgorithm = "farneback",
) -> Bool[np.ndarray, "t h w"]:
    """Return the pixels that move by more than `min_speed` pixels per frame, to the next or from the previous frame.

    `subtract_camera` first subtracts the median flow of each frame, so that motion relative to the background counts.
    """
    shape = frames.shape[:3]
    moving_mask = np.zeros(shape, bool)
    for displacements, rows in (
        (flow(frames, algorithm), slice(None, -1)),
        (flow(frames, algorithm, backwards=True), slice(1, None)),
    ):
        if subtract_camera:
            displacements = displacements - np.median(displacements, (1, 2), keepdims=True)
        moving_mask[rows] |= np.hypot(displacements[..., 0], displacements[..., 1]) > min_speed
    return moving_mask


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
