"""Parts of a Video-TCAV page for many classes: the summary of all classes, and blocks that are collapsed."""

from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report import html
from vtcav_jax.report.effect_sizes import effect_unit
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.figures.tcav_groups import class_concept_figures
from vtcav_jax.report.glossary import linked_paragraph
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.tcav_rows import ScoreRow

MAX_OPEN_CLASSES = 3  # blocks of further classes are collapsed
MAX_DETAILED_CLASSES = 20  # with tables and figures


def scores_by_concept(rows: Sequence[ScoreRow]) -> dict[str, list[ScoreRow]]:
    return {
        name: [row for row in rows if row.concept == name] for name in unique_in_order([row.concept for row in rows])
    }


def detailed_classes(run: RunFolder) -> list[str]:
    """Return the classes with tables and figures: all, or those with the most findings if there are many."""
    counts = run.findings_by_class
    most = set(sorted(counts, key=lambda name: -counts[name])[:MAX_DETAILED_CLASSES])
    return [name for name in counts if name in most]


def class_block(target: str, inside: str, run: RunFolder) -> str:
    """Return a block of one class with its name as heading; collapsed if many classes come before it."""
    if list(run.findings_by_class).index(target) < MAX_OPEN_CLASSES:
        return html.heading(target) + inside
    return html.details_block(f"{target} ({count_noun(run.findings_by_class[target], 'finding')})", inside)


def class_summary(run: RunFolder, statistic: str) -> tuple[str, list[Figure]]:
    """Return the figures of the strongest finding of each class for each concept; nothing for a single class."""
    counts = run.findings_by_class
    if len(counts) < 2:
        return "", []
    figures = class_concept_figures(run.score_rows, statistic)
    n_with_findings = sum(count > 0 for count in counts.values())
    unit = effect_unit(statistic, run.score_rows[0].score_fn)
    n_findings = count_noun(sum(counts.values()), "finding")
    text = (
        f"{n_findings} for {n_with_findings} of {len(counts)} classes. Cells show the finding with the largest"
        f" [[effect]] ({unit}) of a concept: in static or dynamic clips, compared with random clips, or in its motion,"
        " compared with [[control clips|control clip]]."
    )
    legend = (
        "Violet with +: the concept raises the score; ochre with −: it lowers it; the darker, the larger the effect. ±:"
        " the sign is opposite at another stage. Grey: no finding; with a cross: all tests are [[inconclusive]]. Sum:"
        " number of findings. Tooltips name the stage, the interval and the [[adjusted p]]."
    )
    if len(counts) > MAX_DETAILED_CLASSES:
        legend += (
            f" The tables and figures below have the {MAX_DETAILED_CLASSES} classes with the most findings; scores.csv"
            " has all."
        )
    parts = html.heading("All classes and concepts"), linked_paragraph(text), html.figure_grid(figures)
    return "".join((*parts, linked_paragraph(legend))), figures
