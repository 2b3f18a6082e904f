"""Fixed square windows that contain the whole track of a clip, so that its trajectory stays visible.

A window is `scale` times as long as the longer side of the track's extent. It is moved into the frame, and it becomes
smaller rather than leave the frame; only a track longer than the frame's shorter side makes it leave the frame, by
equal black bars on two opposite sides.
"""

import math
from collections.abc import Sequence

from vtcav_jax.concepts.boxes import BoxValue, Pixels

FrameSize = tuple[int, int]  # height and width
Point = tuple[BoxValue, BoxValue]  # x and y


def window_around(extent: Sequence[BoxValue], frame_size: FrameSize, scale: BoxValue) -> Pixels:
    """Return the window of a track; `extent` is the union of its boxes, inside the frame."""
    x1, y1, x2, y2 = extent
    length = math.ceil(max(x2 - x1, y2 - y1))
    side = max(length, min(math.ceil(length * scale), *frame_size))
    return place_window(side, ((x1 + x2) / 2, (y1 + y2) / 2), frame_size)


def place_window(side: int, centre: Point, frame_size: FrameSize, hold: Pixels | None = None) -> Pixels:
    """Return the window nearest to `centre` that is inside the frame and holds the box `hold`."""
    height, width = frame_size
    x1, y1, x2, y2 = hold or (0, 0, 0, 0)
    left = _start(side, centre[0], width, (x1, x2) if hold else None)
    top = _start(side, centre[1], height, (y1, y2) if hold else None)
    return (left, top, left + side, top + side)


def _start(side: int, centre: BoxValue, length: int, hold: tuple[int, int] | None) -> int:
    if side >= length:
        return -((side - length) // 2)
    low, high = (0, length - side) if hold is None else (max(hold[1] - side, 0), min(hold[0], length - side))
    return min(max(math.floor(centre - side / 2 + 0.5), low), high)


def transfer_window(window: Pixels, frame_size: FrameSize, other_size: FrameSize) -> tuple[int, Point]:
    """Return side and centre of the window that takes the same part of a frame of another size.

    The side scales with the frame's shorter side, the centre with height and width.
    """
    x1, y1, x2, y2 = window
    side = max(1, round((x2 - x1) * min(other_size) / min(frame_size)))
    (height, width), (other_height, other_width) = frame_size, other_size
    return side, ((x1 + x2) / 2 * other_width / width, (y1 + y2) / 2 * other_height / height)


def relative_side(window: Pixels, frame_size: FrameSize) -> float:
    """Return the window's side as a share of the frame's shorter side."""
    return (window[2] - window[0]) / min(frame_size)
