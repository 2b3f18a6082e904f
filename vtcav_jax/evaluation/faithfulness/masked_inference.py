"""Scores of a network on clips with some cells removed, which all removal metrics use.

The removals of all maps and clips form one list of rows, which passes through the network `batch_size` at a time. The
infill is compiled separately, so that the network is compiled once for all infills, partitions and metrics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt8

from vtcav_jax.attribution.score_model import ExplainContext, ScoreModel, prepare_explanation
from vtcav_jax.attribution.targets import Class, Contrast, Group, LogitFunction, Margin, Target
from vtcav_jax.console import progress
from vtcav_jax.evaluation.faithfulness.infill import Infill, get_infill
from vtcav_jax.evaluation.faithfulness.partition import Partition, token_partition
from vtcav_jax.tap import Model, class_logit

MASKED_BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class MaskedScores:
    """Score of the target, and its probability among the classes that it competes with.

    The probability is NaN for targets without one: channels or concepts within the network, and functions of logits.
    """

    score: Float[np.ndarray, "*n"]
    probability: Float[np.ndarray, "*n"]


@dataclass(frozen=True, eq=False)
class MaskedClips:
    """Clips, their partition and infill; `full_scores` and `empty_scores` are for all and for no cells of each clip.

    `prepare_masking` computes these two scores, at the cost of two forward passes per clip.
    """

    context: ExplainContext
    partition: Partition
    infill: Infill
    background: Float[Array, "b t h w c"]
    seed: int
    batch_size: int
    full_scores: MaskedScores
    empty_scores: MaskedScores

    @property
    def n_clips(self) -> int:
        return len(self.context.video)


def prepare_masking(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    infill: str | Infill = "blur",
    partition: Partition | None = None,
    seed: int = 0,
    batch_size: int = MASKED_BATCH_SIZE,
) -> MaskedClips:
    """Prepare clips for removal metrics; `partition` defaults to tokens, and `seed` sets ties and random draws."""
    resolved_infill = get_infill(infill) if isinstance(infill, str) else infill
    context = prepare_explanation(model, clips, target)
    t, h, w = context.video.shape[1:4]
    partition = token_partition((t, h, w)) if partition is None else partition
    if partition.clip_shape != (t, h, w) or len(partition.cell_ids) not in (1, len(context.video)):
        raise ValueError(
            f"expected cells of clips {context.video.shape[:4]}, one partition for all or one per clip, got"
            f" {partition.cell_ids.shape}"
        )
    if partition.n_cells < 2:
        raise ValueError("a partition into one cell leaves nothing to compare; use smaller cells")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    target = context.score_model.target
    if isinstance(target, LogitFunction) and jax.tree.leaves(target):
        raise ValueError(
            "a function of logits must hold no arrays here, because rows of clips are reordered; use Class, Margin,"
            " Contrast or Group"
        )
    no_scores = MaskedScores(np.zeros(0, np.float32), np.zeros(0, np.float32))
    masked = MaskedClips(
        context,
        partition,
        resolved_infill,
        resolved_infill.make_background(context.video, seed),
        seed,
        batch_size,
        no_scores,
        no_scores,
    )
    b = len(context.video)
    end_scores = score_masked(
        masked, np.tile(np.arange(b), 2), lambda rows: np.repeat(np.arange(2 * b)[rows, None] < b, partition.n_cells, 1)
    )
    full_scores, empty_scores = (
        MaskedScores(end_scores.score[rows], end_scores.probability[rows]) for rows in (slice(b), slice(b, None))
    )
    return replace(masked, full_scores=full_scores, empty_scores=empty_scores)


def score_masked(
    masked: MaskedClips, clip_index: Int[np.ndarray, " n"], keep_mask: Callable[[slice], Bool[np.ndarray, "k cells"]]
) -> MaskedScores:
    """Score each row: the clip `clip_index` with only the cells of `keep_mask` left.

    Equal rows pass through the network once, which is frequent for partitions into a few frames.
    """
    cell_ids, n_cells = jnp.asarray(masked.partition.cell_ids, jnp.int32), masked.partition.n_cells
    bits = np.concatenate([np.packbits(keep_mask(rows), 1) for rows in _slices_of(len(clip_index), masked.batch_size)])
    first_rows, inverse = _unique_rows(np.concatenate([clip_index.astype("<u4")[:, None].view(np.uint8), bits], 1))

    def make_batch(batch_index: Array, rows: slice) -> Array:
        keep_rows = np.unpackbits(bits[first_rows[rows]], 1, n_cells).astype(bool)
        return _compose(
            masked.context.video,
            masked.background,
            cell_ids,
            batch_index,
            jnp.asarray(_pad_rows(keep_rows, len(batch_index))),
            masked.infill,
        )

    scores = _run_batches(masked, clip_index[first_rows], make_batch)
    return MaskedScores(scores.score[inverse], scores.probability[inverse])


def blend_cells(
    masked: MaskedClips, clip_index: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n cells"]
) -> MaskedScores:
    """Score each row: the clip `clip_index` blended with its background, `weights` being the clip's share per cell."""
    cell_ids = jnp.asarray(masked.partition.cell_ids, jnp.int32)

    def make_batch(batch_index: Array, rows: slice) -> Array:
        batch_weights = jnp.asarray(_pad_rows(weights[rows], masked.batch_size), masked.context.video.dtype)
        return _blend(masked.context.video, masked.background, cell_ids, batch_index, batch_weights)

    return _run_batches(masked, clip_index, make_batch)


def dim_by_map(masked: MaskedClips, weights: Float[np.ndarray, "b cells"]) -> Float[Array, "b t h w c"]:
    """Return the clips themselves, blended as in `blend_cells`."""
    cell_ids, clip_index = (jnp.asarray(x, jnp.int32) for x in (masked.partition.cell_ids, np.arange(masked.n_clips)))
    return _blend(
        masked.context.video, masked.background, cell_ids, clip_index, jnp.asarray(weights, masked.context.video.dtype)
    )


def subtract(
    masked: MaskedClips, clip_index: Int[np.ndarray, " n"], change: Callable[[slice], Float[np.ndarray, "k t h w"]]
):
    """Score each row: the clip `clip_index` minus `change`, the same for all colours."""

    def make_batch(batch_index: Array, rows: slice) -> Array:
        return _subtract(masked.context.video, batch_index, jnp.asarray(_pad_rows(change(rows), masked.batch_size)))

    return _run_batches(masked, clip_index, make_batch)


def _run_batches(
    masked: MaskedClips, clip_index: Int[np.ndarray, " n"], make_batch: Callable[[Array, slice], Array]
) -> MaskedScores:
    results = []
    for rows in progress(
        _slices_of(len(clip_index), masked.batch_size), len(clip_index), "passes", size=lambda r: r.stop - r.start
    ):
        batch_index = jnp.asarray(_pad_rows(clip_index[rows], masked.batch_size), jnp.int32)
        results.append(_score_batch(masked.context.score_model, make_batch(batch_index, rows), batch_index))
        if len(results) > 1:
            results[-2] = jax.tree.map(np.asarray, results[-2])  # at most two batches on the device
    score, probability = (np.concatenate([np.asarray(x, np.float32) for x in parts]) for parts in zip(*results))
    return MaskedScores(score[: len(clip_index)], probability[: len(clip_index)])


def _unique_rows(rows: UInt8[np.ndarray, "n bytes"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """Return the index of the first of each set of equal rows, in order, and each row's index into these."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.ravel()]


def _slices_of(n: int, batch_size: int) -> Iterator[slice]:
    return (slice(i, min(i + batch_size, n)) for i in range(0, n, batch_size))


def _pad_rows(rows: np.ndarray, n: int) -> np.ndarray:
    """Pad to `n` rows, so that the last batch has the same shape and is not compiled again."""
    return np.concatenate([rows, np.repeat(rows[:1], n - len(rows), 0)])


def _target_of_clips(target: Any, clip_index: Array) -> Any:
    """Return the target of rows that come from clips `clip_index`."""
    if isinstance(target, Class | Margin):
        return replace(target, classes=target.classes[clip_index])
    if isinstance(target, Contrast):
        return Contrast(target.classes[clip_index], target.others[clip_index])
    return target


def _probability(target: Any, logits: Array, score: Array) -> Array:
    if isinstance(target, Contrast | Group):
        return jax.nn.sigmoid(score)  # of one class against the other, or of any class of the group
    class_logits, class_index = class_logit(target.classes, logits), jnp.arange(logits.shape[-1])
    head_range = (
        target.head_range if isinstance(target, Margin) and target.head_range is not None else (0, logits.shape[-1])
    )
    in_head = (class_index >= head_range[0]) & (class_index < head_range[1])
    return jnp.exp(class_logits - jax.nn.logsumexp(logits, -1, where=in_head[None]))


@jax.jit
def _score_batch(scored: ScoreModel, video: Array, clip_index: Array) -> tuple[Array, Array]:
    target = _target_of_clips(scored.target, clip_index)
    if not isinstance(target, Class | Margin | Contrast | Group):
        score = replace(scored, target=target).score(video)
        return score, jnp.full_like(score, jnp.nan)
    logits = scored.model(video)
    score = target(logits, {})
    return score, _probability(target, logits, score)


def _cells_to_voxels(values: Array, cell_ids: Array, clip_index: Array) -> Array:
    """Expand the values of each row from cells to voxels."""
    if len(cell_ids) == 1:
        return values[:, cell_ids[0]]
    row_cell_ids = cell_ids[clip_index]
    return jnp.take_along_axis(values, row_cell_ids.reshape(len(values), -1), 1).reshape(row_cell_ids.shape)


@partial(jax.jit, static_argnames="infill")
def _compose(video: Array, background: Array, cell_ids: Array, clip_index: Array, keep: Array, infill: Infill) -> Array:
    return infill.compose(video[clip_index], background[clip_index], _cells_to_voxels(keep, cell_ids, clip_index))


@jax.jit
def _blend(video: Array, background: Array, cell_ids: Array, clip_index: Array, weights: Array) -> Array:
    share = _cells_to_voxels(weights, cell_ids, clip_index)[..., None]
    return share * video[clip_index] + (1 - share) * background[clip_index]


@jax.jit
def _subtract(video: Array, clip_index: Array, change: Array) -> Array:
    return video[clip_index] - change.astype(video.dtype)[..., None]
