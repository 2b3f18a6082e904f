"""Figures of a class feature pyramid: its graph, the ablation of its channels and the stability of the selection."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtcav_jax.names import count_noun
from vtcav_jax.pyramid.graph import ROOT_NODE
from vtcav_jax.report.effect_sizes import format_number, format_p, format_percent, format_range
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, NameLabels, draw_label
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, draw_left_axis, slug
from vtcav_jax.report.text.pyramid import exceeds_chance, format_node_share, level_name
from vtcav_jax.report.text_width import text_width
from vtcav_jax.runs.pyramid_rows import AblationRow, EdgeRow, NodeRow, PyramidFacts

MAX_DRAWN_EDGES, MAX_DRAWN_NODES = 30, 40  # per level
NODE_PITCH, GRAPH_TOP = 26, 44  # pixels
GUTTER, COLUMN_MARGIN = 84, 6  # pixels between columns, where edges are sloped, and beside the names of a column
MIN_NODE_RADIUS, MAX_NODE_RADIUS, MAX_EDGE_WIDTH = 4.0, 11.0, 7.0  # pixels


@dataclass(frozen=True)
class DisplayedGraph:
    """Channels and edges of a pyramid that fit into the figure."""

    kernels: tuple[NodeRow, ...]
    edges: tuple[EdgeRow, ...]
    omitted: tuple[str, ...]  # descriptions of what was cut


def select_displayed(facts: PyramidFacts, kernels: Sequence[NodeRow], edges: Sequence[EdgeRow]) -> DisplayedGraph:
    """Select the channels and edges with the largest absolute shares of each level."""
    omitted, nodes, displayed_edges = [], [], []
    for level, names in enumerate(facts.levels):
        at_level = [row for row in kernels if row.level == level]
        nodes += at_level[:MAX_DRAWN_NODES]
        if len(at_level) > MAX_DRAWN_NODES:
            omitted.append(f"{MAX_DRAWN_NODES} of {count_noun(len(at_level), 'channel')} of {level_name(names)}")
    nodes_by_number = {row.node: row for row in nodes}
    for level, names in enumerate(facts.levels):
        at_level = [row for row in edges if row.child in nodes_by_number and nodes_by_number[row.child].level == level]
        ranked = sorted(
            (row for row in at_level if row.parent in nodes_by_number or row.parent < 0),
            key=lambda row: -abs(row.share),
        )
        displayed_edges += ranked[:MAX_DRAWN_EDGES]
        if len(ranked) > MAX_DRAWN_EDGES:
            omitted.append(f"{MAX_DRAWN_EDGES} of {len(at_level)} edges to {level_name(names)}")
    return DisplayedGraph(tuple(nodes), tuple(displayed_edges), tuple(omitted))


@dataclass(frozen=True)
class MarkPlace:
    """Place of a mark of the graph, and the heights and widths that its edges keep free of names.

    Edges to the mark arrive at `entry`, left of everything in its column, and run to the mark on its own height. Those
    from it start at `label_end` and leave the column on that height too, at `exit`, right of everything in it. They
    are sloped between two columns only, where nothing is written.
    """

    x: Number
    y: Number
    radius: Number
    label: str
    label_end: Number
    entry: Number
    exit: Number

    def route_to(self, child: "MarkPlace") -> list[tuple[Number, Number]]:
        """Return the points of an edge from this mark to one of the next column."""
        return [
            (self.label_end, self.y),
            (self.exit, self.y),
            (child.entry, child.y),
            (child.x - child.radius, child.y),
        ]


def pyramid_graph_figure(facts: PyramidFacts, displayed: DisplayedGraph, prefix: str) -> Figure:
    """Draw the target on the left, then the levels; marks link to the anchor `prefix` + node number."""
    columns = [
        _column(level, [row for row in displayed.kernels if row.level == i]) for i, level in enumerate(facts.levels)
    ]
    n_rows = max([len(column) for column in columns], default=1)
    middle = GRAPH_TOP + NODE_PITCH * n_rows / 2
    score_end = 8 + text_width("score")
    places = {ROOT_NODE: MarkPlace(22.0, middle, 10, "score", 32.0, 0.0, max(32.0, score_end) + COLUMN_MARGIN)}
    max_relevance = max([row.relevance for row in displayed.kernels], default=1.0) or 1.0
    stage_names: list[tuple[Number, Number, str]] = []
    left = places[ROOT_NODE].exit + GUTTER
    for column in columns:
        x, y = left + MAX_NODE_RADIUS + COLUMN_MARGIN, middle - NODE_PITCH * (len(column) - 1) / 2
        marks: dict[int, tuple[Number, Number, str, Number]] = {}
        right = x
        for j, entry in enumerate(column):
            if isinstance(entry, NodeRow):
                radius = max(MIN_NODE_RADIUS, MAX_NODE_RADIUS * math.sqrt(max(entry.relevance, 0) / max_relevance))
                label = f"#{entry.channel}  {format_node_share(entry.relevance)}"
                label_end = x + radius + 4 + text_width(label)
                marks[entry.node] = y + NODE_PITCH * j, round(radius, 1), label, label_end + 4
                right = max(right, label_end + 4)
            else:
                stage_names.append((left, y + NODE_PITCH * j + 6, entry))
                right = max(right, left + text_width(entry))
        places |= {node: MarkPlace(x, *mark, left, right + COLUMN_MARGIN) for node, mark in marks.items()}
        left = right + COLUMN_MARGIN + GUTTER
    canvas = Canvas(round(left - GUTTER) + 8, GRAPH_TOP + NODE_PITCH * n_rows + 16)
    _draw_edges(canvas, facts, displayed, places)
    for x, y, name in stage_names:
        canvas.text(x, y, name, "soft")
    canvas.heading(facts.target, "class score, then channels by level")
    canvas.dot(22, middle, "ink paper", facts.target, 10)
    canvas.text(8, middle + 26, "score", "soft")
    for row in displayed.kernels:
        place = places[row.node]
        title = f"{row.stage} #{row.channel}: {format_node_share(row.relevance, row.relevance_low, row.relevance_high)}"
        with canvas.link(f"{prefix}{row.node}", f"node n{row.node}"):
            width = place.exit - place.entry
            canvas.rect(place.entry, place.y - NODE_PITCH / 2, width, NODE_PITCH, "paper", opacity=0)
            canvas.dot(place.x, place.y, "one" if row.relevance_low > 0 else "faint", title, place.radius)
            canvas.text(place.x + place.radius + 4, place.y + 4, place.label)
    label = f"{facts.target}: graph of {count_noun(len(displayed.kernels), 'channel')}, level by level"
    return canvas.figure(slug("pyramid", facts.target), label)


def _column(level: Sequence[str], kernels: Sequence[NodeRow]) -> list[NodeRow | str]:
    """Return the names of a level's stages, each followed by its channels, the largest share first."""
    out: list[NodeRow | str] = []
    for stage in level:
        out += [stage, *(row for row in kernels if row.stage == stage)]
    return out


def _draw_edges(
    canvas: Canvas, facts: PyramidFacts, displayed: DisplayedGraph, places: Mapping[int, MarkPlace]
) -> None:
    """Draw edges, the widest last; grey: negative share; dashed: interval contains 0."""
    names = {row.node: f"{row.stage} #{row.channel}" for row in displayed.kernels} | {ROOT_NODE: facts.target}
    max_share = max([abs(row.share) for row in displayed.edges], default=1.0) or 1.0
    for row in sorted(displayed.edges, key=lambda row: (row.share > 0, abs(row.share))):
        css_class = "one" if row.share > 0 else "faint"
        css_class += " route"
        css_class += " unsure" if row.share_low <= 0 <= row.share_high else ""
        css_class += f" e{row.child}" + (f" e{row.parent}" if row.parent >= 0 else "")
        share_text = format_node_share(row.share, row.share_low, row.share_high)
        title = f"{share_text} of {names[row.parent]} through {names[row.child]}"
        width = max(0.7, MAX_EDGE_WIDTH * abs(row.share) / max_share)
        canvas.path(places[row.parent].route_to(places[row.child]), css_class, title, width)


def ablation_figure(rows: Sequence[AblationRow]) -> Figure:
    """Draw the fall of the score against the number of ablated channels of one stage, and for random channels."""
    first, bottom, right = rows[0], 150, FIGURE_WIDTH - 14
    canvas = Canvas(FIGURE_WIDTH, 192)
    values = [
        v
        for r in rows
        for v in (
            r.score_drop,
            r.score_drop_low,
            r.score_drop_high,
            r.random_score_drop,
            r.random_score_drop_low,
            r.random_score_drop_high,
        )
    ]
    y = fit_scale(values, bottom, 54)
    left = draw_left_axis(canvas, y, f"{first.target}: {first.stage}", "fall of the score without channels")
    x = Scale(0, max(len(rows), 2) - 1, left + 12, right - 10)
    for i, (css_class, text) in enumerate((("one", "of the pyramid"), ("faint", "random channels"))):
        canvas.dot(14 + 110 * i, 42, css_class, text)
        canvas.text(22 + 110 * i, 46, text, "soft")
    xs = [x(i) for i in range(len(rows))]
    for css_class, value, low, high in (
        ("faint", "random_score_drop", "random_score_drop_low", "random_score_drop_high"),
        ("one", "score_drop", "score_drop_low", "score_drop_high"),
    ):
        with_interval = [(a, row) for a, row in zip(xs, rows) if not math.isnan(getattr(row, low))]
        if len(with_interval) > 1:
            upper = [(a, y(getattr(row, high))) for a, row in with_interval]
            lower = [(a, y(getattr(row, low))) for a, row in with_interval]
            canvas.path([*upper, *lower[::-1]], f"fill band {css_class}", closed=True)
        else:
            for a, row in with_interval:
                canvas.line(a, y(getattr(row, low)), a, y(getattr(row, high)), f"bar {css_class}")
        canvas.path([(a, y(getattr(row, value))) for a, row in zip(xs, rows)], f"bar {css_class}")
        for a, row in zip(xs, rows):
            title = f"{row.kernels} of {count_noun(row.channels, 'channel')}: {format_number(getattr(row, value))}"
            title += f" ({format_range(getattr(row, low), getattr(row, high))}), p {format_p(row.p)}"
            canvas.dot(a, y(getattr(row, value)), css_class, title, 3.5)
    for a, row in zip(xs, rows):
        canvas.text(a, bottom + 16, f"{row.kernels}" + ("" if exceeds_chance(row) else " ?"), "soft", "middle")
    canvas.text(right, bottom + 34, f"channels removed, of {first.channels}; ?: not significant", "soft", "end")
    label = f"{first.target}: fall of the score without channels of {first.stage}, and without random ones"
    return canvas.figure(slug("ablation", first.target, first.stage), label)


def stability_figure(facts: PyramidFacts) -> Figure:
    """Draw, by level, the overlap of selections between single clips and under noise."""
    labels = NameLabels.of(map(level_name, facts.levels), MAX_ROW_NAME)
    heights = [labels.height(i, 30) for i in range(len(facts.levels))]
    canvas = Canvas(FIGURE_WIDTH, 74 + sum(map(round, heights)))
    x, bottom = Scale(0, 1, max(138.0, labels.width + 20), FIGURE_WIDTH - 18), canvas.height - 24
    canvas.heading(f"{facts.target}: overlap of selections")
    for i, (css_class, text) in enumerate((("one", "pairs of single clips"), ("two", "noisy copies"))):
        canvas.dot(14 + 150 * i, 32, css_class, text)
        canvas.text(22 + 150 * i, 36, text, "soft")
    for value in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(x(value), 46, x(value), bottom, "axis")
        canvas.text(x(value), canvas.height - 8, f"{format_tick(100 * value)} %", "soft", "middle")
    for i, overlap in enumerate(facts.stability):
        y = 62 + sum(heights[:i]) + (heights[i] - 30) / 2
        draw_label(canvas, 8, y, labels.lines[i])
        if not math.isnan(overlap):
            canvas.dot(x(overlap), y - 5, "one", f"pairs of single clips: {format_percent(overlap)}")
        noisy = facts.noise_stability[i] if i < len(facts.noise_stability) else ()
        for noisy_overlap in (noisy_overlap for noisy_overlap in noisy if not math.isnan(noisy_overlap)):
            canvas.dot(x(noisy_overlap), y + 6, "two", f"noisy copy of the clips: {format_percent(noisy_overlap)}", 3.5)
    label = f"{facts.target}: overlap of selected channels between clips and under noise, by level"
    return canvas.figure(slug("stability", facts.target), label)
