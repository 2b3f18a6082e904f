"""What a page says about explanation methods that were scored where the cause is known."""

import math
from collections.abc import Sequence

import numpy as np

from vtcav_jax.evaluation.world_benchmark.tables import (
    ABLATION,
    ALL,
    AXES,
    CHOSEN,
    EXACT,
    KIND,
    SELECTIVE,
    STABLE,
    TRUTH,
    MetaRow,
    Row,
)
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import number, span
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.report.figures.evaluation import best, cheapest, overall
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique
from vtcav_jax.report.text.tcav import listed

HOW = (
    "Clips are synthetic, and the networks were shown to go by what was planted in them. 0 is chance, 1 all there is"
    " to get, less than 0 worse than chance. WHERE: is the map on the cause? WHO: on the glyph that is asked about"
    " rather than on its double? WHEN: at the moment that matters? WHAT-FOR: somewhere else when something else is"
    " asked? EFFECT: does each part have the mass that the score loses without it? Truth is their mean. STABLE"
    " (unchanged when something irrelevant is) is told but no part of it: a map that shows nothing is stable. KIND:"
    " does a share of motion tell questions that need motion from those that do not? Intervals of 95 % are over clips."
    " Each method is told at its best stage, which these clips chose."
)
MOST_ROWS = 1500


def sections(run: RunFolder) -> list[Section]:
    rows = run.truths
    if not rows:
        return []
    networks = unique([row.network for row in rows if row.axis == TRUTH])
    costs = [evaluation_figures.against_cost(rows, network) for network in networks]
    several = unique([row.network for row in rows if row.axis == TRUTH and row.world == ALL]) or networks
    ranking = [evaluation_figures.ranking(rows, several[:4])] if networks else []  # as many as there are colours
    each = []
    for network in networks:
        worlds = unique([r.world for r in rows if r.network == network and r.axis == TRUTH and r.world != ALL])
        each += [evaluation_figures.by_axis(rows, network, world) for world in worlds]
    parts = [html.box(html.leads([said for network in networks for said in told(rows, network)]), "answer")]
    parts += [html.paragraph(HOW + flattered(rows), "soft"), *map(_whole, costs), *map(_whole, ranking)]
    parts += [html.details("axis by axis, question by question", "".join(map(_whole, each)))] if each else []
    if exact := sorted((row for row in rows if row.axis == EXACT), key=lambda row: -row.value):
        text = (
            "On a network wired by hand every voxel's Shapley value is known. 1: the map has these values, up to a"
            " factor; 0: it is no nearer to them than an even one. "
        )
        text += "; ".join(f"{row.method} {number(row.value, 2)} ({span(row.low, row.high)})" for row in exact)
        parts += [html.heading("Where each voxel's part is known"), html.paragraph(text)]
    if motion := sorted((row for row in rows if row.axis == KIND), key=lambda row: -row.value):
        lines = [("", [r.network, r.method, _cell(r), str(r.forwards), number(1e3 * r.seconds)]) for r in motion]
        parts += [html.heading("Shares of motion")]
        parts.append(html.table(["network", "share", KIND, "forward passes", "ms a clip"], lines))
    if any(row.axis == ABLATION for row in rows):
        parts += [html.heading("Kernels"), _kernels(rows)]
    if run.metrics:
        text = (
            "Metrics that know no truth, and how well they put maps in its order: Spearman's correlation over maps,"
            " with its interval. 1 is the order of the truth; such a metric may be believed on your own videos. The"
            " best on average come first."
        )
        parts += [html.heading("Metrics where no truth is known"), html.paragraph(text, "soft"), _metrics(run.metrics)]
    if run.not_scored:
        names = unique([f"{one.method} ({one.network}: {one.reason})" for one in run.not_scored])
        parts.append(html.details(f"{len(names)} not scored", html.bullets(names)))
    parts.append(_table(rows))
    return [Section("truth", "Which map to believe", "".join(parts), (*costs, *ranking, *each))]


def flattered(rows: Sequence[Row]) -> str:
    """By how much, as methods with several stages were also judged on other clips than those that chose."""
    networks = unique([row.network for row in rows])
    told = {(r.method, r.stage, r.network): r.value for name in networks for r in overall(rows, name)}
    halves = [(r, (r.method, r.stage, r.network)) for r in rows if r.axis == CHOSEN and math.isfinite(r.value)]
    lost = [(told[key] - r.value, r) for r, key in halves if key in told]
    if not lost:
        return ""
    most, row = max(lost, key=lambda pair: pair[0])
    mean = sum(loss for loss, _ in lost) / len(lost)
    return (
        f" Chosen on half of the clips and judged on the other half it has {mean:.3f} less on average, and"
        f" {most:.3f} at most ({row.method} on {row.network})."
    )


def _kernels(rows: Sequence[Row]) -> str:
    """A line for each network, stage and question, with what each way of naming kernels has."""
    ways = unique([row.method for row in rows if row.axis == ABLATION])
    by = {(r.network, r.stage, r.world, r.axis, r.method): r for r in rows if r.axis in (ABLATION, SELECTIVE)}
    lines = []
    for key in unique([of[:4] for of in by]):
        lines.append(("", [*key, *(_cell(by.get((*key, way))) for way in ways)]))
    text = (
        "Eight kernels of each stage, named by half of a class's clips and judged by the other half. ABLATION: of what"
        " the margin loses with all kernels of the stage, how much goes with these eight. SELECTIVE: how far their mean"
        " activation tells the class from others, where 1 are the eight that do so best. Eight at random have 0."
    )
    return html.paragraph(text, "soft") + html.details(
        f"{len(lines)} rows", html.table(["network", "stage", "question", "axis", *ways], lines)
    )


def _whole(figure: Figure) -> str:
    """As wide as the page."""
    return f'<figure class="wide whole"><div style="max-width: {figure.width * 5 // 4}px">{figure.svg}</div></figure>'


def told(rows: Sequence[Row], network: str) -> list[tuple[str, str]]:
    """The answer in sentences: what is best, what is best for little, what beats no map that asks no network."""
    some = best(overall(rows, network))
    asked, free = [row for row in some if not row.free], [row for row in some if row.free]
    if not asked:
        return []
    first = asked[0]
    tied = [row.method for row in asked[1:] if row.high >= first.low]
    lines = [
        (
            f"{network}: {first.method} at {first.stage} tells most of the truth;",
            f"{number(first.value)} ({span(first.low, first.high)}) for {_passes(first.forwards)} a clip"
            + (f", and {listed(tied)} may be as good." if tied else "."),
        )
    ]
    bar = max(free, key=lambda row: row.value, default=None)
    clearly = [row for row in asked if bar is None or row.low > bar.high]
    front = [row for row in cheapest(clearly) if row is not first]
    if front:
        least = front[0]
        lines.append(
            (
                f"For the least cost: {least.method} at {least.stage};",
                f"{number(least.value)} ({span(least.low, least.high)}) for {_passes(least.forwards)}.",
            )
        )
    if bar:
        below = [row.method for row in asked if row not in clearly]
        lines.append(
            (
                f"Not clearly better than a map that asks no network: {len(below)} of {len(asked)} methods;"
                if below
                else "Every method is clearly better than maps that ask no network;",
                f"the best of these is {bar.method}, {number(bar.value)} ({span(bar.low, bar.high)})"
                + (f"; not better: {listed(below)}." if below else "."),
            )
        )
    return lines


def _passes(count: int) -> str:
    return f"{count} forward pass{'es' if count > 1 else ''}"


def _table(rows: Sequence[Row]) -> str:
    """One line for each method, stage, network and question."""
    columns = [*AXES, STABLE, TRUTH]
    lines = []
    there = [row for row in rows if row.axis in columns]
    keys = unique([(row.network, row.world, row.method, row.stage) for row in there])
    for network, world, method, stage in keys[:MOST_ROWS]:
        own = {r.axis: r for r in rows if (r.network, r.world, r.method, r.stage) == (network, world, method, stage)}
        cost = next(iter(own.values()))
        cells = [_cell(own.get(axis)) for axis in columns]
        spent = "" if math.isnan(cost.seconds) else number(1e3 * cost.seconds)
        lines.append(("", [network, world, method, stage, *cells, str(cost.forwards), spent]))
    head = ["network", "question", "method", "stage", *columns, "forward passes", "ms a clip"]
    title = f"all {len(lines)} rows" if len(lines) == len(keys) else f"{len(lines)} of {len(keys)} rows; all: truth.csv"
    return html.details(title, html.table(head, lines))


def _metrics(rows: Sequence[MetaRow]) -> str:
    """A line for each metric and fill, the most believable first."""
    asked = unique([(row.network, row.world) for row in rows])
    by = {(row.metric, row.fill, row.network, row.world): row for row in rows}
    kinds = unique([(row.metric, row.fill) for row in rows])
    mean = {k: float(np.mean([by[*k, *a].value for a in asked if (*k, *a) in by])) for k in kinds}
    lines = [
        ("", [*kind, *(_told(by.get((*kind, *a))) for a in asked)])
        for kind in sorted(kinds, key=lambda kind: -mean[kind])
    ]
    return html.table(["metric", "filled with", *(" ".join(a) for a in asked)], lines)


def _told(row: MetaRow | None) -> str:
    return "" if row is None else f"{number(row.value, 2)} ({number(row.low, 2)} to {number(row.high, 2)})"


def _cell(row: Row | None) -> str:
    return "" if row is None or math.isnan(row.value) else f"{number(row.value)} ({span(row.low, row.high)})"
