"""Comparison page of several runs, such as two networks or two seeds."""

import csv
import io
import math
import re
from collections.abc import Sequence
from itertools import combinations

from vtcav_jax.attribution.videos import map_store
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.comparison import metrics as comparison_metrics
from vtcav_jax.report.comparison import stage_matching
from vtcav_jax.report.comparison import text as comparison_text
from vtcav_jax.report.comparison.differences import ScoreDifference, ScoreKey, ScoreTable, score_difference, score_table
from vtcav_jax.report.comparison.discovered import discovered_comparison_sections
from vtcav_jax.report.effect_sizes import comparison_name, format_number, format_p, format_range, format_signed
from vtcav_jax.report.figures.labels import MAX_ROW_NAME, Legend, NameLabels, draw_label
from vtcav_jax.report.figures.motion import RUN_COLOURS
from vtcav_jax.report.figures.svg import Canvas, Figure, Number, Scale, fit_scale, format_tick
from vtcav_jax.report.figures.tcav import FIGURE_WIDTH, draw_mark, slug
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.time_sensitivity import time_sensitivity_comparison_sections
from vtcav_jax.report.text import tcav_limits
from vtcav_jax.report.text.names import join_names
from vtcav_jax.report.text_width import LINE_HEIGHT, wrap_text
from vtcav_jax.runs.attribution_rows import ClassMotionRow
from vtcav_jax.runs.tables import escape_formula
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding

DIFFERENCES_CSV = "differences.csv"


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """Return the names of the run folders, or their paths if names repeat."""
    folder_names = [run.name for run in runs]
    return folder_names if len(set(folder_names)) == len(folder_names) else [str(run.folder) for run in runs]


def comparison_sections(runs: Sequence[RunFolder]) -> list[Section]:
    """Return sections for every kind of result that all runs have."""
    labels = run_names(runs)
    out = _score_sections(runs) if all(run.score_rows for run in runs) else []
    out += comparison_metrics.motion_comparison_sections(runs, labels) + comparison_metrics.map_comparison_sections(
        runs, labels
    )
    out += time_sensitivity_comparison_sections(runs, labels)
    out += discovered_comparison_sections(runs, labels)
    if not out:
        contents = "; ".join(f"{run.folder} has {_describe_contents(run)}" for run in runs)
        raise ValueError(
            f"--run: these runs have no class, stage and concept in common, and no motion test or attribution maps of"
            f" the same question ({contents}); compare runs that do"
        )
    return out


def _score_sections(runs: Sequence[RunFolder]) -> list[Section]:
    aliases = _stage_aliases(runs)
    tables = [score_table(run, stages) for run, stages in zip(runs, aliases)]
    common_keys = [k for k in tables[0] if all(k in table for table in tables[1:])]
    if not common_keys:
        return []
    labels = run_names(runs)
    pairs = list(combinations(range(len(runs)), 2))
    differences_by_pair = [
        [score_difference(k, (labels[i], labels[j]), tables[i][k], tables[j][k]) for k in common_keys] for i, j in pairs
    ]
    all_differences = [difference for differences in differences_by_pair for difference in differences]
    parts = [
        html.callout(
            html.lead_list(comparison_text.comparison_answers(labels, tables, common_keys, all_differences)), "answer"
        )
    ]
    text = (
        "This section compares the tests that all runs have. Effects are [[shares of gradient|share of gradient]],"
        " which do not depend on the scale of a network. A significant effect in one run only does not mean that the"
        " runs differ; see the interval of the difference."
    )
    parts = [linked_paragraph(text), *parts, *(html.paragraph(text, "soft") for text in _stage_note(labels, aliases))]
    out = [Section("answer", "Agreement between the runs", "".join(parts))]
    figures = _comparison_figures(labels, tables, common_keys)
    text = (
        "[[Share of gradient|share of gradient]] of each comparison in each run, from −1 to 1. Bars: [[95 % CI]]."
        " Hollow grey circles: not significant in that run; grey crosses: [[inconclusive]]."
    )
    out.append(Section("side", "Effects by run", linked_paragraph(text) + html.figure_grid(figures), tuple(figures)))
    for (i, j), differences in zip(pairs, differences_by_pair):
        title = f"Difference: {labels[i]} − {labels[j]}"
        out.append(Section(f"less-{i}-{j}", title, _difference_html(differences)))
    if missing := _unshared_tests(labels, tables, common_keys):
        out.append(Section("only", "Tests that not all runs have", html.bullet_list(missing)))
    out.append(
        Section("tables", "Tables", f"<p>{html.embedded_table(DIFFERENCES_CSV, _differences_csv(all_differences))}</p>")
    )
    return out


def _stage_aliases(runs: Sequence[RunFolder]) -> list[dict[str, str]]:
    """Return, for each run, the joint names of its matched stages."""
    stages = [unique_in_order([row.stage for row in run.score_rows]) for run in runs]
    depth = [stage_matching.relative_depths(run.content.get("network_stages", ())) for run in runs]
    matches = [
        stage_matching.match_stages(stages[0], other, (depth[0], depths))
        for other, depths in zip(stages[1:], depth[1:])
    ]
    out: list[dict[str, str]] = [{} for _ in runs]
    for stage in stages[0]:
        if all(stage in match for match in matches):
            matched_names = [stage, *(match[stage] for match in matches)]
            for aliases, name in zip(out, matched_names):
                aliases[name] = " / ".join(unique_in_order(matched_names))
    return out


def _stage_note(labels: Sequence[str], aliases: Sequence[dict[str, str]]) -> list[str]:
    """Return a note if stages with different names are compared."""
    combined = [name for name in unique_in_order(list(aliases[0].values())) if " / " in name]
    if not combined:
        return []
    return [
        f"Stages with different names are compared if their relative depths are similar ({', '.join(labels)}):"
        f" {join_names(combined)}. This correspondence is an assumption."
    ]


def comparison_intro(runs: Sequence[RunFolder]) -> str:
    """Return a table of the settings that differ and of the accuracy of each network."""
    labels = run_names(runs)
    columns = unique_in_order([name for run in runs for name in run.config])
    differing = [n for n in columns if len({_setting(run, n) for run in runs}) > 1]
    rows = [("", (name, *(_setting(run, name) for run in runs))) for name in differing]
    run_predictions = [tcav_limits.predictions_by_target(run) for run in runs]
    rows += [
        (
            "",
            (
                f"accuracy on {target}",
                *(
                    tcav_limits.accuracy_text(predictions[target]) if target in predictions else ""
                    for predictions in run_predictions
                ),
            ),
        )
        for target in unique_in_order([target for predictions in run_predictions for target in predictions])
    ]
    warning = random_weights_notice.random_runs_warning(runs, labels)
    same_text = html.paragraph("These runs have the same settings.", "soft") if not differing else ""
    return warning + same_text + (html.html_table(("setting", *labels), rows) if rows else "")


def _setting(run: RunFolder, name: str) -> str:
    value = run.config.get(name, "")
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"SHA-256 {text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text


def _describe_contents(run: RunFolder) -> str:
    rows, stages = run.score_rows, unique_in_order([row.stage for row in run.score_rows])
    contents = [f"concepts for {_target_names(rows)} at {', '.join(stages)}"] if rows else []
    contents += [f"a motion test of {_target_names(run.class_motion_rows)}"] if run.class_motion_rows else []
    contents += [f"maps of {_target_names(run.map_rows)}"] if run.map_rows else []
    return join_names(contents) or "no such results (or did not finish)"


def _target_names(rows: Sequence[ScoreRow] | Sequence[ClassMotionRow] | Sequence[map_store.MapRow]) -> str:
    return ", ".join(unique_in_order([row.target for row in rows]))


def _unshared_tests(labels: Sequence[str], tables: Sequence[ScoreTable], common_keys: Sequence[ScoreKey]) -> list[str]:
    shared = set(common_keys)
    lines = []
    for name, table in zip(labels, tables):
        if extra := [row for k, row in table.items() if k not in shared]:
            stages = ", ".join(unique_in_order([row.stage for row in extra]))
            lines.append(
                f"{name}: {count_noun(len(extra), 'test')} at {stages} of"
                f" {', '.join(unique_in_order([r.concept for r in extra]))}"
            )
    return lines


def _difference_html(differences: Sequence[ScoreDifference]) -> str:
    significant = [difference for difference in differences if difference.significant]
    informative = [difference for difference in differences if not difference.inconclusive_verdict]
    text = (
        f"{len(significant)} of {len(informative)} differences have a 95 % interval without 0; about"
        f" {0.05 * len(informative):.0f} would by chance, because the intervals are not corrected for their number."
        " They assume independent runs and are too wide if the runs share clips."
    )
    if n_inconclusive := len(differences) - len(informative):
        text += f" {count_noun(n_inconclusive, 'other difference')} cannot be interpreted: a test is inconclusive."
    left_name, right_name = differences[0].left_name, differences[0].right_name
    columns = (
        "class",
        "stage",
        "concept",
        "comparison",
        left_name,
        right_name,
        f"{left_name} − {right_name}",
        "95 % interval",
        "adjusted p in each run",
    )
    ranked = sorted(
        differences, key=lambda d: (bool(d.inconclusive_verdict), -abs(d.value) if d.value == d.value else 0)
    )
    others = [_difference_cells(difference) for difference in ranked if not difference.significant]
    parts = [html.paragraph(text)]
    parts += (
        [html.html_table(columns, [_difference_cells(difference) for difference in ranked if difference.significant])]
        if significant
        else []
    )
    parts += (
        [html.details_block(f"Other differences ({len(others)})", html.html_table(columns, others))] if others else []
    )
    return "".join(parts)


def _difference_cells(difference: ScoreDifference) -> tuple[str, tuple[str, ...]]:
    p = f"{format_p(difference.left.p_adjusted)}; {format_p(difference.right.p_adjusted)}"
    cells = (
        *(
            difference.key.target,
            difference.key.stage,
            difference.key.concept,
            comparison_name(difference.key.clip_type, difference.key.negatives),
        ),
        *(
            format_signed(difference.left.relative_derivative),
            format_signed(difference.right.relative_derivative),
            format_signed(difference.value),
            format_range(difference.low, difference.high),
        ),
        f"{p} ({difference.inconclusive_verdict})" if difference.inconclusive_verdict else p,
    )
    return "" if difference.significant else "faint", cells


def _differences_csv(differences: Sequence[ScoreDifference]) -> bytes:
    """Return all differences as CSV in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        (*ScoreKey._fields, "left", "right", "left_share", "right_share", "difference", "low", "high", "cannot_tell")
    )
    for difference in differences:
        values = (
            difference.left.relative_derivative,
            difference.right.relative_derivative,
            difference.value,
            difference.low,
            difference.high,
        )
        row = (*difference.key, difference.left_name, difference.right_name, *values, difference.inconclusive_verdict)
        writer.writerow(map(escape_formula, row))
    return file.getvalue().encode()


def _comparison_figures(
    labels: Sequence[str], tables: Sequence[ScoreTable], common_keys: Sequence[ScoreKey]
) -> list[Figure]:
    """Draw one figure per class and concept: every comparison by stage, with one mark per run."""
    out = []
    for target, concept in unique_in_order([(k.target, k.concept) for k in common_keys]):
        keys = [k for k in common_keys if (k.target, k.concept) == (target, concept)]
        stages = unique_in_order([k.stage for k in keys])
        legend = Legend.of(((RUN_COLOURS[i % 4], name) for i, name in enumerate(labels)), FIGURE_WIDTH)
        names = NameLabels.of([comparison_name(k.clip_type, k.negatives) for k in keys], MAX_ROW_NAME)
        lines_of = dict(zip(keys, names.lines))
        stage_lines = {stage: wrap_text(stage, FIGURE_WIDTH - 16) for stage in stages}
        top, step = 26 + round(legend.height), max(12 * len(tables), LINE_HEIGHT * names.max_lines) + 10
        n_stage_lines = sum(map(len, stage_lines.values()))
        height = top + 50 + 8 * len(stages) + LINE_HEIGHT * n_stage_lines + step * len(keys)
        canvas = Canvas(FIGURE_WIDTH, height)
        values = [
            v
            for k in keys
            for t in tables
            for v in (t[k].relative_derivative, t[k].relative_derivative_low, t[k].relative_derivative_high)
        ]
        x = fit_scale(values, max(148.0, names.width + 28), FIGURE_WIDTH - 12)
        canvas.heading(f"{target}: {concept}")
        canvas.text(FIGURE_WIDTH - 8, canvas.height - 8, "share of gradient", "soft", "end")
        legend.draw(canvas, 30)
        for value in x.ticks:
            canvas.line(x(value), top, x(value), canvas.height - 42, "axis" if value else "zero")
            canvas.text(x(value), canvas.height - 26, format_tick(value), "soft", "middle")
        y = top
        for stage in stages:
            y += 8
            for line in stage_lines[stage]:
                y += LINE_HEIGHT
                canvas.text(8, y - 4, line, "soft")
            for k in (k for k in keys if k.stage == stage):
                draw_label(canvas, 18, y + 2 + 6 * len(tables), lines_of[k])
                for i, table in enumerate(tables):
                    _draw_mark(canvas, x, y + 8 + 12 * i, labels[i], table[k], RUN_COLOURS[i % 4])
                y += step
        out.append(canvas.figure(slug("compare", target, concept), f"{target}: {concept} in {', '.join(labels)}"))
    return out


def _draw_mark(canvas: Canvas, x: Scale, y: Number, name: str, row: ScoreRow, colour: str) -> None:
    if math.isnan(row.relative_derivative):
        return
    if not math.isnan(row.relative_derivative_low):
        canvas.line(x(row.relative_derivative_low), y, x(row.relative_derivative_high), y, f"bar {colour}")
    interval = format_range(row.relative_derivative_low, row.relative_derivative_high)
    title = f"{name}, {row.stage}: {format_number(row.relative_derivative)} (95 % CI {interval}), {row.verdict}"
    draw_mark(canvas, row, x(row.relative_derivative), y, colour if is_finding(row) else "faint", title)
