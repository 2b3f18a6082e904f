"""Confusions of classes and the accuracy of each class."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from vtcav_jax.accuracy.measures import LabelledPredictions, average_precisions, share_with_ci
from vtcav_jax.models import Network
from vtcav_jax.runs.accuracy_rows import GROUP_SEPARATOR, ClassAccuracyRow, ConfusionRow, VideoPredictionRow


def confusion_rows(predictions: LabelledPredictions) -> list[ConfusionRow]:
    """Return all pairs of a true and a predicted class that occur, in the order of the classes."""
    counts = Counter(zip(predictions.labels.tolist(), predictions.predicted.tolist()))
    n_of_class = Counter(predictions.labels.tolist())
    names = predictions.classes
    return [
        ConfusionRow(predictions.head, names[true], names[predicted], n, n / n_of_class[true])
        for (true, predicted), n in sorted(counts.items())
    ]


def class_accuracy_rows(predictions: LabelledPredictions, groups: Mapping[str, str]) -> list[ClassAccuracyRow]:
    """Return the accuracy of each class that has videos or is predicted; `groups` are places in the label tree."""
    precisions, predicted = average_precisions(predictions), predictions.predicted
    rows = []
    for k in np.union1d(predictions.labels, predicted):
        of_class = predictions.labels == k
        hits = predicted[of_class] == k
        units = [unit for unit, is_member in zip(predictions.units, of_class) if is_member]
        others = Counter(predicted[of_class][~hits].tolist()).most_common(1)
        rows.append(
            ClassAccuracyRow(
                predictions.head,
                predictions.classes[k],
                groups.get(predictions.classes[k], ""),
                len(hits),
                len(set(units)),
                int((predicted == k).sum()),
                *share_with_ci(hits, units),
                float(precisions[k]),
                predictions.classes[others[0][0]] if others else "",
                others[0][1] if others else 0,
            )
        )
    return rows


def group_paths(network: Network, head: str) -> dict[str, str]:
    """Return the place of each class of a head in the label tree, from the top, for classes that are in it."""
    parents = {child: group for group, children in network.groups.items() for child in children}
    paths = {}
    for name, label in zip(network.heads[head], network.labels[network.head_slices[head]]):
        path, group = [], parents.get(label, "")
        while group:
            path.append(group)
            group = parents.get(group, "")
        if path:
            paths[name] = GROUP_SEPARATOR.join(reversed(path))
    return paths


def video_prediction_rows(predictions: LabelledPredictions, videos: list[str]) -> list[VideoPredictionRow]:
    """Return the prediction of each video."""
    names, probabilities = predictions.classes, predictions.probabilities
    columns = zip(videos, predictions.units, predictions.labels, predictions.predicted, predictions.ranks)
    return [
        VideoPredictionRow(
            video,
            unit,
            predictions.head,
            names[label],
            names[predicted],
            float(probabilities[i, predicted]),
            float(probabilities[i, label]),
            int(rank),
        )
        for i, (video, unit, label, predicted, rank) in enumerate(columns)
    ]
