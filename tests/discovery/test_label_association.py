"""Suggested labels: the AUROC against scikit-learn, and a label that means nothing."""

from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from vtcav_jax.concepts.boxes import Box
from vtcav_jax.concepts.video_scan import BoxTable
from vtcav_jax.data.source import SourceItem
from vtcav_jax.discovery.label_association import NO_LABEL, Mark, box_marks, class_marks, suggest_label
from vtcav_jax.stats.roc import area_under_roc

N = 160
HEADS = {"shape": ("ring", "bars"), "colour": ("red", "blue", "green")}


def test_area_under_roc_against_sklearn():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 5, 60).astype(float), random.random(60) < 0.4
    assert np.isclose(area_under_roc(scores, positive), roc_auc_score(positive, scores))
    assert np.isnan(area_under_roc(scores, np.ones(60, bool)))


def items_of(labels):
    return [SourceItem(f"v{i}", {head: int(x[i]) for head, x in labels.items()}, Path(f"v{i}")) for i in range(N)]


def suggested(scores, labels, seed=0):
    return suggest_label(scores, class_marks(items_of(labels), HEADS), [f"v{i}" for i in range(N)], seed)


def test_the_label_that_drives_the_scores_is_suggested():
    random = np.random.default_rng(1)
    labels = {"shape": random.integers(0, 2, N), "colour": random.integers(0, 3, N)}
    scores = (labels["colour"] == 1) + 0.2 * random.normal(size=N)
    label = suggested(scores, labels)
    assert label.label == "colour:blue" and label.auc > 0.95 and label.low <= label.auc <= label.high


def test_scores_that_no_label_explains_have_none():
    """The label is selected in other videos than the AUROC is measured in, so the best of five is not flattered."""
    random = np.random.default_rng(2)
    suggestions = []
    for seed in range(40):
        labels = {"shape": random.integers(0, 2, N), "colour": random.integers(0, 3, N)}
        suggestions.append(suggested(random.normal(size=N), labels, seed).label)
    assert sum(map(bool, suggestions)) <= 4


def test_a_label_whose_videos_have_less_of_the_concept_is_not_suggested():
    shape = np.random.default_rng(4).integers(0, 2, N)
    assert suggested(-(shape == 1).astype(float), {"shape": np.where(shape == 1, 1, -1)}).label == ""
    only = {"bars (box)": Mark(shape == 1, np.ones(N, bool))}
    assert suggest_label(-(shape == 1).astype(float), only, [f"v{i}" for i in range(N)], seed=0) == NO_LABEL


def test_no_label_with_too_few_videos():
    label = suggested(np.arange(float(N)), {"shape": np.zeros(N, int)})
    assert label.label == "" and np.isnan(label.auc)


def test_a_label_of_boxes_is_that_of_the_clips_whose_frames_have_one():
    random = np.random.default_rng(3)
    has_dog = random.random(N) < 0.5
    # In the other videos the dog appears after the clip, and everywhere there is a tree
    boxes = {
        f"v{i}": (Box(3 if dog else 20, None, "dog", 0, 0, 9, 9), Box(0, None, "tree", 0, 0, 9, 9))
        for i, dog in enumerate(has_dog[:-10])
    }
    items = items_of({})
    marks = box_marks(items, [(0, 7)] * N, BoxTable("", boxes))
    assert set(marks) == {"dog (box)", "tree (box)"} and marks["tree (box)"].positive.sum() == N - 10
    dog = marks["dog (box)"]
    assert (dog.positive[:-10] == has_dog[:-10]).all() and dog.known[:-10].all() and not dog.known[-10:].any()
    label = suggest_label(has_dog + 0.1 * random.normal(size=N), marks, [item.name for item in items], seed=0)
    assert label.label == "dog (box)" and label.auc > 0.95
