"""Supervoxels: cells that follow edges, so that removal takes away (parts of) objects (IROF, Rieger and Hansen).

Simple linear iterative clustering (Achanta et al., 2012) with time as a third axis: k-means over colour and position,
in which a voxel can only join nearby centres. Cells need not be connected, and can move over time.
"""

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from vtcav_jax.evaluation.faithfulness.partition import Partition, grid_partition

COMPACTNESS, KMEANS_SWEEPS = 0.5, 8

Video = Float[np.ndarray, "b t h w c"]


def supervoxels(
    clips: ArrayLike, counts: tuple[int, int, int], *, compactness: float = COMPACTNESS, sweeps: int = KMEANS_SWEEPS
) -> Partition:
    """Return a partition of each clip into as many supervoxels as a grid of `counts` has cells.

    `compactness` is the weight of one cell side, in standard deviations of the clip's colours: the higher, the closer
    the cells are to the grid.
    """
    video = np.asarray(clips, np.float32)
    if video.ndim != 5 or compactness <= 0 or sweeps < 1:
        raise ValueError(
            f"expected clips (b, t, h, w, c), a compactness above 0 and at least one sweep; got {video.shape}, "
            f"{compactness}, {sweeps}"
        )
    t, h, w = video.shape[1:4]
    initial = grid_partition((t, h, w), counts).cell_ids[0]
    return Partition(np.stack([_cluster_clip(clip, initial, counts, compactness, sweeps) for clip in video]))


def _cluster_clip(
    clip: Float[np.ndarray, "t h w c"],
    initial: Int[np.ndarray, "t h w"],
    counts: tuple[int, int, int],
    compactness: float,
    sweeps: int,
) -> Int[np.ndarray, "t h w"]:
    sides = np.array(initial.shape) / np.array(counts)
    places = np.indices(initial.shape).reshape(3, -1).T / sides * compactness
    spread = max(float(clip.std()), np.finfo(np.float32).eps)
    points = np.concatenate([clip.reshape(places.shape[0], -1) / spread, places], -1)
    home, assignment = np.indices(counts).reshape(3, -1).T[initial.ravel()], initial.ravel()
    near = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    n = int(np.prod(counts))
    for _ in range(sweeps):
        volumes = np.bincount(assignment, minlength=n)
        sums = np.stack([np.bincount(assignment, weights=column, minlength=n) for column in points.T], -1)
        centres = sums / volumes[:, None]
        best = np.full(len(assignment), np.inf)
        for step in near:
            other = home + step
            inside = ((other >= 0) & (other < counts)).all(-1)
            number = np.ravel_multi_index(tuple(np.clip(other, 0, np.array(counts) - 1).T), counts)
            distance = np.where(inside, ((points - centres[number]) ** 2).sum(-1), np.inf)
            assignment, best = np.where(distance < best, number, assignment), np.minimum(distance, best)
        assignment = _fill_empty_cells(assignment, centres, points, n)
    return assignment.reshape(initial.shape)


def _fill_empty_cells(
    assignment: Int[np.ndarray, " v"], centres: Float[np.ndarray, "n d"], points: Float[np.ndarray, "v d"], n: int
) -> Int[np.ndarray, " v"]:
    """Assign to each empty cell the nearest voxel of a cell that has several."""
    volumes = np.bincount(assignment, minlength=n)
    for empty in np.flatnonzero(volumes == 0):
        distance = np.where(volumes[assignment] > 1, ((points - centres[empty]) ** 2).sum(-1), np.inf)
        voxel = int(distance.argmin())
        volumes[assignment[voxel]] -= 1
        assignment[voxel], volumes[empty] = empty, 1
    return assignment
