"""A clip cut into cells, which are what metrics remove and keep, and any map as one number for each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from vtcav_jax.attribution import perturbation
from vtcav_jax.attribution.resample import area_resize
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.evaluation.trivial_maps import clip_seeds

CELL_PATCH = (2, 4, 4)  # voxels of a cell along time, height and width: a token of a small Swin

NamedMaps = Mapping[str, ArrayLike | Attribution] | Sequence[Attribution]


@dataclass(frozen=True, eq=False)
class Partition:
    """The number of each voxel's cell, from 0; `b` is 1 where all clips are cut alike.

    `counts` are the cells along time, height and width, where these are a grid.
    """

    cell_ids: Int[np.ndarray, "b t h w"]
    grid_shape: tuple[int, int, int] | None = None

    @property
    def n_cells(self) -> int:
        return int(self.cell_ids.max()) + 1

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """Of the clip."""
        t, h, w = self.cell_ids.shape[1:]
        return t, h, w

    @property
    def volumes(self) -> Int[np.ndarray, "b n"]:
        return np.stack([np.bincount(one.ravel(), minlength=self.n_cells) for one in self.cell_ids])


def grid_partition(clip_shape: tuple[int, int, int], grid_shape: tuple[int, int, int]) -> Partition:
    """So many cells along time, height and width."""
    return Partition(perturbation._cells(clip_shape, grid_shape)[None], grid_shape)


def token_partition(clip_shape: tuple[int, int, int], patch: tuple[int, int, int] = CELL_PATCH) -> Partition:
    """Cells of `patch` voxels; where that does not divide the clip, a little larger ones."""
    t, h, w = (max(n // p, 1) for n, p in zip(clip_shape, patch))
    return grid_partition(clip_shape, (t, h, w))


def frame_partition(clip_shape: tuple[int, int, int]) -> Partition:
    """Whole frames: for what is asked about time alone."""
    return grid_partition(clip_shape, (clip_shape[0], 1, 1))


def partition_for_maps(
    clip_shape: tuple[int, int, int], maps: Sequence[Attribution], patch: tuple[int, int, int] = CELL_PATCH
) -> Partition:
    """Tokens, or cells as coarse as the coarsest of `maps`: none is then asked for more than it says."""
    t, h, w = (max(n // p, 1) for n, p in zip(clip_shape, patch))
    shapes = [(t, h, w), *(one.map.shape[1:] for one in maps)]
    t, h, w = (min(axis) for axis in zip(*shapes))
    return grid_partition(clip_shape, (t, h, w))


def name_maps(maps: NamedMaps) -> dict[str, ArrayLike | Attribution]:
    """By name: maps of the video by their method, others by method and stage."""
    if isinstance(maps, Mapping):
        return dict(maps)
    names = [one.method if one.stage == VIDEO else f"{one.method} {one.stage}" for one in maps]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several maps are called {', '.join(twice)}; give a dictionary with a name for each")
    return dict(zip(names, maps))


def pool_to_cells(maps: NamedMaps, partition: Partition, n_clips: int) -> Float[np.ndarray, "m b n"]:
    """The mean of each map in each cell, signs kept; what has one value per cell already stays as it is."""
    values_by_map, faults = [], []
    for name, item in name_maps(maps).items():
        values = np.asarray(item.map if isinstance(item, Attribution) else item, np.float32)
        if (
            len(values) != n_clips
            or values.ndim not in (2, 4)
            or (values.ndim == 2 and values.shape[1] != partition.n_cells)
        ):
            faults.append(f"{name} is {values.shape}")
        elif wrong := np.flatnonzero(~np.isfinite(values).reshape(n_clips, -1).all(1)).tolist():
            faults.append(f"{name} is not finite for clips {', '.join(map(str, wrong[:10]))}")
        else:
            values_by_map.append(values if values.ndim == 2 else cell_means(values, partition))
    if faults or not values_by_map:
        raise ValueError(
            f"expected at least one map, each of {n_clips} clips, finite, with {partition.n_cells} cells or with"
            f" time, height "
            f"and width; {'; '.join(faults) or 'there are none'}"
        )
    return np.stack(values_by_map)


def pool_to_frames(
    maps: NamedMaps, pooled_maps: Mapping[str, np.ndarray], partition: Partition, n_clips: int
) -> Float[np.ndarray, "m b t"]:
    """The mean of each map in each frame; of maps that have cells only, of what these say of it."""
    frame_maps = {}
    for name, item in name_maps(maps).items():
        values = np.asarray(item.map if isinstance(item, Attribution) else item, np.float32)
        if values.ndim == 2:
            cell_ids = np.broadcast_to(
                partition.cell_ids.reshape(len(partition.cell_ids), -1), (n_clips, partition.cell_ids[0].size)
            )
            values = np.take_along_axis(pooled_maps[name], cell_ids, 1).reshape(n_clips, *partition.clip_shape)
        frame_maps[name] = values
    return pool_to_cells(frame_maps, frame_partition(partition.clip_shape), n_clips)


def cell_means(values: Float[np.ndarray, "b t2 h2 w2"], partition: Partition) -> Float[np.ndarray, "b n"]:
    """The mean over each cell's voxels; a map coarser than the clip has the same value in all voxels of its places."""
    if partition.grid_shape is not None and all(n % c == 0 for n, c in zip(partition.clip_shape, partition.grid_shape)):
        return area_resize(values, partition.grid_shape).reshape(
            len(values), -1
        )  # the same, without the clip's size in between
    voxels = area_resize(values, partition.clip_shape).reshape(len(values), -1)
    cell_ids = np.broadcast_to(partition.cell_ids.reshape(len(partition.cell_ids), -1), voxels.shape)
    sums = [np.bincount(n, weights=v, minlength=partition.n_cells) for n, v in zip(cell_ids, voxels)]
    return (np.stack(sums) / np.maximum(partition.volumes, 1)).astype(np.float32)


def rank_cells(values: Float[np.ndarray, "m b n"], clips: ArrayLike, seed: int) -> Int[np.ndarray, "m b n"]:
    """The place of each cell when the largest come first; among equal ones chance decides, the same for all maps."""
    n = values.shape[-1]
    noise = np.stack([np.random.default_rng(s).permutation(n) for s in clip_seeds(clips, seed)])
    order = np.lexsort((np.broadcast_to(noise, values.shape), -values))
    place = np.empty(values.shape, np.int32)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(n, dtype=np.int32), values.shape), -1)
    return place
