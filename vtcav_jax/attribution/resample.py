"""Resampling of pixel values to the coarser grid of a map, since comparisons use the map's own resolution."""

import numpy as np
from jaxtyping import Float


def area_resize(
    values: Float[np.ndarray, "b t h w *c"], sizes: tuple[int, int, int]
) -> Float[np.ndarray, "b t2 h2 w2 *c"]:
    """Average over each cell of a grid of `sizes` that covers the clip; voxels across a border count by overlap."""
    for axis, size in enumerate(sizes, start=1):
        if values.shape[axis] != size:
            values = np.moveaxis(np.tensordot(_overlap_weights(values.shape[axis], size), values, (1, axis)), 0, axis)
    return values.astype(np.float32)


def frame_of_step(step: int, steps: int, frames: int) -> int:
    """Return the middle frame of time step `step` in a map with `steps` steps."""
    return int((step + 0.5) * frames / steps)


def warp(values: Float[np.ndarray, "h w"], displacement: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w"]:
    """Move `values` by `displacement` (x, y) with bilinear interpolation; values from outside are 0."""
    h, w = values.shape
    y, x = np.mgrid[1 : h + 1, 1 : w + 1]
    x, y = np.clip(x - displacement[..., 0], 0, w + 1), np.clip(y - displacement[..., 1], 0, h + 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low, a, b = np.minimum(left + 1, w + 1), np.minimum(top + 1, h + 1), x - left, y - top
    padded = np.pad(values, 1)
    above = (1 - a) * padded[top, left] + a * padded[top, right]
    return (1 - b) * above + b * ((1 - a) * padded[low, left] + a * padded[low, right])


def _overlap_weights(n: int, cells: int) -> Float[np.ndarray, "cells n"]:
    """Return the share of each of `cells` equal parts of a line that each of its `n` pixels covers."""
    start, end = (np.arange(cells)[:, None] + side for side in (0, 1))
    pixel = np.arange(n)[None] * cells / n
    overlap = np.minimum(end, pixel + cells / n) - np.maximum(start, pixel)
    return np.maximum(overlap, 0)
