"""What moves in a clip as optical flow sees it, and whether a motion part agrees with that. By OpenCV, if it is there.

The precision of a motion part against flow is that of the code which came after selective relevance (2021); here flow
is measured in pixels, the camera's part is taken off, and maps are compared at their own resolution.
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
    """By how many pixels (x, y) what is seen in a frame moves to the next; `backwards`, to each from the one before."""
    cv2 = import_cv2()
    if frames.ndim != 4 or len(frames) < 2 or min(frames.shape[1:3]) < 12:  # smaller, and DIS has no coarse level
        raise ValueError(f"optical flow is between two frames of at least 12 x 12 pixels, got {frames.shape}")
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
    """Pixels that move by more than `least` pixels a frame, on the way to the next frame or from the one before.

    `camera` takes off the median of each frame's flow first: what is left moves against the background.
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
    """Of the motion part and of what moves: cells count by how much of them moves.

    `energy` is the share of the absolute relevance that lies on what moves, without any threshold on relevance, and
    `area` what it would be if relevance were everywhere alike.
    """

    precision: Float[np.ndarray, " b"]
    recall: Float[np.ndarray, " b"]
    iou: Float[np.ndarray, " b"]
    energy: Float[np.ndarray, " b"]
    area: Float[np.ndarray, " b"]


def flow_agreement(split: MotionSplit, moving_masks: Bool[np.ndarray, "n t h w"]) -> FlowAgreement:
    """How far the motion part of maps lies on what moves in their clips; NaN where one of the two is empty."""
    b, t, h, w = split.mask.shape
    if len(moving_masks) != b:
        raise ValueError(f"expected what moves in each of {b} clips, got {len(moving_masks)}")
    truth = area_resize(moving_masks.astype(np.float32), (t, h, w))
    mask, energy = split.mask.astype(np.float32), np.abs(split.motion + split.static)
    common_mass, selected_mass, moving_mass, total_energy = (
        x.sum((1, 2, 3), dtype=np.float64) for x in (mask * truth, mask, truth, energy)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return FlowAgreement(
            precision=common_mass / selected_mass,
            recall=common_mass / moving_mass,
            iou=common_mass / (selected_mass + moving_mass - common_mass),
            energy=(energy * truth).sum((1, 2, 3)) / total_energy,
            area=truth.mean((1, 2, 3)),
        )
