"""Names of rows, columns and series in figures, always complete, and the room that they need."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtcav_jax.report.figures.svg import Canvas, Number
from vtcav_jax.report.text_width import LINE_HEIGHT, text_width, wrap_text

MAX_ROW_NAME = 170  # pixels of one line beside an axis; longer names have several
COLUMN_ANGLE = 60  # degrees of the names of columns
MAX_NAME_WIDTH = 300  # pixels of one line in a heat map; longer names have several
LEGEND_LEFT, LEGEND_ROW, LEGEND_GAP = 14, 16, 18  # pixels


@dataclass(frozen=True)
class NameLabels:
    """Lines of each name, and the widest of them in pixels."""

    lines: tuple[tuple[str, ...], ...]
    width: float

    @classmethod
    def of(cls, names: Iterable[str], most: int | float) -> "NameLabels":
        """Break names into lines of at most `most` pixels."""
        lines = tuple(tuple(wrap_text(name, most)) for name in names)
        return cls(lines, max((text_width(line) for label in lines for line in label), default=0.0))

    def height(self, i: int, height: Number) -> Number:
        """Return the height of a row: `height` for a name of one line, and the further lines of label `i`."""
        return height + LINE_HEIGHT * (len(self.lines[i]) - 1)

    @property
    def max_lines(self) -> int:
        return max(map(len, self.lines), default=1)


def draw_label(
    canvas: Canvas, x: Number, middle: Number, lines: Sequence[str], css_class: str = "", anchor: str = "start"
) -> None:
    """Draw the lines of a name around the height `middle`."""
    first = middle + 4 - LINE_HEIGHT * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
        canvas.text(x, first + LINE_HEIGHT * i, line, css_class, anchor)


def draw_column_label(
    canvas: Canvas,
    x: Number,
    y: Number,
    lines: Sequence[str],
    css_class: str,
    anchor: str,
    angle: Number = COLUMN_ANGLE,
) -> None:
    """Draw the lines of a name that rises to the right; `x`, `y` is where the middle of its first or last sign is."""
    canvas.elements.append(f'<g transform="translate({x:.1f} {y:.1f}) rotate({-angle})">')
    draw_label(canvas, 0, 0, lines, css_class, anchor)
    canvas.elements.append("</g>")


def column_label_size(labels: NameLabels, angle: Number = COLUMN_ANGLE) -> tuple[float, float]:
    """Return the width and the height of the largest label of a column, as it is drawn."""
    angle, thickness = math.radians(angle), LINE_HEIGHT * labels.max_lines
    return (
        labels.width * math.cos(angle) + thickness * math.sin(angle),
        labels.width * math.sin(angle) + thickness * math.cos(angle),
    )


def column_pitch(labels: NameLabels) -> float:
    """Return the smallest distance of columns at which their labels do not overlap."""
    return LINE_HEIGHT * labels.max_lines / math.sin(math.radians(COLUMN_ANGLE))


def spread_labels(places: Sequence[Number], gap: Number, low: Number, high: Number) -> list[float]:
    """Return places near the given ascending ones, at least `gap` apart and between `low` and `high`.

    Places that are too close become a block around their mean, and blocks that meet are joined. All places need to
    have room.
    """
    blocks: list[tuple[float, int]] = []  # first place and number of members
    for place in places:
        start, n = float(place), 1
        while blocks and blocks[-1][0] + gap * blocks[-1][1] > start:
            before, n_before = blocks.pop()
            start = (before * n_before + (start - gap * n_before) * n) / (n_before + n)
            n += n_before
        blocks.append((start, n))
    moved = [start + gap * i for start, n in blocks for i in range(n)]
    last = len(moved) - 1
    return [float(min(max(place, low + gap * i), high - gap * (last - i))) for i, place in enumerate(moved)]


@dataclass(frozen=True)
class Legend:
    """Dots with names, from left to right in as many rows as they need; `height` is that of all rows."""

    entries: tuple[tuple[str, tuple[str, ...], Number, Number], ...]  # CSS class, lines, and place of the dot
    height: Number

    @classmethod
    def of(cls, entries: Iterable[tuple[str, str]], width: Number) -> "Legend":
        """Place entries (CSS class of the dot, name) in a figure of this width."""
        placed, x, y, row_height = [], LEGEND_LEFT, 0, 0
        for css_class, name in entries:
            lines = tuple(wrap_text(name, width - LEGEND_LEFT - 9 - 8))
            needed = 9 + max(map(text_width, lines))
            if x > LEGEND_LEFT and x + needed > width - 8:
                x, y, row_height = LEGEND_LEFT, y + row_height, 0
            placed.append((css_class, lines, x, y))
            x, row_height = x + needed + LEGEND_GAP, max(row_height, LEGEND_ROW + LINE_HEIGHT * (len(lines) - 1))
        return cls(tuple(placed), y + row_height)

    def draw(self, canvas: Canvas, y: Number, css_class: str = "soft") -> None:
        """Draw the legend with the dots of the first row at the height `y`."""
        for dot_class, lines, x, below in self.entries:
            canvas.dot(x, y + below, dot_class, " ".join(lines))
            for i, line in enumerate(lines):
                canvas.text(x + 9, y + below + 4 + LINE_HEIGHT * i, line, css_class)
