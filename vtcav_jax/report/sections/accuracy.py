"""Section of `vtcav evaluate`: accuracies with intervals, the confusion matrix, and the best and worst classes."""

import math
from collections.abc import Sequence

from vtcav_jax.names import count_noun
from vtcav_jax.report import html, random_weights_notice
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.confusion import (
    MAX_NAMED_CLASSES,
    ConfusionMatrix,
    class_matrix,
    confusion_figure,
    group_matrix,
)
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, unique_in_order
from vtcav_jax.runs.accuracy_rows import (
    CLASS_MEAN,
    MEAN_AP,
    TOP_1,
    TOP_5,
    AccuracyRow,
    ClassAccuracyRow,
    ConfusionRow,
)

MAX_PAIRS, MAX_EXTREME_CLASSES = 20, 10
MAX_CLASS_ROWS = 1000
MEASURE_TEXTS = {
    TOP_1: "the class with the highest probability is right",
    TOP_5: "the right class is among the five with the highest probabilities",
    CLASS_MEAN: "mean over classes of their top-1 accuracy, so that each counts alike",
    MEAN_AP: "mean over classes of the average precision: videos ranked by the probability of the class",
}


def accuracy_sections(run: RunFolder) -> list[Section]:
    if not run.accuracies:
        return []
    heads = unique_in_order([row.head for row in run.accuracies])
    single_heads = unique_in_order([row.head for row in run.class_accuracies])
    sentences = [_accuracy_sentence(run, head) for head in heads]
    measures = [name for name in MEASURE_TEXTS if any(row.measure == name for row in run.accuracies)]
    texts = "; ".join(f"{name}: {MEASURE_TEXTS[name]}" for name in measures)
    introduction = f"Predictions are averaged over the views of each video. {texts[0].upper()}{texts[1:]}."
    introduction += " Intervals are 95 % intervals over source videos."
    parts = [
        random_weights_notice.random_weights_warning(run, "evaluate"),
        html.paragraph(introduction),
        random_weights_notice.answer_callout(run, "evaluate", sentences),
        _measure_table(run.accuracies, heads, measures),
        *_omissions(run),
    ]
    sections = [Section("accuracy", "Accuracy", "".join(parts))]
    for head in single_heads:
        sections.append(_confusion_section(run, head, len(single_heads) > 1))
    return sections


def _accuracy_sentence(run: RunFolder, head: str) -> tuple[str, str]:
    row = next(row for row in run.accuracies if (row.head, row.measure) == (head, TOP_1))
    clips = f"{count_noun(row.n_clips, 'video')} of {count_noun(row.n_classes, 'class')}"
    clips += f" from {count_noun(row.n_videos, 'source video')}" if row.n_videos != row.n_clips else ""
    if not any(other.head == head for other in run.class_accuracies):
        return f"{head}:", f"all are right for {_percent_text(row)} of {clips.replace('classes', 'combinations')}."
    largest = max(other.n_clips for other in run.class_accuracies if other.head == head)
    text = f"{_percent_text(row)} of {clips} are right; always naming the most frequent class would give"
    text += f" {100 * largest / row.n_clips:.1f} %."
    wrong = [c for c in run.confusions if c.head == head and c.true_class != c.predicted_class]
    if wrong:
        most = max(wrong, key=lambda c: (c.n_clips, c.share))
        text += f" The most frequent confusion is {most.true_class} taken for {most.predicted_class}"
        text += f" ({most.n_clips} of {round(most.n_clips / most.share)})."
    return f"{head}:", text


def _percent_text(row: AccuracyRow) -> str:
    if math.isnan(row.low):
        return f"{100 * row.value:.1f} %"
    return f"{100 * row.value:.1f} % (95 % CI {100 * row.low:.1f} to {100 * row.high:.1f} %)"


def _measure_table(accuracies: Sequence[AccuracyRow], heads: Sequence[str], measures: Sequence[str]) -> str:
    lines = []
    for head in heads:
        by_measure = {row.measure: row for row in accuracies if row.head == head}
        first = by_measure[TOP_1]
        cells = [
            _percent_text(by_measure[name]).replace("95 % CI ", "") if name in by_measure else "" for name in measures
        ]
        lines.append(("", (head, str(first.n_clips), str(first.n_videos), str(first.n_classes), *cells)))
    return html.html_table(("head", "videos", "source videos", "classes", *measures), lines)


def _omissions(run: RunFolder) -> list[str]:
    """Say which videos and classes are not part of the numbers."""
    parts = []
    if run.n_unread_videos:
        noun = count_noun(run.n_unread_videos, "video")
        parts.append(html.paragraph(f"{noun} could not be read; the reasons are in evaluate_failures.csv.", "soft"))
    if not run.unmatched_classes:
        return parts
    n_videos = sum(row.n_clips for row in run.unmatched_classes)
    of_videos = [row for row in run.unmatched_classes if row.side == "videos"]
    of_network = [row for row in run.unmatched_classes if row.side == "network"]
    if of_videos:
        text = (
            f"The network has no counterpart of {count_noun(len(of_videos), 'class')} of the videos; labels left out:"
        )
        parts.append(html.paragraph(f"{text} {n_videos}.", "soft"))
    if of_network:
        verb = "is" if len(of_network) == 1 else "are"
        text = f"{count_noun(len(of_network), 'class')} of the network {verb} not among those of the videos; to predict"
        parts.append(html.paragraph(f"{text} one counts as wrong.", "soft"))
    lines = [
        ("", (row.head, row.class_name, row.side, row.nearest, str(row.n_clips) if row.side == "videos" else ""))
        for row in run.unmatched_classes[:MAX_CLASS_ROWS]
    ]
    table = html.html_table(("head", "class", "only of", "nearest names", "videos left out"), lines)
    return [*parts, html.details_block(f"Classes without counterpart ({len(run.unmatched_classes)})", table)]


def _confusion_section(run: RunFolder, head: str, has_others: bool) -> Section:
    classes = [row for row in run.class_accuracies if row.head == head]
    confusions = [row for row in run.confusions if row.head == head]
    matrix = class_matrix(head, classes, confusions)
    groups = group_matrix(matrix)
    figures = [confusion_figure(m) for m in (groups, matrix) if m is not None]
    text = (
        "Each row is a true class, each column a predicted one, and the colour the share of the true class: right ones"
        f" on the diagonal, confusions beside it. Classes are {matrix.order_description}. Hover over a cell for its"
        " numbers."
    )
    parts = [html.paragraph(text, "soft"), _figure_block(figures, matrix)]
    if matrix.clusters and len(matrix.names) > MAX_NAMED_CLASSES:
        parts += _cluster_table(matrix)
    wrong = [row for row in confusions if row.true_class != row.predicted_class]
    parts += [html.heading("Most frequent confusions"), _pair_table(wrong, confusions)] if wrong else []
    parts += _class_tables(classes)
    title = f"Confusions: {head}" if has_others else "Confusions"
    return Section(f"confusions-{head}".replace(" ", "-"), title, "".join(parts), tuple(figures))


def _figure_block(figures: Sequence[Figure], matrix: ConfusionMatrix) -> str:
    if max(figure.width for figure in figures) <= 420:
        return html.figure_grid(figures)
    return "".join(f"<figure>{html.scrolling_figure(figure)}</figure>" for figure in figures)


def _cluster_table(matrix: ConfusionMatrix) -> list[str]:
    """List the clusters that the figure numbers."""
    lines = []
    for number, (start, stop) in enumerate(matrix.clusters, start=1):
        within, wrong = matrix.confusions_within(start, stop)
        lines.append(("", (str(number), ", ".join(matrix.names[start:stop]), f"{within} of {wrong}")))
    text = "Squares with a number in the figure, those with most confusions first."
    columns = ("number", "classes", "confusions among them, of all of these classes")
    return [
        html.heading("Classes that are confused with each other"),
        html.paragraph(text, "soft"),
        html.html_table(columns, lines),
    ]


def _pair_table(wrong: Sequence[ConfusionRow], confusions: Sequence[ConfusionRow]) -> str:
    by_pair = {(row.true_class, row.predicted_class): row for row in confusions}
    ranked = sorted(wrong, key=lambda row: (-row.n_clips, -row.share))[:MAX_PAIRS]
    lines = []
    for row in ranked:
        reverse = by_pair.get((row.predicted_class, row.true_class))
        reverse_text = _share_of_class(reverse) if reverse else "0"
        lines.append(("", (row.true_class, row.predicted_class, _share_of_class(row), reverse_text)))
    return html.html_table(("true class", "predicted class", "videos", "the other way round"), lines)


def _share_of_class(row: ConfusionRow) -> str:
    return f"{row.n_clips} of {round(row.n_clips / row.share)} ({format_percent(row.share)})"


def _class_tables(classes: Sequence[ClassAccuracyRow]) -> list[str]:
    """Show the worst and the best classes, and all of them in a block that can be opened."""
    ranked = sorted((row for row in classes if row.n_clips), key=lambda row: (row.accuracy, row.low, row.class_name))
    if len(ranked) <= 2 * MAX_EXTREME_CLASSES:
        return [html.heading("Classes, the worst first"), _class_table(ranked)]
    worst, best = ranked[:MAX_EXTREME_CLASSES], ranked[: -MAX_EXTREME_CLASSES - 1 : -1]
    rest = ranked[:MAX_CLASS_ROWS]
    title = f"All {len(ranked)} classes" if len(rest) == len(ranked) else f"{len(rest)} of {len(ranked)} classes"
    return [
        html.heading("Worst classes"),
        _class_table(worst),
        html.heading("Best classes"),
        _class_table(best),
        html.details_block(title, _class_table(rest)),
    ]


def _class_table(rows: Sequence[ClassAccuracyRow]) -> str:
    lines = []
    for row in rows:
        interval = f" ({format_percent(row.low).removesuffix(' %')} to {format_percent(row.high)})"
        accuracy = f"{format_percent(row.accuracy)}{'' if math.isnan(row.low) else interval}"
        confused = f"{row.most_confused} ({row.n_most_confused})" if row.most_confused else ""
        counts = str(row.n_clips), str(row.n_videos), str(row.n_predicted)
        lines.append(("", (row.class_name, *counts, accuracy, f"{row.average_precision:.2f}", confused)))
    columns = ("class", "videos", "source videos", "predicted", "accuracy", "average precision", "most often taken for")
    return html.html_table(columns, lines)
