"""Regions of a clip that a question is about, and the optical flow between its frames."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.resize import square_views
from vtcav_jax.data.source import Source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.worlds.dots import Dots
from vtcav_jax.worlds.render import WorldClips
from vtcav_jax.worlds.spec import DIRECTION_STEPS

SQUARE_MASKS = {"key": "key_box", "distractor": "dis_box", "marker": "marker_box"}  # masks of the objects' boxes
DIRECTION_FACTORS = {
    "dis_box": "dis_direction",
    "key_box": "direction",
}  # the factor that sets each object's direction, sorted from back to front


def target_region(
    source: Source, window: Window, clip_spec: ClipSpec, head: str = ""
) -> Bool[np.ndarray, "t h w"] | None:
    """Return a mask of the annotated boxes, as cropped for the network; None without annotation.

    For a clip of a world: the boxes of the objects that cause the answer to question `head` (of the key if `head` is no
    question), or for the scene all pixels that no glyph covers.
    """
    if isinstance(source, WorldSource):
        masks, questions = _render_window(source, window).masks, source.world.questions
        entities = questions[head].entities if head in questions else ("key",)
        region_masks = [masks[mask][0] for entity, mask in SQUARE_MASKS.items() if mask in masks and entity in entities]
        region = (
            np.any(region_masks, 0)
            if region_masks
            else ~np.any([mask[0] for name, mask in masks.items() if name in DIRECTION_FACTORS], 0)
        )
    elif (box_mask := _annotated_boxes(window)) is not None:
        region = box_mask
    else:
        return None
    frames = [np.repeat(np.uint8(255) * region[i][..., None], 3, -1) for i in window.clip.frames[0]]
    return np.stack([square_views(frame, clip_spec)[0, ..., 0] > 127 for frame in frames])


def ground_truth_flow(source: Source, window: Window) -> Float[np.ndarray, "t1 h w 2"] | None:
    """Return the displacement (x, y) of each pixel since the previous frame: known for worlds, else estimated.

    None if OpenCV, which estimates it, is not installed.
    """
    video = window.clip.video[0]
    if not isinstance(source, WorldSource) or video.shape[1] != source.world.size:
        return _estimated_flow(video)
    clips = _render_window(source, window)
    true_flow = np.zeros((len(video) - 1, *video.shape[1:3], 2), np.float32)
    gaps = np.diff(window.clip.frames[0])
    static_mask = clips.masks.get("marker_box", np.zeros((1, *clips.video.shape[1:4]), bool))[
        0
    ]  # the marker is in front of all objects
    for mask, direction in DIRECTION_FACTORS.items():
        if mask in clips.masks:
            step = source.world.speed * DIRECTION_STEPS[clips.factors[direction][0]][::-1]
            for t, gap in enumerate(gaps):
                frame = window.clip.frames[0, t + 1]
                where = clips.masks["key" if isinstance(source.world, Dots) else mask]  # dots move in the glyph alone
                true_flow[t][where[0, frame] & ~static_mask[frame]] = gap * step
    return true_flow


def _estimated_flow(video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "t1 h w 2"] | None:
    from importlib.util import find_spec

    if find_spec("cv2") is None:
        return None
    from vtcav_jax.attribution.motion.optical_flow import flow

    return flow(video, backwards=True)


def _render_window(source: WorldSource, window: Window) -> WorldClips:
    return source.render(window.read.index)


def _annotated_boxes(window: Window) -> Bool[np.ndarray, "frames h w"] | None:
    """Return a mask per frame of the boxes in the video's table, or None."""
    from vtcav_jax.concepts.boxes import read_boxes, to_pixels
    from vtcav_jax.data.decode import probe

    item = window.read.item
    video = item.stored_video.resolve() if item.stored_video else item.path
    if item.boxes is None or video is None:
        return None
    tables = read_boxes(item.boxes)
    boxes = tables.get(video.name, tables.get("", ()))
    index = probe(video)
    box_mask = np.zeros((int(window.clip.frames.max()) + 1, index.height, index.width), bool)
    for box in boxes:
        if box.frame < len(box_mask) and (corners := to_pixels(box.corners, index.height, index.width)):
            x1, y1, x2, y2 = corners
            box_mask[box.frame, y1:y2, x1:x2] = True
    return box_mask
