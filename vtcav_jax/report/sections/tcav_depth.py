"""Sections of a Video-TCAV run about depth: effects by stage (layer), dynamic against static clips, Saha et al."""

from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import effect_unit, primary_tests
from vtcav_jax.report.figures import tcav as tcav_figures
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.figures.tcav_groups import group_marks, saha2024_marks, stage_figure
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.report.sections.tcav_classes import class_block, scores_by_concept
from vtcav_jax.report.sections.tcav_validity import run_statistic, scores_by_target
from vtcav_jax.report.text.depth_trend import depth_trend_texts
from vtcav_jax.runs.tcav_depth_rows import CLIP_TYPES, RANDOM_SETS

MARKS_LEGEND = (
    "Filled marks: significant after correction; hollow grey circles: not significant; grey crosses: [[inconclusive]]."
)


def depth_section(run: RunFolder) -> Section:
    """Figures per class and concept: the effect against the random clips (or other concepts) at each stage."""
    parts, all_figures = [], []
    for target, rows in scores_by_target(run).items():
        unit_text = effect_unit(run_statistic(run), rows[0].score_fn)
        random_sets = [row for row in run.group_effect_rows if (row.target, row.group) == (target, RANDOM_SETS)]
        target_figures = [
            tcav_figures.depth_figure(part, run_statistic(run), unit_text, rows, random_sets)
            for part in scores_by_concept(rows).values()
            if primary_tests(part)[1]
        ]
        all_figures += target_figures
        parts += [class_block(target, html.figure_grid(target_figures), run)] if target_figures else []
    negatives = {"others": "the clips of the other concepts"}.get(primary_tests(run.score_rows)[0], "the random clips")
    text = (
        f"[[Effect|effect]] of each concept compared with {negatives}, from the first [[stage]] to the last. Bars: [[95"
        " % CI]]. Grey boxes: middle 95 % of the effects under permuted labels, that is, without any concept. "
        f" {MARKS_LEGEND}"
    )
    if any(row.group == RANDOM_SETS for row in run.group_effect_rows):
        text += (
            " Small grey circles: each random set, compared with the other random sets as if it were a concept; the"
            " line spans them. The tests do not use them."
        )
    trends = depth_trend_texts(run)
    intro = linked_paragraph(text) + (random_weights_notice.answer_callout(run, "tcav", trends) if trends else "")
    return Section("depth", "Effect by layer", intro + "".join(parts), tuple(all_figures))


def clip_type_section(run: RunFolder) -> Section | None:
    """Figures per class and concept: the effect of its dynamic relative to its static clips at each stage."""
    rows = [row for row in run.group_effect_rows if row.group == CLIP_TYPES]
    if not rows:
        return None
    parts, all_figures = [], []
    unit = effect_unit(run_statistic(run), run.score_rows[0].score_fn)
    for target in scores_by_target(run):
        target_figures = []
        for concept in unique_in_order([row.concept for row in rows if row.concept != NEGATIVE_PREFIX]):
            compared = [row for row in rows if row.target == target and row.concept in (concept, NEGATIVE_PREFIX)]
            name = tcav_figures.slug("types", target, concept)
            label = f"{target}: effect of dynamic relative to static clips of {concept}, by stage"
            marks = group_marks(compared, run_statistic(run))
            target_figures.append(
                stage_figure(name, label, f"{concept}: dynamic vs static", f"{target}: {unit}", marks)
            )
        all_figures += target_figures
        parts.append(class_block(target, html.figure_grid(target_figures), run))
    text = (
        "[[Effect|effect]] along a vector from the static clips to the dynamic clips of one concept, and in grey along"
        " that of all random clips. Bars: [[95 % CI]]. Almost any network distinguishes dynamic from static clips, so"
        " that these effects are not tested and are no findings; compare a concept with the random clips. Whether"
        " motion contributes is tested in the section above."
    )
    section_html = linked_paragraph(text) + "".join(parts)
    return Section("clip-types", "Dynamic relative to static clips", section_html, tuple(all_figures))


def saha2024_section(run: RunFolder) -> Section | None:
    """Figures of --protocol=saha2024: TCAV scores per class and group of concepts, as published."""
    if not run.saha2024_rows:
        return None
    parts: list[str] = []
    all_figures: list[Figure] = []
    for target in scores_by_target(run):
        target_figures = []
        for i, group in enumerate(unique_in_order([row.group for row in run.saha2024_rows])):
            marks = saha2024_marks([row for row in run.saha2024_rows if (row.target, row.group) == (target, group)])
            name, label = tcav_figures.slug("saha2024", target, str(i)), f"{target}: TCAV scores of {group}, by stage"
            figure = stage_figure(name, label, group, f"{target}: TCAV score", marks, is_share=True)
            target_figures.append(figure)
        all_figures += target_figures
        parts.append(class_block(target, html.figure_grid(target_figures), run))
    n_tests = sum(row.p == row.p for row in run.saha2024_rows)
    text = (
        "TCAV scores as in Saha et al. (2024): a vector separates each member of a group from the rest of the group,"
        " once per random set (a run). Marks: mean of the runs; lines: lowest to highest run. saha2024.csv has the"
        f" t-tests against 0.5, corrected (Bonferroni) for {count_noun(n_tests, 'test')}, apart from the tests of the"
        f" other sections. It is undefined for {count_noun(len(run.saha2024_rows) - n_tests, 'test')}, whose runs all"
        " agree; the column p_sign_test has the exact sign test of the runs. Runs share the concept clips, so they are"
        " not independent and"
        " that all these p-values are too small."
    )
    return Section(
        "saha2024", "Tests of Saha et al. (2024)", linked_paragraph(text) + "".join(parts), tuple(all_figures)
    )
