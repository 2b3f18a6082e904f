"""Sections of a Video-TCAV run about its limits: calibration, verdicts, concept vectors, and the table of all tests."""

import numpy as np

from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import (
    comparison_name,
    effect_size,
    effect_unit,
    format_number,
    format_p,
    format_percent,
    format_range,
    format_signed,
    primary_tests,
)
from vtcav_jax.report.figures import tcav as tcav_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.tcav_classes import class_block, detailed_classes
from vtcav_jax.report.text import tcav_limits
from vtcav_jax.report.text.tcav_verdicts import VERDICT_TEXTS
from vtcav_jax.runs.tcav_depth_rows import RANDOM_SETS
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding


def run_statistic(run: RunFolder) -> str:
    return run.config.get("statistic", "step_effect")


def scores_by_target(run: RunFolder) -> dict[str, list[ScoreRow]]:
    """Return the tests of each class that has tables and figures."""
    rows: dict[str, list[ScoreRow]] = {name: [] for name in detailed_classes(run)}
    for row in run.score_rows:
        if row.target in rows:
            rows[row.target].append(row)
    return rows


def trust_section(run: RunFolder) -> Section:
    parts = [
        random_weights_notice.random_weights_warning(run, "tcav"),
        linked_paragraph(
            "This section lists the correction for multiple tests, the false-positive rate, the [[inconclusive]] tests"
            " and the quality of the [[concept vectors|concept vector]]."
        ),
        html.bullet_list(tcav_limits.trust_notes(run)),
    ]
    verdicts = unique_in_order([row.verdict for row in run.score_rows])
    parts.append(
        html.details_block(
            "Meaning of the verdicts", html.definition_list((v, VERDICT_TEXTS.get(v, "")) for v in verdicts)
        )
    )
    heatmaps = _cosine_heatmaps(run)
    if heatmaps:
        parts += [
            html.heading("Similarity of concept vectors"),
            linked_paragraph(
                "Cosines between the [[vectors|concept vector]] of two concepts at one stage, each compared with the"
                " same kind of negatives. Where a cosine is far from 0, an effect of one concept is partly an effect of"
                " the other."
            ),
            html.figure_grid(heatmaps),
        ]
    if run.vector_rows:
        parts += [html.heading("Quality of concept vectors"), _vector_table(run)]
    return Section("trust", "What limits these results", "".join(parts), tuple(heatmaps))


def _cosine_heatmaps(run: RunFolder) -> list[Figure]:
    out = []
    for stage in unique_in_order([pair.stage for pair in run.cosine_rows]):
        for comparison in ("absolute", "relative"):
            pairs = [pair for pair in run.cosine_rows if pair.stage == stage and pair.comparison == comparison]
            if names := unique_in_order([pair.left for pair in pairs]):
                grid = np.full((len(names), len(names)), np.nan)
                for pair in pairs:
                    grid[names.index(pair.left), names.index(pair.right)] = pair.cosine
                short_names = [name.rpartition("/")[0].replace("/", ", ") for name in names]
                out.append(tcav_figures.cosine_heatmap(short_names, grid, stage, comparison))
    return out


def _vector_table(run: RunFolder) -> str:
    lines = [
        (
            "faint" if v.auc <= 0.5 or v.auc_p > 0.05 else "",
            (
                *(v.stage, v.concept, comparison_name(v.clip_type, v.negatives), f"{v.n_concept} / {v.n_negatives}"),
                *(format_number(v.auc, 2), format_p(v.auc_p)),
                f"{format_number(v.split_half, 2)}"
                f" ({format_range(round(v.split_half_low, 2), round(v.split_half_high, 2))})",
                f"{v.most_similar} ({format_number(v.most_similar_cosine, 2)})" if v.most_similar else "",
            ),
        )
        for v in run.vector_rows
    ]
    columns = ("stage", "concept", "comparison", "concept clips / negatives", "AUC", "p of the AUC")
    columns += ("split-half cosine", "most similar vector (cosine)")
    text = (
        "AUC: probability that the classifier behind the vector scores a concept clip above a negative,"
        " cross-validated; 0.5 is chance. Its p is from permuted labels, not corrected. Split-half cosine: mean cosine"
        " of two vectors trained on disjoint halves of the clips, with the middle 95 % over random splits. Grey: not"
        " encoded (p above 0.05 or AUC at most 0.5)."
    )
    table = html.details_block(count_noun(len(lines), "vector"), html.html_table(columns, lines))
    return html.paragraph(text, "soft") + table


def tcav_score_section(run: RunFolder) -> Section:
    text = (
        "The TCAV score is the share of [[target clips|target clip]] whose [[derivative]] along the [[concept vector]]"
        " is positive, with its 95 % CI (Wilson) over the source videos of the target clips. It measures how many clips"
        " agree, not how large the effect is, and with a single vector it is often close to 0 or 1 by chance. Colours"
        " therefore show the verdict of the permutation test on the effect: grey bars are not significant or"
        " inconclusive."
    )
    random_sets = [row for row in run.group_effect_rows if row.group == RANDOM_SETS]
    if random_sets:
        text += (
            " Last bars: mean over the random sets, each tested like a concept; lines from the lowest to the highest."
        )
    parts, all_figures = [linked_paragraph(text)], []
    for target, rows in scores_by_target(run).items():
        target_figures = [
            tcav_figures.sign_count_figure(
                [row for row in rows if row.stage == stage],
                [row for row in random_sets if (row.target, row.stage) == (target, stage)],
            )
            for stage in unique_in_order([row.stage for row in rows])
            if primary_tests([row for row in rows if row.stage == stage])[1]
        ]
        all_figures += target_figures
        parts += [class_block(target, html.figure_grid(target_figures), run)] if target_figures else []
    statistic = run_statistic(run)
    lines = [
        ("" if is_finding(row) else "faint", _score_cells(row, statistic))
        for rows in scores_by_target(run).values()
        for row in rows
    ]
    effect_heading = f"effect ({effect_unit(statistic, run.score_rows[0].score_fn)})"
    columns = ("class", "stage", "concept", "comparison", effect_heading, "95 % CI", "TCAV score", "p", "adjusted p")
    table = html.html_table((*columns, "verdict"), lines)
    parts += [html.heading("All tests"), html.details_block(count_noun(len(lines), "test"), table)]
    return Section("scores", "TCAV scores and all tests", "".join(parts), tuple(all_figures))


def _score_cells(row: ScoreRow, statistic: str) -> tuple[str, ...]:
    e = effect_size(row, statistic)
    return (
        *(row.target, row.stage, row.concept, comparison_name(row.clip_type, row.negatives)),
        *(format_signed(e.value, 3), format_range(e.low, e.high)),
        *(format_percent(row.tcav_score), format_p(row.p), format_p(row.p_adjusted), row.verdict),
    )
