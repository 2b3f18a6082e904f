"""Figures of Video-TCAV, each narrow enough for a phone."""

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import (
    Effect,
    comparison_name,
    effect_size,
    format_number,
    format_p,
    format_range,
    primary_tests,
)
from vtcav_jax.report.figures.labels import (
    MAX_NAME_WIDTH,
    MAX_ROW_NAME,
    Legend,
    NameLabels,
    column_label_size,
    column_pitch,
    draw_column_label,
    draw_label,
)
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav_groups import FIGURE_WIDTH, draw_left_axis, draw_stage_names, group_effect
from vtcav_jax.report.text_width import LINE_HEIGHT, wrap_text
from vtcav_jax.runs.tcav_depth_rows import GroupEffectRow
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding

CLIP_TYPE_COLOURS = {"static": "one", "dynamic": "two"}  # other clip types: the third colour
NULL_TITLE = "middle 95 % under permuted labels"


def clip_type_colour(clip_type: str) -> str:
    return CLIP_TYPE_COLOURS.get(clip_type, "three")


def slug(*parts: str) -> str:
    """Return the name of a file without its suffix."""
    return re.sub(r"[^\w.-]+", "_", "_".join(parts)).strip("_")


def effect_tooltip(row: ScoreRow, e: Effect) -> str:
    """Return all numbers of a test, as the tooltip of its mark."""
    return (
        f"{row.concept}, {comparison_name(row.clip_type, row.negatives)}, at {row.stage}: {format_number(e.value)}"
        f" (95 % CI {format_range(e.low, e.high)}), {NULL_TITLE} {format_range(e.null_low, e.null_high)},"
        f" adjusted p {format_p(row.p_adjusted)}, {row.verdict}"
    )


def depth_figure(
    rows: Sequence[ScoreRow],
    statistic: str,
    unit: str,
    same_scale_rows: Sequence[ScoreRow] = (),
    random_sets: Sequence[GroupEffectRow] = (),
) -> Figure:
    """Draw the effect of one concept on one class by stage, beside those of random sets tested like concepts.

    The vertical axis also covers `same_scale_rows`.
    """
    negatives, primary = primary_tests(rows)
    clip_types, stages = _distinct(row.clip_type for row in primary), _distinct(row.stage for row in rows)
    series = [*clip_types, *(["random sets"] if random_sets else [])]
    legend = Legend.of(((clip_type_colour(n) if n in clip_types else "faint", n) for n in series), FIGURE_WIDTH)
    top = 46 + round(legend.height)
    canvas, bottom = Canvas(FIGURE_WIDTH, top + 190), top + 140
    values = [
        value for row in [*primary, *primary_tests(same_scale_rows)[1]] for value in effect_size(row, statistic).numbers
    ]
    y = fit_scale([*values, *(group_effect(row, statistic)[0] for row in random_sets)], bottom, top)
    first = rows[0]
    left = draw_left_axis(canvas, y, f"{first.concept} (compared with {negatives})", f"{first.target}: {unit}")
    legend.draw(canvas, 46)
    pitch = (FIGURE_WIDTH - 8 - left) / max(len(stages), 1)
    draw_stage_names(canvas, stages, left, pitch, bottom)
    for i, stage in enumerate(stages):
        xs = [
            left + pitch * (i + 0.5) + (k - (len(series) - 1) / 2) * min(24, pitch / (len(series) + 1))
            for k in range(len(series))
        ]
        for x, clip_type in zip(xs, clip_types):
            for row in (row for row in primary if row.stage == stage and row.clip_type == clip_type):
                _draw_effect(canvas, row, effect_size(row, statistic), x, y)
        _draw_random_sets(canvas, [row for row in random_sets if row.stage == stage], statistic, xs[-1], y)
    label = f"{first.target}: effect of {first.concept} compared with {negatives} clips, by stage"
    return canvas.figure(slug("depth", first.target, first.concept), label)


def _draw_random_sets(canvas: Canvas, rows: Sequence[GroupEffectRow], statistic: str, x: Number, y: Scale) -> None:
    """Draw the effect of each random set and a line from the lowest to the highest."""
    effects = [(row, *group_effect(row, statistic)) for row in rows]
    effects = [entry for entry in effects if not math.isnan(entry[1])]
    if not effects:
        return
    values = [value for _, value, _, _ in effects]
    canvas.line(x, y(min(values)), x, y(max(values)), "bar faint")
    for row, value, low, high in effects:
        title = (
            f"{row.concept} ({row.clip_type}) compared with the other random sets, at {row.stage}:"
            f" {format_number(value)} (95 % CI {format_range(low, high)})"
        )
        canvas.dot(x, y(value), "faint", title, 2.5)


def _draw_effect(canvas: Canvas, row: ScoreRow, e: Effect, x: Number, y: Scale) -> None:
    if not math.isnan(e.null_low):
        canvas.rect(x - 8, y(e.null_high), 16, y(e.null_low) - y(e.null_high), "null", NULL_TITLE)
    if math.isnan(e.value):
        canvas.text(x, y(0) - 4, "?", "soft", "middle")
        return
    css_class = clip_type_colour(row.clip_type) if e.significant else "faint"
    if not math.isnan(e.low):
        canvas.line(x, y(e.low), x, y(e.high), f"bar {css_class}")
    draw_mark(canvas, row, x, y(e.value), css_class, effect_tooltip(row, e))


def draw_mark(canvas: Canvas, row: ScoreRow, x: Number, y: Number, css_class: str, title: str) -> None:
    """Draw a cross for an inconclusive test, else a dot, which the class `faint` makes hollow."""
    draw = canvas.dot if is_finding(row) or row.verdict == "not significant" else canvas.cross
    draw(x, y, css_class, title)


def static_dynamic_figure(rows: Sequence[ScoreRow], statistic: str, unit: str) -> Figure:
    """Draw the effects of static and dynamic clips of one concept, and of dynamic clips vs controls, by stage."""
    stages = _distinct(row.stage for row in rows)
    names = NameLabels.of([comparison_name(row.clip_type, row.negatives) for row in rows], MAX_ROW_NAME)
    lines_of = dict(zip(map(id, rows), names.lines))
    stage_lines = {stage: wrap_text(stage, FIGURE_WIDTH - 16) for stage in stages}
    further = sum(len(lines) - 1 for lines in (*stage_lines.values(), *names.lines)) * LINE_HEIGHT
    height = 60 + 24 * len(stages) + 19 * len(rows) + further + 26
    canvas, first, left = Canvas(FIGURE_WIDTH, height), rows[0], max(148.0, names.width + 28)
    x = fit_scale([value for row in rows for value in effect_size(row, statistic).numbers], left, FIGURE_WIDTH - 12)
    canvas.heading(first.concept, f"{first.target}: {unit}")
    for value in x.ticks:
        canvas.line(x(value), 42, x(value), height - 26, "axis" if value else "zero")
        canvas.text(x(value), height - 12, format_tick(value), "soft", "middle")
    y = 42.0
    for stage in stages:
        y += 22
        for line in stage_lines[stage]:
            canvas.text(8, y, line, "soft")
            y += LINE_HEIGHT
        y -= LINE_HEIGHT
        for row in (row for row in rows if row.stage == stage):
            half = LINE_HEIGHT * (len(lines_of[id(row)]) - 1) / 2
            y += 19 + half
            e = effect_size(row, statistic)
            draw_label(canvas, 18, y, lines_of[id(row)], "" if e.significant else "soft")
            if not math.isnan(e.null_low):
                canvas.rect(x(e.null_low), y - 7, x(e.null_high) - x(e.null_low), 14, "null", NULL_TITLE)
            if math.isnan(e.value):
                y += half
                continue
            css_class = (
                (clip_type_colour(row.clip_type) if row.comparison != "motion" else "three")
                if e.significant
                else "faint"
            )
            if not math.isnan(e.low):
                canvas.line(x(e.low), y, x(e.high), y, f"bar {css_class}")
            draw_mark(canvas, row, x(e.value), y, css_class, effect_tooltip(row, e))
            y += half
        y += 2
    label = f"{first.target}: effect of static and dynamic clips of {first.concept}, and of its motion"
    return canvas.figure(slug("motion", first.target, first.concept), label)


def sign_count_figure(rows: Sequence[ScoreRow], random_sets: Sequence[GroupEffectRow] = ()) -> Figure:
    """Draw the TCAV scores of one class at one stage: the share of target clips with a positive derivative.

    The last bars are the mean TCAV scores of random sets tested like concepts, with a line from lowest to highest.
    """
    negatives, primary = primary_tests(rows)
    random_types = _distinct(row.clip_type for row in random_sets)
    names = [f"{row.concept}, {row.clip_type}" for row in primary] + [f"random sets, {name}" for name in random_types]
    labels = NameLabels.of(names, MAX_ROW_NAME)
    heights = [labels.height(i, 22) for i in range(len(names))]
    middles = [40 + sum(heights[:i]) + (heights[i] - 22) / 2 for i in range(len(names))]
    canvas = Canvas(FIGURE_WIDTH, 76 + sum(map(round, heights)))
    x, first = Scale(0, 1, max(120.0, labels.width + 20), FIGURE_WIDTH - 16), rows[0]
    canvas.heading(f"{first.stage} (compared with {negatives})")
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(x(value), 28, x(value), canvas.height - 42, "zero" if value == 0.5 else "axis")
        canvas.text(x(value), canvas.height - 26, f"{value:g}", "soft", "middle")
    canvas.text(FIGURE_WIDTH - 8, canvas.height - 8, "share of clips with a positive derivative", "soft", "end")
    for i, row in enumerate(primary):
        significant = is_finding(row)
        interval = format_range(row.tcav_score_low, row.tcav_score_high)
        comparison = comparison_name(row.clip_type, row.negatives)
        title = f"{row.concept}, {comparison}: {format_number(row.tcav_score)} (95 % CI {interval}), {row.verdict}"
        _draw_score_bar(
            *(canvas, x, middles[i], labels.lines[i], row.tcav_score),
            *(row.tcav_score_low, row.tcav_score_high),
            *(clip_type_colour(row.clip_type) if significant else "faint", title),
        )
    for i, clip_type in enumerate(random_types):
        scores = [row.tcav_score for row in random_sets if row.clip_type == clip_type]
        low, mean, high = min(scores), sum(scores) / len(scores), max(scores)
        sets = count_noun(len(scores), "random set")
        title = f"{sets}, {clip_type}: mean {format_number(mean)}, {format_range(low, high)}"
        place = len(primary) + i
        _draw_score_bar(canvas, x, middles[place], labels.lines[place], mean, low, high, "faint", title)
    return canvas.figure(slug("scores", first.target, first.stage), f"{first.target}: TCAV scores at {first.stage}")


def _draw_score_bar(
    canvas: Canvas,
    x: Scale,
    y: Number,
    lines: Sequence[str],
    score: float,
    low: float,
    high: float,
    css_class: str,
    title: str,
) -> None:
    draw_label(canvas, 8, y, lines, "soft" if css_class == "faint" else "")
    bar_width = max(x(score) - x(0), 3)  # a score of 0 must remain visible
    canvas.rect(x(0), y - 7, bar_width, 14, f"fill {css_class}", title)
    if not math.isnan(low):
        canvas.line(x(low), y, x(high), y, "thin ink")


def cosine_heatmap(names: Sequence[str], cosines: Float[np.ndarray, "n n"], stage: str, comparison: str) -> Figure:
    """Draw the cosines between concept vectors; cells with NaN stay empty."""
    n, labels = len(names), NameLabels.of(names, MAX_NAME_WIDTH)
    label_width, label_height = column_label_size(labels)
    left = max(60.0, labels.width + 14, label_width - 10)
    cell = max(min(34.0, (FIGURE_WIDTH - left - 8) / n), column_pitch(labels))
    canvas = Canvas(round(max(FIGURE_WIDTH, left + cell * n + 8)), round(30 + cell * n + label_height + 16))
    negatives = {"absolute": "vectors vs random", "relative": "vectors vs others"}.get(comparison, comparison)
    canvas.heading(f"{stage}, {negatives}")
    for i, name in enumerate(names):
        draw_label(canvas, left - 6, 30 + cell * (i + 0.5), labels.lines[i], "soft", "end")
        draw_column_label(canvas, left + cell * (i + 0.5), 38 + cell * n, labels.lines[i], "soft", "end")
        for j, value in enumerate(cosines[i]):
            if math.isnan(value):
                continue
            css_class = "plus" if value > 0 else "minus"
            title = f"{name} and {names[j]}: {format_number(value, 2)}"
            canvas.rect(left + cell * j, 30 + cell * i, cell - 1, cell - 1, css_class, title, opacity=abs(value))
            if cell >= 26:
                middle = left + cell * (j + 0.5)
                canvas.text(middle, 30 + cell * (i + 0.5) + 4, format_number(round(value, 1) + 0.0, 2), "", "middle")
    return canvas.figure(slug("entanglement", stage, comparison), f"cosines between {negatives} at {stage}")


def derivative_profile_figure(row: ScoreRow, values: Float[np.ndarray, "n t"]) -> Figure:
    """Draw the contribution of each time step to the derivative: mean and middle half of the target clips."""
    canvas, bottom = Canvas(FIGURE_WIDTH, 190), 146
    profiles = np.quantile(values, 0.25, axis=0), values.mean(0), np.quantile(values, 0.75, axis=0)
    low, middle, high = (profile.tolist() for profile in profiles)
    y = fit_scale([*low, *middle, *high], bottom, 46)
    t = values.shape[1]
    comparison = comparison_name(row.clip_type, row.negatives)
    title = f"{row.concept}, {comparison}, {row.stage}"
    left = draw_left_axis(canvas, y, title, "contribution to the derivative")
    x = Scale(0, t, left, FIGURE_WIDTH - 8)
    css_class = clip_type_colour(row.clip_type) if is_finding(row) else "faint"
    xs = [x(i + 0.5) for i in range(t)]
    band = [*zip(xs, map(y, high)), *reversed(list(zip(xs, map(y, low))))]
    canvas.path(band, f"fill band {css_class}", closed=True)
    canvas.path(list(zip(xs, map(y, middle))), f"bar {css_class}")
    for i, value in enumerate(middle):
        canvas.dot(xs[i], y(value), css_class, f"time step {i + 1} of {t}: {format_number(float(value))}", 3)
    canvas.text(left, bottom + 18, "start of clip", "soft")
    canvas.text(FIGURE_WIDTH - 8, bottom + 18, "end of clip", "soft", "end")
    name = slug("time", row.target, row.concept, row.clip_type, row.negatives, row.stage)
    return canvas.figure(name, f"{row.target}: derivative along {row.concept}, {comparison}, over time")


def _distinct(names) -> list[str]:
    return list(dict.fromkeys(names))
