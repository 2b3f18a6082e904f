"""Figures of shares with their intervals: of a map over the clip's time, of a decision that is motion."""

import math
from collections.abc import Sequence

from vtcav_jax.attribution.motion.reliance import Motion
from vtcav_jax.attribution.motion.summary import HIGH, LOW, ClassMotion
from vtcav_jax.attribution.videos.temporal_profile import Course
from vtcav_jax.report.effect_sizes import percent
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, scale, tick
from vtcav_jax.report.figures.tcav import WIDTH, left_axis, slug

SHARES = {"order": ("two", "frames shuffled"), "still": ("one", "clip frozen"), "backwards": ("three", "reversed")}
COLOURS = ("one", "two", "three", "four")  # of runs
LEAST, MOST = -0.5, 1.5  # a share beyond is drawn at the border, and told by its mark
MOST_CLIPS, MOST_ANSWERS = 80, 20  # in a figure


def course(steps: Sequence[Course]) -> Figure:
    """Of one question, method and stage: the share of the map in each time step, beside what an even spread gives."""
    first, bottom = steps[0], 146
    canvas = Canvas(WIDTH, 190)
    y = scale([v for one in steps for v in (one.share, one.low, one.high)] + [1 / first.steps], bottom, 46)
    canvas.text(8, 16, f"{first.target}: {first.method} at {first.stage}", "title", most=48)
    left = left_axis(canvas, y, "share of the map; dashed: spread evenly")
    x = Scale(0, first.steps, left, WIDTH - 8)
    canvas.line(left, y(1 / first.steps), WIDTH - 8, y(1 / first.steps), "zero")
    at = [x(one.step + 0.5) for one in steps]
    if not any(math.isnan(one.low) for one in steps):
        edge = [(a, y(one.high)) for a, one in zip(at, steps)] + [(a, y(one.low)) for a, one in zip(at, steps)][::-1]
        canvas.path(edge, "fill band one", closed=True)
    known = [(a, one) for a, one in zip(at, steps) if not math.isnan(one.share)]
    if known:
        canvas.path([(a, y(one.share)) for a, one in known], "bar one")
    for a, one in known:
        told = f"step {one.step + 1} of {one.steps}: {share(one.share, one.low, one.high)} of {one.clips} clips"
        canvas.dot(a, y(one.share), "one", told, 3)
    canvas.text(left, bottom + 18, "clip begins", "soft")
    canvas.text(WIDTH - 8, bottom + 18, "ends", "soft", "end")
    label = f"{first.target}: in which part of the clip the map of {first.method} at {first.stage} lies"
    return canvas.figure(slug("profile", first.target, first.method, first.stage), label)


def by_class(rows: Sequence[ClassMotion]) -> Figure:
    """One question: what goes of its score when time is changed, over all clips and for each answer."""
    shown = sorted(rows, key=lambda row: (row.answer != "", -row.clips))[: MOST_ANSWERS + 1]
    rows = [row for row in rows if row in shown]
    canvas, first = Canvas(WIDTH, 74 + 52 * len(rows)), rows[0]
    x = _frame(canvas, f"{first.target}: what goes of the score when", 44)
    for i, (kind, text) in enumerate(SHARES.values()):
        canvas.dot(14 + 116 * i, 30, kind, text)
        canvas.text(22 + 116 * i, 34, text, "soft", most=16)
    for i, row in enumerate(rows):
        y = 62 + 52 * i
        canvas.text(8, y, row.answer or f"all of {row.target}", "", most=19)
        canvas.text(8, y + 15, f"{row.clips} clip{'s' if row.clips > 1 else ''}", "soft")
        for j, (name, (kind, text)) in enumerate(SHARES.items()):
            value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
            _marked(canvas, x, y + 13 * j - 3, (value, low, high), kind, f"{text}: {share(value, low, high)} goes")
    return canvas.figure(slug("motion_share", first.target), f"{first.target}: how much of the score is motion")


def side_by_side(target: str, called: Sequence[str], runs: Sequence[Sequence[ClassMotion]]) -> Figure:
    """One question in several runs: the share of the score that needs the order of frames, a mark for each run."""
    first = sorted(runs[0], key=lambda row: (row.answer != "", -row.clips))[: MOST_ANSWERS + 1]
    answers = [row.answer for row in first if all(any(r.answer == row.answer for r in run) for run in runs)]
    top, step = 30 + 14 * len(called), 18 + 12 * len(called)
    canvas = Canvas(WIDTH, top + 26 + step * len(answers))
    x = _frame(canvas, f"{target}: what needs the order of frames", top)
    for i, name in enumerate(called):
        canvas.dot(14, 30 + 14 * i, COLOURS[i % 4], name)
        canvas.text(24, 34 + 14 * i, name, "soft", most=48)
    for i, answer in enumerate(answers):
        y = top + 14 + step * i
        canvas.text(8, y + 6 * len(called), answer or f"all of {target}", "", most=19)
        for j, (name, run) in enumerate(zip(called, runs)):
            row = next(r for r in run if r.answer == answer)
            told = row.order, row.order_low, row.order_high
            _marked(canvas, x, y + 12 * j, told, COLOURS[j % 4], f"{name}: {share(*told)} of {row.clips} clips")
    return canvas.figure(slug("compare_motion", target), f"{target}: how much is motion in {', '.join(called)}")


def by_clip(rows: Sequence[Motion]) -> Figure:
    """One question: the share of each clip's score that needs the order of frames, least first."""
    ranked = sorted((row for row in rows if not math.isnan(row.order)), key=lambda row: row.order)
    some = [ranked[i] for i in _spread(len(ranked))]
    canvas, first = Canvas(WIDTH, 66 + 8 * len(some)), rows[0]
    x = _frame(canvas, f"{first.target}: clip by clip", 34)
    canvas.text(8, 46, f"{len(some)} of {len(rows)} clips", "soft")
    canvas.text(8, 62, "least motion first", "soft")
    for i, row in enumerate(some):
        value, low, high = row.order, row.order_low, row.order_high
        told = f"{row.clip}, {row.answer}: {share(value, low, high)} of {row.score:.3g} needs the order of the frames"
        _marked(canvas, x, 42 + 8 * i, (value, low, high), "faint" if low <= 0 <= high else "two", told, 3)
    label = f"{first.target}: share of each clip's score that needs the order of its frames"
    return canvas.figure(slug("motion_clips", first.target), label)


def _spread(n: int) -> list[int]:
    """All of n, or so many that a figure holds them, evenly among them."""
    return list(range(n)) if n <= MOST_CLIPS else [round(i * (n - 1) / (MOST_CLIPS - 1)) for i in range(MOST_CLIPS)]


def _frame(canvas: Canvas, title: str, top: Number) -> Scale:
    """Title, axis, and the belt between what is called motion and what is not."""
    x, bottom = Scale(LEAST, MOST, 140, WIDTH - 22), canvas.height - 22
    canvas.text(8, 16, title, "title", most=48)
    canvas.rect(x(LOW), top, x(HIGH) - x(LOW), bottom - top, "null", "neither clearly motion nor clearly not")
    for value in (-0.5, 0, 0.5, 1, 1.5):
        canvas.line(x(value), top, x(value), bottom, "axis" if value else "zero")
        canvas.text(x(value), canvas.height - 6, f"{tick(100 * value)} %", "soft", "middle")
    return x


def _marked(
    canvas: Canvas, x: Scale, y: Number, told: tuple[float, float, float], kind: str, title: str, r: Number = 4
) -> None:
    value, low, high = (min(max(v, LEAST), MOST) if not math.isnan(v) else v for v in told)
    if math.isnan(value):
        canvas.text(x(0), y + 4, "?", "soft", "middle")
        return
    if not math.isnan(low):
        canvas.line(x(low), y, x(high), y, f"bar {kind}")
    canvas.dot(x(value), y, kind, title, r)


def share(value: float, low: float, high: float) -> str:
    """For a reader, with its interval if it has one."""
    interval = "" if math.isnan(low) else f" ({percent(low).removesuffix(' %')} to {percent(high)})"
    return f"{percent(value)}{interval}"
