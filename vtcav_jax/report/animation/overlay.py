"""Animations of maps: the clip, each map over the clip, and below it the temporal profile with the frame marked.

Each map has one colour scale for the whole clip: with a scale per frame, frames could not be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int, UInt8

from vtcav_jax.report.animation.lettering import HEIGHT, width, wrap, write, write_lines
from vtcav_jax.report.colormaps import LEVELS, apply_colormap, color_table

MAX_PANELS_PER_ROW = 6
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


@dataclass(frozen=True, eq=False)
class PanelGroup:
    """Panels beside the clip, under a heading that they have in common; an empty heading takes no room."""

    panels: Sequence[Panel]
    heading: str = ""


def overlay_maps(
    video: OverlayFrames, panels: Sequence[Panel], caption: str, style: OverlayStyle = DEFAULT_STYLE
) -> UInt8[np.ndarray, "frames h2 w2 3"]:
    """Return the frames of the clip and all panels side by side, under `caption`."""
    return np.stack(OverlayFilm(video, [PanelGroup(panels)], caption, style))


class OverlayFilm(Sequence[UInt8[np.ndarray, "h w 3"]]):
    """Frames of a film with the clip and the panels of each group beside it, below a caption.

    Each frame is drawn when it is read, so that memory does not grow with the number of frames and panels. Captions,
    headings and titles are wrapped, never shortened.
    """

    def __init__(
        self,
        video: OverlayFrames,
        groups: Sequence[PanelGroup],
        caption: str,
        style: OverlayStyle = DEFAULT_STYLE,
    ):
        self.video, self.style = video, style
        self._scale = max(1, math.ceil(style.panel_side / video.shape[2]))
        self._height, self._width = (side * self._scale for side in video.shape[1:3])
        cells = max((len(group.panels) for group in groups), default=0) + 1
        columns = math.ceil(cells / math.ceil(cells / MAX_PANELS_PER_ROW))  # balanced rows
        self._columns = columns
        text_width = columns * (self._width + PANEL_GAP) - PANEL_GAP
        caption_lines = wrap(caption, text_width)
        self._cells: list[tuple[int, int, Panel | None]] = []  # where the picture begins, and the map on it
        titles: list[tuple[int, int, list[str], int]] = []
        headings: list[tuple[int, list[str]]] = []
        y = HEIGHT * len(caption_lines) + 2 * PANEL_GAP
        for group in groups:
            if group.heading:
                headings.append((y, wrap(group.heading, text_width)))
                y += HEIGHT * len(headings[-1][1]) + PANEL_GAP // 2
            entries = [None, *(replace(panel, scale=panel.drawn_scale) for panel in group.panels)]
            for start in range(0, len(entries), columns):
                row = entries[start : start + columns]
                texts = [wrap(panel.title if panel else "clip", self._width) for panel in row]
                n_lines = max(map(len, texts))
                top = y + TITLE_HEIGHT + HEIGHT * (n_lines - 1)
                for column, (panel, lines) in enumerate(zip(row, texts)):
                    x = PANEL_GAP + column * (self._width + PANEL_GAP)
                    titles.append((x, y, lines, n_lines))
                    self._cells.append((x, top, panel))
                y = top + self._height + BAR_HEIGHT + PANEL_GAP
        size = y, text_width + 2 * PANEL_GAP
        self._background = np.full((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)  # mp4: even sides
        write_lines(self._background, caption_lines, PANEL_GAP, PANEL_GAP, INK_COLOUR, most=text_width)
        for top, lines in headings:
            write_lines(self._background, lines, PANEL_GAP, top, INK_COLOUR, most=text_width)
        for (x, top, lines, n_lines), (_, _, panel) in zip(titles, self._cells):
            self._draw_title(self._background[top:, x : x + self._width], lines, n_lines, panel)
        for x, top, panel in self._cells:
            self._draw_profile(self._background[top + self._height :][:BAR_HEIGHT, x : x + self._width], panel)

    def __len__(self) -> int:
        return len(self.video)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...
    @overload
    def __getitem__(self, index: slice) -> list[UInt8[np.ndarray, "h w 3"]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        out = self._background.copy()
        picture = self.video[i].repeat(self._scale, 0).repeat(self._scale, 1)
        grey = picture.astype(np.float32).mean(-1, keepdims=True)
        edges = self._bar_edges
        for x, y, panel in self._cells:
            cell = out[y : y + self._height, x : x + self._width]
            if panel is None:
                cell[:] = picture
            else:
                (values,) = interpolate_times(panel.map, panel.positions, np.array([i]))
                cell[:] = _blend(grey, values, panel, self.style)
            marks = out[y + self._height :, x : x + self._width]
            marks[1:4, edges[i] : max(edges[i + 1] - 1, edges[i] + 1)] = INK_COLOUR
        return out

    @property
    def _bar_edges(self) -> list[int]:
        return np.linspace(0, self._width, len(self) + 1).astype(int).tolist()

    def _draw_title(
        self, cell: UInt8[np.ndarray, "h w 3"], lines: Sequence[str], n_lines: int, panel: Panel | None
    ) -> None:
        """Draw the lines of a title and, below those of the whole row, the colour scale with its ends."""
        w = cell.shape[1]
        write_lines(cell, lines, 0, 0, INK_COLOUR, most=w)
        if panel is None:
            return
        end = f"{panel.scale_limit:.2g}"
        start = f"-{end}" if panel.signed else "0"
        y, left = HEIGHT * n_lines + 4, width(start) + 4
        right = w - width(end) - 4
        write(cell, start, 0, y, SOFT_COLOUR, most=w)
        write(cell, end, right + 4, y, SOFT_COLOUR, most=w)
        colours = color_table(signed=panel.signed, name=self.style.colormap)
        cell[y : y + HEIGHT, left:right] = colours[np.linspace(0, LEVELS - 1, right - left).astype(int)]

    def _draw_profile(self, cell: UInt8[np.ndarray, "h w 3"], panel: Panel | None) -> None:
        """Draw a bar per frame, positive sums upwards and negative ones downwards."""
        height, edges, frames = len(cell), self._bar_edges, len(self)
        highest, lowest = panel.drawn_scale[1:] if panel else (0.0, 0.0)
        extent = highest - lowest
        zero = 6 + round((height - 10) * highest / extent) if extent > 0 else height - 4
        if panel is not None and extent > 0:
            table = color_table(signed=panel.signed, name=self.style.colormap)
            bar_colours = (table[-20], table[20]) if panel.signed else (table[LEVELS // 2],) * 2
            profile = interpolate_frames(panel.profile, panel.positions, frames, nearest=True)
            for f in range(frames):
                for value, colour in zip(profile[f], bar_colours):
                    length = round(abs(value) / extent * (height - 10))
                    rows = slice(zero - length, zero) if value > 0 else slice(zero, zero + length)
                    cell[rows, edges[f] : max(edges[f + 1] - 1, edges[f] + 1)] = colour
        cell[zero] = SOFT_COLOUR


def blend_map(
    grey: Float[np.ndarray, "frames h w 1"], panel: Panel, style: OverlayStyle = DEFAULT_STYLE
) -> OverlayFrames:
    """Blend a map over grey frames, with an opacity that grows with its absolute value."""
    panel = replace(panel, scale=panel.drawn_scale)
    out = np.empty((*grey.shape[:3], 3), np.uint8)
    for i, values in enumerate(interpolate_frames(panel.map, panel.positions, len(grey))):  # each alone, for memory
        out[i] = _blend(grey[i], values, panel, style)
    return out


def _blend(
    grey: Float[np.ndarray, "h w 1"], values: Float[np.ndarray, "h2 w2"], panel: Panel, style: OverlayStyle
) -> UInt8[np.ndarray, "h w 3"]:
    enlarged, limit = _enlarge(values, grey.shape[:2]), panel.scale_limit
    opacity = np.sqrt(np.clip(np.abs(enlarged) / (limit or 1), 0, 1))[..., None] * MAX_MAP_OPACITY
    colours = apply_colormap(enlarged, limit, signed=panel.signed, name=style.colormap)
    return np.rint(opacity * colours + (1 - opacity) * (64 + 0.7 * grey)).clip(0, 255).astype(np.uint8)


def interpolate_frames(
    values: Float[np.ndarray, " n *c"], positions: Float[np.ndarray, " n"], frames: int, *, nearest: bool = False
) -> Float[np.ndarray, " m *c"]:
    """Interpolate time steps to frames, linearly or by the nearest step; constant beyond the ends."""
    return interpolate_times(values, positions, np.arange(frames), nearest=nearest)


def interpolate_times(
    values: Float[np.ndarray, " n *c"],
    positions: Float[np.ndarray, " n"],
    frames: Int[np.ndarray, " m"],
    *,
    nearest: bool = False,
) -> Float[np.ndarray, " m *c"]:
    """Interpolate time steps to the frames with these numbers, as `interpolate_frames` does."""
    index = np.interp(frames, positions, np.arange(len(positions)))
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
