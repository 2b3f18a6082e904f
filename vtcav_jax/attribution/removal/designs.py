"""Designs: which segments are removed together, and the linear map from the scores to a value of each segment.

The linear map is the same for all clips, classes and targets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

N_GROUPS = 20  # independent groups of random masks; leaving out one at a time gives the standard errors
MAX_DESIGN_SIZE = 1 << 28  # masks times players; their matrices must fit in memory
MASKS_PER_PLAYER = 3  # at least, so that a regression without one of the groups is still determined

Coalitions = Bool[np.ndarray, "n players"]
Used = Bool[np.ndarray, " n"]
Solution = Float[np.ndarray, "players n"]


@dataclass(frozen=True, eq=False)
class Design:
    """Coalitions of players (segments) that remain, and `solve`, which returns the linear map from their scores.

    `solve(used)` returns the map that uses only the masks in `used`. `groups` are the independent groups of random
    masks, -1 for masks that are not random; None if no mask is. The values of a `complete` design sum to the score of
    all players minus that of none.
    """

    keep: Coalitions
    solve: Callable[[Used], Solution]
    groups: Int[np.ndarray, " n"] | None = None
    complete: bool = False

    @property
    def distinct(self) -> tuple[Bool[np.ndarray, "k players"], Int[np.ndarray, " n"]]:
        """The coalitions without repetitions, and the index of each of `keep` in them."""
        _, first, inverse = np.unique(np.packbits(self.keep, 1), axis=0, return_index=True, return_inverse=True)
        return self.keep[first], inverse.ravel()


def leave_one_out(players: int) -> Design:
    """Return the design of LOCO: the score of all players minus the score without one."""
    solution = np.hstack([np.ones((players, 1)), -np.eye(players)])
    return Design(np.vstack([np.ones((1, players), bool), ~np.eye(players, dtype=bool)]), lambda used: solution)


def one_at_a_time(players: int) -> Design:
    """Return the design of univariate predictors: the score of one player alone minus the score of none."""
    solution = np.hstack([-np.ones((players, 1)), np.eye(players)])
    return Design(np.vstack([np.zeros((1, players), bool), np.eye(players, dtype=bool)]), lambda used: solution)


def windows(removed: Bool[np.ndarray, "windows players"]) -> Design:
    """Return the design of occlusion: each player's mean score drop over the windows that remove it."""
    share = (removed / removed.sum(0)).T
    solution = np.hstack([share.sum(1, keepdims=True), -share])
    return Design(np.vstack([np.ones((1, removed.shape[1]), bool), ~removed]), lambda used: solution)


def all_coalitions(players: int) -> Coalitions:
    """Return all subsets of players: row s has player i if bit i of s is 1."""
    return (np.arange(1 << players)[:, None] >> np.arange(players) & 1).astype(bool)


def exact_shapley(players: int) -> Design:
    """Return the design of exact Shapley values: each player's weighted mean contribution to all subsets without it."""
    keep = all_coalitions(players)
    size = keep.sum(1)
    weight = np.array([1 / (players * math.comb(players - 1, s)) for s in range(players)] + [0.0])
    solution = np.where(keep, weight[size - 1][:, None], -weight[size][:, None]).T
    return Design(keep, lambda used: solution, complete=True)


def sampled_shapley(players: int, orders: int, seed: int) -> Design:
    """Return the design of each player's mean gain when it joins the earlier ones of an order.

    Orders are random, each followed by its reversal. The sets of players grow one by one, so that each order has one
    set of every size, and each set is compared with the one it grew from. Price and Damen compare the mean over sets
    with a player to that over other sets without it; with a few sets per size, that difference is mostly noise.
    """
    random = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    for i in range(orders):
        rows.append(rows[-1][::-1] if i % 2 else random.permutation(players))
    place = np.argsort(np.stack(rows), 1)
    keep = place[:, None, :] < np.arange(players + 1)[:, None]  # after each step of each order
    before = np.arange(orders)[:, None] * (players + 1) + place  # the set that a player joins
    group_of_order = np.arange(orders) // 2 % N_GROUPS

    def solve(used: Used) -> Solution:
        is_used = used.reshape(orders, -1)[:, 1]
        solution, player = np.zeros((players, len(used))), np.broadcast_to(np.arange(players), before.shape)[is_used]
        solution[player, before[is_used] + 1] = 1 / is_used.sum()
        solution[player, before[is_used]] = -1 / is_used.sum()
        return solution

    groups = np.repeat(group_of_order[:, None], players + 1, 1)
    groups[:, [0, -1]] = -1  # all players, and none
    return Design(keep.reshape(-1, players), solve, groups.ravel(), complete=True)


def kernel_shap(players: int, masks: int, seed: int) -> Design:
    """Return the design of KernelSHAP, a weighted regression on coalitions that sums to the whole score difference.

    All coalitions, if `masks` suffice; else coalitions drawn by the Shapley kernel, each with its complement.
    """
    if players < 2:
        raise ValueError("kernel_shap needs at least 2 segments, got 1; use more cells, or a larger budget")
    size = np.arange(1, players)
    if 1 << players <= masks:
        keep = all_coalitions(players)
        kernel = (players - 1) / np.array([math.comb(players, s) * s * (players - s) for s in range(1, players)])
        weights, groups = np.r_[0, kernel, 0][keep.sum(1)], None
    else:
        pairs, random = _check_pairs(players, masks), np.random.default_rng(seed)
        cumulative = np.cumsum(1 / (size * (players - size)))
        # Evenly spaced quantiles of the sizes instead of independent draws, for a lower variance
        quantiles = (np.arange(pairs) + random.random()) / pairs
        coalition_sizes = size[np.searchsorted(cumulative / cumulative[-1], quantiles)]
        half = random.random((pairs, players)).argsort(1).argsort(1) < coalition_sizes[:, None]
        keep, groups = _with_ends_and_complements(half)
        weights = np.where(groups < 0, 0.0, 1.0)
    full, empty = (int(np.flatnonzero(rows)[0]) for rows in (keep.all(1), ~keep.any(1)))
    coalition, rise = keep.astype(np.float64), np.zeros(len(keep))
    rise[full], rise[empty] = 1, -1

    def solve(used: Used) -> Solution:
        weighted = coalition.T * (weights * used)
        inverse = np.linalg.pinv(weighted @ coalition, hermitian=True)  # few masks may not separate two players
        free = inverse @ weighted  # of score - score of the empty coalition, before the constraint
        free[:, empty] -= free.sum(1)
        return free + np.outer(inverse.sum(1) / inverse.sum(), rise - free.sum(0))

    return Design(keep, solve, groups, complete=True)


def lime(players: int, masks: int, width: float, ridge: float, seed: int) -> Design:
    """Return the design of LIME: a ridge regression with intercept, weighted by the similarity to the whole clip."""
    pairs = _check_pairs(players, masks)
    keep, groups = _with_ends_and_complements(np.random.default_rng(seed).random((pairs, players)) < 0.5)
    coalition = keep.astype(np.float64)
    distance = 1 - np.sqrt(coalition.mean(1))  # of the cosine between the coalition and all players
    weights = np.sqrt(np.exp(-(distance**2) / width**2))

    def solve(used: Used) -> Solution:
        w = weights * used
        centred = coalition - w @ coalition / w.sum()
        return np.linalg.solve(centred.T * w @ centred + ridge * np.eye(players), centred.T * w)

    return Design(keep, solve, groups)


def _check_pairs(players: int, masks: int) -> int:
    """Return the number of pairs among `masks` masks that also include all players and none."""
    if masks < max(MASKS_PER_PLAYER * players, 4):
        raise ValueError(
            f"{players} segments need at least {max(MASKS_PER_PLAYER * players, 4)} masks, got {masks}; use more masks"
            " or fewer segments"
        )
    return (masks - 2) // 2


def _with_ends_and_complements(
    half: Bool[np.ndarray, "pairs players"],
) -> tuple[Coalitions, Int[np.ndarray, " n"]]:
    """Return all players, none, and each coalition followed by its complement; and their groups."""
    pairs, players = half.shape
    keep = np.stack([half, ~half], 1).reshape(-1, players)
    ends = np.repeat([[True], [False]], players, 1)
    return np.concatenate([ends, keep]), np.r_[-1, -1, np.repeat(np.arange(pairs) % N_GROUPS, 2)]
