"""Measures compared with scikit-learn, and their intervals with repeated experiments."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score, top_k_accuracy_score

from vtcav_jax.accuracy.confusions import class_accuracy_rows, confusion_rows, group_paths, video_prediction_rows
from vtcav_jax.accuracy.measures import (
    LabelledPredictions,
    average_precisions,
    class_mean_with_ci,
    head_accuracy,
    joint_accuracy,
    mean_average_precision_with_ci,
)
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models import Network
from vtcav_jax.runs.accuracy_rows import CLASS_MEAN, MEAN_AP, TOP_1, TOP_5
from vtcav_jax.stats.intervals import bounded_mean_ci, share_ci, wilson_ci

NAMES = ("run", "jump", "swim", "climb", "dive", "throw", "never seen")


def predictions(n=300, seed=0, *, names=NAMES, clips_per_unit=1, several=False, decimals=None, head="label"):
    """Make probabilities that favour the label; the last class has no videos."""
    random = np.random.default_rng(seed)
    k = len(names)
    labels = np.sort(random.integers(k - 1, size=n) * random.integers(1, 3, size=n) % (k - 1))
    logits = random.normal(size=(n, k)) + 1.2 * np.eye(k)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if decimals is not None:
        probabilities = probabilities.round(decimals)  # ties
    is_class = np.eye(k, dtype=bool)[labels]
    if several:
        is_class |= (random.random((n, k)) < 0.1) & (np.arange(k) < k - 1)
    units = tuple(f"video {i // clips_per_unit}" for i in range(n))
    return LabelledPredictions(head, tuple(names), probabilities, labels, is_class, units)


def values(rows):
    return {row.measure: row.value for row in rows}


@pytest.mark.parametrize("several", [False, True])
def test_measures_equal_those_of_scikit_learn(several):
    p = predictions(several=several)
    measured = values(head_accuracy(p))
    classes = list(range(len(NAMES)))
    assert measured[TOP_1] == pytest.approx(top_k_accuracy_score(p.labels, p.probabilities, k=1, labels=classes))
    assert measured[TOP_5] == pytest.approx(top_k_accuracy_score(p.labels, p.probabilities, k=5, labels=classes))
    assert measured[CLASS_MEAN] == pytest.approx(
        recall_score(p.labels, p.predicted, labels=classes[:-1], average="macro")
    )
    seen = p.is_class.any(0)
    assert seen.sum() == len(NAMES) - 1
    expected = average_precision_score(p.is_class[:, seen], p.probabilities[:, seen], average="macro")
    assert measured[MEAN_AP] == pytest.approx(expected)
    assert 0.3 < measured[TOP_1] < 0.9 and measured[TOP_1] < measured[TOP_5] < 1


def test_average_precision_with_equal_probabilities():
    p = predictions(decimals=1)
    measured = average_precisions(p)
    for k in range(len(NAMES) - 1):
        assert measured[k] == pytest.approx(average_precision_score(p.is_class[:, k], p.probabilities[:, k]))
    assert np.isnan(measured[-1])


def test_the_first_of_equal_probabilities_counts():
    probabilities = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    labels = np.array([0, 1, 2])
    p = LabelledPredictions("label", NAMES[:3], probabilities, labels, np.eye(3, dtype=bool)[labels], ("a", "b", "c"))
    assert p.ranks.tolist() == [1, 2, 3] and p.predicted.tolist() == [0, 0, 0]
    rows = head_accuracy(p)
    assert [row.measure for row in rows] == [TOP_1, CLASS_MEAN, MEAN_AP]  # five of three classes say nothing


def test_counts_of_videos_and_classes():
    rows = head_accuracy(predictions(clips_per_unit=3))
    assert {(row.n_clips, row.n_videos, row.n_classes) for row in rows} == {(300, 100, 6)}
    assert all(0 <= row.low < row.value < row.high <= 1 for row in rows)


def test_intervals_are_wider_for_clips_of_fewer_videos():
    p = predictions()
    correlated = LabelledPredictions(
        p.head,
        p.classes,
        p.probabilities.repeat(4, 0),
        p.labels.repeat(4),
        p.is_class.repeat(4, 0),
        tuple(np.repeat(p.units, 4)),
    )
    for row, repeated in zip(head_accuracy(p), head_accuracy(correlated)):
        assert repeated.value == pytest.approx(row.value)
        assert repeated.high - repeated.low == pytest.approx(row.high - row.low, rel=0.12)


@pytest.mark.parametrize(
    ("classes", "units", "clips", "accuracies", "concentration"),
    [(10, 8, 1, (0.3, 0.95), 1e6), (10, 4, 3, (0.3, 0.95), 2.0), (4, 10, 1, (0.95, 0.95), 1e6)],
)
def test_intervals_of_the_mean_per_class_contain_the_true_value(classes, units, clips, accuracies, concentration):
    random, truth = np.random.default_rng(0), np.linspace(accuracies[0], accuracies[1], classes)
    labels = np.repeat(np.arange(classes), units * clips)
    names = [f"video {i // clips}" for i in range(len(labels))]
    contained = 0
    for seed in range(200):
        of_unit = random.beta(truth * concentration, (1 - truth) * concentration, size=(units, classes)).T.ravel()
        hits = random.random(len(labels)) < of_unit.repeat(clips)
        _, low, high = class_mean_with_ci(hits, labels, names, seed=seed)
        contained += low <= truth.mean() <= high
    assert 0.91 * 200 <= contained <= 0.995 * 200


def test_intervals_of_the_map_contain_that_of_many_videos():
    many = predictions(40_000, seed=99)
    truth = float(np.nanmean(average_precisions(many)))
    intervals = [mean_average_precision_with_ci(predictions(400, seed=seed), seed=seed)[1:] for seed in range(60)]
    assert sum(low <= truth <= high for low, high in intervals) >= 0.88 * 60


def test_an_interval_has_a_width_where_all_are_right():
    hits, labels = np.ones(20, bool), np.repeat(np.arange(2), 10)
    value, low, high = class_mean_with_ci(hits, labels, [f"video {i}" for i in range(20)])
    assert (value, low, high) == (1.0, *wilson_ci(20, 20))
    assert class_mean_with_ci(hits, labels, ["one video"] * 20)[0] == 1.0
    assert np.isnan(class_mean_with_ci(hits, labels, ["one video"] * 20)[1:]).all()


def test_a_bounded_mean_with_the_variance_of_a_share_has_its_interval():
    low, high = bounded_mean_ci(0.5, 0.25 / 400, 400)
    assert (low, high) == pytest.approx(share_ci(0.5, 400), abs=1e-3)
    assert np.isnan(bounded_mean_ci(float("nan"), 0.1, 10)).all()


def test_joint_accuracy_of_verb_and_noun():
    verbs = predictions(200, 1, names=NAMES, head="verb")
    nouns = predictions(200, 2, names=NAMES, head="noun")
    rows = joint_accuracy([verbs, nouns])
    assert {row.head for row in rows} == {"verb + noun"} and [row.measure for row in rows] == [TOP_1, TOP_5]
    both = (verbs.predicted == verbs.labels) & (nouns.predicted == nouns.labels)
    assert rows[0].value == both.mean() and rows[0].n_clips == 200
    pairs = (verbs.probabilities[:, :, None] * nouns.probabilities[:, None]).reshape(200, -1)
    label = verbs.labels * len(NAMES) + nouns.labels
    expected = top_k_accuracy_score(label, pairs, k=5, labels=list(range(pairs.shape[1])))
    assert rows[1].value == pytest.approx(expected) and rows[1].value > rows[0].value


def test_joint_accuracy_of_three_heads_has_no_top_5():
    heads = [predictions(50, seed, head=str(seed)) for seed in range(3)]
    (row,) = joint_accuracy(heads)
    assert row.head == "0 + 1 + 2" and row.value == np.mean(np.all([h.predicted == h.labels for h in heads], 0))


def test_confusions_and_classes_add_up():
    p = predictions(clips_per_unit=2)
    confusions, classes = confusion_rows(p), class_accuracy_rows(p, {"run": "sports / on land"})
    assert sum(row.n_clips for row in confusions) == 300
    by_name = {row.class_name: row for row in classes}
    for k, name in enumerate(NAMES):
        row, of_class = by_name[name], p.labels == k
        assert (row.n_clips, row.n_predicted) == (of_class.sum(), (p.predicted == k).sum())
        assert row.group == ("sports / on land" if name == "run" else "")
        if not of_class.any():
            assert name == "never seen" and np.isnan(row.accuracy) and row.most_confused == ""
            continue
        assert row.accuracy == (p.predicted[of_class] == k).mean()
        others = [c for c in confusions if c.true_class == name and c.predicted_class != name]
        assert row.n_most_confused == max(c.n_clips for c in others)
        assert sum(c.share for c in confusions if c.true_class == name) == pytest.approx(1)
        assert row.low < row.accuracy < row.high and row.n_videos >= row.n_clips / 2


def test_rows_of_videos():
    p = predictions(20)
    rows = video_prediction_rows(p, [f"clip {i}" for i in range(20)])
    assert [row.video for row in rows][:2] == ["clip 0", "clip 1"] and rows[0].source_video == "video 0"
    for row, probability, label in zip(rows, p.probabilities, p.labels):
        assert row.probability == probability.max() and row.true_probability == probability[label]
        assert (row.rank == 1) == (row.true_class == row.predicted_class)


def test_places_in_the_label_tree():
    groups = {"": ("moves",), "moves": ("a:up", "turns"), "turns": ("a:left", "a:right")}
    heads = {"a": ("up", "left", "right", "else"), "b": ("up",)}
    network = Network(lambda video, tap: video, ClipSpec(2, 4), heads, groups=groups)
    assert group_paths(network, "a") == {"up": "moves", "left": "moves / turns", "right": "moves / turns"}
    assert group_paths(network, "b") == {}
