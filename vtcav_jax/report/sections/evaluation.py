"""Report section with the scores of explanation methods on synthetic clips with a known cause."""

import math
from collections.abc import Sequence

import numpy as np

from vtcav_jax.names import count_noun
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import format_number, format_range
from vtcav_jax.report.figures import evaluation as evaluation_figures
from vtcav_jax.report.figures.evaluation import best_stage_per_method, cost_front, overall_scores
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.text.names import join_names
from vtcav_jax.runs.evaluation_rows import (
    ABLATION_SCORE,
    ALL_QUESTIONS,
    ANALYTIC_SCORE,
    CROSS_VALIDATED_SCORE,
    MEAN_SCORE,
    MOTION_SCORE,
    SELECTIVITY_SCORE,
    STABILITY_SCORE,
    WORLD_METRICS,
    MethodScoreRow,
    MetricAgreementRow,
)

EVALUATION_GUIDE = (
    "Maps are scored on synthetic clips with a known cause, for networks verified to rely on it; each network answers"
    " several questions about the same clips. 0 is chance, 1 is perfect, and a negative score is worse than chance."
    " WHERE: is the map on the cause? WHO: is it on the object of the question rather than on a distracting one? WHEN:"
    " is it on the frames that matter? WHAT-FOR: does it move when the question is about something else? EFFECT: is"
    " the share of the map on each part of the clip the share of the score that is lost when that part is removed? The"
    " ground-truth score (TRUTH) is their mean. STABLE (how little the share of the map on the cause changes when an"
    " irrelevant factor is redrawn) is not part of it, because an empty map is stable. KIND: does the share of motion"
    " separate questions that need motion from those that do not? Intervals are 95 %, over clips of one trained"
    " network, and say nothing about another training. Each method is listed at its best stage (layer), selected on"
    " these same clips."
)
MAX_EVALUATION_TABLE_ROWS = 1500


def evaluation_sections(run: RunFolder) -> list[Section]:
    rows = run.method_score_rows
    if not rows:
        return []
    networks = unique_in_order([row.network_name for row in rows if row.metric == MEAN_SCORE])
    cost_figures = [evaluation_figures.score_cost_figure(rows, network_name) for network_name in networks]
    ranked_networks = (
        unique_in_order(
            [row.network_name for row in rows if row.metric == MEAN_SCORE and row.question == ALL_QUESTIONS]
        )
        or networks
    )
    ranking_figures = (
        [evaluation_figures.method_ranking_figure(rows, ranked_networks[:4])] if networks else []
    )  # as many as there are colours
    metric_figures = []
    for network_name in networks:
        questions = unique_in_order(
            [
                r.question
                for r in rows
                if r.network_name == network_name and r.metric == MEAN_SCORE and r.question != ALL_QUESTIONS
            ]
        )
        metric_figures += [evaluation_figures.metric_figure(rows, network_name, question) for question in questions]
    parts = [
        html.callout(
            html.lead_list([point for network_name in networks for point in evaluation_points(rows, network_name)]),
            "answer",
        )
    ]
    parts += [
        html.paragraph(EVALUATION_GUIDE + selection_bias_text(rows), "soft"),
        *map(_wide_figure, cost_figures),
        *map(_wide_figure, ranking_figures),
    ]
    parts += (
        [html.details_block("each metric for each question", "".join(map(_wide_figure, metric_figures)))]
        if metric_figures
        else []
    )
    if exact := sorted((row for row in rows if row.metric == ANALYTIC_SCORE), key=lambda row: -row.value):
        text = (
            "The Shapley value of every voxel is known for W0, a network wired by hand. 1: the map is proportional to"
            " these values; 0: it agrees with them no better than a uniform map. In brackets: 95 % CI over clips. "
        )
        text += "; ".join(
            f"{row.method} {format_number(row.value, 2)} ({format_range(row.low, row.high)})" for row in exact
        )
        parts += [html.heading("Agreement with exact Shapley values (W0)"), html.paragraph(text)]
    if motion_rows := sorted((row for row in rows if row.metric == MOTION_SCORE), key=lambda row: -row.value):
        lines = [
            ("", [r.network_name, r.method, _format_cell(r), str(r.forward_passes), format_number(1e3 * r.seconds)])
            for r in motion_rows
        ]
        parts += [html.heading("Shares of motion")]
        parts.append(
            html.html_table(["network", "measure of motion", MOTION_SCORE, "forward passes", "ms per clip"], lines)
        )
    if any(row.metric == ABLATION_SCORE for row in rows):
        parts += [html.heading("Channels of class feature pyramids"), _channel_table(rows)]
    if run.metric_agreement_rows:
        text = (
            "Spearman's correlation, over maps, of each metric that needs no ground truth with the ground-truth score,"
            " and its 95 % interval over maps. 1: the metric ranks maps as the ground truth does. Rows are sorted by"
            " their mean; prefer the first metrics on your own videos."
        )
        parts += [
            html.heading("Metrics that need no ground truth"),
            html.paragraph(text, "soft"),
            _metric_agreement_table(run.metric_agreement_rows),
        ]
    if run.not_applicable_rows:
        names = unique_in_order([f"{one.method} ({one.network_name}: {one.reason})" for one in run.not_applicable_rows])
        parts.append(html.details_block(f"{len(names)} methods that do not apply", html.bullet_list(names)))
    parts.append(_score_table(rows))
    return [
        Section(
            "truth",
            "Which attribution maps to trust",
            "".join(parts),
            (*cost_figures, *ranking_figures, *metric_figures),
        )
    ]


def selection_bias_text(rows: Sequence[MethodScoreRow]) -> str:
    """Return a sentence on how much scores drop if the stage is selected on other clips than those that score it."""
    networks = unique_in_order([row.network_name for row in rows])
    full_scores = {
        (r.method, r.stage, r.network_name): r.value for name in networks for r in overall_scores(rows, name)
    }
    halves = [
        (r, (r.method, r.stage, r.network_name))
        for r in rows
        if r.metric == CROSS_VALIDATED_SCORE and math.isfinite(r.value)
    ]
    losses = [(full_scores[key] - r.value, r) for r, key in halves if key in full_scores]
    if not losses:
        return ""
    max_loss, row = max(losses, key=lambda pair: pair[0])
    mean = sum(loss for loss, _ in losses) / len(losses)
    return (
        f" If the stage is selected on half of the clips and scored on the other half, scores are {mean:.3f} lower on"
        f" average, and {max_loss:.3f} lower at most ({row.method} on {row.network_name})."
    )


def _channel_table(rows: Sequence[MethodScoreRow]) -> str:
    """Return a table with one row per network, stage, question and metric, and one column per channel selection."""
    methods = unique_in_order([row.method for row in rows if row.metric == ABLATION_SCORE])
    by_key = {
        (r.network_name, r.stage, r.question, r.metric, r.method): r
        for r in rows
        if r.metric in (ABLATION_SCORE, SELECTIVITY_SCORE)
    }
    lines = []
    for key in unique_in_order([full_key[:4] for full_key in by_key]):
        lines.append(("", [*key, *(_format_cell(by_key.get((*key, method))) for method in methods)]))
    text = (
        "Eight channels of each stage, selected on half of a class's clips and scored on the other half. ABLATION: the"
        " loss of margin when these eight are ablated, as a share of the loss when all channels of the stage are."
        " SELECTIVE: how well their mean activation separates the class from others; 1 is reached by the eight channels"
        " that separate best. Eight random channels score 0 on both."
    )
    return html.paragraph(text, "soft") + html.details_block(
        f"{count_noun(len(lines), 'row')}", html.html_table(["network", "stage", "question", "metric", *methods], lines)
    )


def _wide_figure(figure: Figure) -> str:
    """Return the HTML of a figure as wide as the page."""
    return f"<figure>{html.scrolling_figure(figure)}</figure>"


def evaluation_points(rows: Sequence[MethodScoreRow], network_name: str) -> list[tuple[str, str]]:
    """Return the findings: the best method, the cheapest good one, and those not clearly better than trivial maps."""
    method_rows = best_stage_per_method(overall_scores(rows, network_name))
    informed, trivial = (
        [row for row in method_rows if not row.is_trivial and not row.is_reference],
        [row for row in method_rows if row.is_trivial],
    )
    if not informed:
        return []
    first = informed[0]
    tied = [row.method for row in informed[1:] if row.high >= first.low]
    lines = [
        (
            f"{network_name}: {first.method} at {first.stage} has the highest ground-truth score;",
            f"{format_number(first.value)} ({format_range(first.low, first.high)}) for"
            f" {_count_passes(first.forward_passes)} per clip."
            + (f" Its interval overlaps with that of {join_names(tied)}." if tied else ""),
        )
    ]
    best_trivial = max(trivial, key=lambda row: row.value, default=None)
    clearly_better = [row for row in informed if best_trivial is None or row.low > best_trivial.high]
    front = [row for row in cost_front(clearly_better) if row is not first]
    if front:
        cheap = front[0]
        lines.append(
            (
                f"Lowest cost: {cheap.method} at {cheap.stage};",
                f"{format_number(cheap.value)} ({format_range(cheap.low, cheap.high)}) for"
                f" {_count_passes(cheap.forward_passes)}.",
            )
        )
    if best_trivial:
        not_better = [row.method for row in informed if row not in clearly_better]
        lines.append(
            (
                f"Not clearly better than a trivial map, which does not use the network: {len(not_better)} of"
                f" {len(informed)} methods;"
                if not_better
                else "Every method is clearly better than the trivial maps, which do not use the network;",
                f"the best trivial map is {best_trivial.method}, {format_number(best_trivial.value)}"
                f" ({format_range(best_trivial.low, best_trivial.high)})"
                + (f"; not better: {join_names(not_better)}." if not_better else "."),
            )
        )
    return lines


def _count_passes(count: int) -> str:
    return f"{count} forward pass{'es' if count > 1 else ''}"


def _score_table(rows: Sequence[MethodScoreRow]) -> str:
    """Return a table with one row per method, stage, network and question."""
    columns = [*WORLD_METRICS, STABILITY_SCORE, MEAN_SCORE]
    lines = []
    main_rows = [row for row in rows if row.metric in columns]
    keys = unique_in_order([(row.network_name, row.question, row.method, row.stage) for row in main_rows])
    for network_name, question, method, stage in keys[:MAX_EVALUATION_TABLE_ROWS]:
        by_metric = {
            r.metric: r
            for r in rows
            if (r.network_name, r.question, r.method, r.stage) == (network_name, question, method, stage)
        }
        cost = next(iter(by_metric.values()))
        cells = [_format_cell(by_metric.get(metric)) for metric in columns]
        milliseconds = "" if math.isnan(cost.seconds) else format_number(1e3 * cost.seconds)
        lines.append(("", [network_name, question, method, stage, *cells, str(cost.forward_passes), milliseconds]))
    head = ["network", "question", "method", "stage", *columns, "forward passes", "ms per clip"]
    title = (
        f"all {count_noun(len(lines), 'row')}"
        if len(lines) == len(keys)
        else f"{len(lines)} of {len(keys)} rows; all: method_scores.csv"
    )
    return html.details_block(title, html.html_table(head, lines))


def _metric_agreement_table(rows: Sequence[MetricAgreementRow]) -> str:
    """Return a table with one row per metric and infill, sorted by decreasing mean correlation."""
    columns = unique_in_order([(row.network_name, row.question) for row in rows])
    by_key = {(row.metric, row.infill, row.network_name, row.question): row for row in rows}
    metric_fills = unique_in_order([(row.metric, row.infill) for row in rows])
    mean = {k: float(np.mean([by_key[*k, *a].spearman for a in columns if (*k, *a) in by_key])) for k in metric_fills}
    lines = [
        ("", [*metric_fill, *(_format_agreement(by_key.get((*metric_fill, *a))) for a in columns)])
        for metric_fill in sorted(metric_fills, key=lambda kind: -mean[kind])
    ]
    return html.html_table(["metric", "infill", *(" ".join(a) for a in columns)], lines)


def _format_agreement(row: MetricAgreementRow | None) -> str:
    return (
        ""
        if row is None
        else f"{format_number(row.spearman, 2)} ({format_number(row.low, 2)} to {format_number(row.high, 2)})"
    )


def _format_cell(row: MethodScoreRow | None) -> str:
    return (
        ""
        if row is None or math.isnan(row.value)
        else f"{format_number(row.value)} ({format_range(row.low, row.high)})"
    )
