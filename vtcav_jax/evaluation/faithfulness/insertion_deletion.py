"""Insertion and deletion curves: the score as cells are inserted or removed in the order of a map.

Removing the least relevant cells first leaves the same clips as inserting the most relevant first, so that one order
yields both curves, from which all metrics here are computed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.evaluation.faithfulness.masked_inference import MaskedClips, score_masked
from vtcav_jax.evaluation.faithfulness.partition import NamedMaps, name_maps, pool_to_cells, rank_cells

REMOVAL_LEVELS = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares of cells that single removals remove (DeYoung et al., 2020)
_EDGE_FRACTIONS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)
# 33 points, denser at both ends
CURVE_FRACTIONS = (
    *_EDGE_FRACTIONS,
    *np.linspace(0.2, 0.8, 13).round(2).tolist(),
    *(1 - f for f in reversed(_EDGE_FRACTIONS)),
)

PerMapAndClip = Float[np.ndarray, "m b"]


@dataclass(frozen=True, eq=False)
class RemovalCurves:
    """Scores and probabilities with only the first `counts` cells of each order (shown), and without them (removed).

    `cost` are the forward passes per clip and map, without the two of `prepare_masking`.
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
    def insertion(self) -> PerMapAndClip:
        """Area under the probability as cells are inserted: high if important cells come early."""
        return self._area(self.shown_probability)

    @property
    def deletion(self) -> PerMapAndClip:
        """Area under the probability as cells are removed: low if important cells come early."""
        return self._area(self.removed_probability)

    @property
    def insertion_less_deletion(self) -> PerMapAndClip:
        return self.insertion - self.deletion

    @property
    def insertion_of_rise(self) -> PerMapAndClip:
        """Insertion relative to the rise from background to whole clip; NaN where the probability does not rise."""
        low, high = self.shown_probability[..., 0], self.shown_probability[..., -1]
        return _safe_ratio(self.insertion - low, high - low)

    @property
    def relevance_gain(self) -> PerMapAndClip:
        """Symmetric relevance gain (Bluecher et al., 2024): mean score, least minus most relevant first.

        Effects of the infill that do not depend on the removed cells cancel.
        """
        return self._mean(self.shown_score[..., ::-1] - self.removed_score)

    @property
    def flipping(self) -> PerMapAndClip:
        """Mean score over all removals, most relevant first (pixel flipping, Bach et al., 2015)."""
        return self._mean(self.removed_score)

    @property
    def aopc(self) -> PerMapAndClip:
        """Mean drop of the score over all removals (Samek et al., 2017)."""
        return self._mean(self.removed_score[..., :1] - self.removed_score)

    def minimal_shown(self, level: float = 0.9) -> PerMapAndClip:
        """Return the smallest share of cells with which the probability is `level` of that of the clip."""
        return self._first(self.shown_probability >= level * self.shown_probability[..., -1:])

    def minimal_removed(self, level: float = 0.9) -> PerMapAndClip:
        """Return the smallest share of cells whose removal loses `level` of the probability; NaN if none does."""
        return self._first(self.removed_probability <= (1 - level) * self.removed_probability[..., :1])

    def column(self, share: float) -> int:
        """Return the index of the point at `share` of the cells, at least one."""
        count = cells_for_share(share, int(self.counts[-1]))
        if count not in self.counts:
            raise ValueError(f"the curves have no point at {count} cells ({share:.0%}); add it to the fractions")
        return int(np.flatnonzero(self.counts == count)[0])

    def _area(self, values: Float[np.ndarray, "m b g"]) -> PerMapAndClip:
        return np.trapezoid(values, self.fractions, axis=-1).astype(np.float32)

    def _mean(self, values: Float[np.ndarray, "m b g"]) -> PerMapAndClip:
        """Return the mean over all numbers of cells from none to all, interpolated linearly."""
        every = np.arange(self.counts[-1] + 1)
        weights = np.array([np.interp(every, self.counts, unit).mean() for unit in np.eye(len(self.counts))])
        return (values @ weights).astype(np.float32)

    def _first(self, reached: np.ndarray) -> PerMapAndClip:
        share = self.fractions[reached.argmax(-1)]
        return np.where(reached.any(-1), share, np.nan).astype(np.float32)


def normalise_to_oracle(value: PerMapAndClip, chance: PerMapAndClip, oracle: PerMapAndClip) -> PerMapAndClip:
    """Scale an area to 0 for the random map and 1 for the oracle; NaN where the oracle is not better."""
    return _safe_ratio(value - chance, oracle - chance)


def cells_for_share(share: float, n_cells: int) -> int:
    return max(round(share * n_cells), 1)


def curve_points(n_cells: int, fractions: tuple[float, ...] = CURVE_FRACTIONS) -> Int[np.ndarray, " g"]:
    """Return the numbers of cells at which curves are measured: none, all, and `fractions` from both ends."""
    counts = {
        0,
        *(cells_for_share(level, n_cells) for level in REMOVAL_LEVELS),
        *(round(f * n_cells) for f in fractions),
    }
    return np.array(sorted(counts | {n_cells - k for k in counts}))


def measure_curves(
    masked: MaskedClips, maps: NamedMaps, *, fractions: tuple[float, ...] = CURVE_FRACTIONS
) -> RemovalCurves:
    """Measure the curves of all maps and clips, in shared batches."""
    if not all(0 <= f <= 1 for f in fractions):
        raise ValueError(f"expected fractions of the cells, 0 to 1, got {fractions}")
    values = pool_to_cells(maps, masked.partition, masked.n_clips)
    m, b, n = values.shape
    place = rank_cells(values, np.asarray(masked.context.video), masked.seed)
    counts = curve_points(n, fractions)
    inner = counts[1:-1]
    map_index, clip_index, point_index, is_removed = (axis.ravel() for axis in np.indices((m, b, len(inner), 2)))

    def keep(rows: slice) -> np.ndarray:
        first = place[map_index[rows], clip_index[rows]] < inner[point_index[rows], None]
        return first != is_removed[rows, None].astype(bool)

    scores = score_masked(masked, clip_index, keep)

    def curve(series: np.ndarray, away: int, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        middle = series.reshape(m, b, len(inner), 2)[..., away]
        ends = (np.broadcast_to(end[:, None], (m, b, 1)) for end in (first, last))
        before, after = ends
        return np.concatenate([before, middle, after], -1)

    whole, empty = masked.full_scores, masked.empty_scores
    return RemovalCurves(
        tuple(name_maps(maps)),
        counts,
        curve(scores.score, 0, empty.score, whole.score),
        curve(scores.probability, 0, empty.probability, whole.probability),
        curve(scores.score, 1, whole.score, empty.score),
        curve(scores.probability, 1, whole.probability, empty.probability),
    )


def _safe_ratio(part: PerMapAndClip, whole: PerMapAndClip) -> PerMapAndClip:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan).astype(np.float32)
