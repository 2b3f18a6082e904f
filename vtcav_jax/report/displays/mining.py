"""Display of a mining report: clips of each concept, what the filters removed, and videos that could not be read."""

from vtcav_jax.concepts.candidates import FILTER_STAGES
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.mining import MiningReport
from vtcav_jax.names import count_noun
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, NameLabels, draw_label
from vtcav_jax.report.figures.svg import Canvas, Figure, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH

MAX_DRAWN_SETS = 40


def view_mining(result: MiningReport) -> ResultView:
    return ResultView(
        heading=repr(result),
        notes=result.notes,
        tables={
            "counts": lambda: counts_table(result),
            "filters": lambda: filters_table(result),
            "failures": lambda: ResultTable(("video", "reason"), tuple(result.failures.items())),
        },
        figures=lambda: [counts_figure(result)] if result.counts else [],
    )


def counts_table(result: MiningReport) -> ResultTable:
    """Return the number of clips of each set, concepts first."""
    rows = sorted(result.counts.items(), key=lambda row: row[0][0].startswith(NEGATIVE_PREFIX))
    return ResultTable(("set", "clip_type", "clips"), tuple((*names, n) for names, n in rows))


def filters_table(result: MiningReport) -> ResultTable:
    """Return how many clips each filter removed, by concept and clip type."""
    rows = ((*names, *(removed[stage] for stage in FILTER_STAGES)) for names, removed in result.thresholds.items())
    return ResultTable(("concept", "clip_type", *FILTER_STAGES), tuple(rows))


def counts_figure(result: MiningReport) -> Figure:
    """Draw the number of clips of each set and clip type as bars; sets of negatives are grey."""
    lines = counts_table(result).lines[:MAX_DRAWN_SETS]
    labels = NameLabels.of([f"{name}, {clip_type}" for name, clip_type, _ in lines], MAX_ROW_NAME)
    heights = [labels.height(i, 20) for i in range(len(lines))]
    omitted = len(result.counts) - len(lines)
    canvas, left = Canvas(FIGURE_WIDTH, 60 + sum(map(round, heights))), max(100.0, labels.width + 20)
    canvas.heading(f"clips by set{f', without {omitted} more' if omitted else ''}")
    x = fit_scale([int(str(n)) for _, _, n in lines], left, FIGURE_WIDTH - 14)
    for value in (value for value in x.ticks if value >= 0):
        canvas.line(x(value), 26, x(value), canvas.height - 30, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 14, format_tick(round(value, 6)), "soft", "middle")
    for i, (name, clip_type, n) in enumerate(lines):
        y = 38 + sum(heights[:i]) + (heights[i] - 20) / 2
        draw_label(canvas, 8, y, labels.lines[i])
        css_class = "faint" if str(name).startswith(NEGATIVE_PREFIX) else "one"
        title = f"{name}, {clip_type}: {count_noun(int(str(n)), 'clip')}"
        canvas.rect(x(0), y - 6, x(int(str(n))) - x(0), 12, f"fill {css_class}", title)
    return canvas.figure("mined_clips", "number of clips of each set")
