"""Predictions and accuracy of a network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from vtcav_jax import models
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import ReadResult, SamplingConfig, Source, stream
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.stats.intervals import clustered_share_ci
from vtcav_jax.training.label_join import match_heads

Probabilities = Float[np.ndarray, " k"]


def predict_clips(
    network: models.Network,
    videos: Iterable[np.ndarray],
    batch_size: int,
) -> Iterator[Probabilities]:
    """Yield the class probabilities of each video; those of each head sum to 1.

    A video is `(views, t, h, w, 3)`, uint8 or normalised; probabilities are averaged over views, as in the reference.
    A batch may contain views of several videos; the last one is padded, so that the model is compiled once.
    """
    run = partial(_logits, network.model, clip_spec=network.clip_spec)
    parts = tuple(network.head_slices.values())
    waiting: list[tuple[np.ndarray, bool]] = []
    sums: list[np.ndarray] = []

    def finished_videos(logits: Iterable[np.ndarray]) -> Iterator[Probabilities]:
        for row, (_, last) in zip(logits, waiting):
            if not np.isfinite(row).all():
                raise ValueError(f"the logits of {network.name} are NaN or infinite; check its weights and the videos")
            sums.append(np.concatenate([_softmax(row[part].astype(np.float64)) for part in parts]))
            if last:
                yield np.mean(sums, 0)
                sums.clear()

    for video in videos:
        for i, view in enumerate(video):
            waiting.append((view, i == len(video) - 1))
            if len(waiting) == batch_size:
                yield from finished_videos(np.asarray(run(np.stack([view for view, _ in waiting]))))
                waiting.clear()
    if waiting:
        filled = [view for view, _ in waiting]
        filled += filled[-1:] * (batch_size - len(filled))
        yield from finished_videos(np.asarray(run(np.stack(filled))))


@partial(jax.jit, static_argnames="clip_spec")
def _logits(model, video: Array, clip_spec: ClipSpec) -> Array:
    return model(clip_spec.normalise(video) if video.dtype == np.uint8 else video)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


@dataclass(frozen=True)
class Accuracy(DisplayedResult):
    """Accuracy of one head, with its 95 % interval over source videos."""

    head: str
    is_correct: tuple[bool, ...]
    source_videos: tuple[str, ...]  # of each clip

    def __repr__(self) -> str:
        low, high = self.interval if self.n_clips else (float("nan"), float("nan"))
        return (
            f"Accuracy({self.head}: {self.share:.1%}, 95 % CI {low:.1%} to {high:.1%}, {self.n_clips} clips of"
            f" {self.n_videos} videos)"
        )

    @property
    def n_clips(self) -> int:
        return len(self.is_correct)

    @property
    def n_videos(self) -> int:
        return len(set(self.source_videos))

    @property
    def n_correct(self) -> int:
        return sum(self.is_correct)

    @property
    def share(self) -> float:
        return self.n_correct / self.n_clips if self.n_clips else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        return clustered_share_ci(np.array(self.is_correct, bool), self.source_videos)


def measure_accuracy(
    network: models.Network,
    source: Source,
    batch_size: int,
    *,
    num_workers: int = 2,
    failed: list[ReadResult] | None = None,
    positions: Sequence[int] | None = None,
) -> list[Accuracy]:
    """Return the accuracy of each head on the readable clips of `source`, or those at `positions`.

    Adds the others to `failed`.
    """
    joins = match_heads(network.heads, source.heads)
    results: dict[str, list[tuple[bool, str]]] = {join.head: [] for join in joins}
    for read, probability in predict_source(
        network, source, batch_size, SamplingConfig(normalise=False), num_workers=num_workers, positions=positions
    ):
        if probability is None:
            if failed is not None:
                failed.append(read)
            continue
        for join in joins:
            if join.source_head in read.item.labels:
                answer = join.source_index[int(probability[network.head_slices[join.head]].argmax())]
                is_correct = answer == read.item.labels[join.source_head]
                results[join.head].append((is_correct, read.item.source_video))
    return [
        Accuracy(head, tuple(correct for correct, _ in clips), tuple(video for _, video in clips))
        for head, clips in results.items()
    ]


def predict_source(
    network: models.Network,
    source: Source,
    batch_size: int,
    sampling: SamplingConfig,
    *,
    num_workers: int = 2,
    positions: Sequence[int] | None = None,
) -> Iterator[tuple[ReadResult, Probabilities | None]]:
    """Yield each clip of `source` in order, with its probabilities; None if it cannot be read."""
    clip_spec = network.clip_spec
    n_views = sampling.clips_per_video * (3 if sampling.views == "three_crop" else 1)
    if not sampling.consecutive:  # else their number is known after reading
        batch_size = min(batch_size, len(source.items) * n_views)
    pending: list[ReadResult] = []

    def videos() -> Iterator[np.ndarray]:
        for read in stream(source, clip_spec, sampling, num_workers=num_workers, positions=positions):
            pending.append(read)
            if read.clip is not None:
                yield read.clip.video

    def failures() -> Iterator[tuple[ReadResult, None]]:
        while pending and pending[0].clip is None:
            yield pending.pop(0), None

    for probability in predict_clips(network, videos(), batch_size):
        yield from failures()
        yield pending.pop(0), probability
    yield from failures()
