"""The figures of Video-TCAV, small enough each for a phone: a page puts several side by side."""

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vtcav_jax.report.effect_sizes import Effect, effect, number, p_value, plain, span
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, scale, tick
from vtcav_jax.tcav.experiment.verdicts import Row, found

WIDTH = 360
KINDS = {"static": "one", "dynamic": "two"}  # colours; of other kinds the third


def colour(kind: str) -> str:
    return KINDS.get(kind, "three")


def slug(*told: str) -> str:
    """A file's name."""
    return re.sub(r"[^\w.-]+", "_", "_".join(told)).strip("_")


def said(row: Row, e: Effect) -> str:
    """All of a test's numbers, for whoever points at its mark."""
    return (
        f"{row.concept} ({row.kind}) against {row.against} at {row.stage}: {number(e.value)} ({span(e.low, e.high)}),"
        f" by chance {span(e.null_low, e.null_high)}, adjusted p {p_value(row.p_adjusted)}, {row.verdict}"
    )


def depth(rows: Sequence[Row], statistic: str, unit: str, like: Sequence[Row] = ()) -> Figure:
    """One class and concept over the stages; the vertical scale holds the tests of `like` as well."""
    against, some = plain(rows)
    kinds, stages = _unique(row.kind for row in some), _unique(row.stage for row in rows)
    canvas, bottom = Canvas(WIDTH, 236), 186
    every = [value for row in [*some, *plain(like)[1]] for value in effect(row, statistic).numbers]
    y = scale(every, bottom, 46)
    first = rows[0]
    left = left_axis(canvas, y, f"{first.target}: {unit}")
    canvas.text(8, 16, first.concept, "title", most=27)
    for k, kind in enumerate(kinds):
        canvas.dot(WIDTH - 76 * (len(kinds) - k), 12, colour(kind), kind)
        canvas.text(WIDTH - 76 * (len(kinds) - k) + 9, 16, kind, "soft", most=10)
    pitch = (WIDTH - 8 - left) / max(len(stages), 1)
    every_nth = math.ceil(len(stages) / 8)
    for i, stage in enumerate(stages):
        centre = left + pitch * (i + 0.5)
        if i % every_nth == 0:
            canvas.text(centre, bottom + 18, stage, "soft", "middle", most=max(4, int(pitch * every_nth / 6.6)))
        for k, kind in enumerate(kinds):
            for row in (row for row in some if row.stage == stage and row.kind == kind):
                x = centre + (k - (len(kinds) - 1) / 2) * min(24, pitch / (len(kinds) + 1))
                _standing(canvas, row, effect(row, statistic), x, y)
    canvas.text(WIDTH - 8, bottom + 38, "stages, from first to last", "soft", "end")
    label = f"{first.target}: effect of {first.concept} over depth, against {against} clips"
    return canvas.figure(slug("depth", first.target, first.concept), label)


def _standing(canvas: Canvas, row: Row, e: Effect, x: Number, y: Scale) -> None:
    if not math.isnan(e.null_low):
        canvas.rect(x - 8, y(e.null_high), 16, y(e.null_low) - y(e.null_high), "null", "by chance")
    if math.isnan(e.value):
        canvas.text(x, y(0) - 4, "?", "soft", "middle")
        return
    kind = colour(row.kind) if e.sure else "faint"
    if not math.isnan(e.low):
        canvas.line(x, y(e.low), x, y(e.high), f"bar {kind}")
    canvas.dot(x, y(e.value), kind, said(row, e))


def ladder(rows: Sequence[Row], statistic: str, unit: str) -> Figure:
    """One class and concept: still, moving, and moving against what only lacks the motion, stage by stage."""
    stages = _unique(row.stage for row in rows)
    height = 60 + sum(24 + 19 * sum(row.stage == stage for row in rows) for stage in stages) + 26
    canvas, first = Canvas(WIDTH, height), rows[0]
    x = scale([value for row in rows for value in effect(row, statistic).numbers], 148, WIDTH - 12)
    canvas.text(8, 16, first.concept, "title", most=44)
    canvas.text(8, 32, f"{first.target}: {unit}", "soft", most=52)
    for value in x.ticks:
        canvas.line(x(value), 42, x(value), height - 26, "axis" if value else "zero")
        canvas.text(x(value), height - 12, tick(value), "soft", "middle")
    y = 42.0
    for stage in stages:
        y += 22
        canvas.text(8, y, stage, "soft", most=24)
        for row in (row for row in rows if row.stage == stage):
            y += 19
            e = effect(row, statistic)
            canvas.text(18, y + 4, f"{row.kind} − {row.against}", "" if e.sure else "soft", most=20)
            if not math.isnan(e.null_low):
                canvas.rect(x(e.null_low), y - 7, x(e.null_high) - x(e.null_low), 14, "null", "by chance")
            if math.isnan(e.value):
                continue
            kind = (colour(row.kind) if row.test != "motion" else "three") if e.sure else "faint"
            if not math.isnan(e.low):
                canvas.line(x(e.low), y, x(e.high), y, f"bar {kind}")
            canvas.dot(x(e.value), y, kind, said(row, e))
        y += 2
    label = f"{first.target}: {first.concept} still, moving, and against clips that only lack the motion"
    return canvas.figure(slug("motion", first.target, first.concept), label)


def bars(rows: Sequence[Row]) -> Figure:
    """The field's picture, for one class and stage: the share of clips whose derivative is positive."""
    some = plain(rows)[1]
    canvas = Canvas(WIDTH, 58 + 22 * len(some))
    x, first = Scale(0, 1, 156, WIDTH - 16), rows[0]
    canvas.text(8, 16, first.stage, "title", most=40)
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(x(value), 28, x(value), canvas.height - 24, "zero" if value == 0.5 else "axis")
        canvas.text(x(value), canvas.height - 8, f"{value:g}", "soft", "middle")
    for i, row in enumerate(some):
        y = 40 + 22 * i
        sure = found(row)
        title = f"{row.name}: {number(row.score)} ({span(row.score_low, row.score_high)}), {row.verdict}"
        canvas.text(8, y + 4, f"{row.concept}, {row.kind}", "" if sure else "soft", most=22)
        wide = max(x(row.score) - x(0), 3)  # that no clip is positive is a result as well, and must be seen
        canvas.rect(x(0), y - 7, wide, 14, f"fill {colour(row.kind) if sure else 'faint'}", title)
        if not math.isnan(row.score_low):
            canvas.line(x(row.score_low), y, x(row.score_high), y, "thin ink")
    return canvas.figure(slug("scores", first.target, first.stage), f"{first.target}: TCAV scores at {first.stage}")


def heat(names: Sequence[str], cosines: Float[np.ndarray, "n n"], stage: str, test: str) -> Figure:
    """Cosines between vectors; NaN is left empty."""
    n, left = len(names), 118
    cell = min(34.0, (WIDTH - left - 8) / n)
    canvas = Canvas(WIDTH, int(30 + cell * n + 98))
    canvas.text(8, 16, f"{stage}, {test}", "title", most=44)
    for i, name in enumerate(names):
        canvas.text(left - 6, 30 + cell * (i + 0.5) + 4, name, "soft", "end", most=17)
        x, y = left + cell * (i + 0.5) + 4, 36 + cell * n
        canvas.elements.append(f'<g transform="translate({x:.1f} {y:.1f}) rotate(-60)">')
        canvas.text(0, 0, name, "soft", "end", most=14)
        canvas.elements.append("</g>")
        for j, value in enumerate(cosines[i]):
            if math.isnan(value):
                continue
            kind = "plus" if value > 0 else "minus"
            title = f"{name} and {names[j]}: {number(value, 2)}"
            canvas.rect(left + cell * j, 30 + cell * i, cell - 1, cell - 1, kind, title, opacity=abs(value))
            if cell >= 26:
                middle = left + cell * (j + 0.5)
                canvas.text(middle, 30 + cell * (i + 0.5) + 4, number(round(value, 1) + 0.0, 2), "", "middle")
    return canvas.figure(slug("entanglement", stage, test), f"cosines between concept vectors at {stage}")


def over_time(row: Row, values: Float[np.ndarray, "n t"]) -> Figure:
    """Where in the clip the derivative along one vector arises: the mean of the clips and the middle half of them."""
    canvas, bottom = Canvas(WIDTH, 190), 146
    low, middle, high = np.quantile(values, 0.25, axis=0), values.mean(0), np.quantile(values, 0.75, axis=0)
    y = scale([*low, *middle, *high], bottom, 46)
    t = values.shape[1]
    left = left_axis(canvas, y, "part of the derivative")
    x = Scale(0, t, left, WIDTH - 8)
    kind = colour(row.kind) if found(row) else "faint"
    at = [x(i + 0.5) for i in range(t)]
    band = [*zip(at, map(y, high)), *reversed(list(zip(at, map(y, low))))]
    canvas.path(band, f"fill band {kind}", closed=True)
    canvas.path(list(zip(at, map(y, middle))), f"bar {kind}")
    for i, value in enumerate(middle):
        canvas.dot(at[i], y(value), kind, f"{i + 1} of {t}: {number(float(value))}", 3)
    canvas.text(8, 16, f"{row.concept} ({row.kind}) − {row.against}, {row.stage}", "title", most=48)
    canvas.text(left, bottom + 18, "clip begins", "soft")
    canvas.text(WIDTH - 8, bottom + 18, "ends", "soft", "end")
    name = slug("time", row.target, row.concept, row.kind, row.against, row.stage)
    return canvas.figure(name, f"{row.target}: when the derivative along {row.concept} ({row.kind}) arises")


def left_axis(canvas: Canvas, y: Scale, unit: str) -> int:
    """Its place, as far to the right as its longest number needs."""
    left = max(46, 10 + 7 * max((len(tick(value)) for value in y.ticks), default=0))
    canvas.text(8, 32, unit, "soft", most=52)
    for value in y.ticks:
        canvas.line(left, y(value), WIDTH - 8, y(value), "axis" if value else "zero")
        canvas.text(left - 6, y(value) + 4, tick(value), "soft", "end")
    return left


def _unique(names) -> list[str]:
    return list(dict.fromkeys(names))
