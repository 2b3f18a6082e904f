"""Section of class feature pyramids: findings, linked graph, channel panels with animations, ablation and stability.

A channel's mark in the graph links to its panel; CSS alone displays the selected panel.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from vtcav_jax.names import count_noun
from vtcav_jax.report import html, linked_graph, random_weights_notice
from vtcav_jax.report.effect_sizes import format_number, format_p, format_percent, format_range, format_signed
from vtcav_jax.report.figures import pyramid as pyramid_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.linked_graph import LinkedPanel, LinkItem
from vtcav_jax.report.run_reader import MAX_ANIMATION_BYTES, RunFolder, unique_in_order
from vtcav_jax.report.text import pyramid as pyramid_text
from vtcav_jax.report.text.pyramid import format_node_share
from vtcav_jax.runs.directory import ANIMATION_FOLDER
from vtcav_jax.runs.pyramid_rows import AblationRow, AlignedRow, EdgeRow, NodeRow, PyramidFacts, kernel_animation_name

MIN_PYRAMID_ANIMATION_BYTES = 1_500_000  # guaranteed even if other animations fill the page
MAX_LISTED_EDGES = 6  # per direction; also of concept vectors
MAX_PYRAMID_TABLE_ROWS = 400  # in the page
GRAPH_GUIDE = (
    "Select a channel to see its animation and numbers. Size of a mark: share of the target's positive contributions."
    " Width of an edge: share of the left channel's response that passes through the right one; grey: the share is"
    " negative; dashed: its 95 % interval over clips contains 0."
)


def pyramid_sections(run: RunFolder) -> list[Section]:
    if not run.pyramid_facts:
        return []
    introduction = (
        "A class feature pyramid follows the [[score]] of a target back through the [[stages|stage]] (layers) and"
        " selects, per [[level]], the [[channels|channel]] with the largest [[shares|share]]. Ablation then tests"
        " whether the score needs them."
    )
    parts = [random_weights_notice.random_weights_warning(run, "pyramid"), linked_paragraph(introduction)]
    graphs, animations = [], _embedded_animations(run)
    for i, facts in enumerate(run.pyramid_facts):
        parts += [
            html.heading(facts.target),
            random_weights_notice.answer_callout(run, "pyramid", pyramid_text.pyramid_points(run, facts)),
        ]
        displayed = pyramid_figures.select_displayed(facts, *_rows_of_target(run, facts))
        graph = pyramid_figures.pyramid_graph_figure(facts, displayed, prefix := f"kernel-{i}-")
        parts += [html.paragraph(GRAPH_GUIDE, "soft"), _linked_graph(run, facts, prefix, graph, animations)]
        if displayed.omitted:
            text = f"The graph has only {', '.join(displayed.omitted)}, those with the largest shares; the tables have"
            " all."
            parts.append(html.paragraph(text, "soft"))
        graphs.append(graph)
    curves = [
        pyramid_figures.ablation_figure([row for row in run.ablation_rows if (row.target, row.stage) == key])
        for key in unique_in_order([(row.target, row.stage) for row in run.ablation_rows])
    ]
    if curves:
        text = (
            "Fall of the score when channels are replaced by their activations in a reference clip (0 if there is"
            " none), the largest shares first. Blue: channels of the pyramid, mean over clips and 95 % interval over"
            " clips. Grey: as many random channels of the stage, mean and middle 95 % of the draws. p: share of draws"
            " with an equal or larger mean fall, not corrected for the number of ablations."
        )
        parts += [html.heading("Score without these channels"), html.paragraph(text, "soft"), html.figure_grid(curves)]
        parts.append(_ablation_table(run.ablation_rows))
    stability_figures = [pyramid_figures.stability_figure(facts) for facts in run.pyramid_facts]
    text = (
        "Jaccard overlap of two selections: number of channels in both divided by the number in either. Blue: mean over"
        " pairs of single clips; orange: the pyramid and that of a noisy copy of the clips."
    )
    parts += [
        html.heading("Stability of the selection"),
        html.paragraph(text, "soft"),
        html.figure_grid(stability_figures),
    ]
    parts.append(_channel_table(run.node_rows))
    return [
        Section(
            "pyramid",
            "Channels that contribute to the class score",
            "".join(parts),
            (*graphs, *curves, *stability_figures),
        )
    ]


def _rows_of_target(run: RunFolder, facts: PyramidFacts) -> tuple[list[NodeRow], list[EdgeRow]]:
    return (
        [row for row in run.node_rows if row.target == facts.target],
        [row for row in run.edge_rows if row.target == facts.target],
    )


def _embedded_animations(run: RunFolder) -> set[Path]:
    """Return the animations to embed within the size limit, the channel with the largest share of each level first."""
    folder = run.folder / ANIMATION_FOLDER
    other_bytes = sum(path.stat().st_size for path in folder.glob("*") if not path.name.startswith("pyramid--"))
    bytes_left, embedded = max(MAX_ANIMATION_BYTES - other_bytes, MIN_PYRAMID_ANIMATION_BYTES), set()
    levels = unique_in_order([(row.target, row.level) for row in run.node_rows])
    ranked = zip_longest(*([row for row in run.node_rows if (row.target, row.level) == level] for level in levels))
    for row in (row for rank in ranked for row in rank if row):
        path = _animation_path(run, row)
        if path.is_file() and (bytes_left := bytes_left - path.stat().st_size) >= 0:
            embedded.add(path)
    return embedded


def _animation_path(run: RunFolder, row: NodeRow) -> Path:
    return run.folder / ANIMATION_FOLDER / kernel_animation_name(row.target, row.stage, row.channel)


def _linked_graph(run: RunFolder, facts: PyramidFacts, prefix: str, graph: Figure, animations: set[Path]) -> str:
    channels, edges = _rows_of_target(run, facts)
    if not channels:
        return html.paragraph("No channel has a positive share.")
    names = {row.node: f"{row.stage} #{row.channel}" for row in channels}
    parts = [
        LinkedPanel(
            row.node,
            names[row.node],
            _channel_panel(run, row, edges, names, prefix, animations, facts.n_reference_clips),
        )
        for row in channels
    ]
    return linked_graph.linked_panels(graph, prefix, parts)


def _channel_panel(
    run: RunFolder,
    row: NodeRow,
    edges: Sequence[EdgeRow],
    names: Mapping[int, str],
    prefix: str,
    animations: set[Path],
    n_compared: int,
) -> str:
    pairs = [
        ("share of the target", format_node_share(row.relevance, row.relevance_low, row.relevance_high)),
        ("activity", pyramid_text.activity_text(row.activation_excess, n_compared)),
        ("selected by", f"{format_percent(row.frequency)} of the single clips"),
        ("clips with the largest contribution", _clip_names(row)),
    ]
    if not math.isnan(row.unexplained):
        pairs.insert(3, ("unexplained", f"{format_node_share(row.unexplained)} of its response, by the next level"))
    path, parts = _animation_path(run, row), [html.definition_list(pairs)]
    if path in animations:
        parts.append(html.embed_media(path, "contribution in the clips where it is largest"))
    elif path.is_file():
        parts.append(linked_graph.external_link(path, "animation (separate file)"))
    above = [(edge.parent, edge) for edge in edges if edge.child == row.node]
    below = [(edge.child, edge) for edge in edges if edge.parent == row.node]
    parts += _edge_list("Contributes to", above, names, prefix)
    parts += _edge_list("Receives contributions from", below, names, prefix)
    if run.concept_alignment_rows:
        parts += _concept_list(
            [
                aligned
                for aligned in run.concept_alignment_rows
                if (aligned.target, aligned.node) == (row.target, row.node)
            ],
            prefix,
        )
    return "".join(parts)


def _clip_names(row: NodeRow) -> str:
    return row.top_clips.replace("|", ", ")


def _edge_list(
    lead: str, neighbours: Sequence[tuple[int, EdgeRow]], names: Mapping[int, str], prefix: str
) -> list[str]:
    ranked = sorted(neighbours, key=lambda neighbour: -abs(neighbour[1].share))
    link_items = []
    for node, edge in ranked[:MAX_LISTED_EDGES]:
        text = format_node_share(edge.share, edge.share_low, edge.share_high)
        text += ", interval contains 0" if edge.share_low <= 0 <= edge.share_high else ""
        link_items.append(LinkItem(names.get(node, edge.target), text, node if node in names else None))
    count_text = f" (the {len(link_items)} largest of {len(ranked)})" if len(link_items) < len(ranked) else ""
    return [linked_graph.link_list(f"{lead}{count_text}:", link_items, prefix)] if link_items else []


def _concept_list(rows: Sequence[AlignedRow], prefix: str) -> list[str]:
    if not rows:
        return [html.paragraph("The concept run has no concept vector at this stage.", "soft")]
    ranked = sorted(rows, key=lambda row: -abs(row.cosine_share))[:MAX_LISTED_EDGES]
    link_items = []
    for row in ranked:
        doubt = "" if pyramid_text.is_aligned_vector_encoded(row) else "; not encoded there"
        size = f"{pyramid_text.ordinal(row.rank)} largest of {row.channels}"
        link_items.append(LinkItem(pyramid_text.vector_name(row), f"{format_signed(row.cosine_share)}, {size}{doubt}"))
    count_text = f"the {len(link_items)} largest of {len(rows)}; " if len(link_items) < len(rows) else ""
    even = format_number(rows[0].channels ** -0.5)
    lead = f"Entry of this channel in concept vectors of length 1 ({count_text}uniform vector: {even}):"
    return [linked_graph.link_list(lead, link_items, prefix)]


def _ablation_table(rows: Sequence[AblationRow]) -> str:
    lines = [
        (
            "" if pyramid_text.exceeds_chance(row) else "faint",
            (
                *(row.target, row.stage, f"{row.kernels} of {row.channels}"),
                f"{format_number(row.score_drop)} ({format_range(row.score_drop_low, row.score_drop_high)})",
                f"{format_number(row.random_score_drop)}"
                f" ({format_range(row.random_score_drop_low, row.random_score_drop_high)})",
                format_p(row.p),
            ),
        )
        for row in rows[:MAX_PYRAMID_TABLE_ROWS]
    ]
    columns = (
        "target",
        "stage",
        "channels removed",
        "fall of the score (95 % CI over clips)",
        "fall, random channels (middle 95 %)",
        "p",
    )
    summary = (
        f"{len(lines)} of {len(rows)} ablations; all are in pyramid_ablation.csv" if len(lines) < len(rows) else ""
    )
    return html.details_block(
        summary or f"Table of {count_noun(len(lines), 'ablation')}", html.html_table(columns, lines)
    )


def _channel_table(rows: Sequence[NodeRow]) -> str:
    lines = [
        (
            "" if row.relevance_low > 0 else "faint",
            (
                *(
                    row.target,
                    row.stage,
                    f"#{row.channel}",
                    format_node_share(row.relevance, row.relevance_low, row.relevance_high),
                ),
                *(
                    format_percent(row.frequency),
                    "" if math.isnan(row.unexplained) else format_node_share(row.unexplained),
                ),
                _clip_names(row),
            ),
        )
        for row in rows[:MAX_PYRAMID_TABLE_ROWS]
    ]
    columns = ("target", "stage", "channel", "share of the target (95 % CI over clips)", "selected by single clips")
    columns += ("unexplained", "clips with the largest contribution")
    summary = f"{len(lines)} of {len(rows)} channels; all are in pyramid_nodes.csv" if len(lines) < len(rows) else ""
    return html.details_block(
        summary or f"Table of {count_noun(len(lines), 'channel')}", html.html_table(columns, lines)
    )
