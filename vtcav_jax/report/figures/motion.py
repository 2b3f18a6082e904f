"""Figures of temporal profiles of maps and of the loss of score in edited clips."""

import math
from collections.abc import Iterable, Sequence

from vtcav_jax.attribution.motion.summary import MAX_STATIC_SHARE, MIN_MOTION_SHARE, ShareInterval, format_clips
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, Legend, NameLabels, draw_label
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, draw_left_axis, slug
from vtcav_jax.report.text_width import LINE_HEIGHT, text_width
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow, ProfileRow

SHARE_STYLES = {
    "drop_shuffled": ("two", "shuffled"),
    "drop_frozen": ("one", "frozen"),
    "drop_reversed": ("three", "reversed"),
}
RUN_COLOURS = ("one", "two", "three", "four")
MIN_DRAWN_SHARE, MAX_DRAWN_SHARE = -2.0, 3.0  # values beyond are drawn at the border; the tooltip has the number
MAX_FIGURE_CLIPS, MAX_FIGURE_ANSWERS = 80, 20


def profile_figure(steps: Sequence[ProfileRow]) -> Figure:
    """Draw the temporal profile of one question, method and stage: the share of the map in each time step."""
    first, bottom = steps[0], 146
    canvas = Canvas(FIGURE_WIDTH, 190)
    y = fit_scale([v for row in steps for v in (row.mass, row.low, row.high)] + [1 / first.n_time_steps], bottom, 46)
    title = f"{first.target}: {first.method} at {first.stage}"
    left = draw_left_axis(canvas, y, title, "share of the map; dashed: uniform map")
    x = Scale(0, first.n_time_steps, left, FIGURE_WIDTH - 8)
    canvas.line(left, y(1 / first.n_time_steps), FIGURE_WIDTH - 8, y(1 / first.n_time_steps), "zero")
    xs = [x(row.time_step + 0.5) for row in steps]
    if not any(math.isnan(row.low) for row in steps):
        edge = [(a, y(row.high)) for a, row in zip(xs, steps)] + [(a, y(row.low)) for a, row in zip(xs, steps)][::-1]
        canvas.path(edge, "fill band one", closed=True)
    finite = [(a, row) for a, row in zip(xs, steps) if not math.isnan(row.mass)]
    if finite:
        canvas.path([(a, y(row.mass)) for a, row in finite], "bar one")
    for a, row in finite:
        share_text = format_share(row.mass, row.low, row.high)
        title = f"time step {row.time_step + 1} of {row.n_time_steps}: {share_text}, {count_noun(row.n_clips, 'clip')}"
        canvas.dot(a, y(row.mass), "one", title, 3)
    canvas.text(left, bottom + 18, "start of clip", "soft")
    canvas.text(FIGURE_WIDTH - 8, bottom + 18, "end of clip", "soft", "end")
    label = f"{first.target}: temporal profile of the maps of {first.method} at {first.stage}"
    return canvas.figure(slug("profile", first.target, first.method, first.stage), label)


def class_motion_figure(rows: Sequence[ClassMotionRow]) -> Figure:
    """Draw the loss of score in edited clips of one question, over all clips and for each prediction."""
    largest = sorted(rows, key=lambda row: (row.answer != "", -row.n_clips))[: MAX_FIGURE_ANSWERS + 1]
    rows = [row for row in rows if row in largest]
    names = [f"{row.answer or 'all clips'}" for row in rows]
    counts = [f"{count_noun(row.n_clips, 'clip')}, {count_noun(row.n_videos, 'video')}" for row in rows]
    labels = NameLabels.of(names, MAX_ROW_NAME)
    heights = [labels.height(i, 52) for i in range(len(rows))]
    canvas, first = Canvas(FIGURE_WIDTH, 74 + sum(map(round, heights))), rows[0]
    shares = [_estimate(row, name) for row in rows for name in SHARE_STYLES]
    left = max(140.0, labels.width + 18, max(map(text_width, counts)) + 18)
    x = _draw_axis(canvas, f"{first.target}: loss of score when clips are", 44, shares, left)
    Legend.of(SHARE_STYLES.values(), FIGURE_WIDTH).draw(canvas, 30)
    for i, row in enumerate(rows):
        y = 62 + sum(heights[:i])
        for k, line in enumerate(labels.lines[i]):
            canvas.text(8, y + LINE_HEIGHT * k, line)
        canvas.text(8, y + 15 + LINE_HEIGHT * (len(labels.lines[i]) - 1), counts[i], "soft")
        for j, (name, (css_class, text)) in enumerate(SHARE_STYLES.items()):
            share = _estimate(row, name)
            _draw_share(canvas, x, y + 13 * j - 3, share, css_class, f"{text}: loss of score {format_share(*share)}")
    return canvas.figure(slug("motion_share", first.target), f"{first.target}: loss of score in edited clips")


def compared_motion_figure(target: str, labels: Sequence[str], runs: Sequence[Sequence[ClassMotionRow]]) -> Figure:
    """Draw the loss of score in shuffled clips of one question, with one mark per run."""
    first = sorted(runs[0], key=lambda row: (row.answer != "", -row.n_clips))[: MAX_FIGURE_ANSWERS + 1]
    answers = [row.answer for row in first if all(any(r.answer == row.answer for r in run) for run in runs)]
    legend = Legend.of(((RUN_COLOURS[i % 4], name) for i, name in enumerate(labels)), FIGURE_WIDTH)
    names = NameLabels.of([answer or "all clips" for answer in answers], MAX_ROW_NAME)
    top, step = 30 + round(legend.height), 18 + 12 * len(labels)
    heights = [max(step, names.height(i, 18)) for i in range(len(answers))]
    canvas = Canvas(FIGURE_WIDTH, top + 26 + sum(map(round, heights)))
    shares = [_estimate(row, "drop_shuffled") for run in runs for row in run if row.answer in answers]
    x = _draw_axis(canvas, f"{target}: loss of score, shuffled", top, shares, max(140.0, names.width + 18))
    legend.draw(canvas, 30)
    for i, answer in enumerate(answers):
        y = top + 14 + sum(heights[:i])
        draw_label(canvas, 8, y - 4 + 6 * len(labels), names.lines[i])
        for j, (name, run) in enumerate(zip(labels, runs)):
            row = next(r for r in run if r.answer == answer)
            estimate = _estimate(row, "drop_shuffled")
            _draw_share(
                canvas,
                x,
                y + 12 * j,
                estimate,
                RUN_COLOURS[j % 4],
                f"{name}: {format_share(*estimate)}, {format_clips(row)}",
            )
    return canvas.figure(
        slug("compare_motion", target), f"{target}: loss of score in shuffled clips in {', '.join(labels)}"
    )


def clip_motion_figure(rows: Sequence[ClipMotionRow]) -> Figure:
    """Draw the loss of score of each shuffled clip of one question, the smallest first."""
    ranked = sorted((row for row in rows if not math.isnan(row.drop_shuffled)), key=lambda row: row.drop_shuffled)
    displayed = [ranked[i] for i in _even_indices(len(ranked))]
    canvas, first = Canvas(FIGURE_WIDTH, 66 + 8 * len(displayed)), rows[0]
    shares = [_estimate(row, "drop_shuffled") for row in displayed]
    x = _draw_axis(canvas, f"{first.target}: loss of score, shuffled", 34, shares, 140)
    canvas.text(8, 46, f"{len(displayed)} of {count_noun(len(rows), 'clip')}", "soft")
    canvas.text(8, 62, "smallest loss first", "soft")
    for i, row in enumerate(displayed):
        value, low, high = _estimate(row, "drop_shuffled")
        share_text = format_share(value, low, high)
        predicted = f" (prediction {row.prediction})" if row.prediction not in ("", row.answer) else ""
        title = f"{row.clip}, {row.answer}{predicted}: loss {share_text} of a score of {row.score:.3g}"
        _draw_share(canvas, x, 42 + 8 * i, (value, low, high), "faint" if low <= 0 <= high else "two", title, 3)
    label = f"{first.target}: loss of score of each clip when its frames are shuffled"
    return canvas.figure(slug("motion_clips", first.target), label)


def _even_indices(n: int) -> list[int]:
    """Return all indices below n, or evenly spaced ones if n is too large for a figure."""
    return (
        list(range(n))
        if n <= MAX_FIGURE_CLIPS
        else [round(i * (n - 1) / (MAX_FIGURE_CLIPS - 1)) for i in range(MAX_FIGURE_CLIPS)]
    )


def _estimate(row: ClassMotionRow | ClipMotionRow, name: str) -> ShareInterval:
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def _draw_axis(canvas: Canvas, title: str, top: Number, shares: Iterable[ShareInterval], left: Number) -> Scale:
    """Draw the title, an axis that covers the shares, and the band between the thresholds of the motion verdict."""
    drawn = [min(max(value, MIN_DRAWN_SHARE), MAX_DRAWN_SHARE) for share in shares for value in share if value == value]
    x, bottom = fit_scale([*drawn, MIN_MOTION_SHARE], left, FIGURE_WIDTH - 22), canvas.height - 22
    canvas.heading(title)
    canvas.rect(
        x(MAX_STATIC_SHARE),
        top,
        x(MIN_MOTION_SHARE) - x(MAX_STATIC_SHARE),
        bottom - top,
        "null",
        "between the thresholds of the motion verdict",
    )
    for value in x.ticks:
        canvas.line(x(value), top, x(value), bottom, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 6, f"{format_tick(100 * value)} %", "soft", "middle")
    return x


def _draw_share(
    canvas: Canvas, x: Scale, y: Number, estimate: tuple[float, float, float], css_class: str, title: str, r: Number = 4
) -> None:
    value, low, high = (min(max(v, MIN_DRAWN_SHARE), MAX_DRAWN_SHARE) if not math.isnan(v) else v for v in estimate)
    if math.isnan(value):
        canvas.text(x(0), y + 4, "?", "soft", "middle")
        return
    if not math.isnan(low):
        canvas.line(x(low), y, x(high), y, f"bar {css_class}")
    canvas.dot(x(value), y, css_class, title, r)


def format_share(value: float, low: float, high: float) -> str:
    """Format a share in percent, with its interval if it has one."""
    interval = "" if math.isnan(low) else f" ({format_percent(low).removesuffix(' %')} to {format_percent(high)})"
    return f"{format_percent(value)}{interval}"
