"""Several runs of the same on one page: two networks, two seeds, with and without something."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import combinations

from vtcav_jax.attribution.motion.summary import ClassMotion
from vtcav_jax.attribution.videos import map_store
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.comparison import metrics as comparison_metrics
from vtcav_jax.report.comparison import stage_matching
from vtcav_jax.report.comparison import text as comparison_text
from vtcav_jax.report.comparison.differences import Difference, Key, Table, difference, table
from vtcav_jax.report.effect_sizes import number, p_value, signed, span
from vtcav_jax.report.figures.motion import COLOURS
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, scale, tick
from vtcav_jax.report.figures.tcav import WIDTH, slug
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.tcav.experiment.verdicts import Row, found

CSV = "differences.csv"


def names(runs: Sequence[RunFolder]) -> list[str]:
    """Folders' names, with as much of the path as tells them apart."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def sections(runs: Sequence[RunFolder]) -> list[Section]:
    """Of all that every run has."""
    called = names(runs)
    out = _scores(runs) if all(run.rows for run in runs) else []
    out += comparison_metrics.motion(runs, called) + comparison_metrics.looks(runs, called)
    if not out:
        told = "; ".join(f"{run.folder} has {_told(run)}" for run in runs)
        raise ValueError(
            f"--run: these runs have no class, stage and concept in common, nor motion or maps of one question"
            f" ({told}); compare runs that do"
        )
    return out


def _scores(runs: Sequence[RunFolder]) -> list[Section]:
    places = _places(runs)
    tables = [table(run, stages) for run, stages in zip(runs, places)]
    common = [k for k in tables[0] if all(k in one for one in tables[1:])]
    if not common:
        return []
    called = names(runs)
    pairs = list(combinations(range(len(runs)), 2))
    some = [[difference(k, (called[i], called[j]), tables[i][k], tables[j][k]) for k in common] for i, j in pairs]
    flat = [one for of_pair in some for one in of_pair]
    parts = [html.box(html.leads(comparison_text.answers(called, tables, common, flat)), "answer")]
    text = (
        "Differences are in shares of the gradient's length. That one run shows an effect and another does not is no"
        " difference by itself; the interval of the difference tells."
    )
    parts += [html.paragraph(text, "soft") for text in (text, *_stages(called, places))]
    out = [Section("answer", "The answer", "".join(parts))]
    drawn = _figures(called, tables, common)
    text = (
        "The share of the gradient's length that lies along the concept, from −1 to 1: free of each network's own"
        " scale. Bars are 95 % intervals; hollow grey marks were not significant in their own run, or could not tell."
    )
    out.append(Section("side", "Side by side", html.paragraph(text, "soft") + html.figures(drawn), tuple(drawn)))
    for (i, j), of_pair in zip(pairs, some):
        out.append(Section(f"less-{i}-{j}", f"{called[i]} less {called[j]}", _differences(of_pair)))
    if missing := _only(called, tables, common):
        out.append(Section("only", "In some runs only", html.bullets(missing)))
    out.append(Section("tables", "Tables", f"<p>{html.held(CSV, _table(flat))}</p>"))
    return out


def _places(runs: Sequence[RunFolder]) -> list[dict[str, str]]:
    """For each run the names under which its stages are compared: those of all the runs where they differ."""
    stages = [unique([row.stage for row in run.rows]) for run in runs]
    depth = [stage_matching.relative(run.about.get("network_stages", ())) for run in runs]
    found = [stage_matching.matched(stages[0], other, (depth[0], own)) for other, own in zip(stages[1:], depth[1:])]
    out: list[dict[str, str]] = [{} for _ in runs]
    for stage in stages[0]:
        if all(stage in match for match in found):
            some = [stage, *(match[stage] for match in found)]
            for place, own in zip(out, some):
                place[own] = " / ".join(unique(some))
    return out


def _stages(called: Sequence[str], places: Sequence[dict[str, str]]) -> list[str]:
    """Says so where stages of different names are held against each other."""
    told = [name for name in unique(list(places[0].values())) if " / " in name]
    if not told:
        return []
    return [
        f"The networks have stages of different names; those at about the same relative depth are compared, in the"
        f" order {', '.join(called)}: {tcav_text.listed(told)}. That they stand for each other is an assumption."
    ]


def intro(runs: Sequence[RunFolder]) -> str:
    """Where the runs' settings differ, and how well each network knows the classes."""
    called = names(runs)
    columns = unique([name for run in runs for name in run.asked])
    differ = [n for n in columns if len({_setting(run, n) for run in runs}) > 1]
    rows = [("", (name, *(_setting(run, name) for run in runs))) for name in differ]
    right = [tcav_text.by_target(run.predictions) for run in runs]
    rows += [
        ("", (f"says {target}", *(tcav_text.accuracy(one[target]) if target in one else "" for one in right)))
        for target in unique([target for one in right for target in one])
    ]
    warned = random_weights_notice.some(runs, called)
    same = html.paragraph("These runs were asked the same, of the same.", "soft") if not differ else ""
    return warned + same + (html.table(("they differ in" if differ else "", *called), rows) if rows else "")


def _setting(run: RunFolder, name: str) -> str:
    value = run.asked.get(name, "")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _told(run: RunFolder) -> str:
    rows, stages = run.rows, unique([row.stage for row in run.rows])
    kinds = [f"concepts of {_listed(rows)} at {', '.join(stages)}"] if rows else []
    kinds += [f"motion of {_listed(run.motion_classes)}"] if run.motion_classes else []
    kinds += [f"maps of {_listed(run.maps)}"] if run.maps else []
    return tcav_text.listed(kinds) or "none of these, or did not end"


def _listed(rows: Sequence[Row] | Sequence[ClassMotion] | Sequence[map_store.Row]) -> str:
    return ", ".join(unique([row.target for row in rows]))


def _only(called: Sequence[str], tables: Sequence[Table], common: Sequence[Key]) -> list[str]:
    shared = set(common)
    told = []
    for name, one in zip(called, tables):
        if left := [row for k, row in one.items() if k not in shared]:
            stages = ", ".join(unique([row.stage for row in left]))
            told.append(
                f"{name}: {len(left)} tests more, at {stages}, of {', '.join(unique([r.concept for r in left]))}"
            )
    return told


def _differences(some: Sequence[Difference]) -> str:
    sure = [one for one in some if one.sure]
    told = [one for one in some if not one.why_not]
    text = (
        f"{len(sure)} of {len(told)} differences have an interval without 0; about {0.05 * len(told):.0f} would by"
        " chance alone. Intervals are those of independent runs: where clips are shared they are too wide."
    )
    if len(told) < len(some):
        text += f" {len(some) - len(told)} more are of tests that could not tell, and mean nothing."
    left, right = some[0].left_name, some[0].right_name
    columns = ("class", "stage", "concept", "compared", left, right, "difference", "interval", "adjusted p of each")
    ranked = sorted(some, key=lambda one: (bool(one.why_not), -abs(one.value) if one.value == one.value else 0))
    rest = [_line(one) for one in ranked if not one.sure]
    parts = [html.paragraph(text)]
    parts += [html.table(columns, [_line(one) for one in ranked if one.sure])] if sure else []
    parts += [html.details(f"{len(rest)} others", html.table(columns, rest))] if rest else []
    return "".join(parts)


def _line(one: Difference) -> tuple[str, tuple[str, ...]]:
    p = f"{p_value(one.left.p_adjusted)}; {p_value(one.right.p_adjusted)}"
    cells = (
        *(one.key.target, one.key.stage, one.key.concept, f"{one.key.kind} − {one.key.against}"),
        *(signed(one.left.share), signed(one.right.share), signed(one.value), span(one.low, one.high)),
        f"{p} ({one.why_not})" if one.why_not else p,
    )
    return "" if one.sure else "faint", cells


def _table(some: Sequence[Difference]) -> bytes:
    """All differences as CSV, in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        (*Key._fields, "left", "right", "left_share", "right_share", "difference", "low", "high", "cannot_tell")
    )
    for one in some:
        shares = one.left.share, one.right.share, one.value, one.low, one.high
        writer.writerow((*one.key, one.left_name, one.right_name, *shares, one.why_not))
    return file.getvalue().encode()


def _figures(called: Sequence[str], tables: Sequence[Table], common: Sequence[Key]) -> list[Figure]:
    """One for each class and concept: all its comparisons stage by stage, a mark for each run."""
    out = []
    for target, concept in unique([(k.target, k.concept) for k in common]):
        keys = [k for k in common if (k.target, k.concept) == (target, concept)]
        stages = unique([k.stage for k in keys])
        step, top = 12 * len(tables) + 10, 26 + 14 * len(called)
        canvas = Canvas(WIDTH, top + 34 + 22 * len(stages) + step * len(keys))
        values = [v for k in keys for t in tables for v in (t[k].share, t[k].share_low, t[k].share_high)]
        x = scale(values, 148, WIDTH - 12)
        canvas.text(8, 16, f"{target}: {concept}", "title", most=46)
        for i, name in enumerate(called):
            canvas.dot(14, 30 + 14 * i, COLOURS[i % 4], name)
            canvas.text(24, 34 + 14 * i, name, "soft", most=48)
        for value in x.ticks:
            canvas.line(x(value), top, x(value), canvas.height - 26, "axis" if value else "zero")
            canvas.text(x(value), canvas.height - 10, tick(value), "soft", "middle")
        y = top
        for stage in stages:
            y += 22
            canvas.text(8, y - 4, stage, "soft", most=52)
            for k in (k for k in keys if k.stage == stage):
                canvas.text(18, y + 4 + 6 * len(tables), f"{k.kind} − {k.against}", "", most=20)
                for i, one in enumerate(tables):
                    _mark(canvas, x, y + 8 + 12 * i, called[i], one[k], COLOURS[i % 4])
                y += step
        out.append(canvas.figure(slug("compare", target, concept), f"{target}: {concept} in {', '.join(called)}"))
    return out


def _mark(canvas: Canvas, x: Scale, y: Number, name: str, row: Row, colour: str) -> None:
    if math.isnan(row.share):
        return
    if not math.isnan(row.share_low):
        canvas.line(x(row.share_low), y, x(row.share_high), y, f"bar {colour}")
    title = f"{name}, {row.stage}: {number(row.share)} ({span(row.share_low, row.share_high)}), {row.verdict}"
    canvas.dot(x(row.share), y, colour if found(row) else "faint", title)
