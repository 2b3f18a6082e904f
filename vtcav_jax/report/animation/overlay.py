"""Animations of maps: the clip, each map over the clip, and below it the temporal profile with the frame marked.

Each map has one colour scale for the whole clip: with a scale per frame, frames could not be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.report.animation.lettering import HEIGHT, width, write
from vtcav_jax.report.colormaps import LEVELS, apply_colormap, color_table

MAX_PANELS_PER_ROW = 4
PANEL_GAP, TITLE_HEIGHT, BAR_HEIGHT = 8, 2 * HEIGHT + 8, 40
INK_COLOUR, SOFT_COLOUR, PAPER_COLOUR = (20, 20, 20), (110, 110, 110), (255, 255, 255)
MAX_INTERPOLATED_CELLS = 28  # cells along a side; finer maps are not smoothed
SCALE_QUANTILE = 0.995  # of the absolute values; larger ones are clipped
MAX_MAP_OPACITY = 0.85  # where the map is largest


@dataclass(frozen=True)
class OverlayStyle:
    """Appearance of maps over clips."""

    panel_side: int = 192  # pixels; smaller clips are enlarged by an integer factor to at least this width
    colormap: str = ""  # of matplotlib; empty: viridis, and blue to red for signed maps


DEFAULT_STYLE = OverlayStyle()
OverlayFrames = UInt8[np.ndarray, "frames h w 3"]


@dataclass(frozen=True, eq=False)
class Panel:
    """Map to overlay; `positions` are the (fractional) frames of its time steps.

    Panels with a `scale`, which maps of one clip can share, have its colours and bars.
    """

    title: str
    map: Float[np.ndarray, "steps h w"]
    positions: Float[np.ndarray, " steps"]
    signed: bool
    scale: "PanelScale | None" = None

    @property
    def drawn_scale(self) -> "PanelScale":
        return self.scale or common_scale([self])

    @property
    def scale_limit(self) -> float:
        """End of the colour scale."""
        return self.drawn_scale.limit

    @property
    def profile(self) -> Float[np.ndarray, "steps 2"]:
        """Sums of the positive and of the negative values of each time step."""
        return np.stack([np.maximum(self.map, 0), np.minimum(self.map, 0)], -1).sum((1, 2))


class PanelScale(NamedTuple):
    """End of a colour scale, and the largest and the smallest sum of a time step."""

    limit: float
    highest_sum: float
    lowest_sum: float


def common_scale(panels: Sequence[Panel]) -> PanelScale:
    """Return the smallest scale that covers all panels, apart from their few largest values."""
    limit = max(float(np.quantile(np.abs(panel.map), SCALE_QUANTILE)) for panel in panels)
    limit = limit or max(float(np.abs(panel.map).max()) for panel in panels)
    highest, lowest = (f([f(panel.profile[:, i]) for panel in panels]) for i, f in enumerate((np.max, np.min)))
    return PanelScale(limit, float(highest), float(lowest))


def share_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Give all panels their common scale."""
    scale = common_scale(panels)
    return [replace(panel, scale=scale) for panel in panels]


def overlay_maps(
    video: OverlayFrames, panels: Sequence[Panel], caption: str, style: OverlayStyle = DEFAULT_STYLE
) -> UInt8[np.ndarray, "frames h2 w2 3"]:
    """Return the frames of the clip and all panels side by side, under `caption`."""
    scale = max(1, math.ceil(style.panel_side / video.shape[2]))
    video = video.repeat(scale, 1).repeat(scale, 2)
    frames, h, w = video.shape[:3]
    n_rows = math.ceil((len(panels) + 1) / MAX_PANELS_PER_ROW)
    n_columns = math.ceil((len(panels) + 1) / n_rows)  # balanced rows
    pitch = (h + TITLE_HEIGHT + BAR_HEIGHT + PANEL_GAP, w + PANEL_GAP)
    top = HEIGHT + 2 * PANEL_GAP
    size = (top + n_rows * pitch[0], PANEL_GAP + n_columns * pitch[1])
    out = np.full((frames, size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)  # mp4 needs even sides
    for picture in out:
        write(picture, caption, PANEL_GAP, PANEL_GAP, INK_COLOUR, most=size[1] - 2 * PANEL_GAP)
    grey = video.astype(np.float32).mean(-1, keepdims=True)
    for i in range(len(panels) + 1):
        row, column = divmod(i, n_columns)
        y, x = top + row * pitch[0], PANEL_GAP + column * pitch[1]
        cell = out[:, y : y + pitch[0] - PANEL_GAP, x : x + w]
        if i == 0:
            _draw_title(cell, "clip", None, style)
            cell[:, TITLE_HEIGHT : TITLE_HEIGHT + h] = video
            _draw_profile(cell[:, TITLE_HEIGHT + h :], np.zeros((frames, 2)), (SOFT_COLOUR, SOFT_COLOUR), (0.0, 0.0))
            continue
        panel = panels[i - 1]
        _draw_title(cell, panel.title, panel, style)
        cell[:, TITLE_HEIGHT : TITLE_HEIGHT + h] = blend_map(grey, panel, style)
        table = color_table(signed=panel.signed, name=style.colormap)
        bar_colours = (table[-20], table[20]) if panel.signed else (table[LEVELS // 2],) * 2
        _draw_profile(
            cell[:, TITLE_HEIGHT + h :],
            interpolate_frames(panel.profile, panel.positions, frames, nearest=True),
            bar_colours,
            panel.drawn_scale[1:],
        )
    return out


def blend_map(
    grey: Float[np.ndarray, "frames h w 1"], panel: Panel, style: OverlayStyle = DEFAULT_STYLE
) -> OverlayFrames:
    """Blend a map over grey frames, with an opacity that grows with its absolute value."""
    scale_limit = panel.scale_limit
    out = np.empty((*grey.shape[:3], 3), np.uint8)
    for i, values in enumerate(interpolate_frames(panel.map, panel.positions, len(grey))):  # each alone, for memory
        enlarged = _enlarge(values, grey.shape[1:3])
        opacity = np.sqrt(np.clip(np.abs(enlarged) / (scale_limit or 1), 0, 1))[..., None] * MAX_MAP_OPACITY
        colours = apply_colormap(enlarged, scale_limit, signed=panel.signed, name=style.colormap)
        out[i] = np.rint(opacity * colours + (1 - opacity) * (64 + 0.7 * grey[i])).clip(0, 255)
    return out


def _draw_title(cell: OverlayFrames, title: str, panel: Panel | None, style: OverlayStyle) -> None:
    """Draw the title and the colour scale with its limits."""
    w = cell.shape[2]
    write(cell[0], title, 0, 0, INK_COLOUR, most=w)
    if panel is not None:
        end = f"{panel.scale_limit:.2g}"
        start = f"-{end}" if panel.signed else "0"
        y, left = HEIGHT + 4, width(start) + 4
        right = w - width(end) - 4
        write(cell[0], start, 0, y, SOFT_COLOUR, most=w)
        write(cell[0], end, right + 4, y, SOFT_COLOUR, most=w)
        colours = color_table(signed=panel.signed, name=style.colormap)
        cell[0, y : y + HEIGHT, left:right] = colours[np.linspace(0, LEVELS - 1, right - left).astype(int)]
    cell[1:, :TITLE_HEIGHT] = cell[0, :TITLE_HEIGHT]


def _draw_profile(
    cell: OverlayFrames, profile: Float[np.ndarray, "frames 2"], bar_colours: tuple, extremes: tuple[float, float]
) -> None:
    """Draw a bar per frame, positive sums upwards and negative ones downwards, and mark the current frame."""
    frames, height, w = cell.shape[:3]
    edges = np.linspace(0, w, frames + 1).astype(int)
    extent = extremes[0] - extremes[1]
    zero = 6 + round((height - 10) * extremes[0] / extent) if extent > 0 else height - 4
    for f in range(frames):
        left, right = edges[f], max(edges[f + 1] - 1, edges[f] + 1)
        for value, colour in zip(profile[f], bar_colours):
            length = round(abs(value) / extent * (height - 10)) if extent > 0 else 0
            rows = slice(zero - length, zero) if value > 0 else slice(zero, zero + length)
            cell[:, rows, left:right] = colour
        cell[f, 1:4, left:right] = INK_COLOUR
    cell[:, zero : zero + 1] = SOFT_COLOUR


def interpolate_frames(
    values: Float[np.ndarray, " n *c"], positions: Float[np.ndarray, " n"], frames: int, *, nearest: bool = False
) -> Float[np.ndarray, " m *c"]:
    """Interpolate time steps to frames, linearly or by the nearest step; constant beyond the ends."""
    index = np.interp(np.arange(frames), positions, np.arange(len(positions)))
    if nearest:
        return values[np.rint(index).astype(int)]
    low = np.floor(index).astype(int)
    weight = (index - low).reshape(-1, *(1 for _ in values.shape[1:]))
    return (1 - weight) * values[low] + weight * values[np.minimum(low + 1, len(values) - 1)]


def _enlarge(values: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> Float[np.ndarray, "h2 w2"]:
    """Enlarge linearly between cell centres; maps of pixel resolution by repetition."""
    for size in shape:
        n = len(values)
        nearest = n > MAX_INTERPOLATED_CELLS and size % n == 0
        values = interpolate_frames(values, (np.arange(n) + 0.5) * size / n - 0.5, size, nearest=nearest).T
    return values
