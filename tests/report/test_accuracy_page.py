"""Confusion matrices: their order, clusters, groups and figures; pages with many classes and odd names."""

import json
import re

import numpy as np
import pytest

from vtcav_jax.accuracy.confusions import class_accuracy_rows, confusion_rows
from vtcav_jax.accuracy.measures import LabelledPredictions, head_accuracy
from vtcav_jax.report.build import write_report
from vtcav_jax.report.figures.confusion import class_matrix, confusion_figure, group_matrix
from vtcav_jax.runs import accuracy_rows as rows
from vtcav_jax.runs.tables import write_rows


def predictions(k, confused=(), clips=10, seed=0):
    """Make predictions that are right, but for half of the videos of each pair of classes in `confused`."""
    labels = np.repeat(np.arange(k), clips)
    predicted = labels.copy()
    for a, b in confused:
        predicted[np.flatnonzero(labels == a)[: clips // 2]] = b
    probabilities = np.full((len(labels), k), 0.1 / k) + 0.9 * np.eye(k)[predicted]
    names = tuple(f"class {i:03d}" for i in range(k))
    units = tuple(f"video {i}" for i in range(len(labels)))
    return LabelledPredictions("label", names, probabilities, labels, np.eye(k, dtype=bool)[labels], units)


def matrix_of(p, groups=None):
    return class_matrix("label", class_accuracy_rows(p, groups or {}), confusion_rows(p))


def test_few_classes_keep_their_order_and_have_numbers():
    matrix = matrix_of(predictions(5, [(0, 3)]))
    assert matrix.names == tuple(f"class {i:03d}" for i in range(5)) and matrix.clusters == matrix.groups == ()
    expected = np.diag([5, 10, 10, 10, 10])
    expected[0, 3] = 5
    np.testing.assert_array_equal(matrix.counts, expected)
    figure = confusion_figure(matrix)
    assert figure.width == 360 and "class 000: 5 of 10 predicted as class 003 (50 %)" in figure.svg
    assert figure.svg.count(">50</text>") == 2 and figure.svg.count(">100</text>") == 4


def test_confused_classes_of_many_are_neighbours_and_clusters():
    pairs = [(7, 180), (180, 7), (180, 33), (33, 7), (90, 12)]
    matrix = matrix_of(predictions(200, pairs))
    places = sorted(matrix.names.index(f"class {i:03d}") for i in (7, 180, 33))
    assert places[2] - places[0] == 2
    assert [set(matrix.names[start:stop]) for start, stop in matrix.clusters[1:]] == [{"class 012", "class 090"}]
    start, stop = matrix.clusters[0]
    assert set(matrix.names[start:stop]) == {"class 007", "class 033", "class 180"}
    assert matrix.confusions_within(start, stop) == (20 - 5, 20 - 5)
    assert matrix.counts.sum() == 2000 and sorted(matrix.names) == [f"class {i:03d}" for i in range(200)]
    svg = confusion_figure(matrix).svg
    assert ">1</text>" in svg and ">2</text>" in svg and "class 033" not in re.sub("<title>.*?</title>", "", svg)


def test_a_label_tree_gives_the_order_and_a_matrix_of_its_groups():
    p = predictions(60, [(0, 59), (1, 0)])
    groups = {f"class {i:03d}": ("low", "high / top")[i % 2] for i in range(59)}
    matrix = matrix_of(p, groups)
    assert [name for name, _, _ in matrix.groups] == ["high", "low", "no group"]
    assert matrix.names[-1] == "class 059" and matrix.clusters == ()
    coarse = group_matrix(matrix)
    assert coarse is not None and coarse.names == ("high", "low", "no group")
    np.testing.assert_array_equal(coarse.counts, [[285, 5, 0], [0, 295, 5], [0, 0, 10]])
    assert "low" in re.sub("<title>.*?</title>", "", confusion_figure(matrix).svg)
    assert group_matrix(matrix_of(predictions(60))) is None


def test_a_class_without_videos_is_marked():
    p = predictions(4)
    p = LabelledPredictions(p.head, p.classes, p.probabilities[:30], p.labels[:30], p.is_class[:30], p.units[:30])
    p.probabilities[0] = [0.1, 0.1, 0.1, 0.7]
    assert "no videos" in confusion_figure(matrix_of(p)).svg


@pytest.fixture
def write_run(tmp_path):
    def write(p, unmatched=()):
        folder = tmp_path / "run"
        folder.mkdir()
        request = {"task": "evaluate", "model": "weights/x", "videos": "v", "views": [4, 3], "views_origin": "a paper"}
        (folder / "run.json").write_text(json.dumps({"request": request}))
        write_rows(folder / rows.ACCURACY_CSV, rows.AccuracyRow, head_accuracy(p))
        write_rows(folder / rows.CLASS_ACCURACY_CSV, rows.ClassAccuracyRow, class_accuracy_rows(p, {}))
        write_rows(folder / rows.CONFUSIONS_CSV, rows.ConfusionRow, confusion_rows(p))
        write_rows(folder / rows.UNMATCHED_CLASSES_CSV, rows.UnmatchedClassRow, unmatched)
        return write_report(folder).read_text()

    return write


def test_a_page_with_many_classes(write_run):
    page = write_run(predictions(120, [(3, 4), (4, 3), (50, 60)]))
    for text in (
        "4 clips x 3 crops per video (a paper)",
        "1200 videos of 120 classes are right",
        "always naming the most frequent class would give 0.8 %",
        "Classes that are confused with each other",
        "class 003, class 004",
        "<td>5 of 10 (50 %)</td>",
        "Worst classes",
        "Best classes",
        "All 120 classes",
    ):
        assert text in page or text.replace("class 003, class 004", "class 004, class 003") in page, text


def test_names_are_escaped_and_one_class_has_a_singular(write_run):
    p = predictions(2, clips=3)
    odd = "</td><script>alert(1)</script>"
    p = LabelledPredictions(p.head, (odd, "b"), p.probabilities[:3], p.labels[:3], p.is_class[:3], p.units[:3])
    page = write_run(p, [rows.UnmatchedClassRow("label", "videos", odd, "b", 1)])
    assert "<script>" not in page and "3 videos of 1 class are right" in page
    assert "no counterpart of 1 class of the videos; labels left out: 1." in page
