"""Figures of shares with their intervals: of a map over the clip's time, of a decision that is motion."""

import math
from collections.abc import Sequence

from vtcav_jax.attribution.motion.summary import MAX_STATIC_SHARE, MIN_MOTION_SHARE
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, draw_left_axis, slug
from vtcav_jax.runs.attribution_rows import ClassMotionRow, ClipMotionRow, ProfileRow

SHARE_STYLES = {
    "drop_shuffled": ("two", "frames shuffled"),
    "drop_frozen": ("one", "clip frozen"),
    "drop_reversed": ("three", "reversed"),
}
RUN_COLOURS = ("one", "two", "three", "four")  # of runs
MIN_DRAWN_SHARE, MAX_DRAWN_SHARE = -0.5, 1.5  # a share beyond is drawn at the border, and told by its mark
MAX_FIGURE_CLIPS, MAX_FIGURE_ANSWERS = 80, 20  # in a figure


def profile_figure(steps: Sequence[ProfileRow]) -> Figure:
    """Of one question, method and stage: the share of the map in each time step, beside what an even spread gives."""
    first, bottom = steps[0], 146
    canvas = Canvas(FIGURE_WIDTH, 190)
    y = fit_scale([v for row in steps for v in (row.mass, row.low, row.high)] + [1 / first.n_time_steps], bottom, 46)
    canvas.text(8, 16, f"{first.target}: {first.method} at {first.stage}", "title", max_chars=48)
    left = draw_left_axis(canvas, y, "share of the map; dashed: spread evenly")
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
        title = f"step {row.time_step + 1} of {row.n_time_steps}: {share_text} of {row.n_clips} clips"
        canvas.dot(a, y(row.mass), "one", title, 3)
    canvas.text(left, bottom + 18, "clip begins", "soft")
    canvas.text(FIGURE_WIDTH - 8, bottom + 18, "ends", "soft", "end")
    label = f"{first.target}: in which part of the clip the map of {first.method} at {first.stage} lies"
    return canvas.figure(slug("profile", first.target, first.method, first.stage), label)


def class_motion_figure(rows: Sequence[ClassMotionRow]) -> Figure:
    """One question: what goes of its score when time is changed, over all clips and for each answer."""
    largest = sorted(rows, key=lambda row: (row.answer != "", -row.n_clips))[: MAX_FIGURE_ANSWERS + 1]
    rows = [row for row in rows if row in largest]
    canvas, first = Canvas(FIGURE_WIDTH, 74 + 52 * len(rows)), rows[0]
    x = _draw_axis(canvas, f"{first.target}: what goes of the score when", 44)
    for i, (css_class, text) in enumerate(SHARE_STYLES.values()):
        canvas.dot(14 + 116 * i, 30, css_class, text)
        canvas.text(22 + 116 * i, 34, text, "soft", max_chars=16)
    for i, row in enumerate(rows):
        y = 62 + 52 * i
        canvas.text(8, y, row.answer or f"all of {row.target}", "", max_chars=19)
        canvas.text(8, y + 15, f"{row.n_clips} clip{'s' if row.n_clips > 1 else ''}", "soft")
        for j, (name, (css_class, text)) in enumerate(SHARE_STYLES.items()):
            value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
            _draw_share(
                canvas,
                x,
                y + 13 * j - 3,
                (value, low, high),
                css_class,
                f"{text}: {format_share(value, low, high)} goes",
            )
    return canvas.figure(slug("motion_share", first.target), f"{first.target}: how much of the score is motion")


def compared_motion_figure(target: str, labels: Sequence[str], runs: Sequence[Sequence[ClassMotionRow]]) -> Figure:
    """One question in several runs: the share of the score that needs the order of frames, a mark for each run."""
    first = sorted(runs[0], key=lambda row: (row.answer != "", -row.n_clips))[: MAX_FIGURE_ANSWERS + 1]
    answers = [row.answer for row in first if all(any(r.answer == row.answer for r in run) for run in runs)]
    top, step = 30 + 14 * len(labels), 18 + 12 * len(labels)
    canvas = Canvas(FIGURE_WIDTH, top + 26 + step * len(answers))
    x = _draw_axis(canvas, f"{target}: what needs the order of frames", top)
    for i, name in enumerate(labels):
        canvas.dot(14, 30 + 14 * i, RUN_COLOURS[i % 4], name)
        canvas.text(24, 34 + 14 * i, name, "soft", max_chars=48)
    for i, answer in enumerate(answers):
        y = top + 14 + step * i
        canvas.text(8, y + 6 * len(labels), answer or f"all of {target}", "", max_chars=19)
        for j, (name, run) in enumerate(zip(labels, runs)):
            row = next(r for r in run if r.answer == answer)
            estimate = row.drop_shuffled, row.drop_shuffled_low, row.drop_shuffled_high
            _draw_share(
                canvas,
                x,
                y + 12 * j,
                estimate,
                RUN_COLOURS[j % 4],
                f"{name}: {format_share(*estimate)} of {row.n_clips} clips",
            )
    return canvas.figure(slug("compare_motion", target), f"{target}: how much is motion in {', '.join(labels)}")


def clip_motion_figure(rows: Sequence[ClipMotionRow]) -> Figure:
    """One question: the share of each clip's score that needs the order of frames, least first."""
    ranked = sorted((row for row in rows if not math.isnan(row.drop_shuffled)), key=lambda row: row.drop_shuffled)
    displayed = [ranked[i] for i in _even_indices(len(ranked))]
    canvas, first = Canvas(FIGURE_WIDTH, 66 + 8 * len(displayed)), rows[0]
    x = _draw_axis(canvas, f"{first.target}: clip by clip", 34)
    canvas.text(8, 46, f"{len(displayed)} of {len(rows)} clips", "soft")
    canvas.text(8, 62, "least motion first", "soft")
    for i, row in enumerate(displayed):
        value, low, high = row.drop_shuffled, row.drop_shuffled_low, row.drop_shuffled_high
        share_text = format_share(value, low, high)
        title = f"{row.clip}, {row.answer}: {share_text} of {row.score:.3g} needs the order of the frames"
        _draw_share(canvas, x, 42 + 8 * i, (value, low, high), "faint" if low <= 0 <= high else "two", title, 3)
    label = f"{first.target}: share of each clip's score that needs the order of its frames"
    return canvas.figure(slug("motion_clips", first.target), label)


def _even_indices(n: int) -> list[int]:
    """All of n, or so many that a figure holds them, evenly among them."""
    return (
        list(range(n))
        if n <= MAX_FIGURE_CLIPS
        else [round(i * (n - 1) / (MAX_FIGURE_CLIPS - 1)) for i in range(MAX_FIGURE_CLIPS)]
    )


def _draw_axis(canvas: Canvas, title: str, top: Number) -> Scale:
    """Title, axis, and the belt between what is called motion and what is not."""
    x, bottom = Scale(MIN_DRAWN_SHARE, MAX_DRAWN_SHARE, 140, FIGURE_WIDTH - 22), canvas.height - 22
    canvas.text(8, 16, title, "title", max_chars=48)
    canvas.rect(
        x(MAX_STATIC_SHARE),
        top,
        x(MIN_MOTION_SHARE) - x(MAX_STATIC_SHARE),
        bottom - top,
        "null",
        "neither clearly motion nor clearly not",
    )
    for value in (-0.5, 0, 0.5, 1, 1.5):
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
    """For a reader, with its interval if it has one."""
    interval = "" if math.isnan(low) else f" ({format_percent(low).removesuffix(' %')} to {format_percent(high)})"
    return f"{format_percent(value)}{interval}"
