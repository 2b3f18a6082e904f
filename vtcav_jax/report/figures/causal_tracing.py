"""Figure of causal tracing: the share of the score difference that moves with each stage and place."""

import numpy as np

from vtcav_jax.attribution.causal_trace import CausalTrace
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, NameLabels, draw_label
from vtcav_jax.report.figures.motion import format_share
from vtcav_jax.report.figures.svg import Canvas, Figure
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug
from vtcav_jax.report.text_width import LINE_HEIGHT

TOP, ROW_HEIGHT, GAP = 52, 22, 4
MIN_LABELLED_WIDTH = 20  # pixels of a cell with its number
MAX_OPACITY = 0.7  # so that numbers are legible


def causal_tracing_figure(trace: CausalTrace, title: str) -> Figure:
    """Draw one row per stage, the input at the top, with the places of each time step; the largest share is darkest."""
    shares = {stage: trace.shares(stage) for stage in trace.patched_scores}
    largest = max(float(np.abs(values[..., 0]).max()) for values in shares.values())
    labels = dict(zip(shares, NameLabels.of(shares, MAX_ROW_NAME).lines))
    left_edge = max(60.0, NameLabels.of(shares, MAX_ROW_NAME).width + 14)
    widths = {stage: (FIGURE_WIDTH - 8 - left_edge) / len(values) for stage, values in shares.items()}
    heights = {
        stage: max(
            widths[stage] * values.shape[1] / values.shape[2] if values[0, ..., 0].size > 1 else ROW_HEIGHT,
            ROW_HEIGHT + LINE_HEIGHT * (len(labels[stage]) - 1),
        )
        for stage, values in shares.items()
    }
    canvas = Canvas(FIGURE_WIDTH, int(TOP + sum(heights.values()) + GAP * len(heights) + 40))
    n_clips = f"{count_noun(len(trace.clean_scores), 'clip')}"
    canvas.heading(title, f"share (%) of the score difference that moves, {n_clips}")
    y = float(TOP)
    for stage, values in shares.items():
        width, height, (steps, rows, columns) = widths[stage], heights[stage], values.shape[:3]
        draw_label(canvas, left_edge - 6, y + height / 2, labels[stage], "soft", "end")
        for step, row, column in np.ndindex(steps, rows, columns):
            share, low, high = values[step, row, column].tolist()
            cell = (width - GAP) / columns
            left, top = left_edge + width * step + cell * column, y + height / rows * row
            place = f", row {row + 1}, column {column + 1}" if rows * columns > 1 else ""
            text = f"{stage}, time step {step + 1} of {steps}{place}: {format_share(share, low, high)}, {n_clips}"
            canvas.rect(left, top, cell, height / rows, "null", text)
            opacity = MAX_OPACITY * abs(share) / (largest or 1)
            canvas.rect(left, top, cell, height / rows, "plus" if share > 0 else "minus", text, opacity)
            if cell >= MIN_LABELLED_WIDTH:
                canvas.text(left + cell / 2, top + height / rows / 2 + 4, f"{100 * share:.0f}", "", "middle")
        y += height + GAP
    canvas.text(8, y + 30, f"darkest: {format_percent(largest)}", "soft")
    canvas.text(left_edge, y + 14, "start of clip", "soft")
    canvas.text(FIGURE_WIDTH - 8, y + 14, "end of clip", "soft", "end")
    return canvas.figure(slug("causal_tracing", title), f"{title}: share of the score difference by stage and place")
