"""Figures of temporal profiles of maps and of the loss of score in edited clips."""

import math
from collections.abc import Iterable, Sequence

from vtcav_jax.attribution.motion.summary import MAX_STATIC_SHARE, MIN_MOTION_SHARE, ShareInterval, format_clips
from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, draw_left_axis, slug
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
    canvas.text(8, 16, f"{first.target}: {first.method} at {first.stage}", "title", max_chars=48)
    left = draw_left_axis(canvas, y, "share of the map; dashed: uniform map")
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
    canvas, first = Canvas(FIGURE_WIDTH, 74 + 52 * len(rows)), rows[0]
    shares = [_estimate(row, name) for row in rows for name in SHARE_STYLES]
    x = _draw_axis(canvas, f"{first.target}: loss of score when clips are", 44, shares)
    for i, (css_class, text) in enumerate(SHARE_STYLES.values()):
        canvas.dot(14 + 116 * i, 30, css_class, text)
        canvas.text(22 + 116 * i, 34, text, "soft", max_chars=16)
    for i, row in enumerate(rows):
        y = 62 + 52 * i
        canvas.text(8, y, row.answer or "all clips", "", max_chars=19)
        canvas.text(
            8, y + 15, f"{count_noun(row.n_clips, 'clip')}, {count_noun(row.n_videos, 'video')}", "soft", max_chars=22
        )
        for j, (name, (css_class, text)) in enumerate(SHARE_STYLES.items()):
            share = _estimate(row, name)
            _draw_share(canvas, x, y + 13 * j - 3, share, css_class, f"{text}: loss of score {format_share(*share)}")
    return canvas.figure(slug("motion_share", first.target), f"{first.target}: loss of score in edited clips")


def compared_motion_figure(target: str, labels: Sequence[str], runs: Sequence[Sequence[ClassMotionRow]]) -> Figure:
    """Draw the loss of score in shuffled clips of one question, with one mark per run."""
    first = sorted(runs[0], key=lambda row: (row.answer != "", -row.n_clips))[: MAX_FIGURE_ANSWERS + 1]
    answers = [row.answer for row in first if all(any(r.answer == row.answer for r in run) for run in runs)]
    top, step = 30 + 14 * len(labels), 18 + 12 * len(labels)
    canvas = Canvas(FIGURE_WIDTH, top + 26 + step * len(answers))
    shares = [_estimate(row, "drop_shuffled") for run in runs for row in run if row.answer in answers]
    x = _draw_axis(canvas, f"{target}: loss of score, shuffled", top, shares)
    for i, name in enumerate(labels):
        canvas.dot(14, 30 + 14 * i, RUN_COLOURS[i % 4], name)
        canvas.text(24, 34 + 14 * i, name, "soft", max_chars=48)
    for i, answer in enumerate(answers):
        y = top + 14 + step * i
        canvas.text(8, y + 6 * len(labels), answer or "all clips", "", max_chars=19)
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
    x = _draw_axis(canvas, f"{first.target}: loss of score, shuffled", 34, shares)
    canvas.text(8, 46, f"{len(displayed)} of {count_noun(len(rows), 'clip')}", "soft")
    canvas.text(8, 62, "smallest loss first", "soft")
    for i, row in enumerate(displayed):
        value, low, high = _estimate(row, "drop_shuffled")
        share_text = format_share(value, low, high)
        title = f"{row.clip}, {row.answer}: loss {share_text} of a score of {row.score:.3g}"
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


def _draw_axis(canvas: Canvas, title: str, top: Number, shares: Iterable[ShareInterval]) -> Scale:
    """Draw the title, an axis that covers the shares, and the band between the thresholds of the motion verdict."""
    drawn = [min(max(value, MIN_DRAWN_SHARE), MAX_DRAWN_SHARE) for share in shares for value in share if value == value]
    x, bottom = fit_scale([*drawn, MIN_MOTION_SHARE], 140, FIGURE_WIDTH - 22), canvas.height - 22
    canvas.text(8, 16, title, "title", max_chars=48)
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
