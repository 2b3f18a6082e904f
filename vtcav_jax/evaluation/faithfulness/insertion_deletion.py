"""How the answer changes while cells are removed, or shown, one after the other in the order of a map.

Cells in which the least relevant goes first are what is left after the most relevant were shown: one order, two curves,
and all of the metrics here come from them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.evaluation.faithfulness.masked_inference import Shown, answers
from vtcav_jax.evaluation.faithfulness.partition import Maps, named, on_cells, ranks

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the clip: what is removed at one stroke (DeYoung et al., 2020)
_ENDS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)
# 33 of them, denser where few cells are left or gone
FRACTIONS = (*_ENDS, *np.linspace(0.2, 0.8, 13).round(2).tolist(), *(1 - f for f in reversed(_ENDS)))

Each = Float[np.ndarray, "m b"]


@dataclass(frozen=True, eq=False)
class Curves:
    """Answers to the first `counts` cells of each order alone (shown), and to all others (removed).

    `cost` are the passes of each clip for each map, without the two that `showing` takes.
    """

    names: tuple[str, ...]
    counts: Int[np.ndarray, " g"]
    shown_score: Float[np.ndarray, "m b g"]
    shown_probability: Float[np.ndarray, "m b g"]
    removed_score: Float[np.ndarray, "m b g"]
    removed_probability: Float[np.ndarray, "m b g"]

    @property
    def cost(self) -> int:
        return 2 * (len(self.counts) - 2)

    @property
    def fractions(self) -> Float[np.ndarray, " g"]:
        return self.counts / self.counts[-1]

    @property
    def insertion(self) -> Each:
        """The area under the probability as cells are shown: the higher, the earlier what counts is there."""
        return self._area(self.shown_probability)

    @property
    def deletion(self) -> Each:
        """The area under the probability as cells are removed: the lower, the earlier what counts is gone."""
        return self._area(self.removed_probability)

    @property
    def insertion_less_deletion(self) -> Each:
        return self.insertion - self.deletion

    @property
    def insertion_of_rise(self) -> Each:
        """The area in units of the rise from nothing to the whole clip; NaN where the probability does not rise."""
        low, high = self.shown_probability[..., 0], self.shown_probability[..., -1]
        return _share(self.insertion - low, high - low)

    @property
    def relevance_gain(self) -> Each:
        """Symmetric relevance gain (Bluecher et al., 2024): least relevant first less most relevant first, in score.

        What a fill does to a network, whatever is removed, is in both and drops out.
        """
        return self._mean(self.shown_score[..., ::-1] - self.removed_score)

    @property
    def flipping(self) -> Each:
        """The mean score over all removals, most relevant first (pixel flipping, Bach et al., 2015)."""
        return self._mean(self.removed_score)

    @property
    def aopc(self) -> Each:
        """The mean fall of the score over all removals (Samek et al., 2017)."""
        return self._mean(self.removed_score[..., :1] - self.removed_score)

    def minimal_shown(self, level: float = 0.9) -> Each:
        """The smallest share of cells that has `level` of the clip's probability."""
        return self._first(self.shown_probability >= level * self.shown_probability[..., -1:])

    def minimal_removed(self, level: float = 0.9) -> Each:
        """The smallest share of cells without which `level` of the clip's probability is gone; NaN if never."""
        return self._first(self.removed_probability <= (1 - level) * self.removed_probability[..., :1])

    def column(self, share: float) -> int:
        """Where on the curves `share` of the cells, one at least, are shown or removed."""
        count = step(share, int(self.counts[-1]))
        if count not in self.counts:
            raise ValueError(f"the curves have no point at {count} cells ({share:.0%}); measure them there as well")
        return int(np.flatnonzero(self.counts == count)[0])

    def _area(self, values: Float[np.ndarray, "m b g"]) -> Each:
        return np.trapezoid(values, self.fractions, axis=-1).astype(np.float32)

    def _mean(self, values: Float[np.ndarray, "m b g"]) -> Each:
        """Over all numbers of cells from none to all, straight between those that were measured."""
        every = np.arange(self.counts[-1] + 1)
        weights = np.array([np.interp(every, self.counts, one).mean() for one in np.eye(len(self.counts))])
        return (values @ weights).astype(np.float32)

    def _first(self, reached: np.ndarray) -> Each:
        share = self.fractions[reached.argmax(-1)]
        return np.where(reached.any(-1), share, np.nan).astype(np.float32)


def between(value: Each, chance: Each, oracle: Each) -> Each:
    """An area where the random map's is 0 and the oracle's is 1; NaN where the oracle is no better."""
    return _share(value - chance, oracle - chance)


def step(share: float, cells: int) -> int:
    return max(round(share * cells), 1)


def points(cells: int, fractions: tuple[float, ...] = FRACTIONS) -> Int[np.ndarray, " g"]:
    """How many cells are shown or removed: none, all, and what else is asked for, from either end."""
    some = {0, *(step(level, cells) for level in LEVELS), *(round(f * cells) for f in fractions)}
    return np.array(sorted(some | {cells - k for k in some}))


def curves(shown: Shown, maps: Maps, *, fractions: tuple[float, ...] = FRACTIONS) -> Curves:
    """Of every map and clip, all in the same batches."""
    if not all(0 <= f <= 1 for f in fractions):
        raise ValueError(f"expected fractions of the cells, 0 to 1, got {fractions}")
    values = on_cells(maps, shown.cells, shown.clips)
    m, b, n = values.shape
    place = ranks(values, np.asarray(shown.what.video), shown.seed)
    counts = points(n, fractions)
    inner = counts[1:-1]
    one, clip, which, away = (axis.ravel() for axis in np.indices((m, b, len(inner), 2)))

    def keep(rows: slice) -> np.ndarray:
        first = place[one[rows], clip[rows]] < inner[which[rows], None]
        return first != away[rows, None].astype(bool)

    found = answers(shown, clip, keep)

    def curve(found: np.ndarray, away: int, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        middle = found.reshape(m, b, len(inner), 2)[..., away]
        ends = (np.broadcast_to(end[:, None], (m, b, 1)) for end in (first, last))
        before, after = ends
        return np.concatenate([before, middle, after], -1)

    whole, empty = shown.whole, shown.empty
    return Curves(
        tuple(named(maps)),
        counts,
        curve(found.score, 0, empty.score, whole.score),
        curve(found.probability, 0, empty.probability, whole.probability),
        curve(found.score, 1, whole.score, empty.score),
        curve(found.probability, 1, whole.probability, empty.probability),
    )


def _share(part: Each, whole: Each) -> Each:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan).astype(np.float32)
