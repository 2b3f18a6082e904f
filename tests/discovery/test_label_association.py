"""Suggested labels: the AUROC against scikit-learn, and a label that means nothing."""

import numpy as np
from sklearn.metrics import roc_auc_score

from vtcav_jax.discovery.label_association import suggest_label
from vtcav_jax.stats.roc import area_under_roc

HEADS = {"shape": ("ring", "bars"), "colour": ("red", "blue", "green")}


def test_area_under_roc_against_sklearn():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 5, 60).astype(float), random.random(60) < 0.4
    assert np.isclose(area_under_roc(scores, positive), roc_auc_score(positive, scores))
    assert np.isnan(area_under_roc(scores, np.ones(60, bool)))


def test_the_label_that_drives_the_scores_is_suggested():
    random = np.random.default_rng(1)
    labels = {"shape": random.integers(0, 2, 200), "colour": random.integers(0, 3, 200)}
    scores = (labels["colour"] == 1) + 0.2 * random.normal(size=200)
    label = suggest_label(scores, labels, HEADS, [f"v{i}" for i in range(200)], seed=0)
    assert label.label == "colour:blue" and label.auc > 0.95 and label.low <= label.auc <= label.high


def test_scores_without_a_label_have_an_interval_that_contains_one_half():
    """The label is selected in other videos than the AUROC is measured in, so the best of five is not flattered."""
    random = np.random.default_rng(2)
    covered = []
    for seed in range(40):
        labels = {"shape": random.integers(0, 2, 80), "colour": random.integers(0, 3, 80)}
        label = suggest_label(random.normal(size=80), labels, HEADS, [f"v{i}" for i in range(80)], seed)
        covered.append(label.low <= 0.5 <= label.high)
    assert np.mean(covered) >= 0.85


def test_no_label_with_too_few_videos():
    labels = {"shape": np.zeros(30, int)}
    label = suggest_label(np.arange(30.0), labels, {"shape": HEADS["shape"]}, [f"v{i}" for i in range(30)], seed=0)
    assert label.label == "" and np.isnan(label.auc)
