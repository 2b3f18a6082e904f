"""The engine of removal methods: scores of masked clips, and maps with standard errors from a design."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from vtcav_jax.attribution.baselines import Baseline, hold_last, resolve_baseline
from vtcav_jax.attribution.removal.designs import Design
from vtcav_jax.attribution.removal.plans import Plan
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import MultiScoreModel, prepare_multi_score
from vtcav_jax.attribution.targets import Target
from vtcav_jax.console import progress
from vtcav_jax.platforms import platform
from vtcav_jax.tap import Model

HOLD = "hold"  # baseline: a removed voxel shows the last one that remains at its place
# Voxels per call of the network: on a CPU, larger batches do not fit its caches and are slower
MAX_VOXELS = {"cpu": 1 << 18}
MAX_VOXELS_ACCELERATOR = 1 << 22

MakeMasks = Callable[[Int[np.ndarray, " m"]], Array]  # from numbers of masks to `(m, 1 or b, t, h, w)`
Scores = Float[np.ndarray, "masks targets b"]


def masks_per_call(clips_shape: Sequence[int]) -> int:
    """Return the number of masks whose copies of all clips pass through the network together."""
    limit = MAX_VOXELS.get(platform(), MAX_VOXELS_ACCELERATOR)
    return max(limit // int(np.prod(clips_shape[:4])), 1)


def score_masks(
    scorer: MultiScoreModel, video: Array, make_masks: MakeMasks, n_masks: int, baseline: Baseline
) -> Scores:
    """Return the scores of the clips under each mask; the baseline fills what is removed.

    One compiled call per batch of masks rather than a compiled loop over all: inside a loop, XLA's convolutions on a
    CPU take three times as long.
    """
    holds = isinstance(baseline, str) and baseline == HOLD
    # Without any voxel to hold, the clip has the mean colour
    background = jnp.zeros_like(video) if holds else resolve_baseline(video, baseline)
    compose = _hold if holds else _fill
    size, parts = min(masks_per_call(video.shape), n_masks), []
    for rows in progress(_batches(n_masks, size), n_masks, "passes", size=lambda rows: len(np.unique(rows))):
        parts.append(_score(scorer, compose(video, background, make_masks(rows))))
        if len(parts) > 1:
            parts[-2] = np.asarray(parts[-2], np.float64)  # at most two batches on the device
    return np.concatenate([np.asarray(part, np.float64) for part in parts])[:n_masks]


def explain_segments(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    make_plan: Callable[[tuple[int, ...]], Plan],
    *,
    baseline: Baseline,
    name: str,
    spread: bool = False,
) -> list[Attribution]:
    """Return the maps of each target: the value of a voxel's segment, divided by the segment's size if `spread`."""
    scorer, video = prepare_multi_score(model, clips, targets)
    plan = make_plan(video.shape[1:4])
    design, ids = plan.design, plan.make_segments(np.asarray(video))
    keep, inverse = design.distinct
    device_ids = jnp.asarray(ids, jnp.int32)
    scores = score_masks(
        scorer, video, lambda rows: _segment_masks(jnp.asarray(keep[rows]), device_ids), len(keep), baseline
    )[inverse]
    solution = design.solve(np.ones(len(design.keep), bool))
    values, errors = np.tensordot(solution, scores, 1), _standard_errors(design, solution, scores)
    volumes = np.stack([np.bincount(clip.ravel(), minlength=len(solution)) for clip in ids]) if spread else np.ones(1)

    def to_map(of_segment: Float[np.ndarray, "players b"]) -> Float[np.ndarray, "b t h w"]:
        places = np.broadcast_to(ids, video.shape[:4]).reshape(len(video), -1)
        return match_dtype(np.take_along_axis(of_segment.T / volumes, places, 1).reshape(video.shape[:4]), video)

    attributions = []
    for i in range(len(targets)):
        values_map, gap = to_map(values[:, i]), None
        if design.complete:
            difference = scores[design.keep.all(1)][0, i] - scores[~design.keep.any(1)][0, i]
            gap = match_dtype(difference - values_map.sum((1, 2, 3), dtype=np.float64), video)
        error_map = None if errors is None else to_map(errors[:, i])
        attributions.append(Attribution(values_map, VIDEO, True, len(keep), name, gap, error_map))
    return attributions


def _standard_errors(
    design: Design, solution: np.ndarray, scores: Scores
) -> Float[np.ndarray, "players targets b"] | None:
    """Return the jackknife standard errors of the values, leaving out one group of random masks at a time."""
    if design.groups is None:
        return None
    groups = np.unique(design.groups[design.groups >= 0])
    if len(groups) < 2:
        return None
    squares = [np.tensordot(design.solve(design.groups != group) - solution, scores, 1) ** 2 for group in groups]
    return np.sqrt(np.sum(squares, 0) * (len(groups) - 1) / len(groups))


def match_dtype(values: np.ndarray, video: Array) -> np.ndarray:
    return values.astype(np.float64 if video.dtype == jnp.float64 else np.float32)


def _batches(n: int, size: int) -> Iterator[Int[np.ndarray, " size"]]:
    """Yield the numbers from 0 to n in batches of one size; the last repeats its last number, to compile only once."""
    return (np.minimum(np.arange(start, start + size), n - 1) for start in range(0, n, size))


@jax.jit
def _segment_masks(keep: Bool[Array, "m players"], ids: Int[Array, "b t h w"]) -> Bool[Array, "m b t h w"]:
    return keep[:, ids]


@jax.jit
def _fill(video: Array, background: Array, masks: Array) -> Float[Array, "m b t h w c"]:
    if masks.dtype == bool:
        return jnp.where(masks[..., None], video[None], background[None])
    return background[None] + (video - background)[None] * masks[..., None].astype(video.dtype)


@jax.jit
def _hold(video: Array, background: Array, masks: Array) -> Float[Array, "m b t h w c"]:
    return jax.vmap(lambda mask: hold_last(video, background, jnp.broadcast_to(mask, video.shape[:4])))(masks)


@jax.jit
def _score(scorer: MultiScoreModel, videos: Float[Array, "m b t h w c"]) -> Float[Array, "m targets b"]:
    return scorer.score_copies(videos)
