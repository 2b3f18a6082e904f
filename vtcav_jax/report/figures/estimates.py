"""Figure of named estimates with their intervals, one below the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.report.effect_sizes import format_number, format_range
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, NameLabels, draw_label
from vtcav_jax.report.figures.svg import Canvas, Figure, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug

MAX_DRAWN_ESTIMATES = 30


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over `n_videos` source videos."""

    name: str
    value: float
    low: float
    high: float
    n_videos: int


def estimate_figure(name: str, title: str, axis: str, estimates: Sequence[Estimate]) -> Figure:
    """Draw the first estimates in their order; hollow: the interval contains 0."""
    displayed = estimates[:MAX_DRAWN_ESTIMATES]
    labels = NameLabels.of([row.name for row in displayed], MAX_ROW_NAME)
    heights = [labels.height(i, 20) for i in range(len(displayed))]
    canvas, left = Canvas(FIGURE_WIDTH, 60 + sum(map(round, heights))), max(140.0, labels.width + 16)
    x = fit_scale([value for row in displayed for value in (row.value, row.low, row.high)], left, FIGURE_WIDTH - 14)
    canvas.heading(title)
    for value in x.ticks:
        canvas.line(x(value), 26, x(value), canvas.height - 36, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 22, format_tick(round(value, 6)), "soft", "middle")
    canvas.text(FIGURE_WIDTH - 14, canvas.height - 6, f"{axis}; 95 % CI", "soft", "end")
    for i, row in enumerate(displayed):
        y = 38 + sum(heights[:i]) + (heights[i] - 20) / 2
        draw_label(canvas, left - 8, y, labels.lines[i], "", "end")
        if math.isnan(row.value):
            canvas.text(x(0), y + 4, "?", "soft", "middle")
            continue
        css_class = "faint" if not (row.low > 0 or row.high < 0) else "one"
        if not math.isnan(row.low):
            canvas.line(x(row.low), y, x(row.high), y, f"bar {css_class}")
        tooltip = f"{row.name}: {format_number(row.value)} (95 % CI {format_range(row.low, row.high)})"
        canvas.dot(x(row.value), y, css_class, f"{tooltip}, {row.n_videos} videos")
    return canvas.figure(slug(name), title)
