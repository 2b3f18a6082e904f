"""Several runs of the same concepts on one page: two networks, two seeds, with and without something.

The interval of a difference is put together from the runs' own intervals, as for independent estimates (Zou and Donner,
*Construction of confidence limits about effect measures*, 2008). Runs that share clips vary together, and their
difference varies less: the interval is then wider than need be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from vtcav_jax.report import page
from vtcav_jax.report.drawing import Canvas, Figure, scale, tick
from vtcav_jax.report.effects import number, p_value, signed, span
from vtcav_jax.report.figures import WIDTH, slug
from vtcav_jax.report.page import Section
from vtcav_jax.report.run_folder import RunFolder, unique
from vtcav_jax.tcav.table import Row, found

Key = tuple[str, str, str, str, str]
COLOURS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Difference:
    """`left` less `right`, of the share of the gradient's length, which is free of each network's own scale."""

    key: Key
    left: Row
    right: Row
    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """The interval of this one difference; many are looked at, and no correction is made for that."""
        return self.low * self.high > 0


def key(row: Row) -> Key:
    return row.target, row.stage, row.concept, row.kind, row.against


def difference(left: Row, right: Row) -> Difference:
    a, b = left, right
    value = a.share - b.share
    low = value - math.hypot(a.share - a.share_low, b.share_high - b.share)
    high = value + math.hypot(a.share_high - a.share, b.share - b.share_low)
    return Difference(key(left), left, right, value, low, high)


def names(runs: Sequence[RunFolder]) -> list[str]:
    """Folders' names, with as much of the path as tells them apart."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def sections(runs: Sequence[RunFolder]) -> list[Section]:
    tables = [{key(row): row for row in run.rows} for run in runs]
    common = [k for k in tables[0] if all(k in table for table in tables[1:])]
    if empty := [str(run.folder) for run in runs if not run.rows]:
        raise ValueError(f"--run: {', '.join(empty)} has no scores.csv to compare; let the run end first")
    if not common:
        told = "; ".join(f"{run.folder} has {_told(run)}" for run in runs)
        raise ValueError(f"--run: these runs have no class, stage and concept in common ({told}); compare runs that do")
    called = names(runs)
    drawn = _figures(called, tables, common)
    text = (
        "The share of the gradient's length that lies along the concept, from −1 to 1: free of each network's own"
        " scale. Bars are 95 % intervals; hollow grey marks were not significant in their own run."
    )
    out = [Section("side", "Side by side", page.paragraph(text, "soft") + page.figures(drawn), tuple(drawn))]
    for (i, left), (j, right) in combinations(enumerate(called), 2):
        some = [difference(tables[i][k], tables[j][k]) for k in common]
        out.append(Section(f"less-{i}-{j}", f"{left} less {right}", _differences(some, left, right)))
    if missing := _only(called, tables, common):
        out.append(Section("only", "In some runs only", page.bullets(missing)))
    return out


def intro(runs: Sequence[RunFolder]) -> str:
    """Where the runs' settings differ."""
    called = names(runs)
    columns = unique([name for run in runs for name in run.asked])
    differ = [n for n in columns if len({str(run.asked.get(n, "")) for run in runs}) > 1]
    rows = [("", (name, *(str(run.asked.get(name, "")) for run in runs))) for name in differ]
    same = page.paragraph("These runs were asked the same, of the same.", "soft")
    return page.table(("they differ in", *called), rows) if rows else same


def _told(run: RunFolder) -> str:
    rows = run.rows
    return f"{', '.join(unique([row.target for row in rows]))} at {', '.join(unique([row.stage for row in rows]))}"


def _only(called: Sequence[str], tables: Sequence[dict[Key, Row]], common: Sequence[Key]) -> list[str]:
    shared = set(common)
    told = []
    for name, table in zip(called, tables):
        if left := [row for k, row in table.items() if k not in shared]:
            stages = ", ".join(unique([row.stage for row in left]))
            told.append(
                f"{name}: {len(left)} tests more, at {stages}, of {', '.join(unique([r.concept for r in left]))}"
            )
    return told


def _differences(some: Sequence[Difference], left: str, right: str) -> str:
    sure = [one for one in some if one.sure]
    parts = [
        page.paragraph(
            f"{len(sure)} of {len(some)} differences have an interval without 0; about {0.05 * len(some):.0f} would by"
            " chance alone. Intervals are those of independent runs: where clips are shared they are too wide."
        )
    ]
    columns = ("class", "stage", "concept", "compared", left, right, "difference", "interval", "adjusted p of each")
    lines = [
        (
            "" if one.sure else "faint",
            (
                *(one.key[0], one.key[1], one.key[2], f"{one.key[3]} − {one.key[4]}"),
                *(
                    signed(one.left.share),
                    signed(one.right.share),
                    signed(one.value),
                    span(one.low, one.high),
                ),
                f"{p_value(one.left.p_adjusted)}; {p_value(one.right.p_adjusted)}",
            ),
        )
        for one in sorted(some, key=lambda one: (not one.sure, -abs(one.value) if one.value == one.value else 0))
    ]
    return "".join(parts) + page.table(columns, lines)


def _figures(called: Sequence[str], tables: Sequence[dict[Key, Row]], common: Sequence[Key]) -> list[Figure]:
    """One for each class and concept: all its comparisons, a mark for each run."""
    out = []
    for target, concept in unique([(k[0], k[2]) for k in common]):
        keys = [k for k in common if (k[0], k[2]) == (target, concept)]
        step = 12 * len(tables) + 10
        canvas = Canvas(WIDTH, 60 + 14 * len(called) + step * len(keys))
        values = [v for k in keys for t in tables for v in (t[k].share, t[k].share_low, t[k].share_high)]
        x, top = scale(values, 168, WIDTH - 12), 26 + 14 * len(called)
        canvas.text(8, 16, f"{target}: {concept}", "title", most=46)
        for i, name in enumerate(called):
            canvas.dot(14, 30 + 14 * i, COLOURS[i % 4], name)
            canvas.text(24, 34 + 14 * i, name, "soft", most=48)
        for value in x.ticks:
            canvas.line(x(value), top, x(value), canvas.height - 26, "axis" if value else "zero")
            canvas.text(x(value), canvas.height - 10, tick(value), "soft", "middle")
        for n, k in enumerate(keys):
            y = top + step * n + 12
            canvas.text(8, y + 4, f"{k[1]} {k[3]} − {k[4]}", "soft", most=25)
            for i, table in enumerate(tables):
                row, at = table[k], y + 12 * i
                if math.isnan(row.share):
                    continue
                kind = COLOURS[i % 4] if found(row) else "faint"
                if not math.isnan(row.share_low):
                    canvas.line(x(row.share_low), at, x(row.share_high), at, f"bar {COLOURS[i % 4]}")
                title = f"{called[i]}: {number(row.share)} ({span(row.share_low, row.share_high)}), {row.verdict}"
                canvas.dot(x(row.share), at, kind, title)
        out.append(canvas.figure(slug("compare", target, concept), f"{target}: {concept} in {', '.join(called)}"))
    return out
