"""Animation of a clip with its map, the motion part and the static part: one row per method, one scale per row."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.attribution.motion.map_split import DERIVATIVE_VARIANTS
from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.report.animation.overlay import Panel, overlay_maps, share_scale


def part_panels(parts: SelectiveRelevance, clip: int, n_frames: int) -> list[Panel]:
    """Return the map, the motion part and the static part of one clip, with a common scale."""
    split, attribution = parts.clip_split, parts.attribution
    full_map = parts.clip_change.maps[clip]
    positions = (np.arange(len(full_map)) + 0.5) * n_frames / len(full_map) - 0.5
    share = split.motion_share[clip]
    whole = "the map" if split.variant in DERIVATIVE_VARIANTS else "both parts"  # which may cancel in part
    shares = ["", ""] if np.isnan(share) else [f": {100 * x:.0f} % of {whole}" for x in (share, 1 - share)]
    titled_maps = {
        f"map: {attribution.method} @{attribution.stage}": full_map,
        f"motion part{shares[0]}": split.motion[clip],
        f"static part{shares[1]}": split.static[clip],
    }
    signed = attribution.signed or split.variant not in DERIVATIVE_VARIANTS  # a difference of maps has both signs
    return share_scale([Panel(title, values, positions, signed) for title, values in titled_maps.items()])


def render_motion_parts(
    frames: UInt8[np.ndarray, "t h w 3"], parts_by_method: Sequence[SelectiveRelevance], clip: int, caption: str
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Return the frames of the animation of clip number `clip`; the caption is above the first method."""
    rows = [
        overlay_maps(frames, part_panels(parts, clip, len(frames)), caption if i == 0 else "")
        for i, parts in enumerate(parts_by_method)
    ]
    return np.concatenate(rows, axis=1)
