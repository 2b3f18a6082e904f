"""Predictions on disk, one file per video, and the labelled predictions of each head made from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax import atomic, models
from vtcav_jax.accuracy.measures import LabelledPredictions
from vtcav_jax.data import ReadResult, Source, SourceItem
from vtcav_jax.training.label_join import HeadJoin


def save_prediction(path: Path, read: ReadResult, probabilities: Float[np.ndarray, " k"]) -> None:
    """Store the probabilities of all heads for one video, averaged over its views."""
    assert read.clip is not None
    about = {"video": read.item.name, "content": read.clip.content}
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, probabilities=probabilities, about=np.array(json.dumps(about)))


def load_prediction(path: Path) -> Float[np.ndarray, " k"]:
    """Return the stored probabilities of one video."""
    with np.load(path, allow_pickle=False) as stored:
        return stored["probabilities"]


def network_labels(item: SourceItem, joins: Sequence[HeadJoin]) -> dict[str, int]:
    """Return the network's class of a video for each of its heads; heads without a class that it knows are missing."""
    labels = {join.head: _network_label(item, join) for join in joins}
    return {head: label for head, label in labels.items() if label >= 0}


def _network_label(item: SourceItem, join: HeadJoin) -> int:
    label = item.labels.get(join.source_head, -1)
    return join.network_index[label] if label >= 0 else -1


@dataclass(frozen=True, eq=False)
class HeadVideos:
    """Labelled predictions of one head, with the videos' names and their positions in the source."""

    predictions: LabelledPredictions
    names: tuple[str, ...]
    positions: tuple[int, ...]


def labelled_predictions(
    network: models.Network,
    source: Source,
    joins: Sequence[HeadJoin],
    probabilities: Mapping[int, Float[np.ndarray, " k"]],
) -> list[HeadVideos]:
    """Return the predictions of each head that has labelled videos; `probabilities` are by position in the source."""
    return [videos for join in joins if (videos := _head_videos(network, source, join, probabilities)) is not None]


def common_videos(heads: Sequence[HeadVideos]) -> list[LabelledPredictions]:
    """Return the predictions of all heads for the videos that are labelled for each of them."""
    shared = set.intersection(*(set(head.positions) for head in heads))
    return [_subset(head, [i for i, position in enumerate(head.positions) if position in shared]) for head in heads]


def _head_videos(
    network: models.Network, source: Source, join: HeadJoin, probabilities: Mapping[int, Float[np.ndarray, " k"]]
) -> HeadVideos | None:
    classes, part = network.heads[join.head], network.head_slices[join.head]
    items = {i: source.items[i] for i in sorted(probabilities)}
    labels = {i: label for i, item in items.items() if (label := _network_label(item, join)) >= 0}
    if not labels:
        return None
    is_class = np.zeros((len(labels), len(classes)), bool)
    for row, (i, label) in enumerate(labels.items()):
        further = [join.network_index[other] for other in items[i].further_labels.get(join.source_head, ())]
        is_class[row, [label, *(other for other in further if other >= 0)]] = True
    return HeadVideos(
        LabelledPredictions(
            join.head,
            classes,
            np.stack([probabilities[i][part] for i in labels]),
            np.array(list(labels.values())),
            is_class,
            tuple(items[i].source_video for i in labels),
        ),
        tuple(items[i].name for i in labels),
        tuple(labels),
    )


def _subset(head: HeadVideos, rows: list[int]) -> LabelledPredictions:
    p = head.predictions
    units = tuple(p.units[i] for i in rows)
    return LabelledPredictions(p.head, p.classes, p.probabilities[rows], p.labels[rows], p.is_class[rows], units)
