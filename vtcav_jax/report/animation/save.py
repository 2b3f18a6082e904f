"""`save_animation`: attribution maps laid over their clips, as an animated picture or a video file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.attribution.motion.selective_relevance import SelectiveRelevance
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.data.encode import write_animation
from vtcav_jax.report.animation.motion_parts import part_panels
from vtcav_jax.report.animation.overlay import DEFAULT_STYLE, OverlayStyle, Panel, overlay_maps

MIN_SECONDS = 2.0  # of an animation; short clips play slower


def save_animation(
    path: str | Path,
    frames: UInt8[np.ndarray, "b t h w 3"],
    *attributions: Attribution | SelectiveRelevance,
    size: int = DEFAULT_STYLE.panel_side,
    colormap: str = DEFAULT_STYLE.colormap,
) -> Path:
    """Write clips with the maps of one or more methods over them; return the path (.webp or .mp4).

    The clips are shown one below the other and the methods side by side. The colours of a map have one scale for the
    whole clip, whose ends are printed above it; a temporal profile is drawn under it. The result of
    `selective_relevance` is shown as three maps with a common scale: the map, its motion part and its static part.
    Clips are enlarged to a width of at least `size` pixels; `colormap` is a name of matplotlib.

        maps = vtcav.attribute(network, frames, target="direction", method="attn_lrp")
        cams = vtcav.attribute(network, frames, target="direction", method="hirescam", stage="layers.0")
        vtcav.save_animation("maps.webp", frames, maps, cams)
    """
    path = Path(path)
    if path.suffix not in (".webp", ".mp4"):
        raise ValueError(f"expected a file name that ends in .webp or .mp4, got {path}")
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 5:
        raise ValueError(f"expected uint8 frames (b, t, h, w, 3), got {frames.dtype} of shape {frames.shape}")
    maps = [item.attribution if isinstance(item, SelectiveRelevance) else item for item in attributions]
    if wrong := [attribution.method for attribution in maps if len(attribution.map) != len(frames)]:
        raise ValueError(f"expected maps of the same {len(frames)} clips; those of {', '.join(wrong)} are of others")
    style = OverlayStyle(size, colormap)
    rows = [overlay_maps(clip, _clip_panels(attributions, i, len(clip)), "", style) for i, clip in enumerate(frames)]
    write_animation(path, np.concatenate(rows, axis=1), max(frames.shape[1] / MIN_SECONDS, 1.0))
    return path


def _clip_panels(items: Sequence[Attribution | SelectiveRelevance], clip: int, n_frames: int) -> list[Panel]:
    """Return the panels of one clip; maps of several targets have the target in their title."""
    maps = [item for item in items if isinstance(item, Attribution)]
    names_targets = len({attribution.target for attribution in maps}) > 1
    panels = []
    for item in items:
        if isinstance(item, SelectiveRelevance):
            panels += part_panels(item, clip, n_frames)
            continue
        values = item.map[clip]
        positions = (np.arange(len(values)) + 0.5) * n_frames / len(values) - 0.5
        method = f"{item.method} @{item.stage}"
        title = f"{item.target}\n{method}" if names_targets and item.target else method
        panels.append(Panel(title, values, positions, item.signed))
    return panels
