"""Figure of a confusion matrix: with names and numbers for few classes, as a map with the groups' names for many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from vtcav_jax.names import count_noun
from vtcav_jax.report.effect_sizes import format_percent
from vtcav_jax.report.figures.labels import (
    MAX_NAME_WIDTH,
    NameLabels,
    column_label_size,
    column_pitch,
    draw_column_label,
    draw_label,
    spread_labels,
)
from vtcav_jax.report.figures.svg import Canvas, Figure, Number
from vtcav_jax.report.figures.tcav import slug
from vtcav_jax.report.text_width import LINE_HEIGHT
from vtcav_jax.runs.accuracy_rows import GROUP_SEPARATOR, ClassAccuracyRow, ConfusionRow

MAX_NAMED_CLASSES = 40  # more are drawn without their names
MAX_SORTED_CLASSES = 12  # so few keep the order of the head without a label tree
SMALL_WIDTH, WIDTH = 360, 960
MIN_CELL_FOR_PERCENT = 24  # pixels
LEADER, MIN_MAP_SIDE = 16, 480  # pixels: lines to names of groups, and the smallest matrix of many classes
MAX_DRAWN_CELLS = 6000
MIN_OPACITY, MIN_MAP_OPACITY = 0.1, 0.35
MIN_CLUSTER_SIMILARITY = 0.15  # mean over pairs of classes: share of one predicted as the other, both ways
MAX_CLUSTERS = 12


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts by true class (row) and predicted class (column).

    `groups` are those of the label tree, if the classes are in its order. Otherwise `clusters` are the spans of classes
    that are confused with each other, those with most confusions first.
    """

    head: str
    names: tuple[str, ...]
    counts: Int[np.ndarray, "k k"]
    groups: tuple[tuple[str, int, int], ...] = ()  # name, first class, class after the last
    clusters: tuple[tuple[int, int], ...] = ()

    @property
    def order_description(self) -> str:
        if self.groups:
            return "in the order of the label tree"
        if len(self.names) <= MAX_SORTED_CLASSES:
            return "in the order of the network"
        return "ordered so that those that are confused with each other are neighbours"

    def confusions_within(self, start: int, stop: int) -> tuple[int, int]:
        """Return how many videos of a span of classes are predicted as another class of it, and as any other class."""
        right = int(np.trace(self.counts[start:stop, start:stop]))
        return int(self.counts[start:stop, start:stop].sum()) - right, int(self.counts[start:stop].sum()) - right


def class_matrix(head: str, classes: Sequence[ClassAccuracyRow], confusions: Sequence[ConfusionRow]) -> ConfusionMatrix:
    """Return the matrix of all classes, ordered by the label tree, or else by how often they are confused."""
    names = [row.class_name for row in classes]
    counts = _count_matrix(names, {(c.true_class, c.predicted_class): c.n_clips for c in confusions})
    group_of = {row.class_name: row.group for row in classes}
    if any(group_of.values()):
        order = sorted(range(len(names)), key=lambda i: (not group_of[names[i]], group_of[names[i]], i))
        spans = _spans([_top_group(group_of[names[i]]) for i in order])
        return ConfusionMatrix(head, tuple(names[i] for i in order), counts[np.ix_(order, order)], spans)
    if len(names) <= MAX_SORTED_CLASSES:
        return ConfusionMatrix(head, tuple(names), counts)
    order, clusters = _neighbour_order(counts)
    matrix = ConfusionMatrix(head, tuple(names[i] for i in order), counts[np.ix_(order, order)])
    spans = [(start, stop) for _, start, stop in _spans(clusters) if stop - start > 1]
    ranked = sorted(spans, key=lambda span: -matrix.confusions_within(*span)[0])[:MAX_CLUSTERS]
    return replace(matrix, clusters=tuple(ranked))


def group_matrix(matrix: ConfusionMatrix) -> ConfusionMatrix | None:
    """Return the matrix of the groups at the top of the label tree; None if there are too few or too many."""
    if not 2 <= len(matrix.groups) <= MAX_NAMED_CLASSES or len(matrix.groups) == len(matrix.names):
        return None
    edges = [start for _, start, _ in matrix.groups]
    counts = np.add.reduceat(np.add.reduceat(matrix.counts, edges, axis=0), edges, axis=1)
    return ConfusionMatrix(f"{matrix.head}, groups", tuple(name for name, _, _ in matrix.groups), counts)


def confusion_figure(matrix: ConfusionMatrix) -> Figure:
    """Draw a matrix: colours are shares of the true class, right ones in another colour than confusions."""
    return _named_figure(matrix) if len(matrix.names) <= MAX_NAMED_CLASSES else _map_figure(matrix)


def _named_figure(matrix: ConfusionMatrix) -> Figure:
    k, width = len(matrix.names), SMALL_WIDTH if len(matrix.names) <= MAX_SORTED_CLASSES else WIDTH
    labels = NameLabels.of(matrix.names, MAX_NAME_WIDTH)
    label_width, label_height = column_label_size(labels)
    left, top = labels.width + 14, label_height + 38
    cell = max(min(40.0, (width - left - 12 - label_width) / k), column_pitch(labels))
    canvas = Canvas(round(max(width, left + cell * k + label_width)), round(top + cell * k + 12))
    canvas.heading(f"{matrix.head}: predictions (columns), % of each class")
    for i, lines in enumerate(labels.lines):
        draw_label(canvas, left - 6, top + cell * (i + 0.5), lines, "", "end")
        draw_column_label(canvas, left + cell * (i + 0.5), top - 8, lines, "", "start")
    _draw_cells(canvas, matrix, left, top, cell)
    _draw_group_lines(canvas, matrix, left, top, cell)
    return canvas.figure(slug("confusion", matrix.head), f"{matrix.head}: confusion matrix of {count_noun(k, 'class')}")


def _map_figure(matrix: ConfusionMatrix) -> Figure:
    k, labels = len(matrix.names), NameLabels.of([name for name, _, _ in matrix.groups], MAX_NAME_WIDTH)
    left, top, right = (40.0, 56.0, 20.0)
    if matrix.groups:
        label_width, label_height = column_label_size(labels)
        left, top, right = labels.width + 14 + LEADER, label_height + 38 + LEADER, label_width
    smallest = len(matrix.groups) * max(column_pitch(labels), LINE_HEIGHT * labels.max_lines)
    cell = max(WIDTH - left - right, MIN_MAP_SIDE, smallest) / k
    canvas = Canvas(round(left + cell * k + right), round(top + cell * k + 12))
    canvas.heading(f"{matrix.head}: {k} true classes (rows) and the predicted class (columns)")
    canvas.rect(left, top, cell * k, cell * k, "null", opacity=0.35)
    if matrix.groups:
        _draw_group_names(canvas, matrix, labels, left, top, cell)
    else:
        canvas.text(left, top - 8, "predicted class", "soft")
        canvas.elements.append(f'<g transform="translate({left - 10:.1f} {top + 86:.1f}) rotate(-90)">')
        canvas.text(0, 0, "true class", "soft")
        canvas.elements.append("</g>")
    _draw_cells(canvas, matrix, left, top, cell)
    _draw_group_lines(canvas, matrix, left, top, cell)
    _draw_clusters(canvas, matrix, left, top, cell)
    return canvas.figure(slug("confusion", matrix.head), f"{matrix.head}: confusion matrix of {k} classes")


def _draw_cells(canvas: Canvas, matrix: ConfusionMatrix, left: Number, top: Number, cell: Number) -> None:
    """Draw the cells with counts, the most frequent ones if there are too many; confusions come last, on top."""
    totals = matrix.counts.sum(1)
    rows, columns = np.nonzero(matrix.counts)
    order = np.lexsort((-matrix.counts[rows, columns], rows != columns))[:MAX_DRAWN_CELLS]
    size = max(cell - (1 if cell >= 6 else 0), 1.6)
    for i, j in zip(rows[order].tolist(), columns[order].tolist()):
        n, share = int(matrix.counts[i, j]), matrix.counts[i, j] / totals[i]
        x, y = left + cell * j, top + cell * i
        meaning = "right" if i == j else f"predicted as {matrix.names[j]}"
        title = f"{matrix.names[i]}: {n} of {totals[i]} {meaning} ({format_percent(share)})"
        lowest = MIN_OPACITY if len(matrix.names) <= MAX_NAMED_CLASSES else MIN_MAP_OPACITY
        opacity = lowest + (1 - lowest) * float(share) ** 0.6
        if cell >= MIN_CELL_FOR_PERCENT:
            opacity = min(opacity, 0.62)  # so that the number can be read
        canvas.rect(x, y, size, size, "plus" if i == j else "minus", title, opacity=opacity)
        if cell >= MIN_CELL_FOR_PERCENT:
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            canvas.text(x + cell / 2, y + cell / 2 + 4, text, "", "middle")
    if cell >= MIN_CELL_FOR_PERCENT:
        for i in np.flatnonzero(totals == 0).tolist():
            canvas.text(left + 4, top + cell * (i + 0.5) + 4, "no videos", "soft")


def _draw_group_lines(canvas: Canvas, matrix: ConfusionMatrix, left: Number, top: Number, cell: Number) -> None:
    side = cell * len(matrix.names)
    for _, start, _ in matrix.groups[1:]:
        canvas.line(left, top + cell * start - 0.5, left + side, top + cell * start - 0.5, "axis")
        canvas.line(left + cell * start - 0.5, top, left + cell * start - 0.5, top + side, "axis")


def _draw_clusters(canvas: Canvas, matrix: ConfusionMatrix, left: Number, top: Number, cell: Number) -> None:
    """Draw a numbered square around each cluster; the number of one close below another is on its left side."""
    last_y, is_right = -1e9, True
    for number, (start, stop) in sorted(enumerate(matrix.clusters, start=1), key=lambda cluster: cluster[1]):
        x, y, side = left + cell * start - 1.5, top + cell * start - 1.5, cell * (stop - start) + 3
        canvas.path([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], "ink thin", closed=True)
        middle = y + side / 2 + 4
        is_right = not is_right if middle - last_y < LINE_HEIGHT else True
        canvas.text(x + side + 4 if is_right else x - 4, middle, str(number), "halo", "start" if is_right else "end")
        last_y = middle


def _draw_group_names(
    canvas: Canvas, matrix: ConfusionMatrix, labels: NameLabels, left: Number, top: Number, cell: Number
) -> None:
    """Write the name of each group beside and above its classes, with a line to them where names are pushed apart."""
    middles = [cell * (start + stop) / 2 for _, start, stop in matrix.groups]
    side, heights, widths = cell * len(matrix.names), LINE_HEIGHT * labels.max_lines, column_pitch(labels)
    for lines, middle, row, column in zip(
        labels.lines,
        middles,
        spread_labels(middles, heights, heights / 2, side - heights / 2),
        spread_labels(middles, widths, widths / 2, side - widths / 2),
        strict=True,
    ):
        draw_label(canvas, left - LEADER - 4, top + row, lines, "", "end")
        canvas.line(left - LEADER, top + row, left - 2, top + middle, "axis")
        draw_column_label(canvas, left + column, top - LEADER - 6, lines, "", "start")
        canvas.line(left + column, top - LEADER, left + middle, top - 2, "axis")


def _count_matrix(names: Sequence[str], counts: Mapping[tuple[str, str], int]) -> Int[np.ndarray, "k k"]:
    index = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), int)
    for (true, predicted), n in counts.items():
        matrix[index[true], index[predicted]] = n
    return matrix


def _neighbour_order(counts: Int[np.ndarray, "k k"]) -> tuple[list[int], list[str]]:
    """Return the classes in the order of a hierarchical clustering by confusions, and the cluster of each."""
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    similarity = shares + shares.T
    np.fill_diagonal(similarity, 0)
    distance = 2.0 - similarity
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    order = leaves_list(tree).tolist()
    clusters = fcluster(tree, 2.0 - MIN_CLUSTER_SIMILARITY, "distance")
    return order, [str(clusters[i]) for i in order]


def _top_group(path: str) -> str:
    return path.split(GROUP_SEPARATOR)[0] or "no group"


def _spans(names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    starts = [i for i, name in enumerate(names) if not i or name != names[i - 1]]
    return tuple((names[start], start, stop) for start, stop in zip(starts, [*starts[1:], len(names)]))
