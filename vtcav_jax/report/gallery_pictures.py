"""Pictures of the clips in which the most relevance passes along a channel or concept: crops and animations."""

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.attribution.conditional.summary import Moment
from vtcav_jax.report.animation.overlay import Panel, overlay_maps

CROP_SIDE = 192  # pixels of the picture
CROP_SHARE = 0.5  # of the shorter side of the frame


def crop_moment(frames: UInt8[np.ndarray, "t h w 3"], moment: Moment) -> UInt8[np.ndarray, "side side 3"]:
    """Return the square around the place of the moment in its frame, enlarged."""
    h, w = frames.shape[1:3]
    side = max(1, round(CROP_SHARE * min(h, w)))
    top, left = (int(np.clip(round(place * n - side / 2), 0, n - side)) for place, n in ((moment.y, h), (moment.x, w)))
    pixels = np.arange(CROP_SIDE) * side // CROP_SIDE
    return frames[moment.frame][np.ix_(top + pixels, left + pixels)]


def gallery_animation(
    frames: UInt8[np.ndarray, "t h w 3"], maps: dict[str, Float[np.ndarray, "_ _ _"]], caption: str
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Return the clip and its maps, of the video or of a stage, by title."""
    panels = [
        Panel(title, values, (np.arange(len(values)) + 0.5) * len(frames) / len(values) - 0.5, signed=True)
        for title, values in maps.items()
    ]
    return overlay_maps(frames, panels, caption)
