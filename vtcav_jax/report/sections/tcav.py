"""Sections of a Video-TCAV run: findings, effects by stage, contribution of motion, concept clips and target clips."""

from collections.abc import Sequence

import numpy as np

from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import (
    comparison_name,
    effect_size,
    effect_unit,
    format_p,
    format_range,
    format_signed,
)
from vtcav_jax.report.figures import tcav as tcav_figures
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.discovered import discovered_section
from vtcav_jax.report.sections.tcav_classes import class_block, class_summary, detailed_classes, scores_by_concept
from vtcav_jax.report.sections.tcav_depth import MARKS_LEGEND, clip_type_section, depth_section, saha2024_section
from vtcav_jax.report.sections.tcav_validity import run_statistic, scores_by_target, tcav_score_section, trust_section
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.report.text import tcav_limits
from vtcav_jax.runs.tcav_rows import ScoreRow, degenerate_stages
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.previews import extreme_clips, most_telling_tests

MAX_TIME_FIGURES = 6  # per class
CONTROL_DESCRIPTIONS = {
    "frozen": " (one frame repeated)",
    "shuffled": " (the same frames in another order)",
    "reversed": " (the same frames backwards)",
    "jitter": " (a static crop that shakes like the tracked box)",
}

# Sections that could undermine a finding
CHECKS = {
    "trust": "what limits these results",
    "steering": "does the score follow when activations are moved",
    "concepts": "the concept clips",
    "scores": "all tests",
}


def tcav_sections(run: RunFolder) -> list[Section]:
    if not run.score_rows:
        return []
    builders = (
        discovered_section,
        depth_section,
        static_dynamic_section,
        clip_type_section,
        saha2024_section,
        steering_section,
        concept_section,
        extreme_clip_section,
        time_section,
        trust_section,
        tcav_score_section,
    )
    others = [section for build in builders if (section := build(run)) is not None]
    ids = {section.id for section in others}
    checks = [(text, section_id) for section_id, text in CHECKS.items() if section_id in ids]
    return [tcav_answer_section(run, html.section_links("Check:", checks)), *others]


def tcav_answer_section(run: RunFolder, checks: str) -> Section:
    """Findings in sentences with links to what could undermine them, cautions, and a table of all comparisons."""
    parts = [random_weights_notice.random_weights_warning(run, "tcav"), linked_paragraph(_introduction(run))]
    summary, summary_figures = class_summary(run, run_statistic(run))
    parts.append(summary)
    for class_answer in tcav_text.class_answers(run):
        sentences = [
            *([(class_answer.limits, "")] if class_answer.limits else []),
            *class_answer.findings,
            *([("", class_answer.no_effect_text)] if class_answer.no_effect_text else []),
        ]
        callout = random_weights_notice.answer_callout(run, "tcav", sentences, checks)
        parts.append(class_block(class_answer.target, callout, run))
    if cautions := tcav_limits.caution_notes(run):
        parts.append(html.callout(html.bullet_list(cautions), "warn"))
    unit = effect_unit(run_statistic(run), run.score_rows[0].score_fn)
    parts.append(
        html.heading("Effect of each comparison by stage")
        + linked_paragraph(
            f"Each cell is the [[effect]] of one comparison ({unit}). A comparison names the concept clips, then “vs”"
            " and the [[negatives]]. Bold: significant, violet with + if the concept raises the score and ochre with −"
            " if it lowers it. Grey: not significant or [[inconclusive]]; the reason is in parentheses or, for a whole"
            " stage, in the column heading."
        )
    )
    for target, rows in scores_by_target(run).items():
        parts.append(class_block(target, _overview_table(rows, run_statistic(run)), run))
    return Section("answer", "Findings", "".join(parts), tuple(summary_figures))


def _introduction(run: RunFolder) -> str:
    order = "" if run.config.get("sensitivity") == "finite" else " to first order"
    quantity = (
        f"how much the [[class score]] changes{order} when the activations of a [[stage]] (layer) move from the"
        " [[negatives]] to the clips of a [[concept]]"
        if run_statistic(run) == "step_effect"
        else "the mean [[derivative]] of the [[class score]] along the [[concept vector]] at a [[stage]] (layer)"
    )
    within = run.config.get("within", "")
    return (
        f"Video-TCAV measures {quantity}. Each finding reports, for one concept, the comparison with the smallest"
        " [[adjusted p]] (among equals, the largest [[share of gradient]]), with its [[95 % CI]] over source videos."
        + (f" Only clips of equal {within} are compared with each other." if within else "")
    )


def _overview_table(rows: Sequence[ScoreRow], statistic: str) -> str:
    stages = unique_in_order([row.stage for row in rows])
    degenerate = degenerate_stages(rows)
    by_key = {(row.concept, row.clip_type, row.negatives, row.stage): row for row in rows}
    lines = []
    for concept, clip_type, negatives in unique_in_order([(row.concept, row.clip_type, row.negatives) for row in rows]):
        cells = [concept, comparison_name(clip_type, negatives)]
        for stage in stages:
            row = by_key.get((concept, clip_type, negatives, stage))
            cells.append("" if row is None else _format_cell(row, statistic))
        lines.append(("", cells))
    heads = [f"{stage} (equal gradients)" if stage in degenerate else stage for stage in stages]
    return html.html_table(("concept", "comparison", *heads), lines)


def _format_cell(row: ScoreRow, statistic: str) -> str:
    value = format_signed(effect_size(row, statistic).value)
    if is_finding(row):
        return f"{'up' if row.derivative > 0 else 'down'}\t{value}"
    reason = "" if row.verdict == "not significant" else f" ({row.verdict})"
    return f"faint\t{value}{reason}"


def static_dynamic_section(run: RunFolder) -> Section | None:
    """Figures per class and concept: static clips, dynamic clips and, with controls, their difference."""
    if (
        not any(row.comparison == "motion" for row in run.score_rows)
        and len({row.clip_type for row in run.score_rows}) < 2
    ):
        return None
    parts, all_figures = [], []
    for target, rows in scores_by_target(run).items():
        unit_text = effect_unit(run_statistic(run), rows[0].score_fn)
        target_figures = [
            tcav_figures.static_dynamic_figure(part, run_statistic(run), unit_text)
            for part in scores_by_concept(rows).values()
        ]
        all_figures += target_figures
        parts.append(class_block(target, html.figure_grid(target_figures), run))
    controls = [
        f"{name}{CONTROL_DESCRIPTIONS.get(name, '')}"
        for name in unique_in_order([r.negatives for r in run.score_rows if r.comparison == "motion"])
    ]
    text = (
        "[[Effect|effect]] of static and dynamic clips. Dynamic clips are also compared with their"
        f" [[control clips|control clip]], which have the same frames or appearance but not the same motion:"
        f" {', '.join(controls)}. A significant difference (green) from shuffled or reversed clips is evidence that"
        " motion contributes; one from frozen clips alone may be due to the other moments of the clip."
        if controls
        else "[[Effect|effect]] of static and dynamic clips. This run has no comparison with [[control clips|control"
        " clip]], so a difference between static and dynamic clips is no evidence that motion contributes."
    )
    text += (
        " Blue: static; orange: dynamic. Bars: [[95 % CI]]. Grey boxes: middle 95 % under permuted labels."
        f" {MARKS_LEGEND}"
    )
    return Section("motion", "Contribution of motion", linked_paragraph(text) + "".join(parts), tuple(all_figures))


def steering_section(run: RunFolder) -> Section | None:
    """Score changes of target clips whose activations were moved along the vectors of findings."""
    if not run.steering_rows:
        return None
    has_controls = any(row.p_random_directions == row.p_random_directions for row in run.steering_rows)
    lines = [
        (
            "" if row.score_change * row.predicted_change > 0 else "faint",
            (
                row.target,
                row.stage,
                row.concept,
                comparison_name(row.clip_type, row.negatives),
                format_signed(row.step_units, 1),
                format_signed(row.score_change),
                format_range(row.score_change_low, row.score_change_high),
                format_signed(row.predicted_change),
                *((format_range(row.random_low, row.random_high), format_p(row.p_random_directions)) * has_controls),
            ),
        )
        for row in run.steering_rows
    ]
    text = (
        "This check moves the activations of the [[target clips|target clip]] along the [[concept vector]] of each"
        " finding and runs the rest of the network. Step: multiples of the distance from the mean of the negatives to"
        " the mean of the concept clips. Predicted change: derivative times this distance; the effects above are"
        " smaller, since they take the distance of clips that the vector was not trained on. If the score changes in"
        " the other direction than predicted (half the difference between both steps), the test is [[inconclusive]]."
        " Grey: this step has the other sign."
    )
    columns = ("class", "stage", "concept", "comparison", "step", "change of the score", "95 % CI over videos")
    columns += ("predicted change", *(("random directions", "p") * has_controls))
    if has_controls:
        text += (
            " Random directions: middle 95 % of the score changes for equally long moves in random directions; p: share"
            " of random directions with an equal or larger absolute change (not corrected for the number of rows)."
        )
    table = html.html_table(columns, lines)
    return Section("steering", "Score changes when activations are moved", linked_paragraph(text) + table)


def concept_section(run: RunFolder) -> Section | None:
    sheets = [animation for animation in run.animation_rows if animation.role == "concept"]
    if not sheets:
        return None
    parts = [
        linked_paragraph(
            "Clips of each [[concept]] as the network reads them, resized for display; the playback speed may differ."
        )
    ]
    for name in unique_in_order([animation.name for animation in sheets]):
        title = "Random clips (negatives)" if name == NEGATIVE_PREFIX else name
        sheet_figures = [
            html.embed_media(
                run.folder / animation.file,
                f"{animation.clip_type} clips: {animation.n_shown} of {animation.n_total}",
            )
            for animation in sheets
            if animation.name == name
        ]
        parts += [html.heading(title), f'<div class="grid">{"".join(sheet_figures)}</div>']
    return Section("concepts", "Concept clips", "".join(parts))


def extreme_clip_section(run: RunFolder) -> Section | None:
    """Target clips with the highest and lowest derivatives along the vectors of the strongest tests."""
    paths = {
        animation.name: run.folder / animation.file for animation in run.animation_rows if animation.role == "target"
    }
    parts = []
    detailed = detailed_classes(run)
    for row in most_telling_tests([row for row in run.score_rows if row.target in detailed]):
        high, low = extreme_clips(row, run.derivative_rows)
        clip_figures = [
            html.embed_media(paths[clip.clip], f"{format_signed(clip.derivative)} {clip.clip}")
            for clip in [*high, *low]
            if clip.clip in paths
        ]
        if clip_figures:
            title = f"{row.target}: {row.concept}, {comparison_name(row.clip_type, row.negatives)}, at {row.stage}"
            parts += [html.heading(title), f'<div class="films">{"".join(clip_figures)}</div>']
    if not parts:
        return None
    text = (
        "The [[target clips|target clip]] with the highest [[derivatives|derivative]], then those with the lowest, for"
        " the strongest finding of each concept (or, for a class without findings, the test with the smallest p)."
        " Captions: derivative and name of the clip. Similarities among these clips are suggestions to examine, not"
        " test results."
    )
    section_html = linked_paragraph(text) + "".join(parts)
    return Section("clips", "Target clips with the highest and lowest derivatives", section_html)


def time_section(run: RunFolder) -> Section | None:
    parts, all_figures = [], []
    for target in scores_by_target(run):
        target_figures = []
        for row in [row for row in most_telling_tests(run.score_rows) if row.target == target][:MAX_TIME_FIGURES]:
            values = _time_values(run, row)
            if values is not None:
                target_figures.append(tcav_figures.derivative_profile_figure(row, values))
        all_figures += target_figures
        parts += [class_block(target, html.figure_grid(target_figures), run)] if target_figures else []
    if not parts:
        return None
    text = (
        "The [[derivative]] at a clip is the sum of contributions of the time steps of the stage. Line: mean over the"
        " target clips; band: middle half of the target clips (not a confidence interval). Blue: static clips;"
        " orange: dynamic clips; grey: not significant or [[inconclusive]]. All values are in over_time.npz."
    )
    return Section("moments", "Effect over time", linked_paragraph(text) + "".join(parts), tuple(all_figures))


def _time_values(run: RunFolder, row: ScoreRow) -> np.ndarray | None:
    key, name = f"{row.stage}|{row.target}", f"{row.concept}/{row.clip_type}/{row.negatives}"
    names = run.derivatives_over_time.get(f"{row.stage}|vectors")
    if names is None or key not in run.derivatives_over_time or name not in names:
        return None
    values = run.derivatives_over_time[key][int(np.flatnonzero(names == name)[0])]
    return values if values.shape[1] > 1 else None
