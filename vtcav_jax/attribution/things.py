"""Where in a clip the things are that a question is about, and how what is seen moves, as far as a source knows."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vtcav_jax.attribution.windows import Window
from vtcav_jax.geometry import ClipGeometry
from vtcav_jax.video.resize import square_views
from vtcav_jax.video.sources import Source
from vtcav_jax.video.synthetic import Synthetic
from vtcav_jax.worlds.generator import STEPS, Clips, make_clips

KEY, OTHER = "key_box", "dis_box"  # the glyph that a world's questions are about, and the other one
SCENE = "scene"  # but this one


def things(source: Source, window: Window, geometry: ClipGeometry, head: str = "") -> Bool[np.ndarray, "t h w"] | None:
    """The pixels that the network sees of the boxes that come with a video; None without.

    Of a world the key's; of a question that is asked of `head` "scene" what no glyph covers.
    """
    if isinstance(source, Synthetic):
        masks = _rendered(source, window).masks
        shown = ~(masks[KEY] | masks[OTHER])[0] if head == SCENE else masks[KEY][0]
    elif (drawn := _drawn(window)) is not None:
        shown = drawn
    else:
        return None
    frames = [np.repeat(np.uint8(255) * shown[i][..., None], 3, -1) for i in window.clip.frames[0]]
    return np.stack([square_views(frame, geometry)[0, ..., 0] > 127 for frame in frames])


def displacement(source: Source, window: Window) -> Float[np.ndarray, "t1 h w 2"] | None:
    """How far (x, y) what is seen in a frame has moved since the frame before: known of worlds, else by optical flow.

    None where there is no OpenCV to compute it.
    """
    video = window.clip.video[0]
    if not isinstance(source, Synthetic) or video.shape[1] != source.world.size:
        return _flowing(video)
    clips = _rendered(source, window)
    moved = np.zeros((len(video) - 1, *video.shape[1:3], 2), np.float32)
    gaps = np.diff(window.clip.frames[0])
    for mask, direction in ((OTHER, "dis_direction"), (KEY, "direction")):  # the key is in front
        step = source.world.speed * STEPS[clips.factors[direction][0]][::-1]
        for t, gap in enumerate(gaps):
            moved[t][clips.masks[mask][0, window.clip.frames[0, t + 1]]] = gap * step
    return moved


def _flowing(video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "t1 h w 2"] | None:
    from importlib.util import find_spec

    if find_spec("cv2") is None:
        return None
    from vtcav_jax.optical_flow import flow

    return flow(video, backwards=True)


def _rendered(source: Synthetic, window: Window) -> Clips:
    return make_clips(source.world, 1, source.seed, first=window.read.index)


def _drawn(window: Window) -> Bool[np.ndarray, "frames h w"] | None:
    """Boxes of the video's table, frame by frame."""
    from vtcav_jax.concepts.boxes import pixels, read_boxes
    from vtcav_jax.video.decode import probe

    item = window.read.item
    if item.boxes is None or item.path is None:
        return None
    tables = read_boxes(item.boxes)
    boxes = tables.get(item.path.name, tables.get("", ()))
    index = probe(item.path)
    shown = np.zeros((int(window.clip.frames.max()) + 1, index.height, index.width), bool)
    for box in boxes:
        if box.frame < len(shown) and (found := pixels(box.corners, index.height, index.width)):
            x1, y1, x2, y2 = found
            shown[box.frame, y1:y2, x1:x2] = True
    return shown
