"""What happens to the score when parts of a clip are taken out: no gradient, only forward passes.

Occlusion slides a window; RISE takes out parts at random; Shapley values share the score among players, cells of space
and time or groups of frames, by how much each adds to every order of the others. What is taken out is replaced by a
baseline, or, for whole frames, by the frame shown last (`hold`).
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from vtcav_jax.attribution.baselines import Baseline, missing
from vtcav_jax.attribution.passes import Scored, explained, on_host, scores
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model

EXACT_UP_TO = 10  # players; above it orders are drawn


def occlusion(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    window: tuple[int, int, int] = (2, 8, 8),
    stride: tuple[int, int, int] | None = None,
    baseline: Baseline = "zero",
) -> Attribution:
    """Of each voxel the mean fall of the score over the windows that cover it; strides are half a window by default."""
    what = explained(model, clips, target)
    sizes = what.video.shape[1:4]
    steps = tuple(max(n // 2, 1) for n in window) if stride is None else stride
    if any(not 1 <= w <= n for w, n in zip(window, sizes)) or any(not 1 <= s <= w for s, w in zip(steps, window)):
        raise ValueError(
            f"a window must fit the clip, {sizes}, and a stride be at most the window so that no voxel is skipped; "
            f"got window {window}, stride {steps}"
        )
    corners = np.array(list(itertools.product(*(_starts(n, w, s) for n, w, s in zip(sizes, window, steps)))), np.int32)
    start = missing(what.video, baseline)
    total, count = jnp.zeros(what.video.shape[:4], what.video.dtype), jnp.zeros(sizes, what.video.dtype)
    for corner in jnp.asarray(corners):
        total, count = _without(what.scored, what.video, start, corner, total, count, window)
    values = jnp.asarray(scores(what.scored, what.video), what.video.dtype)[:, None, None, None] - total / count[None]
    return Attribution(on_host(values), VIDEO, True, len(corners) + 1, "occlusion")


def rise(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    masks: int = 1000,
    cells: tuple[int, int, int] = (4, 4, 4),
    keep: float = 0.5,
    baseline: Baseline = "zero",
    seed: int = 0,
) -> Attribution:
    """Of each voxel the mean score with it less that without it, over random soft masks (Petsiuk et al., 2018).

    Masks are drawn on a grid of `cells`, each in with probability `keep`, smoothed between and shifted at random. What
    the other voxels do is noise that falls with the root of `masks` only.
    """
    what = explained(model, clips, target)
    if masks < 2 or not 0 < keep < 1:
        raise ValueError(f"expected at least 2 masks and a share to keep between 0 and 1, got {masks} and {keep}")
    sizes, random = what.video.shape[1:4], np.random.default_rng(seed)
    if any(not 1 <= c <= n for c, n in zip(cells, sizes)):
        raise ValueError(f"a clip of {sizes} cannot be cut into {cells} cells; use 1 to that many")
    start, shown = missing(what.video, baseline), np.zeros(sizes)
    seen, unseen = (np.zeros(what.video.shape[:4]) for _ in range(2))
    for _ in range(masks):
        mask = _soft(random, sizes, cells, keep)
        score = np.asarray(_faded(what.scored, what.video, start, jnp.asarray(mask, what.video.dtype)), np.float64)
        shown += mask
        seen += score[:, None, None, None] * mask
        unseen += score[:, None, None, None] * (1 - mask)
    with np.errstate(invalid="ignore", divide="ignore"):  # a voxel may have been in all masks, or in none
        values = np.nan_to_num(seen / shown - unseen / (masks - shown), nan=0.0, posinf=0.0, neginf=0.0)
    return Attribution(_like(values, what.video), VIDEO, True, masks, "rise")


def shapley(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    players: Int[np.ndarray, "t h w"] | tuple[int, int, int] = (4, 2, 2),
    baseline: Baseline = "zero",
    orders: int = 32,
    seed: int = 0,
) -> Attribution:
    """What each player owns of the score's rise from `baseline`, spread evenly over its voxels.

    `players` numbers each voxel's player from 0, or says how many cells there are along time, height and width. Exact
    for up to 10 players; else over `orders` orders, half of them drawn, half the same backwards. The map sums to the
    rise either way.
    `hold` as baseline shows, in the place of a frame that is out, the last one that is in.
    """
    what = explained(model, clips, target)
    numbers = _cells(what.video.shape[1:4], players) if isinstance(players, tuple) else np.asarray(players)
    if numbers.shape != what.video.shape[1:4] or set(np.unique(numbers)) != set(range(numbers.max() + 1)):
        raise ValueError(
            f"expected the player of each voxel, {what.video.shape[1:4]}, numbered from 0 without gaps; "
            f"got {numbers.shape}, {numbers.min()} to {numbers.max()}"
        )
    count = int(numbers.max()) + 1
    if baseline == "hold" and (numbers != numbers[:, :1, :1]).any():
        raise ValueError("holding a frame takes whole frames as players; give players (n, 1, 1) or another baseline")
    if orders < 2:
        raise ValueError(f"expected at least 2 orders, one and the same backwards, got {orders}")
    exact = count <= EXACT_UP_TO
    games = subsets(count) if exact else _prefixes(count, orders, seed)
    # With no frame left to hold, all are the mean colour
    start = jnp.zeros_like(what.video) if baseline == "hold" else missing(what.video, baseline)
    hold = baseline == "hold"
    found = [_played(what.scored, what.video, start, jnp.asarray(game[numbers]), hold) for game in games]
    played = np.stack([np.asarray(score, np.float64) for score in found])
    owned = _exact(played, count) if exact else _over_orders(played, games, count)
    sizes = np.bincount(numbers.ravel())
    values = (owned / sizes[:, None])[numbers].transpose(3, 0, 1, 2)
    rise = played[games.all(1)][0] - played[~games.any(1)][0]
    residual = rise - values.sum((1, 2, 3))
    return Attribution(_like(values, what.video), VIDEO, True, len(games), "shapley", _like(residual, what.video))


def frame_shapley(
    model: Model, clips: ArrayLike, target: Target, *, groups: int = 8, baseline: Baseline = "hold", **options
) -> Attribution:
    """What each group of consecutive frames owns of the score (Price and Damen, 2020)."""
    return shapley(model, clips, target, players=(groups, 1, 1), baseline=baseline, **options)


def subsets(players: int) -> Bool[np.ndarray, "n players"]:
    """All of them; subset number s holds the players whose bit of s is 1."""
    return (np.arange(1 << players)[:, None] >> np.arange(players) & 1).astype(bool)


def _cells(sizes: tuple[int, ...], counts: tuple[int, int, int]) -> Int[np.ndarray, "t h w"]:
    if any(not 1 <= c <= n for c, n in zip(counts, sizes)):
        raise ValueError(f"a clip of {sizes} cannot be cut into {counts} cells; use 1 to that many")
    along = [np.arange(n) * c // n for n, c in zip(sizes, counts)]
    t, h, w = np.ix_(*along)
    return (t * counts[1] + h) * counts[2] + w


def _soft(
    random: np.random.Generator, sizes: tuple[int, ...], cells: tuple[int, int, int], keep: float
) -> Float[np.ndarray, "t h w"]:
    """A random grid, larger than the clip, linear between centres and begun anywhere in a cell."""
    mask = (random.random([c + 3 for c in cells]) < keep).astype(np.float64)
    for axis, (n, c) in enumerate(zip(sizes, cells)):
        place = random.random() + 0.5 + np.arange(n) * c / n  # within 0.5 to c + 1.5
        low = place.astype(int)
        part = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        mask = mask.take(low, axis) * (1 - part) + mask.take(low + 1, axis) * part
    return mask


def _starts(size: int, window: int, stride: int) -> list[int]:
    """The last window ends with the axis, so that every voxel is covered."""
    return sorted({*range(0, size - window, stride), size - window})


def _prefixes(players: int, orders: int, seed: int) -> Bool[np.ndarray, "n players"]:
    """Who is in after each step of each order, nobody first; every second order is the one before, backwards."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(orders):
        order = rows[-1][::-1] if i % 2 else random.permutation(players)
        rows.append(order)
    place = np.argsort(np.stack(rows), 1)
    return (place[:, None, :] < np.arange(players + 1)[:, None]).reshape(-1, players)


def _over_orders(scores: np.ndarray, games: np.ndarray, players: int) -> np.ndarray:
    """The mean of what each player added, `(players, b)`."""
    games = games.reshape(-1, players + 1, players)
    rises = np.diff(scores.reshape(len(games), players + 1, -1), axis=1)
    who = np.diff(games.astype(np.int8), axis=1).argmax(-1)
    owned = np.zeros((players, scores.shape[-1]))
    np.add.at(owned, who.ravel(), rises.reshape(-1, scores.shape[-1]))
    return owned / len(games)


def _exact(scores: np.ndarray, players: int) -> np.ndarray:
    """The definition: over all subsets without a player, what the player adds, `(players, b)`."""
    games = subsets(players)
    sizes = games.sum(1)
    weights = np.array([1 / (players * math.comb(players - 1, s)) for s in range(players)])
    owned = []
    for player in range(players):
        without = np.flatnonzero(~games[:, player])
        owned.append(weights[sizes[without]] @ (scores[without + (1 << player)] - scores[without]))
    return np.stack(owned)


def _like(values: np.ndarray, video: Array) -> np.ndarray:
    return values.astype(np.float64 if video.dtype == jnp.float64 else np.float32)


@partial(jax.jit, static_argnames="window")
def _without(
    scored: Scored, video: Array, start: Array, corner: Array, total: Array, count: Array, window: tuple[int, int, int]
) -> tuple[Array, Array]:
    """Sums over windows so far: of each voxel the scores without it, and how many these are."""
    t, h, w = ((jnp.arange(m) >= c) & (jnp.arange(m) < c + n) for m, c, n in zip(video.shape[1:4], corner, window))
    inside = t[:, None, None] & h[None, :, None] & w[None, None, :]
    left = scored.score(jnp.where(inside[None, ..., None], start, video))
    one = inside.astype(video.dtype)
    return total + left[:, None, None, None] * one[None], count + one


@jax.jit
def _faded(scored: Scored, video: Array, start: Array, mask: Array) -> Array:
    return scored.score(start + (video - start) * mask[None, ..., None])


@partial(jax.jit, static_argnames="hold")
def _played(scored: Scored, video: Array, start: Array, keep: Array, hold: bool) -> Array:
    """The scores `(b,)` of clips in which only what `keep` says is left."""
    if not hold:
        return scored.score(jnp.where(keep[None, ..., None], video, start))
    frames = jnp.arange(video.shape[1])
    last = jax.lax.cummax(jnp.where(keep[:, 0, 0], frames, -1))
    first = jnp.argmax(keep[:, 0, 0])  # before the first that is in: that one
    shown = video[:, jnp.where(last < 0, first, last)]
    return scored.score(jnp.where(keep.any(), shown, start))
