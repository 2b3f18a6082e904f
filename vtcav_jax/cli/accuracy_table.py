"""Table of accuracies on the terminal."""

import math
from collections.abc import Sequence

from vtcav_jax.cli.commands import format_table
from vtcav_jax.runs.accuracy_rows import CLASS_MEAN, HEAD_SEPARATOR, MEAN_AP, TOP_1, TOP_5, AccuracyRow


def accuracy_table(accuracies: Sequence[AccuracyRow]) -> str:
    """Format the measures of each head in percent, with their intervals."""
    heads = list(dict.fromkeys(row.head for row in accuracies))
    measures = [m for m in (TOP_1, TOP_5, CLASS_MEAN, MEAN_AP) if any(r.measure == m for r in accuracies)]
    cells = []
    for head in heads:
        by_measure = {row.measure: row for row in accuracies if row.head == head}
        first = by_measure[TOP_1]
        values = (format_percent_interval(by_measure[m]) if m in by_measure else "" for m in measures)
        cells.append((head, first.n_clips, first.n_videos, first.n_classes, *values))
    header = ("head", "clips", "source videos", "classes", *measures)
    text = "In percent, with the 95 % interval over source videos; classes: those with videos."
    if any(HEAD_SEPARATOR in head for head in heads):
        text += "\nSeveral heads joined by + count as right if all are."
    return f"{format_table(header, cells, left=1)}\n{text}"


def format_percent_interval(row: AccuracyRow) -> str:
    """Return the value in percent, with its interval if it has one."""
    if math.isnan(row.low):
        return f"{100 * row.value:.1f}"
    return f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
