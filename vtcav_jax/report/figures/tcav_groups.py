"""Figures of Video-TCAV about several classes (strongest findings) or groups of clips (effects by stage)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import (
    comparison_name,
    effect_size,
    format_number,
    format_p,
    format_range,
    format_signed,
    primary_tests,
)
from vtcav_jax.report.figures.labels import (
    COLUMN_ANGLE,
    MAX_NAME_WIDTH,
    Legend,
    NameLabels,
    column_label_size,
    column_pitch,
    draw_column_label,
    draw_label,
)
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.runs.tcav_depth_rows import GroupEffectRow
from vtcav_jax.runs.tcav_rows import Saha2024Row, ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding

FIGURE_WIDTH = 360
MAX_COLUMNS = 12  # of a heat map at the width of a phone
MIN_CELL_FOR_NUMBERS = 30  # pixels
MOTION_COLUMN = "motion"
SERIES_COLOURS = "one", "two", "three", "four"


def class_concept_figures(rows: Sequence[ScoreRow], statistic: str) -> list[Figure]:
    """Draw the strongest finding of each class (row) for each concept and clip type (column), as many as fit a width.

    The column `motion` has the comparisons with control clips. A cross: all tests are inconclusive.
    """
    negatives, _ = primary_tests(rows)
    cells: dict[tuple[str, str], dict[str, list[ScoreRow]]] = {}
    for row in rows:
        column = MOTION_COLUMN if row.comparison == "motion" else row.clip_type
        if row.comparison != "freezing" and (column == MOTION_COLUMN or row.negatives == negatives or not negatives):
            cells.setdefault((row.concept, column), {}).setdefault(row.target, []).append(row)
    strongest = {
        (column, target): max(filter(is_finding, tests), key=lambda row: abs(effect_size(row, statistic).value))
        for column, by_target in cells.items()
        for target, tests in by_target.items()
        if any(map(is_finding, tests))
    }
    largest = max((abs(effect_size(row, statistic).value) for row in strongest.values()), default=1.0)
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    kinds.sort(key=lambda kind: kind == MOTION_COLUMN)
    concepts = dict.fromkeys(concept for concept, _ in cells)
    columns = [(concept, kind) for concept in concepts for kind in kinds if (concept, kind) in cells]
    per_figure = MAX_COLUMNS // len(kinds) * len(kinds) or MAX_COLUMNS
    return [
        _class_concept_figure(rows, columns[i : i + per_figure], cells, strongest, largest, statistic, i)
        for i in range(0, len(columns), per_figure)
    ]


def _class_concept_figure(
    rows: Sequence[ScoreRow],
    columns: Sequence[tuple[str, str]],
    cells: dict[tuple[str, str], dict[str, list[ScoreRow]]],
    strongest: dict[tuple[tuple[str, str], str], ScoreRow],
    largest: float,
    statistic: str,
    first: int,
) -> Figure:
    targets = list(dict.fromkeys(row.target for row in rows))
    row_labels = NameLabels.of(targets, MAX_NAME_WIDTH)
    column_labels = NameLabels.of([", ".join(column) for column in columns], MAX_NAME_WIDTH)
    left, (label_width, label_height) = max(60.0, row_labels.width + 14), column_label_size(column_labels)
    top = round(label_height) + 14
    room = (FIGURE_WIDTH - left - 34) / len(columns), (FIGURE_WIDTH - left - label_width) / (len(columns) - 0.5)
    width = max(min(46.0, *room), column_pitch(column_labels))
    heights = [row_labels.height(j, 24) for j in range(len(targets))]
    right = left + width * len(columns)
    canvas = Canvas(
        round(max(FIGURE_WIDTH, right + 34, right - width / 2 + label_width)), round(top + sum(heights)) + 10
    )
    for i, lines in enumerate(column_labels.lines):
        draw_column_label(canvas, left + width * (i + 0.5), top - 8, lines, "soft", "start")
    findings_x = right + 8
    canvas.text(findings_x, top + sum(heights) + 6, "sum", "soft")
    for j, target in enumerate(targets):
        y, height = top + sum(heights[:j]), heights[j]
        draw_label(canvas, left - 6, y + height / 2, row_labels.lines[j], "", "end")
        for i, column in enumerate(columns):
            tests = cells[column].get(target, [])
            finding = strongest.get((column, target))
            _draw_cell(canvas, left + width * i, y, width - 2, height - 2, tests, finding, largest, statistic)
        count = sum(is_finding(row) for column in columns for row in cells[column].get(target, []))
        canvas.text(findings_x, y + height / 2 + 4, str(count), "" if count else "soft")
    return canvas.figure(f"classes_{first}", "strongest finding of each class for each concept and type of clip")


def _draw_cell(
    canvas: Canvas,
    x: Number,
    y: Number,
    width: Number,
    height: Number,
    tests: Sequence[ScoreRow],
    finding: ScoreRow | None,
    largest: float,
    statistic: str,
) -> None:
    if not tests:
        return
    first = tests[0]
    middle = x + width / 2
    if finding is None:
        is_tested = any(row.verdict == "not significant" for row in tests)
        verdicts = ", ".join(dict.fromkeys(row.verdict for row in tests))
        title = f"{first.target}, {first.concept}: no finding in {count_noun(len(tests), 'test')} ({verdicts})"
        canvas.rect(x, y, width, height, "null", title)
        if not is_tested:
            canvas.cross(middle, y + height / 2, "faint", title)
        return
    e = effect_size(finding, statistic)
    others = [row.stage for row in tests if is_finding(row) and row.derivative * finding.derivative < 0]
    title = (
        f"{finding.target}: {finding.concept}, {comparison_name(finding.clip_type, finding.negatives)}, at"
        f" {finding.stage}: {format_signed(e.value)} (95 % CI {format_range(e.low, e.high)}), adjusted p"
        f" {format_p(finding.p_adjusted)}; {sum(map(is_finding, tests))} of {count_noun(len(tests), 'test')}"
        " are findings" + (f"; opposite sign at {', '.join(dict.fromkeys(others))}" if others else "")
    )
    opacity = 0.12 + 0.48 * abs(e.value) / largest
    canvas.rect(x, y, width, height, "plus" if e.value > 0 else "minus", title, opacity=opacity)
    text = format_signed(e.value) if width >= MIN_CELL_FOR_NUMBERS else "+" if e.value > 0 else "−"
    canvas.text(
        middle, y + height / 2 + 4, f"{text}±" if others and width < MIN_CELL_FOR_NUMBERS else text, "", "middle"
    )


@dataclass(frozen=True)
class StageMark:
    """Value of one series at a stage with its interval; `title` is the tooltip."""

    stage: str
    series: str
    value: float
    low: float
    high: float
    title: str


def stage_figure(
    name: str,
    label: str,
    title: str,
    unit: str,
    marks: Sequence[StageMark],
    *,
    is_share: bool = False,
) -> Figure:
    """Draw the marks of each series side by side at each stage; a series that starts with `random` is grey.

    `is_share`: the values are between 0 and 1, and 0.5 is neutral.
    """
    series, stages = (list(dict.fromkeys(getattr(mark, key) for mark in marks)) for key in ("series", "stage"))
    named = [entry for entry in series if not entry.startswith("random")]
    palette = SERIES_COLOURS if len(named) > 1 else ("three",)  # a single series is a difference of clip types
    colours = {entry: palette[i % len(palette)] for i, entry in enumerate(named)}
    legend = Legend.of(((colours.get(entry, "faint"), entry) for entry in series), FIGURE_WIDTH)
    top = 46 + round(legend.height)
    canvas, bottom = Canvas(FIGURE_WIDTH, top + 190), top + 140
    values = [value for mark in marks for value in (mark.value, mark.low, mark.high)]
    y = Scale(0, 1, bottom, top) if is_share else fit_scale(values, bottom, top)
    left = draw_left_axis(canvas, y, title, unit, neutral=0.5 if is_share else 0)
    legend.draw(canvas, 46)
    pitch = (FIGURE_WIDTH - 8 - left) / max(len(stages), 1)
    draw_stage_names(canvas, stages, left, pitch, bottom)
    for mark in marks:
        centre = left + pitch * (stages.index(mark.stage) + 0.5)
        x = centre + (series.index(mark.series) - (len(series) - 1) / 2) * min(24, pitch / (len(series) + 1))
        css_class = colours.get(mark.series, "faint")
        if not math.isnan(mark.low):
            canvas.line(x, y(mark.low), x, y(mark.high), f"bar {css_class}")
        if not math.isnan(mark.value):
            canvas.dot(x, y(mark.value), css_class, mark.title)
    return canvas.figure(name, label)


def group_marks(rows: Sequence[GroupEffectRow], statistic: str) -> list[StageMark]:
    """Return the effects of dynamic relative to static clips, by concept."""
    marks = []
    for row in rows:
        value, low, high = group_effect(row, statistic)
        series = f"{row.concept} clips" if row.concept == "random" else row.concept
        title = (
            f"{row.concept}, dynamic relative to static clips, at {row.stage}: {format_number(value)} (95 % CI"
            f" {format_range(low, high)})"
        )
        marks.append(StageMark(row.stage, series, value, low, high, title))
    return marks


def saha2024_marks(rows: Sequence[Saha2024Row]) -> list[StageMark]:
    """Return the TCAV scores of one group as published: mean, smallest and largest of the runs."""
    return [
        StageMark(
            row.stage,
            f"{row.clip_type} {row.concept}".strip(),
            row.tcav_score,
            row.tcav_score_min,
            row.tcav_score_max,
            f"{row.clip_type} {row.concept} at {row.stage}: {format_number(row.tcav_score)} (runs"
            f" {format_range(row.tcav_score_min, row.tcav_score_max)}), p {format_p(row.p)}, adjusted p"
            f" {format_p(row.p_adjusted)}",
        )
        for row in rows
    ]


def group_effect(row: GroupEffectRow, statistic: str) -> tuple[float, float, float]:
    """Return the effect with its interval, as `effect_size` does for tests."""
    if statistic == "step_effect":
        return row.step_effect, row.step_effect_low, row.step_effect_high
    return row.derivative, row.derivative_low, row.derivative_high


def draw_left_axis(canvas: Canvas, y: Scale, title: str, unit: str, *, neutral: Number = 0) -> int:
    """Draw the headings and a vertical axis, dashed at `neutral`; return its x position, right of the numbers."""
    left = max(46, 10 + 7 * max((len(format_tick(value)) for value in y.ticks), default=0))
    canvas.heading(title, unit)
    for value in y.ticks:
        canvas.line(left, y(value), FIGURE_WIDTH - 8, y(value), "axis" if value != neutral else "zero")
        canvas.text(left - 6, y(value) + 4, format_tick(value), "soft", "end")
    if neutral and neutral not in y.ticks:
        canvas.line(left, y(neutral), FIGURE_WIDTH - 8, y(neutral), "zero")
    return left


def draw_stage_names(canvas: Canvas, stages: Sequence[str], left: Number, pitch: Number, bottom: Number) -> None:
    """Write the names of the stages below a figure and make room for them: rising if they are too wide side by side.

    If there are more than fit side by side, names are left out at regular distances.
    """
    labels = NameLabels.of(stages, MAX_NAME_WIDTH)
    is_level = labels.width + 6 <= pitch and labels.max_lines == 1
    every_nth = 1 if is_level else math.ceil(column_pitch(labels) / pitch)
    is_outside = column_label_size(labels)[0] > left + pitch / 2  # of the figure, where the first name begins
    angle = 90 if is_outside else COLUMN_ANGLE
    for i, lines in list(enumerate(labels.lines))[::every_nth]:
        x = left + pitch * (i + 0.5)
        if is_level:
            canvas.text(x, bottom + 18, lines[0], "soft", "middle")
        else:
            draw_column_label(canvas, x, bottom + 10, lines, "soft", "end", angle)
    further = 0 if is_level else round(column_label_size(labels, angle)[1]) - 8
    canvas.height += further
    canvas.text(FIGURE_WIDTH - 8, bottom + 38 + further, "stage (layer), from input to output", "soft", "end")
