"""Resizing and cropping of frames to the network's square input, equal to torchvision's presets for video networks.

Interpolation is bilinear in float32, along rows and then along columns, rounded to uint8. The presets do not antialias
(`antialias=False`), and networks converted from them expect this.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from vtcav_jax.clip_spec import ClipSpec

Views = Literal["center_crop", "three_crop"]


def square_views(
    frame: UInt8[np.ndarray, "h w 3"], clip_spec: ClipSpec, views: Views = "center_crop", *, antialias: bool = False
) -> UInt8[np.ndarray, "views size size 3"]:
    """Return the square crops of one frame that the network reads.

    `"center_crop"` is one crop. `"three_crop"` resizes the shorter side to the size of the square and takes three crops
    along the longer side, from left to right or top to bottom; they cover the frame unless it is longer than three
    squares.
    """
    height, width = frame.shape[:2]
    size = clip_spec.size
    if views == "three_crop":
        target = shorter_side((height, width), size)
        step = [(side - size) // 2 for side in target]
        resized = resize(frame, target, antialias=antialias)
        return np.stack([crop_square(resized, size, (i * step[0], i * step[1])) for i in range(3)])
    if clip_spec.resize is None:
        return resize(frame, (size, size), antialias=antialias)[None]
    if clip_spec.resize < size:
        raise ValueError(f"cannot crop a square of {size} from a shorter side of {clip_spec.resize}; increase resize")
    square = (clip_spec.resize, clip_spec.resize)
    target = shorter_side((height, width), clip_spec.resize) if clip_spec.keep_aspect else square
    top, left = (round((side - size) / 2) for side in target)
    window = (slice(top, top + size), slice(left, left + size))
    return resize(frame, target, antialias=antialias, window=window)[None]


def shorter_side(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Return height and width after resizing the shorter side to `size`; the longer side is rounded down."""
    height, width = shape
    return (int(size * height / width), size) if width <= height else (size, int(size * width / height))


def crop_square(
    frame: UInt8[np.ndarray, "h w 3"], size: int, corner: tuple[int, int]
) -> UInt8[np.ndarray, "size size 3"]:
    top, left = corner
    return frame[top : top + size, left : left + size]


def resize(
    frame: UInt8[np.ndarray, "h w 3"],
    shape: tuple[int, int],
    *,
    antialias: bool = False,
    window: tuple[slice, slice] = (slice(None), slice(None)),
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resize the frame to height and width `shape`; computes only the given `window` of the result."""
    if frame.shape[:2] == shape:
        return frame[window]
    rows, row_weights = (a[window[0]] for a in _filter_taps(frame.shape[0], shape[0], antialias))
    columns, column_weights = (a[window[1]] for a in _filter_taps(frame.shape[1], shape[1], antialias))
    top = rows.min()
    across = _weighted_sum(frame[top : rows.max() + 1], columns, column_weights, axis=1)
    return np.rint(_weighted_sum(across, rows - top, row_weights, axis=0)).astype(np.uint8)


def _weighted_sum(
    image: np.ndarray, index: Int[np.ndarray, "out taps"], weights: Float[np.ndarray, "out taps"], axis: int
) -> Float[np.ndarray, "h w 3"]:
    """Sum the weighted taps; a dense matrix product would mostly multiply by zero."""
    weight_shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = image.take(index[:, 0], axis) * weights[:, 0].reshape(weight_shape)
    for i in range(1, index.shape[1]):
        total += image.take(index[:, i], axis) * weights[:, i].reshape(weight_shape)
    return total


@lru_cache(maxsize=64)
def _filter_taps(
    size: int, out: int, antialias: bool
) -> tuple[Int[np.ndarray, "out taps"], Float[np.ndarray, "out taps"]]:
    """Return, for each of `out` output pixels, the indices of its input pixels and their weights.

    All arithmetic is float32, as in the reference, whose rounding depends on it.
    """
    scale = np.float32(size) / np.float32(out)
    half = np.float32(0.5)
    centre = scale * (np.arange(out, dtype=np.float32) + half)
    if not antialias:
        position = np.maximum(centre - half, np.float32(0))
        low = np.minimum(position.astype(int), size - 1)
        index = np.stack([low, np.minimum(low + 1, size - 1)], -1)
        upper = np.clip(position - low.astype(np.float32), 0, 1)
        weights = np.stack([1 - upper, upper], -1)
    else:
        reach = max(scale, np.float32(1))  # half width of the triangle filter: one output pixel when shrinking
        first = np.maximum((centre - reach + half).astype(int), 0)
        last = np.minimum((centre + reach + half).astype(int), size)
        index = first[:, None] + np.arange((last - first).max())
        distance = (index.astype(np.float32) - centre[:, None] + half) / reach
        weights = np.where(index < last[:, None], np.maximum(1 - np.abs(distance), np.float32(0)), np.float32(0))
        weights /= weights.sum(-1, keepdims=True)
        index = np.minimum(index, size - 1)
    for array in (index, weights):
        array.flags.writeable = False  # cached and shared by all callers
    return index, weights


def part_of_frame(
    square: tuple[float, float, float, float], frame_size: tuple[int, int], clip_spec: ClipSpec
) -> tuple[float, float, float, float]:
    """Return the part of a frame (x1, y1, x2, y2 in pixels) that a part of the network's square (in 0..1) shows."""
    height, width = frame_size
    if clip_spec.resize is None:
        target, (top, left) = (clip_spec.size, clip_spec.size), (0, 0)
    else:
        target = (
            shorter_side(frame_size, clip_spec.resize)
            if clip_spec.keep_aspect
            else (clip_spec.resize, clip_spec.resize)
        )
        top, left = ((side - clip_spec.size) / 2 for side in target)
    x1, y1, x2, y2 = (clip_spec.size * value for value in square)
    x_scale, y_scale = width / target[1], height / target[0]
    return ((left + x1) * x_scale, (top + y1) * y_scale, (left + x2) * x_scale, (top + y2) * y_scale)
