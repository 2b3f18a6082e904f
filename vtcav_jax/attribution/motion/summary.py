"""How much of a decision is motion, over the clips of each class: shares with intervals, and what they mean in words.

A network has its favourites among clips that it never saw the like of: frozen, every clip may look like "down" to it,
and then nothing seems to go of that class. So where clips of several classes are there, a class's score is how much
higher its margin is on its own clips than on the others, before and after: what is the same for all clips cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.motion.reliance import CHANGES, Evidence, Motion
from vtcav_jax.stats.intervals import RESAMPLES, mean

HIGH, LOW = 0.5, 0.25  # shares from which on a decision is called motion, and up to which it is not
FEWEST = 2  # clips of a class, and of the others, that are compared

Interval = tuple[float, float, float]
UNKNOWN: Interval = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ClassMotion:
    """Over the clips of one answer, or of all answers to a question (`answer` is empty), with bootstrap intervals.

    `order`, `still` and `backwards` are what goes of the score when clips are shuffled, frozen, reversed; `against` is
    `other clips` where the score is a margin less that of the clips of other classes, `no preference` where it is the
    margin itself. The others are means over clips.
    """

    target: str
    answer: str
    clips: int
    against: str
    order: float
    order_low: float
    order_high: float
    still: float
    still_low: float
    still_high: float
    backwards: float
    backwards_low: float
    backwards_high: float
    moving: float
    moving_low: float
    moving_high: float
    excess: float
    excess_low: float
    excess_high: float


def by_class(evidence: Sequence[Evidence], seed: int = 0) -> list[ClassMotion]:
    """First all clips of each question, then each answer."""
    out = []
    for target in dict.fromkeys(one.row.target for one in evidence):
        some = [one for one in evidence if one.row.target == target]
        told = [one.row.answer for one in some]
        answers = sorted({answer for answer in told if answer != target})
        usable = [a for a in answers if min(told.count(a), len(some) - told.count(a)) >= FEWEST and some[0].margins]
        draws = np.random.default_rng(seed).multinomial(len(some), [1 / len(some)] * len(some), RESAMPLES)
        weights = np.concatenate([np.ones((1, len(some))), draws])
        for answer in ("", *answers):
            own = np.array([answer in ("", t) for t in told])
            wanted = [a for a in usable if answer in ("", a)]
            if wanted:
                scores = [np.sum([_apart(some, name, a, weights) for a in wanted], 0) for name in ("score", *CHANGES)]
            else:
                scores = [_alone(some, name, own, weights) for name in ("score", *CHANGES)]
            shares = [_lost(scores[0], changed, int(own.sum())) for changed in scores[1:]]
            rows = [one.row for one, mine in zip(some, own) if mine]
            against = "other clips" if wanted else "no preference"
            flat = [value for share in (*shares, _mean(rows, "moving"), _mean(rows, "excess")) for value in share]
            out.append(ClassMotion(target, answer, len(rows), against, *flat))
    return out


def _apart(
    some: Sequence[Evidence], name: str, answer: str, weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    """The margin of a class on its clips less that on the others, times the share of its clips."""
    column = some[0].classes.index(answer)
    margin = np.array([one.margins[name][column] for one in some])
    own = np.array([one.row.answer == answer for one in some])
    with np.errstate(invalid="ignore"):  # a draw may have no clip of the class
        inside, outside = (weights @ (margin * side) / (weights @ side) for side in (own * 1.0, ~own * 1.0))
    return (inside - outside) * (weights @ own) / weights.sum(1)


def _alone(some: Sequence[Evidence], name: str, own: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, " draws"]:
    """The mean score over what nothing has."""
    values = np.array([getattr(one.row, name) - one.row.nothing for one in some])
    with np.errstate(invalid="ignore"):
        return weights @ (values * own) / (weights @ (own * 1.0))


def _lost(scores: Float[np.ndarray, " draws"], changed: Float[np.ndarray, " draws"], clips: int) -> Interval:
    """The first entry is of all clips once, the others are draws."""
    if not scores[0] > 0:  # nothing speaks for the class: there is nothing to have a share of
        return UNKNOWN
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = 1 - changed / scores
    if clips < 2:
        return float(shares[0]), math.nan, math.nan
    low, high = np.nanquantile(shares[1:], (0.025, 0.975))
    return float(shares[0]), float(low), float(high)


def _mean(rows: Sequence[Motion], name: str) -> Interval:
    return mean(np.array([getattr(row, name) for row in rows], np.float64))


def sentences(rows: Sequence[ClassMotion]) -> list[str]:
    """What can be said of each question, and of each answer to it."""
    return [" ".join(verdict(row)) for row in rows]


def verdict(row: ClassMotion) -> tuple[str, str]:
    """What it is called, and the numbers that this stands on."""
    what = row.answer or row.target
    clips = f"{row.clips} clip{'s' if row.clips > 1 else ''}"
    if math.isnan(row.order):
        return f"{what}: nothing can be said;", f"on the whole these {clips} do not speak for it."
    order = _part((row.order, row.order_low, row.order_high), "needs the order of the frames", "shuffled")
    still = _part((row.still, row.still_low, row.still_high), "more than a still clip", "frozen")
    return f"{what}: {_verdict(row)};", f"of its score over {clips}, {order} and {still}."


def _part(share: Interval, needs: str, changed: str) -> str:
    """A share below 0 is none, and a score that rises."""
    rises = share[0] < 0 and not share[2] >= 0
    value, low, high = (-share[0], -share[2], -share[1]) if rises else share
    told = f"{round(100 * value)} %"
    told += "" if math.isnan(low) else f" ({round(100 * low)} to {round(100 * high)} %)"
    return f"none {needs} (it is higher by {told} when {changed})" if rises else f"{told} {needs}"


def _verdict(row: ClassMotion) -> str:
    if math.isnan(row.order_low):
        return "one clip is too few for a verdict"
    if row.order_low >= HIGH:
        return "motion"
    if row.order_high > LOW:
        return "partly motion" if row.order_low > LOW else "not settled, the interval is too wide"
    if row.still_high <= LOW:
        return "look, not motion"
    if row.still_low >= HIGH:
        return "not motion, but what several moments show, in whatever order"
    return "not motion"
