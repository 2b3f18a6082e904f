"""Figures of a pyramid: its graph by depth, the score without its kernels, and whether they would be found again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.pyramid.tables import AblationRow, EdgeRow, NodeRow, Told
from vtcav_jax.report.effect_sizes import number, p_value, percent, span
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, scale, tick
from vtcav_jax.report.figures.tcav import WIDTH, left_axis, slug
from vtcav_jax.report.text.pyramid import counted, matters, part, stages

MOST_EDGES, MOST_NODES = 30, 40  # that are drawn of each level
PITCH, ROW, TOP = 136, 26, 44  # pixels from level to level and from kernel to kernel, and above both
LEAST, MOST, WIDEST = 4.0, 11.0, 7.0  # radii of kernels, the width of an edge


@dataclass(frozen=True)
class Shown:
    """What of a pyramid its picture has room for."""

    kernels: tuple[NodeRow, ...]
    edges: tuple[EdgeRow, ...]
    left_out: tuple[str, ...]  # in words


def shown(facts: Told, kernels: Sequence[NodeRow], edges: Sequence[EdgeRow]) -> Shown:
    """Of each level the kernels and edges with the greatest shares, for or against."""
    left_out, some, lines = [], [], []
    for level, names in enumerate(facts.levels):
        own = [row for row in kernels if row.level == level]
        some += own[:MOST_NODES]
        if len(own) > MOST_NODES:
            left_out.append(f"{MOST_NODES} of {len(own)} kernels of {stages(names)}")
    there = {row.number: row for row in some}
    for level, names in enumerate(facts.levels):
        own = [row for row in edges if row.child in there and there[row.child].level == level]
        ranked = sorted((row for row in own if row.parent in there or row.parent < 0), key=lambda row: -abs(row.share))
        lines += ranked[:MOST_EDGES]
        if len(ranked) > MOST_EDGES:
            left_out.append(f"{MOST_EDGES} of {len(own)} edges to {stages(names)}")
    return Shown(tuple(some), tuple(lines), tuple(left_out))


def graph(facts: Told, drawn: Shown, prefix: str) -> Figure:
    """The target on the left, then level by level; `prefix` and a kernel's number are where its mark leads."""
    columns = [_column(level, [row for row in drawn.kernels if row.level == i]) for i, level in enumerate(facts.levels)]
    rows = max([len(column) for column in columns], default=1)
    canvas = Canvas(PITCH * len(columns) + 100, TOP + ROW * rows + 16)
    middle = TOP + ROW * rows / 2
    at: dict[int, tuple[Number, Number]] = {-1: (22.0, middle)}
    for i, column in enumerate(columns):
        x, y = 22 + PITCH * (i + 1) - 20, middle - ROW * (len(column) - 1) / 2
        for j, one in enumerate(column):
            if isinstance(one, NodeRow):
                at[one.number] = (x, y + ROW * j)
            else:
                canvas.text(x - 16, y + ROW * j + 6, one, "soft", most=19)
    _edges(canvas, facts, drawn, at)
    canvas.text(8, 16, facts.target, "title", most=40)
    canvas.text(8, 32, "depth: the target at the left, what it hangs on further right", "soft", most=68)
    canvas.dot(22, middle, "ink paper", facts.target, 10)
    canvas.text(8, middle + 26, "score", "soft")
    most = max([row.relevance for row in drawn.kernels], default=1.0) or 1.0
    for row in drawn.kernels:
        x, y = at[row.number]
        radius = round(max(LEAST, MOST * math.sqrt(max(row.relevance, 0) / most)), 1)
        title = f"{row.stage} #{row.channel}: {part(row.relevance, row.relevance_low, row.relevance_high)}"
        with canvas.link(f"{prefix}{row.number}", f"node n{row.number}"):
            canvas.rect(x - 16, y - ROW / 2, PITCH - 40, ROW, "paper", opacity=0)
            canvas.dot(x, y, "one" if row.relevance_low > 0 else "faint", title, radius)
            name = f"#{row.channel}  {part(row.relevance)}"
            canvas.rect(x + radius + 2, y - 8, 7 * len(name), 16, "paper", opacity=0.8)
            canvas.text(x + radius + 4, y + 4, name, "halo")
    label = f"{facts.target}: {counted(len(drawn.kernels), 'kernel')} that it hangs on, level by level"
    return canvas.figure(slug("pyramid", facts.target), label)


def _column(level: Sequence[str], kernels: Sequence[NodeRow]) -> list[NodeRow | str]:
    """Each stage's name, then its kernels, the most relevant first."""
    out: list[NodeRow | str] = []
    for stage in level:
        out += [stage, *(row for row in kernels if row.stage == stage)]
    return out


def _edges(canvas: Canvas, facts: Told, drawn: Shown, at: dict[int, tuple[Number, Number]]) -> None:
    """The widest last; grey where the parent would be more without the child, dashed where that is not sure."""
    names = {row.number: f"{row.stage} #{row.channel}" for row in drawn.kernels} | {-1: facts.target}
    most = max([abs(row.share) for row in drawn.edges], default=1.0) or 1.0
    for row in sorted(drawn.edges, key=lambda row: (row.share > 0, abs(row.share))):
        kind = "one" if row.share > 0 else "faint"
        kind += " unsure" if row.share_low <= 0 <= row.share_high else ""
        kind += f" e{row.child}" + (f" e{row.parent}" if row.parent >= 0 else "")
        title = f"{part(row.share, row.share_low, row.share_high)} of {names[row.parent]} through {names[row.child]}"
        width = max(0.7, WIDEST * abs(row.share) / most)
        canvas.line(*at[row.parent], *at[row.child], kind, title, width)


def ablation(rows: Sequence[AblationRow]) -> Figure:
    """Of one stage: how far the score falls without more and more of its kernels, and without as many others."""
    first, bottom, right = rows[0], 150, WIDTH - 14
    canvas = Canvas(WIDTH, 192)
    every = [v for r in rows for v in (r.drop, r.drop_low, r.drop_high, r.random_drop, r.random_low, r.random_high)]
    y = scale(every, bottom, 54)
    left = left_axis(canvas, y, "fall of the score without")
    x = Scale(0, max(len(rows), 2) - 1, left + 12, right - 10)
    canvas.text(8, 16, f"{first.target}: {first.stage}", "title", most=46)
    for i, (kind, text) in enumerate((("one", "its kernels"), ("faint", "as many drawn from all"))):
        canvas.dot(14 + 110 * i, 42, kind, text)
        canvas.text(22 + 110 * i, 46, text, "soft")
    at = [x(i) for i in range(len(rows))]
    for kind, value, low, high in (
        ("faint", "random_drop", "random_low", "random_high"),
        ("one", "drop", "drop_low", "drop_high"),
    ):
        known = [(a, row) for a, row in zip(at, rows) if not math.isnan(getattr(row, low))]
        if len(known) > 1:
            upper = [(a, y(getattr(row, high))) for a, row in known]
            lower = [(a, y(getattr(row, low))) for a, row in known]
            canvas.path([*upper, *lower[::-1]], f"fill band {kind}", closed=True)
        else:
            for a, row in known:
                canvas.line(a, y(getattr(row, low)), a, y(getattr(row, high)), f"bar {kind}")
        canvas.path([(a, y(getattr(row, value))) for a, row in zip(at, rows)], f"bar {kind}")
        for a, row in zip(at, rows):
            told = f"{row.kernels} of {row.channels}: {number(getattr(row, value))}"
            told += f" ({span(getattr(row, low), getattr(row, high))}), p {p_value(row.p)}"
            canvas.dot(a, y(getattr(row, value)), kind, told, 3.5)
    for a, row in zip(at, rows):
        canvas.text(a, bottom + 16, f"{row.kernels}" + ("" if matters(row) else " ?"), "soft", "middle")
    canvas.text(
        right, bottom + 34, f"kernels taken out, of {first.channels}; ?: not shown to beat chance", "soft", "end"
    )
    label = f"{first.target}: fall of the score without kernels of {first.stage}, beside others"
    return canvas.figure(slug("ablation", first.target, first.stage), label)


def stability(facts: Told) -> Figure:
    """Level by level: how much of the kernels two clips share, and how much noise leaves."""
    canvas = Canvas(WIDTH, 74 + 30 * len(facts.levels))
    x, bottom = Scale(0, 1, 138, WIDTH - 18), canvas.height - 24
    canvas.text(8, 16, f"{facts.target}: found again", "title", most=46)
    for i, (kind, text) in enumerate((("one", "overlap of two clips"), ("two", "with noisy copies"))):
        canvas.dot(14 + 150 * i, 32, kind, text)
        canvas.text(22 + 150 * i, 36, text, "soft")
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(x(value), 46, x(value), bottom, "axis")
        canvas.text(x(value), canvas.height - 8, f"{tick(100 * value)} %", "soft", "middle")
    for i, (names, between) in enumerate(zip(facts.levels, facts.stability)):
        y = 62 + 30 * i
        canvas.text(8, y + 4, stages(names), "", most=19)
        if not math.isnan(between):
            canvas.dot(x(between), y - 5, "one", f"two clips by themselves: {percent(between)}")
        noisy = facts.under_noise[i] if i < len(facts.under_noise) else ()
        for one in (one for one in noisy if not math.isnan(one)):
            canvas.dot(x(one), y + 6, "two", f"a noisy copy of the clips: {percent(one)}", 3.5)
    label = f"{facts.target}: overlap of the kernels between clips and under noise, level by level"
    return canvas.figure(slug("stability", facts.target), label)
