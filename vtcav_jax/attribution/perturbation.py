"""Perturbation maps: score changes when parts of a clip are removed; forward passes only.

Occlusion slides a window; RISE removes random parts; Shapley values divide the score among players (cells of space and
time, or groups of frames) by each player's mean contribution over all orders. A removed part is replaced by a baseline,
or a removed frame by the last one that remains (`hold`).
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from vtcav_jax.attribution.baselines import Baseline, resolve_baseline
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import MultiScoreModel, clip_scores, prepare_multi_score, to_numpy
from vtcav_jax.attribution.shared_passes import SharedPasses, Targets
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

MAX_EXACT_PLAYERS = 10  # with more players, orders are sampled


@SharedPasses
def occlusion(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    window: tuple[int, int, int] = (2, 8, 8),
    stride: tuple[int, int, int] | None = None,
    baseline: Baseline = "zero",
) -> list[Attribution]:
    """Compute each voxel's mean score drop over the windows that cover it.

    `window` and `stride` are voxels along time, height and width; strides are half a window by default.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    sizes = video.shape[1:4]
    steps = tuple(max(n // 2, 1) for n in window) if stride is None else stride
    if any(not 1 <= w <= n for w, n in zip(window, sizes)) or any(not 1 <= s <= w for s, w in zip(steps, window)):
        raise ValueError(
            f"window must fit the clip, {sizes}, and stride be at most the window so that no voxel is skipped; "
            f"got window {window}, stride {steps}"
        )
    corners = np.array(
        list(itertools.product(*(_window_starts(n, w, s) for n, w, s in zip(sizes, window, steps)))), np.int32
    )
    start = resolve_baseline(video, baseline)
    total = jnp.zeros((len(targets), *video.shape[:4]), video.dtype)
    count = jnp.zeros(sizes, video.dtype)
    for corner in jnp.asarray(corners):
        total, count = _add_occluded_scores(scorer, video, start, corner, total, count, window)
    values = clip_scores(scorer, video)[:, :, None, None, None] - to_numpy(total / count[None, None])
    return [Attribution(values_of_target, VIDEO, True, len(corners) + 1, "occlusion") for values_of_target in values]


@SharedPasses
def rise(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    masks: int = 1000,
    cells: tuple[int, int, int] = (4, 4, 4),
    keep: float = 0.5,
    baseline: Baseline = "zero",
    seed: int = 0,
) -> list[Attribution]:
    """Compute the mean score with each voxel minus the mean score without it, over random soft masks.

    Masks are drawn on a grid of `cells`, each visible with probability `keep`, interpolated and shifted at random. The
    noise from the other voxels falls only as 1 / sqrt(`masks`).

    Reference: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018,
    arXiv:1806.07421.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    if masks < 2 or not 0 < keep < 1:
        raise ValueError(f"expected masks of at least 2 and keep between 0 and 1, got {masks} and {keep}")
    sizes, random = video.shape[1:4], np.random.default_rng(seed)
    if any(not 1 <= c <= n for c, n in zip(cells, sizes)):
        raise ValueError(f"a clip of {sizes} cannot be cut into {cells} cells; use 1 to that many")
    start = resolve_baseline(video, baseline)
    soft_masks = np.stack([_soft_mask(random, sizes, cells, keep) for _ in range(masks)])
    mask_scores = [_masked_scores(scorer, video, start, jnp.asarray(mask, video.dtype)) for mask in soft_masks]
    score_array = np.stack([np.asarray(score, np.float64) for score in mask_scores])  # masks, targets, clips
    mask_sum = soft_masks.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a voxel may be visible in all masks, or in none
        mean_inside, mean_outside = (
            np.tensordot(score_array, m, (0, 0)) / n
            for m, n in ((soft_masks, mask_sum), (1 - soft_masks, masks - mask_sum))
        )
    values = _match_dtype(np.nan_to_num(mean_inside - mean_outside, nan=0.0, posinf=0.0, neginf=0.0), video)
    return [Attribution(values_of_target, VIDEO, True, masks, "rise") for values_of_target in values]


@SharedPasses
def shapley(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    players: Int[np.ndarray, "t h w"] | tuple[int, int, int] = (4, 2, 2),
    baseline: Baseline = "zero",
    orders: int = 32,
    seed: int = 0,
) -> list[Attribution]:
    """Compute each player's Shapley value of the score's rise over `baseline`, spread evenly over its voxels.

    The value is the mean, over all orders of players, of score(players up to i) - score(players before i). It is exact
    for up to 10 players, else the mean over `orders` orders: half random, half their reversals. The map sums to
    score(x) - score(baseline) in both cases.

    Args:
        players: player number of each voxel, from 0, or the number of cells along time, height and width.
        baseline: replacement of removed voxels; "hold" repeats the last remaining frame instead.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    player_of_voxel = _cells(video.shape[1:4], players) if isinstance(players, tuple) else np.asarray(players)
    if player_of_voxel.shape != video.shape[1:4] or set(np.unique(player_of_voxel)) != set(
        range(player_of_voxel.max() + 1)
    ):
        raise ValueError(
            f"expected a player number for each voxel, {video.shape[1:4]}, from 0 without gaps; "
            f"got {player_of_voxel.shape}, {player_of_voxel.min()} to {player_of_voxel.max()}"
        )
    n_players = int(player_of_voxel.max()) + 1
    if baseline == "hold" and (player_of_voxel != player_of_voxel[:, :1, :1]).any():
        raise ValueError("baseline hold needs whole frames as players; use players (n, 1, 1) or another baseline")
    if orders < 2:
        raise ValueError(f"expected at least 2 orders (one and its reversal), got {orders}")
    exact = n_players <= MAX_EXACT_PLAYERS
    coalitions = all_coalitions(n_players) if exact else _order_coalitions(n_players, orders, seed)
    # Without any frame to hold, all voxels have the mean colour
    start = jnp.zeros_like(video) if baseline == "hold" else resolve_baseline(video, baseline)
    hold = baseline == "hold"
    coalition_scores = [
        _coalition_scores(scorer, video, start, jnp.asarray(coalition[player_of_voxel]), hold)
        for coalition in coalitions
    ]
    sizes, attributions = np.bincount(player_of_voxel.ravel()), []
    for scores_of_target in np.stack([np.asarray(score, np.float64) for score in coalition_scores], 1):  # games, clips
        player_values = (
            _exact_shapley(scores_of_target, n_players)
            if exact
            else _sampled_shapley(scores_of_target, coalitions, n_players)
        )
        values = (player_values / sizes[:, None])[player_of_voxel].transpose(3, 0, 1, 2)
        rise = scores_of_target[coalitions.all(1)][0] - scores_of_target[~coalitions.any(1)][0]
        completeness_gap = _match_dtype(rise - values.sum((1, 2, 3)), video)
        attributions.append(
            Attribution(_match_dtype(values, video), VIDEO, True, len(coalitions), "shapley", completeness_gap)
        )
    return attributions


@SharedPasses
def frame_shapley(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    groups: int = 8,
    baseline: Baseline = "hold",
    **options,
) -> list[Attribution]:
    """Compute Shapley values of `groups` groups of consecutive frames; `options` are those of `shapley`.

    Reference: Price and Damen, "Play Fair: Frame Attributions in Video Models", 2020, arXiv:2011.12372.
    """
    return shapley(model, clips, Targets(targets), players=(groups, 1, 1), baseline=baseline, **options)


def all_coalitions(players: int) -> Bool[np.ndarray, "n players"]:
    """Return all subsets of players: row s has player i if bit i of s is 1."""
    return (np.arange(1 << players)[:, None] >> np.arange(players) & 1).astype(bool)


def _cells(sizes: tuple[int, ...], counts: tuple[int, int, int]) -> Int[np.ndarray, "t h w"]:
    if any(not 1 <= c <= n for c, n in zip(counts, sizes)):
        raise ValueError(f"a clip of {sizes} cannot be cut into {counts} cells; use 1 to that many")
    along = [np.arange(n) * c // n for n, c in zip(sizes, counts)]
    t, h, w = np.ix_(*along)
    return (t * counts[1] + h) * counts[2] + w


def _soft_mask(
    random: np.random.Generator, sizes: tuple[int, ...], cells: tuple[int, int, int], keep: float
) -> Float[np.ndarray, "t h w"]:
    """Draw a random grid larger than the clip, and interpolate it linearly from a random offset within a cell."""
    mask = (random.random([c + 3 for c in cells]) < keep).astype(np.float64)
    for axis, (n, c) in enumerate(zip(sizes, cells)):
        place = random.random() + 0.5 + np.arange(n) * c / n  # within 0.5 to c + 1.5
        low = place.astype(int)
        part = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        mask = mask.take(low, axis) * (1 - part) + mask.take(low + 1, axis) * part
    return mask


def _window_starts(size: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows; the last one ends with the axis, so that every voxel is covered."""
    return sorted({*range(0, size - window, stride), size - window})


def _order_coalitions(players: int, orders: int, seed: int) -> Bool[np.ndarray, "n players"]:
    """Return the coalition after each step of each order, from the empty one; odd orders reverse the previous one."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(orders):
        order = rows[-1][::-1] if i % 2 else random.permutation(players)
        rows.append(order)
    place = np.argsort(np.stack(rows), 1)
    return (place[:, None, :] < np.arange(players + 1)[:, None]).reshape(-1, players)


def _sampled_shapley(scores: np.ndarray, coalitions: np.ndarray, players: int) -> np.ndarray:
    """Return each player's mean contribution over the orders, `(players, b)`."""
    coalitions = coalitions.reshape(-1, players + 1, players)
    rises = np.diff(scores.reshape(len(coalitions), players + 1, -1), axis=1)
    joining_player = np.diff(coalitions.astype(np.int8), axis=1).argmax(-1)
    player_values = np.zeros((players, scores.shape[-1]))
    np.add.at(player_values, joining_player.ravel(), rises.reshape(-1, scores.shape[-1]))
    return player_values / len(coalitions)


def _exact_shapley(scores: np.ndarray, players: int) -> np.ndarray:
    """Return the weighted mean contribution of each player to all subsets without it, `(players, b)`."""
    coalitions = all_coalitions(players)
    sizes = coalitions.sum(1)
    weights = np.array([1 / (players * math.comb(players - 1, s)) for s in range(players)])
    player_values = []
    for player in range(players):
        coalitions_without = np.flatnonzero(~coalitions[:, player])
        player_values.append(
            weights[sizes[coalitions_without]]
            @ (scores[coalitions_without + (1 << player)] - scores[coalitions_without])
        )
    return np.stack(player_values)


def _match_dtype(values: np.ndarray, video: Array) -> np.ndarray:
    return values.astype(np.float64 if video.dtype == jnp.float64 else np.float32)


@partial(jax.jit, static_argnames="window")
def _add_occluded_scores(
    scorer: MultiScoreModel,
    video: Array,
    start: Array,
    corner: Array,
    total: Array,
    count: Array,
    window: tuple[int, int, int],
) -> tuple[Array, Array]:
    """Add one window: the sum of scores without each voxel, and the number of windows that cover it."""
    t, h, w = ((jnp.arange(m) >= c) & (jnp.arange(m) < c + n) for m, c, n in zip(video.shape[1:4], corner, window))
    inside = t[:, None, None] & h[None, :, None] & w[None, None, :]
    occluded_scores = scorer.score(jnp.where(inside[None, ..., None], start, video))
    inside_float = inside.astype(video.dtype)
    return total + occluded_scores[:, :, None, None, None] * inside_float[None, None], count + inside_float


@jax.jit
def _masked_scores(scorer: MultiScoreModel, video: Array, start: Array, mask: Array) -> Array:
    return scorer.score(start + (video - start) * mask[None, ..., None])


@partial(jax.jit, static_argnames="hold")
def _coalition_scores(scorer: MultiScoreModel, video: Array, start: Array, keep: Array, hold: bool) -> Array:
    """Return the scores `(targets, b)` of clips in which only the voxels in `keep` remain."""
    if not hold:
        return scorer.score(jnp.where(keep[None, ..., None], video, start))
    frames = jnp.arange(video.shape[1])
    last_visible = jax.lax.cummax(jnp.where(keep[:, 0, 0], frames, -1))
    first_visible = jnp.argmax(keep[:, 0, 0])  # earlier frames repeat the first that remains
    held_video = video[:, jnp.where(last_visible < 0, first_visible, last_visible)]
    return scorer.score(jnp.where(keep.any(), held_video, start))
