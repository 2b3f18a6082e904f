"""From the map of a concept to boxes in the video's own pixels, which mining cuts out."""

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.boxes import Box, Corners
from vtcav_jax.data.resize import part_of_frame

REGION_LEVEL = 0.5  # a region are the cells of at least this share of the map's maximum


def boxes_of_map(
    concept_map: Float[np.ndarray, "t h w"],
    frames: Int[np.ndarray, " frames"],
    frame_size: tuple[int, int],
    clip_spec: ClipSpec,
    label: str,
    track: int,
    confidence: float,
) -> list[Box]:
    """Return one box per frame of the video from the clip's first to its last, around the region of the map.

    Steps in which no cell reaches the level have the box of the nearest step that has one.
    """
    increasing = frames[: 1 + int(np.argmin(np.diff(frames) > 0)) if (np.diff(frames) <= 0).any() else len(frames)]
    active = concept_map >= REGION_LEVEL * max(float(concept_map.max()), 1e-12)
    steps = np.flatnonzero(active.any((1, 2)))
    boxes = []
    for frame in range(int(increasing[0]), int(increasing[-1]) + 1):
        i = int(np.abs(increasing - frame).argmin())
        step = i * len(concept_map) // len(frames)
        corners = region_corners(active[steps[np.abs(steps - step).argmin()]], frame_size, clip_spec)
        boxes.append(Box(frame, track, label, *corners, confidence))
    return boxes


def region_corners(active: np.ndarray, frame_size: tuple[int, int], clip_spec: ClipSpec) -> Corners:
    """Return the box around the active cells of one step, in pixels of the video."""
    rows, columns = (np.flatnonzero(active.any(axis)) for axis in (1, 0))
    h, w = active.shape
    square = (columns[0] / w, rows[0] / h, (columns[-1] + 1) / w, (rows[-1] + 1) / h)
    return part_of_frame(square, frame_size, clip_spec)
