"""The figures of Video-TCAV, small enough each for a phone: a page puts several side by side."""

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.report.effect_sizes import Effect, effect_size, format_number, format_p, format_range, primary_tests
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding

FIGURE_WIDTH = 360
CLIP_TYPE_COLOURS = {"static": "one", "dynamic": "two"}  # colours; of other kinds the third


def clip_type_colour(clip_type: str) -> str:
    return CLIP_TYPE_COLOURS.get(clip_type, "three")


def slug(*parts: str) -> str:
    """A file's name."""
    return re.sub(r"[^\w.-]+", "_", "_".join(parts)).strip("_")


def effect_tooltip(row: ScoreRow, e: Effect) -> str:
    """All of a test's numbers, for whoever points at its mark."""
    return (
        f"{row.concept} ({row.clip_type}) against {row.negatives} at {row.stage}: {format_number(e.value)}"
        f" ({format_range(e.low, e.high)}),"
        f" by chance {format_range(e.null_low, e.null_high)}, adjusted p {format_p(row.p_adjusted)}, {row.verdict}"
    )


def depth_figure(
    rows: Sequence[ScoreRow], statistic: str, unit: str, same_scale_rows: Sequence[ScoreRow] = ()
) -> Figure:
    """One class and concept over the stages; the vertical scale holds the tests of `like` as well."""
    negatives, primary = primary_tests(rows)
    clip_types, stages = _distinct(row.clip_type for row in primary), _distinct(row.stage for row in rows)
    canvas, bottom = Canvas(FIGURE_WIDTH, 236), 186
    values = [
        value for row in [*primary, *primary_tests(same_scale_rows)[1]] for value in effect_size(row, statistic).numbers
    ]
    y = fit_scale(values, bottom, 46)
    first = rows[0]
    left = draw_left_axis(canvas, y, f"{first.target}: {unit}")
    canvas.text(8, 16, first.concept, "title", max_chars=27)
    for k, clip_type in enumerate(clip_types):
        canvas.dot(FIGURE_WIDTH - 76 * (len(clip_types) - k), 12, clip_type_colour(clip_type), clip_type)
        canvas.text(FIGURE_WIDTH - 76 * (len(clip_types) - k) + 9, 16, clip_type, "soft", max_chars=10)
    pitch = (FIGURE_WIDTH - 8 - left) / max(len(stages), 1)
    every_nth = math.ceil(len(stages) / 8)
    for i, stage in enumerate(stages):
        centre = left + pitch * (i + 0.5)
        if i % every_nth == 0:
            canvas.text(centre, bottom + 18, stage, "soft", "middle", max_chars=max(4, int(pitch * every_nth / 6.6)))
        for k, clip_type in enumerate(clip_types):
            for row in (row for row in primary if row.stage == stage and row.clip_type == clip_type):
                x = centre + (k - (len(clip_types) - 1) / 2) * min(24, pitch / (len(clip_types) + 1))
                _draw_effect(canvas, row, effect_size(row, statistic), x, y)
    canvas.text(FIGURE_WIDTH - 8, bottom + 38, "stages, from first to last", "soft", "end")
    label = f"{first.target}: effect of {first.concept} over depth, against {negatives} clips"
    return canvas.figure(slug("depth", first.target, first.concept), label)


def _draw_effect(canvas: Canvas, row: ScoreRow, e: Effect, x: Number, y: Scale) -> None:
    if not math.isnan(e.null_low):
        canvas.rect(x - 8, y(e.null_high), 16, y(e.null_low) - y(e.null_high), "null", "by chance")
    if math.isnan(e.value):
        canvas.text(x, y(0) - 4, "?", "soft", "middle")
        return
    css_class = clip_type_colour(row.clip_type) if e.significant else "faint"
    if not math.isnan(e.low):
        canvas.line(x, y(e.low), x, y(e.high), f"bar {css_class}")
    canvas.dot(x, y(e.value), css_class, effect_tooltip(row, e))


def static_dynamic_figure(rows: Sequence[ScoreRow], statistic: str, unit: str) -> Figure:
    """One class and concept: still, moving, and moving against what only lacks the motion, stage by stage."""
    stages = _distinct(row.stage for row in rows)
    height = 60 + sum(24 + 19 * sum(row.stage == stage for row in rows) for stage in stages) + 26
    canvas, first = Canvas(FIGURE_WIDTH, height), rows[0]
    x = fit_scale([value for row in rows for value in effect_size(row, statistic).numbers], 148, FIGURE_WIDTH - 12)
    canvas.text(8, 16, first.concept, "title", max_chars=44)
    canvas.text(8, 32, f"{first.target}: {unit}", "soft", max_chars=52)
    for value in x.ticks:
        canvas.line(x(value), 42, x(value), height - 26, "axis" if value else "zero")
        canvas.text(x(value), height - 12, format_tick(value), "soft", "middle")
    y = 42.0
    for stage in stages:
        y += 22
        canvas.text(8, y, stage, "soft", max_chars=24)
        for row in (row for row in rows if row.stage == stage):
            y += 19
            e = effect_size(row, statistic)
            canvas.text(18, y + 4, f"{row.clip_type} − {row.negatives}", "" if e.significant else "soft", max_chars=20)
            if not math.isnan(e.null_low):
                canvas.rect(x(e.null_low), y - 7, x(e.null_high) - x(e.null_low), 14, "null", "by chance")
            if math.isnan(e.value):
                continue
            css_class = (
                (clip_type_colour(row.clip_type) if row.comparison != "motion" else "three")
                if e.significant
                else "faint"
            )
            if not math.isnan(e.low):
                canvas.line(x(e.low), y, x(e.high), y, f"bar {css_class}")
            canvas.dot(x(e.value), y, css_class, effect_tooltip(row, e))
        y += 2
    label = f"{first.target}: {first.concept} still, moving, and against clips that only lack the motion"
    return canvas.figure(slug("motion", first.target, first.concept), label)


def sign_count_figure(rows: Sequence[ScoreRow]) -> Figure:
    """The field's picture, for one class and stage: the share of clips whose derivative is positive."""
    primary = primary_tests(rows)[1]
    canvas = Canvas(FIGURE_WIDTH, 58 + 22 * len(primary))
    x, first = Scale(0, 1, 156, FIGURE_WIDTH - 16), rows[0]
    canvas.text(8, 16, first.stage, "title", max_chars=40)
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(x(value), 28, x(value), canvas.height - 24, "zero" if value == 0.5 else "axis")
        canvas.text(x(value), canvas.height - 8, f"{value:g}", "soft", "middle")
    for i, row in enumerate(primary):
        y = 40 + 22 * i
        significant = is_finding(row)
        interval = format_range(row.tcav_score_low, row.tcav_score_high)
        title = f"{row.name}: {format_number(row.tcav_score)} ({interval}), {row.verdict}"
        canvas.text(8, y + 4, f"{row.concept}, {row.clip_type}", "" if significant else "soft", max_chars=22)
        bar_width = max(x(row.tcav_score) - x(0), 3)  # that no clip is positive is a result as well, and must be seen
        canvas.rect(
            x(0), y - 7, bar_width, 14, f"fill {clip_type_colour(row.clip_type) if significant else 'faint'}", title
        )
        if not math.isnan(row.tcav_score_low):
            canvas.line(x(row.tcav_score_low), y, x(row.tcav_score_high), y, "thin ink")
    return canvas.figure(slug("scores", first.target, first.stage), f"{first.target}: TCAV scores at {first.stage}")


def cosine_heatmap(names: Sequence[str], cosines: Float[np.ndarray, "n n"], stage: str, comparison: str) -> Figure:
    """Cosines between vectors; NaN is left empty."""
    n, left = len(names), 118
    cell = min(34.0, (FIGURE_WIDTH - left - 8) / n)
    canvas = Canvas(FIGURE_WIDTH, int(30 + cell * n + 98))
    canvas.text(8, 16, f"{stage}, {comparison}", "title", max_chars=44)
    for i, name in enumerate(names):
        canvas.text(left - 6, 30 + cell * (i + 0.5) + 4, name, "soft", "end", max_chars=17)
        x, y = left + cell * (i + 0.5) + 4, 36 + cell * n
        canvas.elements.append(f'<g transform="translate({x:.1f} {y:.1f}) rotate(-60)">')
        canvas.text(0, 0, name, "soft", "end", max_chars=14)
        canvas.elements.append("</g>")
        for j, value in enumerate(cosines[i]):
            if math.isnan(value):
                continue
            css_class = "plus" if value > 0 else "minus"
            title = f"{name} and {names[j]}: {format_number(value, 2)}"
            canvas.rect(left + cell * j, 30 + cell * i, cell - 1, cell - 1, css_class, title, opacity=abs(value))
            if cell >= 26:
                middle = left + cell * (j + 0.5)
                canvas.text(middle, 30 + cell * (i + 0.5) + 4, format_number(round(value, 1) + 0.0, 2), "", "middle")
    return canvas.figure(slug("entanglement", stage, comparison), f"cosines between concept vectors at {stage}")


def derivative_profile_figure(row: ScoreRow, values: Float[np.ndarray, "n t"]) -> Figure:
    """Where in the clip the derivative along one vector arises: the mean of the clips and the middle half of them."""
    canvas, bottom = Canvas(FIGURE_WIDTH, 190), 146
    low, middle, high = np.quantile(values, 0.25, axis=0), values.mean(0), np.quantile(values, 0.75, axis=0)
    y = fit_scale([*low, *middle, *high], bottom, 46)
    t = values.shape[1]
    left = draw_left_axis(canvas, y, "part of the derivative")
    x = Scale(0, t, left, FIGURE_WIDTH - 8)
    css_class = clip_type_colour(row.clip_type) if is_finding(row) else "faint"
    xs = [x(i + 0.5) for i in range(t)]
    band = [*zip(xs, map(y, high)), *reversed(list(zip(xs, map(y, low))))]
    canvas.path(band, f"fill band {css_class}", closed=True)
    canvas.path(list(zip(xs, map(y, middle))), f"bar {css_class}")
    for i, value in enumerate(middle):
        canvas.dot(xs[i], y(value), css_class, f"{i + 1} of {t}: {format_number(float(value))}", 3)
    canvas.text(8, 16, f"{row.concept} ({row.clip_type}) − {row.negatives}, {row.stage}", "title", max_chars=48)
    canvas.text(left, bottom + 18, "clip begins", "soft")
    canvas.text(FIGURE_WIDTH - 8, bottom + 18, "ends", "soft", "end")
    name = slug("time", row.target, row.concept, row.clip_type, row.negatives, row.stage)
    return canvas.figure(name, f"{row.target}: when the derivative along {row.concept} ({row.clip_type}) arises")


def draw_left_axis(canvas: Canvas, y: Scale, unit: str) -> int:
    """Its place, as far to the right as its longest number needs."""
    left = max(46, 10 + 7 * max((len(format_tick(value)) for value in y.ticks), default=0))
    canvas.text(8, 32, unit, "soft", max_chars=52)
    for value in y.ticks:
        canvas.line(left, y(value), FIGURE_WIDTH - 8, y(value), "axis" if value else "zero")
        canvas.text(left - 6, y(value) + 4, format_tick(value), "soft", "end")
    return left


def _distinct(names) -> list[str]:
    return list(dict.fromkeys(names))
