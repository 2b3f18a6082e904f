"""What a network answers when only some cells of a clip are left: the one question of every metric that removes things.

Removals of all maps and clips are rows of one list, which goes through the network `at_once` at a time. What fills the
holes is compiled apart, so that the network is compiled once for all fills, cells and metrics.
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
from vtcav_jax.evaluation.faithfulness.infill import Fill, fill
from vtcav_jax.evaluation.faithfulness.partition import Cells, tokens
from vtcav_jax.progress import progress
from vtcav_jax.tap import Model, class_logit

AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Answers:
    """The target's score, and the probability of what is explained, among the classes that it competes with.

    NaN where a target has no probability: values within the network, and functions of logits.
    """

    score: Float[np.ndarray, "*n"]
    probability: Float[np.ndarray, "*n"]


@dataclass(frozen=True, eq=False)
class Shown:
    """Clips of which cells are removed, and how; `whole` and `empty` are the answers to all and to nothing of them.

    These two passes of each clip are all that `showing` costs.
    """

    what: ExplainContext
    cells: Cells
    fill: Fill
    start: Float[Array, "b t h w c"]
    seed: int
    at_once: int
    whole: Answers
    empty: Answers

    @property
    def clips(self) -> int:
        return len(self.what.video)


def showing(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    fill_with: str | Fill = "blur",
    cells: Cells | None = None,
    seed: int = 0,
    at_once: int = AT_ONCE,
) -> Shown:
    """`cells` are tokens unless given; `seed` decides among equal cells, and draws what is drawn."""
    how = fill(fill_with) if isinstance(fill_with, str) else fill_with
    what = prepare_explanation(model, clips, target)
    t, h, w = what.video.shape[1:4]
    cells = tokens((t, h, w)) if cells is None else cells
    if cells.sizes != (t, h, w) or len(cells.numbers) not in (1, len(what.video)):
        raise ValueError(
            f"expected cells of clips {what.video.shape[:4]}, the same for all or for each, got {cells.numbers.shape}"
        )
    if cells.count < 2:
        raise ValueError("a clip of one cell has nothing to compare; use smaller cells")
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    target = what.score_model.target
    if isinstance(target, LogitFunction) and jax.tree.leaves(target):
        raise ValueError(
            "a function of logits must hold no arrays here, as clips are asked about in another order than they were "
            "given; use Class, Margin, Contrast or Group"
        )
    none = Answers(np.zeros(0, np.float32), np.zeros(0, np.float32))
    shown = Shown(what, cells, how, how.start(what.video, seed), seed, at_once, none, none)
    b = len(what.video)
    ends = answers(
        shown, np.tile(np.arange(b), 2), lambda rows: np.repeat(np.arange(2 * b)[rows, None] < b, cells.count, 1)
    )
    one, two = (Answers(ends.score[rows], ends.probability[rows]) for rows in (slice(b), slice(b, None)))
    return replace(shown, whole=one, empty=two)


def answers(shown: Shown, clip: Int[np.ndarray, " n"], keep: Callable[[slice], Bool[np.ndarray, "k cells"]]) -> Answers:
    """Row by row: of `clip` only the cells that `keep` tells for these rows are left, whole voxels or nothing.

    What several rows ask of a clip goes through the network once: of a few frames maps ask for the same ones often.
    """
    numbers, count = jnp.asarray(shown.cells.numbers, jnp.int32), shown.cells.count
    bits = np.concatenate([np.packbits(keep(rows), 1) for rows in _slices(len(clip), shown.at_once)])
    once, again = _once(np.concatenate([clip.astype("<u4")[:, None].view(np.uint8), bits], 1))

    def made(which: Array, rows: slice) -> Array:
        kept = np.unpackbits(bits[once[rows]], 1, count).astype(bool)
        return _left(
            shown.what.video, shown.start, numbers, which, jnp.asarray(_filled_up(kept, len(which))), shown.fill
        )

    found = _asked(shown, clip[once], made)
    return Answers(found.score[again], found.probability[again])


def blended(shown: Shown, clip: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n cells"]) -> Answers:
    """Row by row: of `clip` so much of each cell, the rest from the clip without anything."""
    numbers = jnp.asarray(shown.cells.numbers, jnp.int32)

    def made(which: Array, rows: slice) -> Array:
        some = jnp.asarray(_filled_up(weights[rows], shown.at_once), shown.what.video.dtype)
        return _mixed(shown.what.video, shown.start, numbers, which, some)

    return _asked(shown, clip, made)


def dimmed(shown: Shown, weights: Float[np.ndarray, "b cells"]) -> Float[Array, "b t h w c"]:
    """Every clip as in `blended`, to be looked at."""
    numbers, which = (jnp.asarray(x, jnp.int32) for x in (shown.cells.numbers, np.arange(shown.clips)))
    return _mixed(shown.what.video, shown.start, numbers, which, jnp.asarray(weights, shown.what.video.dtype))


def changed(shown: Shown, clip: Int[np.ndarray, " n"], change: Callable[[slice], Float[np.ndarray, "k t h w"]]):
    """Row by row: from `clip` what `change` tells is taken away, the same of every colour."""

    def made(which: Array, rows: slice) -> Array:
        return _less(shown.what.video, which, jnp.asarray(_filled_up(change(rows), shown.at_once)))

    return _asked(shown, clip, made)


def _asked(shown: Shown, clip: Int[np.ndarray, " n"], made: Callable[[Array, slice], Array]) -> Answers:
    found = []
    for rows in progress(_slices(len(clip), shown.at_once), len(clip), "passes", size=lambda r: r.stop - r.start):
        which = jnp.asarray(_filled_up(clip[rows], shown.at_once), jnp.int32)
        found.append(_answers(shown.what.score_model, made(which, rows), which))
        if len(found) > 1:
            found[-2] = jax.tree.map(np.asarray, found[-2])  # one batch ahead, no more of them in memory
    score, probability = (np.concatenate([np.asarray(x, np.float32) for x in parts]) for parts in zip(*found))
    return Answers(score[: len(clip)], probability[: len(clip)])


def _once(rows: UInt8[np.ndarray, "n bytes"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """Where each different row is first, in their order, and for every row which of these it is."""
    _, first, again = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[again.ravel()]


def _slices(n: int, at_once: int) -> Iterator[slice]:
    return (slice(i, min(i + at_once, n)) for i in range(0, n, at_once))


def _filled_up(rows: np.ndarray, n: int) -> np.ndarray:
    """To `n` rows: every batch has the same shape, so that nothing is compiled for the last one."""
    return np.concatenate([rows, np.repeat(rows[:1], n - len(rows), 0)])


def _of_clips(target: Any, which: Array) -> Any:
    """The target of rows that are made of clips `which`."""
    if isinstance(target, Class | Margin):
        return replace(target, classes=target.classes[which])
    if isinstance(target, Contrast):
        return Contrast(target.classes[which], target.others[which])
    return target


def _probability(target: Any, logits: Array, score: Array) -> Array:
    if isinstance(target, Contrast | Group):
        return jax.nn.sigmoid(score)  # of one of two, and of any of the group
    own, number = class_logit(target.classes, logits), jnp.arange(logits.shape[-1])
    among = target.head_range if isinstance(target, Margin) and target.head_range is not None else (0, logits.shape[-1])
    inside = (number >= among[0]) & (number < among[1])
    return jnp.exp(own - jax.nn.logsumexp(logits, -1, where=inside[None]))


@jax.jit
def _answers(scored: ScoreModel, video: Array, which: Array) -> tuple[Array, Array]:
    target = _of_clips(scored.target, which)
    if not isinstance(target, Class | Margin | Contrast | Group):
        score = replace(scored, target=target).score(video)
        return score, jnp.full_like(score, jnp.nan)
    logits = scored.model(video)
    score = target(logits, {})
    return score, _probability(target, logits, score)


def _of_voxels(values: Array, numbers: Array, which: Array) -> Array:
    """What rows say of cells, for each voxel."""
    if len(numbers) == 1:
        return values[:, numbers[0]]
    of_rows = numbers[which]
    return jnp.take_along_axis(values, of_rows.reshape(len(values), -1), 1).reshape(of_rows.shape)


@partial(jax.jit, static_argnames="how")
def _left(video: Array, start: Array, numbers: Array, which: Array, keep: Array, how: Fill) -> Array:
    return how.left(video[which], start[which], _of_voxels(keep, numbers, which))


@jax.jit
def _mixed(video: Array, start: Array, numbers: Array, which: Array, weights: Array) -> Array:
    share = _of_voxels(weights, numbers, which)[..., None]
    return share * video[which] + (1 - share) * start[which]


@jax.jit
def _less(video: Array, which: Array, change: Array) -> Array:
    return video[which] - change.astype(video.dtype)[..., None]
