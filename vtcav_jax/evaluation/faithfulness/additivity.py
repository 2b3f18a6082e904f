"""Metrics that compare the sum of a map over removed cells with the drop of the score.

Removals are drawn independently of the maps, so that all maps share forward passes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.sanity_checks import pearson, spearman
from vtcav_jax.evaluation.faithfulness.insertion_deletion import PerMapAndClip
from vtcav_jax.evaluation.faithfulness.masked_inference import MaskedClips, score_masked, subtract
from vtcav_jax.evaluation.faithfulness.partition import NamedMaps, Partition, cell_means, name_maps, pool_to_cells
from vtcav_jax.evaluation.trivial_maps import clip_seeds

MU_SUBSETS, MU_SHARE = 200, 0.2
N_SUBSETS, N_SIZES, N_MAX_SHARE = 100, 6, 0.8
INFIDELITY_DRAWS = 200
MU_STREAM, N_STREAM, CUBOID_STREAM, INFIDELITY_NOISE_STREAM = range(1 << 17, (1 << 17) + 4)  # seed streams

MapSums = Float[np.ndarray, "m b k"]
RemovedCells = Bool[np.ndarray, "k cells"]


def mu_fidelity(
    masked: MaskedClips, maps: NamedMaps, *, subsets: int = MU_SUBSETS, share: float = MU_SHARE
) -> PerMapAndClip:
    """Return the rank correlation of the map's sum with the drop of the score, over random sets of cells of one size.

    Bhatt et al. (2020), with ranks as in xplique. Takes `subsets` passes per clip for all maps together.
    """
    n = masked.partition.n_cells
    size = _subset_size(share * n, n)
    sums, falls = _sums_and_drops(masked, maps, MU_STREAM, lambda random: _draw_subsets(random, subsets, size, n))
    return _correlate_sums(sums, falls, spearman)


@dataclass(frozen=True, eq=False)
class SensitivityN:
    """Correlation of sums and drops for each size of the removed sets (Ancona et al., 2018); 1 if additive."""

    names: tuple[str, ...]
    sizes: Int[np.ndarray, " sizes"]
    correlation: Float[np.ndarray, "m b sizes"]

    @property
    def mean(self) -> PerMapAndClip:
        """Mean over the sizes at which the correlation is defined."""
        known = np.isfinite(self.correlation)
        total = np.where(known, self.correlation, 0).sum(-1)
        return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan).astype(np.float32)


def subset_sizes(n_cells: int, n_sizes: int = N_SIZES) -> Int[np.ndarray, " sizes"]:
    """Return sizes from one cell to `N_MAX_SHARE` of the cells, in geometric progression."""
    return np.unique(np.geomspace(1, max(N_MAX_SHARE * n_cells, 1), n_sizes).round().astype(int))


def sensitivity_n(
    masked: MaskedClips, maps: NamedMaps, *, subsets: int = N_SUBSETS, sizes: int = N_SIZES
) -> SensitivityN:
    """Compute sensitivity-n over random sets; takes `subsets` passes per clip and size for all maps together."""
    n = masked.partition.n_cells
    set_sizes = subset_sizes(n, sizes)
    sums, falls = _sums_and_drops(
        masked,
        maps,
        N_STREAM,
        lambda random: np.concatenate([_draw_subsets(random, subsets, k, n) for k in set_sizes.tolist()]),
    )
    parts = [slice(i * subsets, (i + 1) * subsets) for i in range(len(set_sizes))]
    correlations = np.stack([_correlate_sums(sums[..., part], falls[:, part], pearson) for part in parts], -1)
    return SensitivityN(tuple(name_maps(maps)), set_sizes, correlations)


@dataclass(frozen=True, eq=False)
class Infidelity:
    """Mean squared error of the map's sums, times `scale`, as predictions of the drops of the score (Yeh et al., 2019).

    `scale` is the best factor of at least 0, so that an inverted map does not score well. `explained_share` is 1 minus
    the error over the drops' mean square: 1 at best, 0 for an uninformative map.
    """

    names: tuple[str, ...]
    scale: PerMapAndClip
    mean_square_error: PerMapAndClip
    explained_share: PerMapAndClip


def infidelity(masked: MaskedClips, maps: NamedMaps, *, draws: int = INFIDELITY_DRAWS) -> Infidelity:
    """Compute infidelity for the removal of random cuboids; takes `draws` passes per clip for all maps together."""
    counts = masked.partition.grid_shape
    if counts is None:
        raise ValueError(
            "cuboids are made of the cells of a grid, and these cells form none; use a grid or infidelity_noise"
        )
    sums, falls = _sums_and_drops(masked, maps, CUBOID_STREAM, lambda random: _draw_cuboids(random, draws, counts))
    return infidelity_from_sums(tuple(name_maps(maps)), sums, falls)


def infidelity_noise(
    masked: MaskedClips, maps: NamedMaps, *, draws: int = INFIDELITY_DRAWS, size: float = 0.2
) -> Infidelity:
    """Compute infidelity for noise, equal in all colours, of `size` standard deviations of the clip.

    This suits gradients: their prediction of a drop is the product with the noise.
    """
    video = np.asarray(masked.context.video)
    b, *sizes = video.shape[:4]
    scale = size * video.std((1, 2, 3, 4), dtype=np.float32)
    seeds = [seed.spawn(draws) for seed in clip_seeds(video, masked.seed, INFIDELITY_NOISE_STREAM)]
    clip, draw = (axis.ravel() for axis in np.indices((b, draws)))

    def noise(i: int, j: int) -> np.ndarray:
        return scale[i] * np.random.default_rng(seeds[i][j]).standard_normal(sizes, np.float32)

    scores = subtract(
        masked, clip, lambda rows: np.stack([noise(i, j) for i, j in zip(clip[rows].tolist(), draw[rows].tolist())])
    )
    falls = masked.full_scores.score[:, None] - scores.score.reshape(b, draws)
    values, volumes = pool_to_cells(maps, masked.partition, b).astype(np.float64), masked.partition.volumes
    sums = np.empty((len(values), b, draws))
    for i in range(b):
        means = np.concatenate([cell_means(noise(i, j)[None], _partition_of_clip(masked, i)) for j in range(draws)])
        sums[:, i] = values[:, i] @ (means * volumes[i % len(volumes)]).T
    return infidelity_from_sums(tuple(name_maps(maps)), sums, falls)


def infidelity_from_sums(names: tuple[str, ...], sums: MapSums, falls: Float[np.ndarray, "b k"]) -> Infidelity:
    """Compute infidelity from the sums of maps and the drops of the score."""
    sums, falls = sums.astype(np.float64), falls.astype(np.float64)[None]
    square = (sums**2).mean(-1)
    scale = np.maximum((sums * falls).mean(-1), 0) / np.where(square > 0, square, 1)
    mean_square_error = ((scale[..., None] * sums - falls) ** 2).mean(-1)
    whole = np.broadcast_to((falls**2).mean(-1), mean_square_error.shape)
    explained_share = np.where(whole > 0, 1 - mean_square_error / np.where(whole > 0, whole, 1), np.nan)
    return Infidelity(names, *(values.astype(np.float32) for values in (scale, mean_square_error, explained_share)))


def completeness(attribution: Attribution) -> Float[np.ndarray, " b"]:
    """Return the completeness gap relative to the known sum of the map, without any forward pass."""
    if attribution.completeness_gap is None:
        raise ValueError(f"maps of {attribution.method} have no known sum; completeness needs a completeness_gap")
    owed = attribution.map.sum((1, 2, 3), dtype=np.float64) + attribution.completeness_gap
    return np.where(
        owed != 0, np.abs(attribution.completeness_gap) / np.where(owed != 0, np.abs(owed), 1), np.nan
    ).astype(np.float32)


def _subset_size(size: float, n_cells: int) -> int:
    return min(max(round(size), 1), n_cells - 1)


def _draw_subsets(random: np.random.Generator, subsets: int, size: int, n_cells: int) -> RemovedCells:
    return random.random((subsets, n_cells), np.float32).argsort(1).argsort(1) < size


def _draw_cuboids(random: np.random.Generator, draws: int, counts: tuple[int, int, int]) -> RemovedCells:
    """Draw cuboids at random places, with sides of one cell to half the clip."""
    inside = np.ones((draws, *counts), bool)
    for axis, n in enumerate(counts, start=1):
        side = random.integers(1, max(n // 2, 1), draws, endpoint=True)
        first = random.integers(0, n - side, endpoint=True)
        place = np.arange(n)[None]
        along = (place >= first[:, None]) & (place < (first + side)[:, None])
        inside &= along.reshape(draws, *(n if a == axis else 1 for a in (1, 2, 3)))
    return inside.reshape(draws, -1)


def _sums_and_drops(
    masked: MaskedClips, maps: NamedMaps, stream: int, draw_removed: Callable[[np.random.Generator], RemovedCells]
) -> tuple[MapSums, Float[np.ndarray, "b k"]]:
    """Return each map's sum over the drawn cells of each clip, and the drop of the score without them."""
    values, b = pool_to_cells(maps, masked.partition, masked.n_clips).astype(np.float64), masked.n_clips
    seeds = clip_seeds(np.asarray(masked.context.video), masked.seed, stream)
    removed = np.stack([draw_removed(np.random.default_rng(seed)) for seed in seeds])
    k, volumes = removed.shape[1], masked.partition.volumes
    sums = np.stack([(values[:, i] * volumes[i % len(volumes)]) @ removed[i].T for i in range(b)], 1)
    flat = removed.reshape(b * k, -1)
    scores = score_masked(masked, np.repeat(np.arange(b), k), lambda rows: ~flat[rows])
    return sums, masked.full_scores.score[:, None] - scores.score.reshape(b, k)


def _partition_of_clip(masked: MaskedClips, i: int) -> Partition:
    partition = masked.partition
    return partition if len(partition.cell_ids) == 1 else Partition(partition.cell_ids[i : i + 1], partition.grid_shape)


def _correlate_sums(
    sums: MapSums, falls: Float[np.ndarray, "b k"], correlate: Callable[..., np.ndarray]
) -> PerMapAndClip:
    """Return the correlation per map and clip: 0 for a constant map, NaN where all drops are equal."""
    m, b, k = sums.shape
    spread = np.ptp(sums, axis=-1)
    flat = spread <= 1e-9 * np.abs(sums).max(-1)
    correlations = correlate(sums.reshape(m * b, k, 1, 1), np.tile(falls, (m, 1)).reshape(m * b, k, 1, 1)).reshape(m, b)
    return np.where(flat & (np.ptp(falls, axis=-1) > 0)[None], 0, correlations).astype(np.float32)
