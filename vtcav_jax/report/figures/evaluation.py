"""Figures of the ground-truth scores of attribution methods and of their cost."""

import math
from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_number, format_range
from vtcav_jax.report.figures.labels import MAX_NAME_WIDTH, Legend, NameLabels, draw_label
from vtcav_jax.report.figures.svg import Canvas, Figure, Scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, slug
from vtcav_jax.runs.evaluation_rows import ALL_QUESTIONS, MEAN_SCORE, WORLD_METRICS, MethodScoreRow

WIDE_FIGURE_WIDTH = 2 * FIGURE_WIDTH
NETWORK_COLOURS = ("one", "two", "three", "four")
LABEL_SPACING, LETTER_WIDTH = 13, 6.4  # pixels between labels, and of a letter
ALWAYS_NAMED_METHODS = (
    "gradcam",
    "integrated_gradients",
    "occlusion",
    "rise (300)",
    "rollout",
    "frame_difference",
    "random",
)
MIN_DRAWN_SCORE = -0.35  # start of the axis: lower scores are drawn here, and the table has their values


def overall_scores(rows: Sequence[MethodScoreRow], network_name: str) -> list[MethodScoreRow]:
    """Return the TRUTH rows over all questions of a network, or of its only question, sorted by decreasing score."""
    subset = [row for row in rows if row.network_name == network_name and row.metric == MEAN_SCORE]
    over_questions = [row for row in subset if row.question == ALL_QUESTIONS] or subset
    return sorted(over_questions, key=lambda row: -row.value)


def best_stage_per_method(rows: Sequence[MethodScoreRow]) -> list[MethodScoreRow]:
    """Return the first row of each method; `rows` are sorted, so this is its best stage."""
    best_rows: dict[str, MethodScoreRow] = {}
    for row in rows:
        best_rows.setdefault(row.method, row)
    return list(best_rows.values())


def cost_front(rows: Sequence[MethodScoreRow]) -> list[MethodScoreRow]:
    """Return the rows that no row of equal or lower cost beats, sorted by increasing cost."""
    front: list[MethodScoreRow] = []
    for row in sorted(rows, key=lambda row: (row.forward_passes, -row.value)):
        if not front or row.value > front[-1].value:
            front.append(row)
    return front


def score_cost_figure(rows: Sequence[MethodScoreRow], network_name: str) -> Figure:
    """Draw the ground-truth score of each method at its best stage over its cost in forward passes.

    Labelled are the methods on the cost front, `ALWAYS_NAMED_METHODS`, and others where there is room.
    """
    all_rows = best_stage_per_method(overall_scores(rows, network_name))
    method_rows = [row for row in all_rows if not row.is_reference]
    canvas = Canvas(WIDE_FIGURE_WIDTH, 340)
    max_passes = max((row.forward_passes for row in method_rows), default=1)
    x = Scale(-0.8, math.log10(2 * max(max_passes, 10)), 56, WIDE_FIGURE_WIDTH - 150)
    y = Scale(min(-0.05, *(row.low for row in method_rows)), max(0.2, *(row.high for row in all_rows)) + 0.03, 296, 34)
    canvas.heading(f"{network_name}: ground-truth score against cost")
    for value in y.ticks:
        canvas.line(56, y(value), WIDE_FIGURE_WIDTH - 150, y(value), "axis" if value else "zero")
        canvas.text(50, y(value) + 4, format_tick(round(value, 6)), "soft", "end")
    for power in range(math.floor(x.high) + 1):
        canvas.line(x(power), 34, x(power), 296, "axis")
        canvas.text(x(power), 312, f"{10**power:,}", "soft", "middle")
    canvas.text(x(x.low), 312, "none", "soft", "middle")
    for row in (row for row in all_rows if row.is_reference):
        canvas.line(56, y(row.value), WIDE_FIGURE_WIDTH - 150, y(row.value), "faint thin")
        canvas.text(WIDE_FIGURE_WIDTH - 144, y(row.value) + 4, row.method, "soft")
    canvas.text(WIDE_FIGURE_WIDTH - 150, 332, "forward passes for one clip's map", "soft", "end")
    front = cost_front([row for row in method_rows if not row.is_trivial])
    canvas.path([(_cost_x(x, row), y(row.value)) for row in front], "one thin")
    ranked = sorted(method_rows, key=lambda row: (row not in front, row.method not in ALWAYS_NAMED_METHODS))
    dots = [(_cost_x(x, row), y(row.value)) for row in ranked]
    for row, (cx, cy) in reversed(list(zip(ranked, dots))):
        css_class = "faint" if row.is_trivial else "one" if row in front else "two"
        canvas.line(cx, y(row.low), cx, y(row.high), f"thin {css_class}")
        canvas.dot(cx, cy, css_class, method_tooltip(row))
    label_positions: list[tuple[float, float]] = []
    for row, (cx, cy) in zip(ranked, dots):
        end = cx + 12 + LETTER_WIDTH * len(row.method)
        free = all(abs(cy - oy) > LABEL_SPACING or abs(cx - ox) > 160 for ox, oy in label_positions)
        clear = all(abs(cy - oy) > 8 or not cx + 2 < ox < end for ox, oy in dots)
        if free and (clear or row in front or row.method in ALWAYS_NAMED_METHODS):
            canvas.text(cx + 8, cy + 4, row.method, "halo" if row in front else "soft halo")
            label_positions.append((cx, cy))
    label = f"{network_name}: ground-truth score of each method over its cost in forward passes"
    return canvas.figure(slug("truth", "cost", network_name), label)


def method_ranking_figure(rows: Sequence[MethodScoreRow], networks: Sequence[str]) -> Figure:
    """Draw the score and interval of each method at its best stage on each network, sorted by the first network."""
    by_network = {
        network_name: {row.method: row for row in best_stage_per_method(overall_scores(rows, network_name))}
        for network_name in networks
    }
    names = list(dict.fromkeys(name for by_method in by_network.values() for name in by_method))
    labels = NameLabels.of(names, MAX_NAME_WIDTH)
    left, width = max(176.0, labels.width + 16), FIGURE_WIDTH + 100 + max(0, round(labels.width) - 160)
    colours = [NETWORK_COLOURS[i % len(NETWORK_COLOURS)] for i in range(len(networks))]
    legend = Legend.of(zip(colours, networks), width)
    top, heights = 12 + legend.height, [labels.height(j, 17) for j in range(len(names))]
    canvas = Canvas(width, round(top + sum(heights) + 34))
    values = [value for by_method in by_network.values() for row in by_method.values() for value in (row.low, row.high)]
    x = Scale(min(-0.05, *values), max(0.2, *values), left, width - 16)
    legend.draw(canvas, 12, "")
    for value in x.ticks:
        canvas.line(x(value), top, x(value), canvas.height - 26, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 8, format_tick(round(value, 6)), "soft", "middle")
    for j, name in enumerate(names):
        cy = top + 12 + sum(heights[:j]) + (heights[j] - 17) / 2
        draw_label(canvas, left - 8, cy, labels.lines[j], "", "end")
        for i, by_method in enumerate(by_network.values()):
            if row := by_method.get(name):
                canvas.line(x(row.low), cy, x(row.high), cy, f"bar {colours[i]}")
                canvas.dot(x(row.value), cy, colours[i], method_tooltip(row), 4)
    return canvas.figure("truth_ranking", "ground-truth score of each method on each network")


def metric_figure(rows: Sequence[MethodScoreRow], network_name: str, question: str, max_methods: int = 14) -> Figure:
    """Draw each metric of the best methods and of the trivial maps for one question."""
    subset = [row for row in rows if row.network_name == network_name and row.question == question]
    ranked = best_stage_per_method(
        sorted((row for row in subset if row.metric == MEAN_SCORE), key=lambda row: -row.value)
    )
    methods = [row for row in ranked if not row.is_trivial and not row.is_reference][:max_methods]
    displayed = [row for row in ranked if row.is_reference or row.is_trivial or row in methods]
    metrics = [metric for metric in WORLD_METRICS if any(row.metric == metric for row in subset)]
    labels = NameLabels.of([head.method for head in displayed], MAX_NAME_WIDTH)
    start = max(182.0, labels.width + 16)
    heights = [labels.height(j, 18) for j in range(len(displayed))]
    canvas = Canvas(round(WIDE_FIGURE_WIDTH + start - 182), round(50 + sum(heights)))
    canvas.heading(f"{network_name}, {question}")
    column_width = (WIDE_FIGURE_WIDTH - 190) / max(len(metrics), 1)
    for i, metric in enumerate(metrics):
        left = start + column_width * i
        x = Scale(MIN_DRAWN_SCORE, 1.0, left, left + column_width - 14)
        canvas.text(left, 32, metric, "soft")
        canvas.line(x(0), 38, x(0), canvas.height - 6, "zero")
        canvas.line(x(1), 38, x(1), canvas.height - 6, "axis")
        for j, head in enumerate(displayed):
            cy = 48 + sum(heights[:j]) + (heights[j] - 18) / 2
            if not i:
                draw_label(canvas, start - 8, cy, labels.lines[j], "soft" if head.is_trivial else "", "end")
            row = next((r for r in subset if (r.method, r.stage, r.metric) == (head.method, head.stage, metric)), None)
            if row is not None and math.isfinite(row.value):
                value, low, high = (x(max(v, MIN_DRAWN_SCORE)) for v in (row.value, row.low, row.high))
                css_class = "faint" if row.is_trivial else "one"
                canvas.line(low, cy, high, cy, f"bar {css_class}")
                canvas.dot(value, cy, css_class, method_tooltip(row), 3.5)
    return canvas.figure(
        slug("truth", network_name, question), f"{network_name}, {question}: each metric of the best methods"
    )


def _cost_x(x: Scale, row: MethodScoreRow) -> float:
    return x(math.log10(row.forward_passes) if row.forward_passes else x.low)


def method_tooltip(row: MethodScoreRow) -> str:
    """Return the text that is displayed when the pointer is over a mark."""
    return (
        f"{row.method} at {row.stage}, {row.metric} of {row.question}: {format_number(row.value)}"
        f" (95 % CI {format_range(row.low, row.high)} over {count_noun(row.n_clips, 'clip')} of this network),"
        f" {row.forward_passes} forward passes, {format_number(1e3 * row.seconds)} ms"
    )
