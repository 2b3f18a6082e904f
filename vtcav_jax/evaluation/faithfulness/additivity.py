"""Does the sum of a map over what is removed foretell by how much the score falls?

What is removed is drawn without a look at any map, so that all maps share the passes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.sanity_checks import pearson, spearman
from vtcav_jax.evaluation.faithfulness.insertion_deletion import Each
from vtcav_jax.evaluation.faithfulness.masked_inference import Shown, answers, changed
from vtcav_jax.evaluation.faithfulness.partition import Cells, Maps, named, on_cells, pooled
from vtcav_jax.evaluation.trivial_maps import clip_seeds

MU_SUBSETS, MU_SHARE = 200, 0.2
N_SUBSETS, N_SIZES, N_LARGEST = 100, 6, 0.8
DRAWS = 200  # of infidelity
MU_STREAM, N_STREAM, CUBOID_STREAM, NOISE_STREAM = range(1 << 17, (1 << 17) + 4)  # of the seeds

Sums = Float[np.ndarray, "m b k"]
Removed = Bool[np.ndarray, "k cells"]


def mu_fidelity(shown: Shown, maps: Maps, *, subsets: int = MU_SUBSETS, share: float = MU_SHARE) -> Each:
    """Over random sets of a fixed share of the cells: the rank correlation of the map's sum with the score's fall.

    Bhatt et al. (2020), with ranks as in xplique. `subsets` passes of each clip for all maps together.
    """
    n = shown.cells.count
    size = _size(share * n, n)
    sums, falls = _removals(shown, maps, MU_STREAM, lambda random: _subsets(random, subsets, size, n))
    return _told(sums, falls, spearman)


@dataclass(frozen=True, eq=False)
class SensitivityN:
    """For each size of the sets the correlation of sums and falls (Ancona et al., 2018); 1 if the map is additive."""

    names: tuple[str, ...]
    sizes: Int[np.ndarray, " sizes"]
    correlation: Float[np.ndarray, "m b sizes"]

    @property
    def mean(self) -> Each:
        """Over the sizes at which it can be told."""
        known = np.isfinite(self.correlation)
        total = np.where(known, self.correlation, 0).sum(-1)
        return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan).astype(np.float32)


def sizes_of_subsets(cells: int, sizes: int = N_SIZES) -> Int[np.ndarray, " sizes"]:
    """From one cell to most of them, in equal ratios."""
    return np.unique(np.geomspace(1, max(N_LARGEST * cells, 1), sizes).round().astype(int))


def sensitivity_n(shown: Shown, maps: Maps, *, subsets: int = N_SUBSETS, sizes: int = N_SIZES) -> SensitivityN:
    """Over random sets, not the top cells of a map; `subsets` passes of each clip and size for all maps together."""
    n = shown.cells.count
    some = sizes_of_subsets(n, sizes)
    sums, falls = _removals(
        shown, maps, N_STREAM, lambda random: np.concatenate([_subsets(random, subsets, k, n) for k in some.tolist()])
    )
    parts = [slice(i * subsets, (i + 1) * subsets) for i in range(len(some))]
    found = np.stack([_told(sums[..., part], falls[:, part], pearson) for part in parts], -1)
    return SensitivityN(tuple(named(maps)), some, found)


@dataclass(frozen=True, eq=False)
class Infidelity:
    """The mean square of what the map, times `scale`, misses of the score's falls (Yeh et al., 2019).

    `scale` is the best one that is not below 0: a map that says the opposite must not pass for a good one.
    `explained` is the share of the falls' mean square that is not missed: 1 at best, 0 for what tells nothing.
    """

    names: tuple[str, ...]
    scale: Each
    missed: Each
    explained: Each


def infidelity(shown: Shown, maps: Maps, *, draws: int = DRAWS) -> Infidelity:
    """When random cuboids of cells are removed. `draws` passes of each clip for all maps together."""
    counts = shown.cells.counts
    if counts is None:
        raise ValueError(
            "cuboids are made of the cells of a grid; these cells are none, use a grid or infidelity_noise"
        )
    sums, falls = _removals(shown, maps, CUBOID_STREAM, lambda random: _cuboids(random, draws, counts))
    return of_sums(tuple(named(maps)), sums, falls)


def infidelity_noise(shown: Shown, maps: Maps, *, draws: int = DRAWS, size: float = 0.2) -> Infidelity:
    """When noise, the same of every colour, is taken from the clip; `size` in standard deviations of the clip.

    For maps that are gradients: the map's share of a fall is its product with the noise.
    """
    video = np.asarray(shown.what.video)
    b, *sizes = video.shape[:4]
    scale = size * video.std((1, 2, 3, 4), dtype=np.float32)
    seeds = [seed.spawn(draws) for seed in clip_seeds(video, shown.seed, NOISE_STREAM)]
    clip, draw = (axis.ravel() for axis in np.indices((b, draws)))

    def noise(i: int, j: int) -> np.ndarray:
        return scale[i] * np.random.default_rng(seeds[i][j]).standard_normal(sizes, np.float32)

    found = changed(
        shown, clip, lambda rows: np.stack([noise(i, j) for i, j in zip(clip[rows].tolist(), draw[rows].tolist())])
    )
    falls = shown.whole.score[:, None] - found.score.reshape(b, draws)
    values, volumes = on_cells(maps, shown.cells, b).astype(np.float64), shown.cells.volumes
    sums = np.empty((len(values), b, draws))
    for i in range(b):
        means = np.concatenate([pooled(noise(i, j)[None], _of_clip(shown, i)) for j in range(draws)])
        sums[:, i] = values[:, i] @ (means * volumes[i % len(volumes)]).T
    return of_sums(tuple(named(maps)), sums, falls)


def of_sums(names: tuple[str, ...], sums: Sums, falls: Float[np.ndarray, "b k"]) -> Infidelity:
    """What maps' sums over the removals say of the falls."""
    sums, falls = sums.astype(np.float64), falls.astype(np.float64)[None]
    square = (sums**2).mean(-1)
    scale = np.maximum((sums * falls).mean(-1), 0) / np.where(square > 0, square, 1)
    missed = ((scale[..., None] * sums - falls) ** 2).mean(-1)
    whole = np.broadcast_to((falls**2).mean(-1), missed.shape)
    explained = np.where(whole > 0, 1 - missed / np.where(whole > 0, whole, 1), np.nan)
    return Infidelity(names, *(values.astype(np.float32) for values in (scale, missed, explained)))


def completeness(one: Attribution) -> Float[np.ndarray, " b"]:
    """For maps that owe a sum: what is missing of it or too much, as a share of what is owed. It takes no pass."""
    if one.completeness_gap is None:
        raise ValueError(f"{one.method} owes no sum; completeness is told of maps with a residual")
    owed = one.map.sum((1, 2, 3), dtype=np.float64) + one.completeness_gap
    return np.where(owed != 0, np.abs(one.completeness_gap) / np.where(owed != 0, np.abs(owed), 1), np.nan).astype(
        np.float32
    )


def _size(wanted: float, cells: int) -> int:
    return min(max(round(wanted), 1), cells - 1)


def _subsets(random: np.random.Generator, subsets: int, size: int, cells: int) -> Removed:
    return random.random((subsets, cells), np.float32).argsort(1).argsort(1) < size


def _cuboids(random: np.random.Generator, draws: int, counts: tuple[int, int, int]) -> Removed:
    """Of one cell to half the clip along each axis, anywhere."""
    inside = np.ones((draws, *counts), bool)
    for axis, n in enumerate(counts, start=1):
        side = random.integers(1, max(n // 2, 1), draws, endpoint=True)
        first = random.integers(0, n - side, endpoint=True)
        place = np.arange(n)[None]
        along = (place >= first[:, None]) & (place < (first + side)[:, None])
        inside &= along.reshape(draws, *(n if a == axis else 1 for a in (1, 2, 3)))
    return inside.reshape(draws, -1)


def _removals(
    shown: Shown, maps: Maps, stream: int, drawn: Callable[[np.random.Generator], Removed]
) -> tuple[Sums, Float[np.ndarray, "b k"]]:
    """For what is drawn for each clip: every map's sum over it, and how much lower the score is without it."""
    values, b = on_cells(maps, shown.cells, shown.clips).astype(np.float64), shown.clips
    seeds = clip_seeds(np.asarray(shown.what.video), shown.seed, stream)
    removed = np.stack([drawn(np.random.default_rng(seed)) for seed in seeds])
    k, volumes = removed.shape[1], shown.cells.volumes
    sums = np.stack([(values[:, i] * volumes[i % len(volumes)]) @ removed[i].T for i in range(b)], 1)
    flat = removed.reshape(b * k, -1)
    found = answers(shown, np.repeat(np.arange(b), k), lambda rows: ~flat[rows])
    return sums, shown.whole.score[:, None] - found.score.reshape(b, k)


def _of_clip(shown: Shown, i: int) -> Cells:
    cells = shown.cells
    return cells if len(cells.numbers) == 1 else Cells(cells.numbers[i : i + 1], cells.counts)


def _told(sums: Sums, falls: Float[np.ndarray, "b k"], by: Callable[..., np.ndarray]) -> Each:
    """The correlation of each map and clip: 0 of a map that is the same everywhere, NaN where the score never falls."""
    m, b, k = sums.shape
    spread = np.ptp(sums, axis=-1)
    flat = spread <= 1e-9 * np.abs(sums).max(-1)
    told = by(sums.reshape(m * b, k, 1, 1), np.tile(falls, (m, 1)).reshape(m * b, k, 1, 1)).reshape(m, b)
    return np.where(flat & (np.ptp(falls, axis=-1) > 0)[None], 0, told).astype(np.float32)
