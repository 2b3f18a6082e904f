"""Films of maps: the clip, each map laid over it, and under each the map's course over time with the moment marked.

A map has one scale for the whole clip, which its panel tells: with a scale for each frame one could not see when.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.report.animation.lettering import HEIGHT, width, write
from vtcav_jax.report.colormaps import DIVERGING, LEVELS, SEQUENTIAL, coloured

LEAST_SIDE = 192  # of a panel in pixels; smaller clips are enlarged by whole pixels
ACROSS = 4  # panels side by side
GAP, TITLE, BAR = 8, 26, 40
INK, SOFT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
FINE = 28  # cells along a side: more are pixels, which are shown as they are
CLIPPED = 0.995  # of a map's values are within its scale
OVER = 0.85  # of a pixel's colour is the map's where that is largest

Film = UInt8[np.ndarray, "frames h w 3"]


@dataclass(frozen=True, eq=False)
class Panel:
    """A map over a film: `at` says at which of the film's frames, in parts, each of its steps lies."""

    title: str
    map: Float[np.ndarray, "steps h w"]
    at: Float[np.ndarray, " steps"]
    signed: bool

    @property
    def largest(self) -> float:
        """Where the scale ends: all but one value in two hundred are within."""
        return float(np.quantile(np.abs(self.map), CLIPPED)) or float(np.abs(self.map).max())


def overlay(film: Film, panels: Sequence[Panel], caption: str) -> UInt8[np.ndarray, "frames h2 w2 3"]:
    """The film and all panels, frame by frame, under `caption`."""
    scale = max(1, math.ceil(LEAST_SIDE / film.shape[2]))
    film = film.repeat(scale, 1).repeat(scale, 2)
    frames, h, w = film.shape[:3]
    down = math.ceil((len(panels) + 1) / ACROSS)
    across = math.ceil((len(panels) + 1) / down)  # no row much emptier than the others
    pitch = (h + TITLE + BAR + GAP, w + GAP)
    top = HEIGHT + 2 * GAP
    size = (top + down * pitch[0], GAP + across * pitch[1])
    out = np.full((frames, size[0] + size[0] % 2, size[1] + size[1] % 2, 3), 255, np.uint8)  # mp4 needs even sides
    for picture in out:
        write(picture, caption, GAP, GAP, INK, most=size[1] - 2 * GAP)
    grey = film.astype(np.float32).mean(-1, keepdims=True)
    for i in range(len(panels) + 1):
        row, column = divmod(i, across)
        y, x = top + row * pitch[0], GAP + column * pitch[1]
        part = out[:, y : y + pitch[0] - GAP, x : x + w]
        if i == 0:
            _titled(part, "clip", None)
            part[:, TITLE : TITLE + h] = film
            _moments(part[:, TITLE + h :], np.zeros((frames, 2)), (SOFT, SOFT))
            continue
        panel = panels[i - 1]
        _titled(part, panel.title, panel)
        part[:, TITLE : TITLE + h] = laid_over(grey, panel)
        courses = np.stack([np.maximum(panel.map, 0), np.minimum(panel.map, 0)], -1).sum((1, 2))
        ends = (DIVERGING[-20], DIVERGING[20]) if panel.signed else (SEQUENTIAL[LEVELS // 2],) * 2
        _moments(part[:, TITLE + h :], _at_frames(courses, panel.at, frames, nearest=True), ends)
    return out


def laid_over(grey: Float[np.ndarray, "frames h w 1"], panel: Panel) -> Film:
    """The map over a film without colours, the more of it the larger its values are."""
    frames, h, w = grey.shape[:3]
    values = _at_frames(panel.map, panel.at, frames)
    values = np.stack([_enlarged(one, (h, w)) for one in values])
    largest = panel.largest
    share = np.sqrt(np.clip(np.abs(values) / (largest or 1), 0, 1))[..., None] * OVER
    colours = coloured(values, largest, signed=panel.signed)
    return np.rint(share * colours + (1 - share) * (64 + 0.7 * grey)).clip(0, 255).astype(np.uint8)


def write_film(path: Path, film: Film, fps: float) -> None:
    """As the suffix says, `.mp4` or `.webp`, which loops; the file is there whole or not at all."""
    import av

    kinds = {
        ".mp4": ("libx264", "yuv420p", {"crf": "20", "preset": "fast"}, {"movflags": "+faststart"}),
        ".webp": ("libwebp_anim", "bgra", {"quality": "82"}, {"loop": "0"}),
    }
    if path.suffix not in kinds:
        raise ValueError(f"a film is .mp4 or .webp, got {path.name}")
    codec, pixels, options, muxing = kinds[path.suffix]
    part = path.with_name(f".{path.name}.part")
    with av.open(part, "w", format=path.suffix[1:], options=muxing) as output:
        stream = output.add_stream(codec, rate=max(round(fps), 1), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = pixels
        for frame in film:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode(None))
    part.replace(path)


def _titled(part: Film, title: str, panel: Panel | None) -> None:
    """The title, and under it the colours with the numbers at their ends."""
    w = part.shape[2]
    write(part[0], title, 0, 0, INK, most=w)
    if panel is not None:
        end = f"{panel.largest:.2g}"
        start = f"-{end}" if panel.signed else "0"
        y, left = HEIGHT + 4, width(start) + 4
        right = w - width(end) - 4
        write(part[0], start, 0, y, SOFT, most=w)
        write(part[0], end, right + 4, y, SOFT, most=w)
        colours = DIVERGING if panel.signed else SEQUENTIAL
        part[0, y : y + HEIGHT, left:right] = colours[np.linspace(0, LEVELS - 1, right - left).astype(int)]
    part[1:, :TITLE] = part[0, :TITLE]


def _moments(part: Film, course: Float[np.ndarray, "frames 2"], ends: tuple) -> None:
    """A bar for each frame, upwards what is positive and downwards what is negative; the frame shown is marked."""
    frames, height, w = part.shape[:3]
    edges = np.linspace(0, w, frames + 1).astype(int)
    span = course[:, 0].max() - course[:, 1].min()
    zero = 6 + round((height - 10) * course[:, 0].max() / span) if span > 0 else height - 4
    for f in range(frames):
        left, right = edges[f], max(edges[f + 1] - 1, edges[f] + 1)
        for value, colour in zip(course[f], ends):
            length = round(abs(value) / span * (height - 10)) if span > 0 else 0
            rows = slice(zero - length, zero) if value > 0 else slice(zero, zero + length)
            part[:, rows, left:right] = colour
        part[f, 1:4, left:right] = INK
    part[:, zero : zero + 1] = SOFT


def _at_frames(
    values: Float[np.ndarray, " n *c"], at: Float[np.ndarray, " n"], frames: int, *, nearest: bool = False
) -> Float[np.ndarray, " m *c"]:
    """Between two steps a mixture, or the nearest; before the first and after the last, these."""
    place = np.interp(np.arange(frames), at, np.arange(len(at)))
    if nearest:
        return values[np.rint(place).astype(int)]
    low = np.floor(place).astype(int)
    part = (place - low).reshape(-1, *(1 for _ in values.shape[1:]))
    return (1 - part) * values[low] + part * values[np.minimum(low + 1, len(values) - 1)]


def _enlarged(values: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> Float[np.ndarray, "h2 w2"]:
    """Between the middles of two cells a mixture; what has the pixels' own resolution, by whole pixels."""
    for size in shape:
        n = len(values)
        nearest = n > FINE and size % n == 0
        values = _at_frames(values, (np.arange(n) + 0.5) * size / n - 0.5, size, nearest=nearest).T
    return values
