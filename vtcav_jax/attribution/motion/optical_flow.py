"""Moving pixels of a clip: known for clips of synthetic worlds, otherwise by optical flow, which needs OpenCV."""

import itertools
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.source import Source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.worlds.render import WorldClips

FlowAlgorithm = Literal["farneback", "dis"]
MOVING_OBJECTS = ("key", "dis")  # masks of the visible pixels of a world's objects, which move in every frame


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


def is_motion_known(source: Source, clip_spec: ClipSpec) -> bool:
    """Return whether the moving pixels of clips are known: those of a world at its own size."""
    return isinstance(source, WorldSource) and source.world.size == clip_spec.size


def moving_pixels_of_windows(source: Source, clip_spec: ClipSpec) -> Callable[[Window], Bool[np.ndarray, "t h w"]]:
    """Return a function from a window to its moving pixels, with those of adjacent frames.

    They are known for clips of worlds, whose noise and size make optical flow useless, and otherwise estimated.
    """
    if isinstance(source, WorldSource) and is_motion_known(source, clip_spec):
        return lambda window: with_adjacent_frames(
            moving_objects(source.render(window.read.index))[0, window.clip.frames[0]]
        )
    import_cv2()
    return lambda window: with_adjacent_frames(moving_pixels(window.clip.video[0]))


def moving_objects(clips: WorldClips) -> Bool[np.ndarray, "n t h w"]:
    """Return the visible pixels of the objects of a world that move, in every frame; nothing else moves."""
    return np.any([clips.masks[name] for name in MOVING_OBJECTS if name in clips.masks], 0)


def with_adjacent_frames(masks: Bool[np.ndarray, "*n t h w"]) -> Bool[np.ndarray, "*n t h w"]:
    """Add to each frame the pixels of the previous and of the next one: where an object comes from and goes to.

    Changes over time, of frames or of maps, are at these places too.
    """
    wide = masks.copy()
    wide[..., 1:, :, :] |= masks[..., :-1, :, :]
    wide[..., :-1, :, :] |= masks[..., 1:, :, :]
    return wide
