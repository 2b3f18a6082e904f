"""Training curves as one stand-alone SVG."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import escape

from vtcav_jax import atomic

CURVE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)  # safe for colour vision deficiency
CURVES_WIDTH, CURVES_HEIGHT, MARGIN_LEFT, MARGIN_BOTTOM, MARGIN_TOP, MARGIN_RIGHT = 640, 260, 56, 34, 26, 150
MAX_CURVE_POINTS = 400


def draw_training_curves(metrics: Path) -> Path:
    """Draw the loss and accuracies of `metrics.csv` into an SVG in the same folder; return its path."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [float(row["step"]) for row in rows]
    columns = [name for name in rows[0] if name.startswith("accuracy:")] if rows else []
    window = max(1, len(rows) // 50)
    accuracy = {name.removeprefix("accuracy:"): _smooth([float(r[name]) for r in rows], window) for name in columns}
    loss = {"loss": _smooth([float(row["loss"]) for row in rows], window)}
    window_text = f"mean of {window} steps" if window > 1 else "each step"
    panels = [
        _panel(f"loss ({window_text})", steps, loss, 0),
        _panel(f"accuracy ({window_text})", steps, accuracy, CURVES_HEIGHT, top=1.0),
    ]
    path = metrics.with_suffix(".svg")
    atomic.write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CURVES_WIDTH} {2 * CURVES_HEIGHT}" '
        f'width="{CURVES_WIDTH}" '
        f'height="{2 * CURVES_HEIGHT}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n',
    )
    return path


def _smooth(values: Sequence[float], window: int) -> list[float]:
    return [
        math.fsum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i - window + 1) : i + 1]]
    ]


def _panel(
    title: str, xs: Sequence[float], series: Mapping[str, list[float]], y0: int, top: float | None = None
) -> str:
    high = top or max((max(values) for values in series.values() if values), default=1.0) or 1.0
    last = max(xs, default=1.0) or 1.0
    width, height = CURVES_WIDTH - MARGIN_LEFT - MARGIN_RIGHT, CURVES_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM

    def x(value: float) -> float:
        return MARGIN_LEFT + width * value / last

    def y(value: float) -> float:
        return y0 + MARGIN_TOP + height * (1 - value / high)

    parts = [f'<text x="{MARGIN_LEFT}" y="{y0 + 16}" font-weight="bold">{escape(title)}</text>']
    for i in range(5):
        value = high * i / 4
        parts.append(
            f'<line x1="{MARGIN_LEFT}" x2="{MARGIN_LEFT + width}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#ddd"/>'
        )
        parts.append(f'<text x="{MARGIN_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        step = last * i / 4
        parts.append(f'<text x="{x(step):.1f}" y="{y0 + CURVES_HEIGHT - 14}" text-anchor="middle">{step:.0f}</text>')
    for k, (name, values) in enumerate(series.items()):
        colour = CURVE_COLOURS[k % len(CURVE_COLOURS)]
        indices = range(0, len(values), max(1, len(values) // MAX_CURVE_POINTS))
        points = " ".join(f"{x(xs[i]):.1f},{y(values[i]):.1f}" for i in indices)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if values:
            label = f"{name} {values[-1]:.3g}"
            label_y = y0 + MARGIN_TOP + 14 * k + 10
            parts.append(f'<text x="{MARGIN_LEFT + width + 8}" y="{label_y}" fill="{colour}">{escape(label)}</text>')
    return "".join(parts)
