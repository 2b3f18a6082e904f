"""What a page says about a run of Video-TCAV, from its folder: the answer first, then all that it stands on."""

from collections.abc import Sequence

import numpy as np

from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import (
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
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.runs.tcav_rows import ScoreRow
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.previews import extreme_clips, most_telling_tests

MAX_TIME_FIGURES = 6  # figures over time of each class
CONTROL_DESCRIPTIONS = {
    "frozen": " (one frame for as long)",
    "shuffled": " (the same frames out of order)",
    "jitter": " (a still crop that shakes as the box does)",
}


def tcav_sections(run: RunFolder) -> list[Section]:
    if not run.score_rows:
        return []
    builders = (
        tcav_answer_section,
        depth_section,
        static_dynamic_section,
        steering_section,
        concept_section,
        extreme_clip_section,
        time_section,
        trust_section,
        tcav_score_section,
    )
    return [section for build in builders if (section := build(run)) is not None]


def run_statistic(run: RunFolder) -> str:
    return run.config.get("statistic", "step_effect")


def scores_by_target(run: RunFolder) -> dict[str, list[ScoreRow]]:
    return {
        name: [row for row in run.score_rows if row.target == name]
        for name in unique_in_order([row.target for row in run.score_rows])
    }


def scores_by_concept(rows: Sequence[ScoreRow]) -> dict[str, list[ScoreRow]]:
    return {
        name: [row for row in rows if row.concept == name] for name in unique_in_order([row.concept for row in rows])
    }


def tcav_answer_section(run: RunFolder) -> Section:
    parts = [random_weights_notice.random_weights_warning(run, "tcav")]
    for class_answer in tcav_text.class_answers(run):
        sentences = [
            *class_answer.findings,
            *([("", class_answer.no_effect_text)] if class_answer.no_effect_text else []),
        ]
        parts.append(html.heading(class_answer.target) + random_weights_notice.answer_callout(run, "tcav", sentences))
    if cautions := tcav_text.caution_notes(run):
        parts.append(html.callout(html.bullet_list(cautions), "warn"))
    for target, rows in scores_by_target(run).items():
        parts.append(html.heading(f"{target}, at a glance") + _overview_table(rows, run_statistic(run)))
    parts.append(
        html.paragraph(
            f"Numbers are {_effect_meaning(run)}. Grey ones are not significant, or their test could not tell: the"
            f" reason"
            " stands beside them, or at the stage, and what it means under “How far to trust it”.",
            "soft",
        )
    )
    return Section("answer", "The answer", "".join(parts))


def _effect_meaning(run: RunFolder) -> str:
    if run_statistic(run) != "step_effect":
        return "mean derivatives of the class score along the concept's vector of length 1"
    order = "" if run.config.get("sensitivity") == "finite" else ", to first order"
    return f"what the step from the clips behind the minus sign to those of the concept adds to the class score{order}"


def _overview_table(rows: Sequence[ScoreRow], statistic: str) -> str:
    stages = unique_in_order([row.stage for row in rows])
    degenerate = {stage for stage in stages if all(row.degenerate for row in rows if row.stage == stage)}
    by_key = {(row.concept, row.clip_type, row.negatives, row.stage): row for row in rows}
    lines = []
    for concept, clip_type, negatives in unique_in_order([(row.concept, row.clip_type, row.negatives) for row in rows]):
        cells = [concept, f"{clip_type} − {negatives}"]
        for stage in stages:
            row = by_key.get((concept, clip_type, negatives, stage))
            cells.append("" if row is None else _format_cell(row, statistic))
        lines.append(("", cells))
    heads = [f"{stage} (degenerate)" if stage in degenerate else stage for stage in stages]
    return html.html_table(("concept", "compared", *heads), lines)


def _format_cell(row: ScoreRow, statistic: str) -> str:
    value = format_signed(effect_size(row, statistic).value)
    if is_finding(row):
        return f"{'up' if row.derivative > 0 else 'down'}\t{value}"
    reason = "" if row.verdict in ("not significant", "degenerate layer") else f" ({row.verdict})"
    return f"faint\t{value}{reason}"


def depth_section(run: RunFolder) -> Section:
    parts, all_figures = [], []
    for target, rows in scores_by_target(run).items():
        unit_text = effect_unit(run_statistic(run), rows[0].score_fn)
        target_figures = [
            tcav_figures.depth_figure(part, run_statistic(run), unit_text, rows)
            for part in scores_by_concept(rows).values()
            if primary_tests(part)[1]
        ]
        all_figures += target_figures
        parts += [html.heading(target), html.figure_grid(target_figures)] if target_figures else []
    parts.insert(
        0,
        html.paragraph(
            "How much each concept moves the class score, from the first stage to the last, with its 95 % interval over"
            " other clips. Grey boxes hold the middle 95 % of what exchanging labels gives by chance; hollow grey"
            " marks are not significant after correction.",
            "soft",
        ),
    )
    return Section("depth", "Effect over depth", "".join(parts), tuple(all_figures))


def static_dynamic_section(run: RunFolder) -> Section | None:
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
        parts += [html.heading(target), html.figure_grid(target_figures)]
    controls = [
        f"{name}{CONTROL_DESCRIPTIONS.get(name, '')}"
        for name in unique_in_order([r.negatives for r in run.score_rows if r.comparison == "motion"])
    ]
    text = (
        f"Still clips, moving ones, and moving ones against copies of themselves that only lack the motion:"
        f" {', '.join(controls)}. Only what stands out against these copies is evidence of motion."
        if controls
        else "Still clips and moving ones. This run has no copies of the moving clips that only lack the motion, so"
        " nothing here is evidence of motion."
    )
    return Section("motion", "Look or motion?", html.paragraph(text, "soft") + "".join(parts), tuple(all_figures))


def steering_section(run: RunFolder) -> Section | None:
    """Where --steering_controls has moved the clips; a finding that does not hold there is greyed."""
    if not run.steering_rows:
        return None
    lines = [
        (
            "" if row.p_random_directions <= 0.05 else "faint",
            (
                *(
                    row.target,
                    row.stage,
                    f"{row.concept}, {row.clip_type} − {row.negatives}",
                    format_signed(row.step_units, 1),
                ),
                *(
                    format_signed(row.score_change),
                    format_signed(row.predicted_change),
                    format_range(row.random_low, row.random_high),
                    format_p(row.p_random_directions),
                ),
            ),
        )
        for row in run.steering_rows
    ]
    text = (
        "Clips of the class moved at the stage, by so many times the step from the others to the concept: where the"
        " class score goes, where the derivative says it should, and where steps of the same length lead in random"
        " directions."
    )
    columns = ("class", "stage", "along", "steps", "change", "expected", "random directions", "p")
    return Section("steering", "Where scores really go", html.paragraph(text, "soft") + html.html_table(columns, lines))


def concept_section(run: RunFolder) -> Section | None:
    sheets = [animation for animation in run.animation_rows if animation.role == "concept"]
    if not sheets:
        return None
    parts = []
    for name in unique_in_order([animation.name for animation in sheets]):
        title = "random clips, which concepts are told apart from" if name == NEGATIVE_PREFIX else name
        sheet_figures = [
            html.embed_media(
                run.folder / animation.file, f"{animation.clip_type}: {animation.n_shown} of {animation.n_total} clips"
            )
            for animation in sheets
            if animation.name == name
        ]
        parts += [html.heading(title), f'<div class="grid">{"".join(sheet_figures)}</div>']
    return Section("concepts", "The concepts, as the network saw them", "".join(parts))


def extreme_clip_section(run: RunFolder) -> Section | None:
    paths = {
        animation.name: run.folder / animation.file for animation in run.animation_rows if animation.role == "target"
    }
    parts = []
    for row in most_telling_tests(run.score_rows):
        high, low = extreme_clips(row, run.derivative_rows)
        clip_figures = [
            html.embed_media(paths[clip.clip], f"{format_signed(clip.derivative)} {clip.clip}")
            for clip in [*high, *low]
            if clip.clip in paths
        ]
        if clip_figures:
            title = f"{row.target}: {row.concept} ({row.clip_type}) against {row.negatives}, {row.stage}"
            parts += [html.heading(title), f'<div class="films">{"".join(clip_figures)}</div>']
    if not parts:
        return None
    text = (
        "For the strongest finding of each concept, or of a class without any the test with the smallest p, the clips"
        " whose score it moves most and least: the derivative along the concept's vector, then the clip's name. What"
        " they have in common is a hint and no test."
    )
    section_html = html.paragraph(text, "soft") + "".join(parts)
    return Section("clips", "Clips with the highest and the lowest derivative", section_html)


def time_section(run: RunFolder) -> Section | None:
    parts, all_figures = [], []
    for target in scores_by_target(run):
        target_figures = []
        for row in [row for row in most_telling_tests(run.score_rows) if row.target == target][:MAX_TIME_FIGURES]:
            values = _time_values(run, row)
            if values is not None:
                target_figures.append(tcav_figures.derivative_profile_figure(row, values))
        all_figures += target_figures
        parts += [html.heading(target), html.figure_grid(target_figures)] if target_figures else []
    if not parts:
        return None
    text = (
        "The derivative of each clip is a sum over the moments of the clip. The line is the mean over the clips of the"
        " class, the band holds the middle half of them; all of it is in over_time.npz."
    )
    return Section("moments", "When in the clip", html.paragraph(text, "soft") + "".join(parts), tuple(all_figures))


def _time_values(run: RunFolder, row: ScoreRow) -> np.ndarray | None:
    key, name = f"{row.stage}|{row.target}", f"{row.concept}/{row.clip_type}/{row.negatives}"
    names = run.derivatives_over_time.get(f"{row.stage}|vectors")
    if names is None or key not in run.derivatives_over_time or name not in names:
        return None
    values = run.derivatives_over_time[key][int(np.flatnonzero(names == name)[0])]
    return values if values.shape[1] > 1 else None


def trust_section(run: RunFolder) -> Section:
    parts = [random_weights_notice.random_weights_warning(run, "tcav"), html.bullet_list(tcav_text.trust_notes(run))]
    verdicts = unique_in_order([row.verdict for row in run.score_rows])
    parts.append(
        html.details_block(
            "What the verdicts mean", html.definition_list((v, tcav_text.VERDICT_TEXTS.get(v, "")) for v in verdicts)
        )
    )
    all_figures = []
    for stage in unique_in_order([pair.stage for pair in run.cosine_rows]):
        for comparison in ("absolute", "relative"):
            pairs = [pair for pair in run.cosine_rows if pair.stage == stage and pair.comparison == comparison]
            if names := unique_in_order([pair.left for pair in pairs]):
                grid = np.full((len(names), len(names)), np.nan)
                for pair in pairs:
                    grid[names.index(pair.left), names.index(pair.right)] = pair.cosine
                short_names = [name.rpartition("/")[0].replace("/", ", ") for name in names]
                all_figures.append(tcav_figures.cosine_heatmap(short_names, grid, stage, comparison))
    if all_figures:
        parts += [
            html.heading("Entanglement"),
            html.paragraph(
                "Cosines between the vectors of different concepts, trained for the same test. Where two are far from"
                " 0, what is said of one concept is partly said of the other.",
                "soft",
            ),
            html.figure_grid(all_figures),
        ]
    if run.vector_rows:
        lines = [
            (
                "faint" if v.auc <= 0.5 or v.auc_p > 0.05 else "",
                (
                    *(v.stage, f"{v.concept} ({v.clip_type}) − {v.negatives}", f"{v.n_concept} / {v.n_negatives}"),
                    *(format_number(v.auc, 2), format_p(v.auc_p)),
                    f"{format_number(v.split_half, 2)}"
                    f" ({format_range(round(v.split_half_low, 2), round(v.split_half_high, 2))})",
                    f"{v.most_similar} {format_number(v.most_similar_cosine, 2)}" if v.most_similar else "",
                ),
            )
            for v in run.vector_rows
        ]
        columns = ("stage", "vector", "clips", "AUC", "its p", "split-half cosine", "most like")
        parts += [
            html.heading("Quality of the vectors"),
            html.paragraph(
                "AUC: how well clips that the vector was not trained on are told apart (0.5 is chance). Split-half: how"
                " alike two vectors are that were trained on one half of the clips each.",
                "soft",
            ),
            html.details_block(f"{len(lines)} vectors", html.html_table(columns, lines)),
        ]
    return Section("trust", "How far to trust it", "".join(parts), tuple(all_figures))


def tcav_score_section(run: RunFolder) -> Section:
    parts = [
        html.paragraph(
            "The field's usual picture: the share of clips of the class whose derivative along the concept is positive."
            " It says how many clips agree, not how much, and with one vector it is near 0 or 1 even by chance: colours"
            " follow the tests above, and grey bars prove nothing.",
            "soft",
        )
    ]
    all_figures = []
    for target, rows in scores_by_target(run).items():
        target_figures = [
            tcav_figures.sign_count_figure([row for row in rows if row.stage == stage])
            for stage in unique_in_order([row.stage for row in rows])
            if primary_tests([row for row in rows if row.stage == stage])[1]
        ]
        all_figures += target_figures
        parts += [html.heading(target), html.figure_grid(target_figures)] if target_figures else []
    lines = [("" if is_finding(row) else "faint", _score_cells(row, run_statistic(run))) for row in run.score_rows]
    columns = ("class", "stage", "concept", "compared", "effect", "interval", "score", "p", "adjusted", "verdict")
    parts += [html.heading("All tests"), html.details_block(f"{len(lines)} tests", html.html_table(columns, lines))]
    return Section("scores", "TCAV scores", "".join(parts), tuple(all_figures))


def _score_cells(row: ScoreRow, statistic: str) -> tuple[str, ...]:
    e = effect_size(row, statistic)
    return (
        *(
            row.target,
            row.stage,
            row.concept,
            f"{row.clip_type} − {row.negatives}",
            format_signed(e.value, 3),
            format_range(e.low, e.high),
        ),
        *(format_percent(row.tcav_score), format_p(row.p), format_p(row.p_adjusted), row.verdict),
    )
