"""What a page says about the kernels that a class hangs on: words, the graph, each kernel's film, what ablation does.

A kernel's mark in the graph leads to its part of the page; style alone shows the one that was gone to.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from vtcav_jax.pyramid.tables import AblationRow, AlignedRow, EdgeRow, NodeRow, Told, film_name
from vtcav_jax.report import html, linked_graph, random_weights_notice
from vtcav_jax.report.effect_sizes import number, p_value, percent, signed, span
from vtcav_jax.report.figures import pyramid as pyramid_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.linked_graph import Item, Part
from vtcav_jax.report.run_reader import MOST_FILMS, RunFolder, unique
from vtcav_jax.report.text import pyramid as pyramid_text
from vtcav_jax.report.text.pyramid import part

LEAST_FILMS = 1_500_000  # bytes that the kernels' films may take even if other films fill the page
MOST_TOLD = 6  # edges of a kernel in either direction, and concepts
MOST_ROWS = 400  # of a table in the page
HOW = (
    "Choose a kernel, and its film and numbers are shown. The larger a mark, the larger the kernel's share of all that"
    " speaks for the target. An edge is as wide as what comes through it of the mark at its left; grey: that would be"
    " more without it; dashed: the 95 % interval holds 0."
)


def sections(run: RunFolder) -> list[Section]:
    if not run.pyramids:
        return []
    parts, drawn, films = [random_weights_notice.warning(run, "pyramid")], [], _films(run)
    for i, facts in enumerate(run.pyramids):
        parts += [
            html.heading(facts.target),
            random_weights_notice.answer(run, "pyramid", pyramid_text.told(run, facts)),
        ]
        picture = pyramid_figures.shown(facts, *_own(run, facts))
        graph = pyramid_figures.graph(facts, picture, prefix := f"kernel-{i}-")
        parts += [html.paragraph(HOW, "soft"), _pyramid(run, facts, prefix, graph, films)]
        if picture.left_out:
            text = f"Drawn are {', '.join(picture.left_out)}, those with the greatest shares; all are in the tables."
            parts.append(html.paragraph(text, "soft"))
        drawn.append(graph)
    curves = [
        pyramid_figures.ablation([row for row in run.ablations if (row.target, row.stage) == of])
        for of in unique([(row.target, row.stage) for row in run.ablations])
    ]
    if curves:
        text = (
            "Kernels are taken out by what they are in another clip, the most relevant first. Blue: these, a mean over"
            " clips with its 95 % interval; grey: as many drawn from all of the stage, the middle 95 % of the draws."
            " Each p is for itself, not corrected for the number of levels."
        )
        parts += [html.heading("The score without them"), html.paragraph(text, "soft"), html.figures(curves)]
        parts.append(_ablations(run.ablations))
    stable = [pyramid_figures.stability(facts) for facts in run.pyramids]
    text = (
        "Overlap: of the kernels that either has, the part that both have (Jaccard). Between clips: what each clip by"
        " itself would choose; with noisy copies: the pyramid of the same clips with noise laid over them."
    )
    parts += [html.heading("Would they be found again?"), html.paragraph(text, "soft"), html.figures(stable)]
    parts.append(_kernels(run.kernels))
    return [Section("pyramid", "Which kernels", "".join(parts), (*drawn, *curves, *stable))]


def _own(run: RunFolder, facts: Told) -> tuple[list[NodeRow], list[EdgeRow]]:
    return (
        [row for row in run.kernels if row.target == facts.target],
        [row for row in run.edges if row.target == facts.target],
    )


def _films(run: RunFolder) -> set[Path]:
    """Those that are in the page: of every level the best kernel's first, as far as other films leave room."""
    folder = run.folder / "films"
    others = sum(path.stat().st_size for path in folder.glob("*") if not path.name.startswith("pyramid--"))
    left, fit = max(MOST_FILMS - others, LEAST_FILMS), set()
    levels = unique([(row.target, row.level) for row in run.kernels])
    ranked = zip_longest(*([row for row in run.kernels if (row.target, row.level) == of] for of in levels))
    for row in (row for rank in ranked for row in rank if row):
        path = _film(run, row)
        if path.is_file() and (left := left - path.stat().st_size) >= 0:
            fit.add(path)
    return fit


def _film(run: RunFolder, row: NodeRow) -> Path:
    return run.folder / "films" / film_name(row.target, row.stage, row.channel)


def _pyramid(run: RunFolder, facts: Told, prefix: str, graph: Figure, films: set[Path]) -> str:
    kernels, edges = _own(run, facts)
    if not kernels:
        return html.paragraph("No kernel speaks for it.")
    names = {row.number: f"{row.stage} #{row.channel}" for row in kernels}
    parts = [
        Part(row.number, names[row.number], _kernel(run, row, edges, names, prefix, films, facts.compared))
        for row in kernels
    ]
    return linked_graph.chosen(graph, prefix, parts)


def _kernel(
    run: RunFolder,
    row: NodeRow,
    edges: Sequence[EdgeRow],
    names: Mapping[int, str],
    prefix: str,
    films: set[Path],
    compared: int,
) -> str:
    pairs = [
        ("share of the target", part(row.relevance, row.relevance_low, row.relevance_high)),
        ("its activity", pyramid_text.activity(row.excess, compared)),
        ("chosen by", f"{percent(row.frequency)} of the clips by themselves"),
        ("top clips", _clips(row)),
    ]
    if not math.isnan(row.rest):
        pairs.insert(3, ("unaccounted", f"{part(row.rest)} of it, by the channels of the next level"))
    path, parts = _film(run, row), [html.definitions(pairs)]
    if path in films:
        parts.append(html.film(path, "where it contributes, in the clips where it does most"))
    elif path.is_file():
        parts.append(linked_graph.beside(path, "its film, beside the page"))
    above = [(edge.parent, edge) for edge in edges if edge.child == row.number]
    below = [(edge.child, edge) for edge in edges if edge.parent == row.number]
    parts += _linked("It gives a part of", above, names, prefix) + _linked(
        "It comes in part through", below, names, prefix
    )
    if run.aligned:
        parts += _concepts([one for one in run.aligned if (one.target, one.number) == (row.target, row.number)], prefix)
    return "".join(parts)


def _clips(row: NodeRow) -> str:
    return row.clips.replace("|", ", ")


def _linked(lead: str, some: Sequence[tuple[int, EdgeRow]], names: Mapping[int, str], prefix: str) -> list[str]:
    ranked = sorted(some, key=lambda one: -abs(one[1].share))
    items = []
    for to, edge in ranked[:MOST_TOLD]:
        told = part(edge.share, edge.share_low, edge.share_high)
        told += ", not sure" if edge.share_low <= 0 <= edge.share_high else ""
        items.append(Item(names.get(to, edge.target), told, to if to in names else None))
    more = f" (the {len(items)} greatest of {len(ranked)})" if len(items) < len(ranked) else ""
    return [linked_graph.items(f"{lead}{more}:", items, prefix)] if items else []


def _concepts(rows: Sequence[AlignedRow], prefix: str) -> list[str]:
    if not rows:
        return [html.paragraph("No concept vector was made at its stage.", "soft")]
    ranked = sorted(rows, key=lambda row: -abs(row.weight))[:MOST_TOLD]
    items = []
    for row in ranked:
        doubt = "" if pyramid_text.encoded(row) else "; not encoded there"
        size = f"{pyramid_text.nth(row.rank)} of {row.channels} in size"
        items.append(Item(pyramid_text.vector(row), f"{signed(row.weight)}, {size}{doubt}"))
    more = f"the {len(items)} greatest of {len(rows)}; " if len(items) < len(rows) else ""
    even = number(rows[0].channels ** -0.5)
    lead = f"Its entry in concept vectors of length 1 ({more}{even} if all channels had the same):"
    return [linked_graph.items(lead, items, prefix)]


def _ablations(rows: Sequence[AblationRow]) -> str:
    lines = [
        (
            "" if pyramid_text.matters(row) else "faint",
            (
                *(row.target, row.stage, f"{row.kernels} of {row.channels}"),
                f"{number(row.drop)} ({span(row.drop_low, row.drop_high)})",
                f"{number(row.random_drop)} ({span(row.random_low, row.random_high)})",
                p_value(row.p),
            ),
        )
        for row in rows[:MOST_ROWS]
    ]
    columns = ("question", "stage", "kernels out", "the score falls by", "without as many drawn", "p")
    more = f"{len(lines)} of {len(rows)} ablations; all are in pyramid_ablation.csv" if len(lines) < len(rows) else ""
    return html.details(more or f"{len(lines)} ablations, in numbers", html.table(columns, lines))


def _kernels(rows: Sequence[NodeRow]) -> str:
    lines = [
        (
            "" if row.relevance_low > 0 else "faint",
            (
                *(row.target, row.stage, f"#{row.channel}", part(row.relevance, row.relevance_low, row.relevance_high)),
                *(percent(row.frequency), "" if math.isnan(row.rest) else part(row.rest)),
                _clips(row),
            ),
        )
        for row in rows[:MOST_ROWS]
    ]
    columns = ("question", "stage", "kernel", "share of the target", "chosen by clips", "unaccounted", "top clips")
    more = f"{len(lines)} of {len(rows)} kernels; all are in pyramid_nodes.csv" if len(lines) < len(rows) else ""
    return html.details(more or f"{len(lines)} kernels, one by one", html.table(columns, lines))
